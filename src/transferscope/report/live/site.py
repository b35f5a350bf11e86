"""The live pages: templates, style and scripts as bytes by the path that asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from transferscope.report.pages.site import style_sheet

TEMPLATES = Path(__file__).parent / "templates"

HOME = "/live/"
PROGRESS, TRY = f"{HOME}progress.html", f"{HOME}try.html"

_LINKS = f'<a href="{TRY}">Try a picture</a>\n<a href="{PROGRESS}">Progress</a>\n'.encode()


def live_files(title: str, classes: Sequence[str], *, most_bytes: int) -> dict[str, bytes]:
    """All files of the live pages.

    Args:
        title: of the run.
        classes: of its network, which a picture can be attacked into; none: there is no network to try yet.
        most_bytes: of a picture that is taken.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = {"title": title, "classes": list(classes), "most_bytes": most_bytes}
    pages = {PROGRESS: "progress.html.j2", TRY: "try.html.j2"}
    texts = {
        place: environment.get_template(name).render(values, page=place)
        for place, name in pages.items()
    }
    texts[f"{HOME}atlas.css"] = style_sheet()
    for name in ("live.css", "live.js", "progress.js", "try.js"):
        texts[f"{HOME}{name}"] = (TEMPLATES / name).read_text(encoding="utf-8")
    return {place: text.encode("utf-8", "replace") for place, text in texts.items()}


def with_live_links(page: bytes) -> bytes:
    """A page of an atlas with the live pages in its navigation."""
    return page.replace(b"</nav>", _LINKS + b"</nav>", 1)
