"""An atlas as one HTML file: pages, pictures, style and scripts within it; nothing is requested.

The pages lie in `<template>`s, and each picture once in a list. A small script puts the page that the
address's hash names into the document, `#units/blocks-6-181.html#exemplars`, before the atlas's own script
runs; another page is another load of the file. A policy permits these scripts alone, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from urllib.parse import unquote

from transferscope.errors import OutputError
from transferscope.files import write_bytes

LIMIT = 20_000_000
"""Bytes of a file."""

_MEDIA = {
    ".webp": "image/webp",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
}
_ATTRIBUTE = re.compile(r'(?<=\s)([\w:-]+)="([^"]*)"')
_IN_STYLE = re.compile(
    r"url\((?:&quot;|&#34;|&#39;|['\"])?([^)'\"&]+)(?:&quot;|&#34;|&#39;|['\"])?\)"
)
_SCRIPT = re.compile(r'<script src="([^"]+)"[^>]*></script>')
_INDEX = "assets/index.js"  # of the search: a page loads it when it is first asked for
_LEFT_OUT = "left-out"
_NAMED = 200  # pages left out that are named
_BEYOND = 100_000  # bytes that the parts between pages and pictures may take


@dataclass(frozen=True)
class SingleFile:
    """What was written.

    Attributes:
        file: its path.
        size: in bytes.
        left_out: pages of the atlas that it lacks, in the order of `order`.
    """

    file: Path
    size: int
    left_out: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """How large it is, and what it lacks."""
        said = f"{self.size / 1e6:.1f} MB"
        if not self.left_out:
            return said
        return (
            f"{said}; {len(self.left_out):,} pages of channels were left out to keep it under "
            f"{LIMIT / 1e6:.0f} MB, the first: {self.left_out[0]}; the folder has them all"
        )


def write_single_file(
    folder: str | Path, file: str | Path, *, order: Sequence[str] = (), limit: int = LIMIT
) -> SingleFile:
    """Writes an atlas's folder as one file that opens by double click and requests nothing.

    Args:
        folder: that `write_atlas` wrote.
        file: to write.
        order: pages that may be left out where the whole is too large, the most important first; those that
            are there and not named are always in.
        limit: bytes of the file.

    Raises:
        OutputError: it would be larger than `limit` without all the pages that may be left out, or cannot be
            written.
    """
    atlas = _Atlas(Path(folder))
    optional = [page for page in order if page in atlas.names]
    spared = set(optional)
    kept = [page for page in atlas.names if page not in spared]
    size = atlas.shell + sum(atlas.adds(page) for page in kept)
    if size > limit:
        raise OutputError(
            f"the atlas takes {size / 1e6:.0f} MB in one file, also without the pages of channels, and "
            f"{limit / 1e6:.0f} MB are the limit; give the folder instead, or leave your own pictures out with "
            "--no-pictures"
        )
    left_out: tuple[str, ...] = ()
    for place, page in enumerate(optional):
        size += atlas.adds(page)
        if size > limit:
            left_out = tuple(optional[place:])
            break
        kept.append(page)
    data = atlas.document(kept, left_out)
    assert len(data) <= limit, f"{len(data)} bytes were to be at most {limit}"
    write_bytes(file, data)
    return SingleFile(Path(file), len(data), left_out)


class _Atlas:
    """A folder's pages with their references resolved, read one by one, and what each adds to a file."""

    def __init__(self, folder: Path):
        self._files = {
            file.relative_to(folder).as_posix(): file
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not file.name.startswith(".")
        }
        pages = (name for name in self._files if name.endswith(".html"))
        self.names = sorted(pages, key=lambda one: (one != "index.html", one))
        index = self._text("index.html")
        # No name in the atlas can hold what depends on the page that it stands on.
        self._mark = f"picture~{hashlib.sha256(index.encode()).hexdigest()[:16]}~"
        self._pictures: dict[str, int] = {}
        self._counted: set[int] = set()
        self._scripts: dict[str, int] = {}
        self._uses: dict[str, set[int]] = {"index.html": set()}
        self._templates: dict[str, str] = {}
        self._frame = self._frame_of(index)
        self.shell = len(self._frame.encode()) + len(_SHOW) + _BEYOND

    def _text(self, name: str) -> str:
        return self._files[name].read_text(encoding="utf-8")

    def adds(self, page: str) -> int:
        """Bytes by which a page, its pictures and its scripts make the file larger; each counts once."""
        scripts = len(self._scripts)
        self._templates[page] = self._template(page, self._text(page))
        fresh = self._uses[page] - self._counted
        self._counted |= fresh
        names = list(self._pictures)
        pictures = sum(4 * (self._files[names[n]].stat().st_size // 3 + 1) + 40 for n in fresh)
        added = list(self._scripts)[scripts:]
        code = sum(len(_inlined(self._files[name]).encode()) + 120 for name in added)
        return len(self._templates[page].encode()) + pictures + code

    def document(self, kept: Sequence[str], left_out: Sequence[str]) -> bytes:
        """The file, with these pages."""
        used = set().union(*(self._uses[page] for page in kept))
        pictures = [
            self._url(name) if number in used else "" for name, number in self._pictures.items()
        ]
        scripts = [_inlined(self._files[name]) for name in self._scripts]
        hashes = " ".join(f"'sha256-{_hash(text)}'" for text in (*scripts, _SHOW))
        policy = (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; "
            "base-uri 'none'; form-action 'none'"
        )
        own = re.search(r'data-scripts="[^"]*"', self._templates["index.html"])
        assert own is not None
        parts = [
            self._frame.replace("%POLICY%", policy, 1),
            *(self._templates[page] for page in kept),
            f'<template data-page="{_LEFT_OUT}" data-title="Left out" {own[0]}>{_note(left_out)}</template>\n',
            *(
                f'<script type="text/plain" data-script="{number}">{text}</script>\n'
                for number, text in enumerate(scripts)
            ),
            f'<script type="application/json" id="pictures" data-mark="{self._mark}">'
            f"{json.dumps(pictures)}</script>\n",
            f"<script>{_SHOW}</script>\n</body>\n</html>\n",
        ]
        return "".join(parts).encode("utf-8", "replace")

    # ------------------------------------------------------------------ pages

    def _template(self, name: str, text: str) -> str:
        """A page's title, its links to the pages before and after it, its scripts and its content."""
        self._uses.setdefault(name, set())
        own = (self._resolved(name, one)[0] for one in _SCRIPT.findall(text))
        scripts = [
            self._scripts.setdefault(one, len(self._scripts))
            for one in (_INDEX, *own)
            if one in self._files
        ]
        head, _, rest = text.partition("</head>")
        links = "".join(re.findall(r'<link rel="(?:prev|next)"[^>]*>', head))
        main = re.search(r"<main[^>]*>(.*)</main>", rest, re.DOTALL)
        title = re.search(r"<title>(.*?)</title>", head, re.DOTALL)
        assert main is not None, f"{name} has no main"
        assert title is not None, f"{name} has no title"
        content = self._rewritten(name, links + main.group(1))
        return (
            f'<template data-page="{escape(name)}" data-title="{_once(title.group(1))}" '
            f'data-scripts="{" ".join(map(str, scripts))}">{content}</template>\n'
        )

    def _frame_of(self, index: str) -> str:
        """The front page up to its content: bar and dialogs, the style within it, and no script."""
        text = re.sub(r"<main[^>]*>.*</main>", lambda _: _MAIN, index, count=1, flags=re.DOTALL)
        text = _SCRIPT.sub("", text)
        text = re.sub(
            r'(<meta http-equiv="Content-Security-Policy" content=")[^"]*"', r'\1%POLICY%"', text
        )
        assert "%POLICY%" in text, "the pages have no policy"
        text = re.sub(r'<link rel="(?:prev|next)"[^>]*>', "", text)
        text = re.sub(
            r'<link rel="stylesheet" href="([^"]+)">',
            lambda found: f"<style>\n{self._files[found[1]].read_text(encoding='utf-8')}</style>",
            text,
        )
        text = re.sub(r'(<html[^>]*data-root=)"[^"]*"', r'\1"#"', text)
        return self._rewritten("index.html", text).replace("</body>", "").replace("</html>", "")

    def _rewritten(self, page: str, text: str) -> str:
        """Addresses of other files as hashes of pages, or as numbers of pictures."""
        root = "../" * page.count("/")

        def attribute(found: re.Match[str]) -> str:
            name, value = found.groups()
            if name == "style":
                inside = _IN_STYLE.sub(
                    lambda one: f"url({self._address(page, one[1]) or one[1]})", value
                )
                return f'style="{inside}"'
            address = None if not value else self._address(page, unescape(value))
            return found[0] if address is None else f'{name}="{escape(address)}"'

        text = _ATTRIBUTE.sub(attribute, text)
        return text if not root else text.replace(f'data-root="{root}"', 'data-root="#"')

    def _address(self, page: str, value: str) -> str | None:
        """What stands for an address in the file; None: it names none of the atlas's files."""
        if value.startswith("#"):  # within the page, or within a figure
            return None
        name, fragment = self._resolved(page, value)
        file = self._files.get(name)
        if file is None:
            return None
        if file.suffix == ".html":
            return f"#{name}#{fragment}" if fragment else f"#{name}"
        if file.suffix not in _MEDIA:
            return None
        number = self._pictures.setdefault(name, len(self._pictures))
        self._uses[page].add(number)
        return f"{self._mark}{number}~"

    def _resolved(self, page: str, value: str) -> tuple[str, str]:
        """The file that an address of a page names, relative to the folder, and its fragment."""
        path, _, fragment = value.partition("#")
        return posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(path))), fragment

    def _url(self, name: str) -> str:
        file = self._files[name]
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        return f"data:{_MEDIA[file.suffix]};base64,{data}"


def _inlined(file: Path) -> str:
    """A script's text as it may stand within a page: what would end the element is written otherwise."""
    text = file.read_text(encoding="utf-8")
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def _once(text: str) -> str:
    """Text of a page as the value of an attribute."""
    return escape(" ".join(unescape(text).split()))


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _note(names: Sequence[str]) -> str:
    if not names:
        return "<h1>There is no such page</h1>"
    listed = "".join(f"<li>{escape(name)}</li>" for name in names[:_NAMED])
    more = f"<p>and {len(names) - _NAMED:,} more</p>" if len(names) > _NAMED else ""
    return (
        f"<h1>Left out</h1><p>{len(names):,} pages of channels that were drawn are not in this file, to keep "
        f"it under {LIMIT / 1e6:.0f} MB; the atlas's folder has them:</p><ul>{listed}</ul>{more}"
    )


_MAIN = '<main id="main"><noscript><p>This report needs JavaScript.</p></noscript></main>'

_SHOW = (Path(__file__).parent / "single_file.js").read_text(encoding="utf-8")
