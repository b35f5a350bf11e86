"""The documents as tests read them: sections, each with its code, links, pictures and figures."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def identify(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass
class Section:
    """A heading and what follows it up to the next one."""

    level: int = 0
    anchor: str = ""
    code: list[str] = field(default_factory=list)  # lines of code blocks, without comments
    links: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # code within sentences
    numbers: set[str] = field(default_factory=set)
    prose: list[str] = field(default_factory=list)


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def without_comments(code: str) -> list[str]:
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in code.splitlines())
    return [line for line in lines if line]


@cache
def sections(page: Path) -> list[Section]:
    found = [Section()]
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "heading_open":
            found.append(Section(level=int(token.tag[1])))
        elif token.type in ("fence", "code_block"):
            found[-1].code += without_comments(token.content)
        elif token.type == "html_block":
            add_html(found[-1], token)
        elif token.type == "inline":
            if before is not None and before.type == "heading_open":
                found[-1].anchor = anchor("".join(part.content for part in token.children or ()))
            add_inline(found[-1], token)
    return found


def add_inline(section: Section, paragraph: Token) -> None:
    for part in paragraph.children or ():
        if part.type == "link_open":
            section.links.append(unquote(str(part.attrs["href"])))
        elif part.type == "image":
            section.pictures.append(unquote(str(part.attrs["src"])))
        elif part.type == "code_inline":
            section.names.add(part.content)
        elif part.type == "html_inline":
            add_html(section, part)
        elif part.type == "text":
            section.prose.append(part.content)
            section.numbers |= set(re.findall(r"\d+(?:[.,]\d+)*", part.content))


def add_html(section: Section, token: Token) -> None:
    section.links += re.findall(r'href="([^"]+)"', token.content)
    section.pictures += re.findall(r'src="([^"]+)"', token.content)
