"""500 names of classes and files as somebody might give them who wants to break a page."""

from __future__ import annotations

import random
from html.parser import HTMLParser

_PARTS = [
    *(
        "<script>alert(1)</script>",
        "</script><script>alert(1)",
        "<img src=x onerror=alert(1)>",
        "<b>",
        "</td>",
    ),
    *(
        "</template>",
        "</main>",
        "</style><style>*{}",
        "<!--",
        "-->",
        "]]>",
        "<svg/onload=alert(1)>",
        "&lt;b&gt;",
    ),
    *(
        '" onmouseover="alert(1)',
        "' onfocus='x",
        "`",
        "javascript:alert(1)",
        "data:text/html,<b>",
        "&#34;",
        "&",
    ),
    *(
        "../../etc/passwd",
        "..\\..\\x",
        "/absolute",
        "C:\\x",
        "a/b",
        "%2e%2e/",
        "%00",
        "\0",
        "\n",
        "\r\n",
        "\t",
    ),
    *(
        "\u202eevil",
        "\u2066x\u2069",
        "שלום",
        "مرحبا",
        "猫",
        "👩‍👩‍👧‍👦",
        "e\u0301\u0301\u0301",
        "\ufeff",
        "\u200b",
    ),
    *(
        "{{ 7*7 }}",
        "{% raw %}",
        "${x}",
        "$x^2$",
        "[red]bold[/red]",
        "\x1b[31m",
        "\u2028",
        "\udcff",
        "‮",
    ),
    *(
        "picture~0~",
        "%POLICY%",
        "</nav>",
        "</head>",
        'data-root="../"',
        "url(http://evil.example/x)",
    ),
    *("#main", "?x=1", " ", ".", "..", "con", "a" * 300, "<" * 200, "🦄" * 200, "name"),
]


def hostile_names(count: int = 500) -> list[str]:
    """Different names: every part alone, then several joined."""
    draw = random.Random(0)
    found = dict.fromkeys(_PARTS)
    while len(found) < count:
        found["".join(draw.choices(_PARTS, k=draw.randint(2, 4)))] = None
    return list(found)[:count]


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, in order; `values` of some attributes.

    Text of scripts and styles is not taken for elements, as in a browser.
    """

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, ...]] = []
        self.values: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, *(name for name, _ in attributes)))
        self.values += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}",))

    def handle_comment(self, data):
        self.elements.append(("!--",))

    def handle_data(self, data):
        self.texts.append(data)
