"""Chinese pages say what their originals say, section by section: commands, links, pictures, figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import ROOT, identify, sections

SUFFIX = ".zh-CN.md"
TRANSLATED = ("README.md", "docs/tutorial.md", "docs/gallery.md")
"""Have a Chinese page as soon as they exist."""


def twin(page: Path) -> Path:
    return page.with_name(page.stem + SUFFIX)


def translated(target: str, page: Path) -> str:
    """What the Chinese page links to where its original `page` links to `target`."""
    path, _, fragment = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if "://" in target or file.suffix != ".md":
        return target
    if file == twin(page):
        return page.name
    if not twin(file).is_file():
        return target
    if fragment:
        place = [one.anchor for one in sections(file)].index(fragment)
        fragment = "#" + sections(twin(file))[place].anchor
    return (path and path.removesuffix(".md") + SUFFIX) + fragment


def differences(page: Path) -> Iterator[str]:
    """What one of `page` and its Chinese page has alone."""
    mine, theirs = sections(page), sections(twin(page))
    if [one.level for one in mine] != [one.level for one in theirs]:
        yield f"headings: {[one.anchor for one in mine]} and {[one.anchor for one in theirs]}"
        return
    for one, other in zip(mine, theirs, strict=True):
        links = [translated(link, page) for link in one.links]  # sentences may turn their order
        for what, here, there in (
            ("code", one.code, other.code),
            ("links", sorted(links), sorted(other.links)),
            ("pictures", one.pictures, other.pictures),
            ("names", sorted(one.names), sorted(other.names)),
            ("numbers", sorted(one.numbers), sorted(other.numbers)),
        ):
            if here != there:
                alone, added = Counter(here) - Counter(there), Counter(there) - Counter(here)
                yield (
                    f"{what} under {one.anchor!r}: {list(alone)} in the original alone, "
                    f"{list(added)} in the translation alone"
                )


def originals() -> list[Path]:
    """Pages that have, or ought to have, a Chinese page."""
    expected = {ROOT / name for name in TRANSLATED}
    for folder in (ROOT, ROOT / "docs"):
        expected |= {
            file.with_name(file.name.removesuffix(SUFFIX) + ".md")
            for file in folder.glob(f"*{SUFFIX}")
        }
    return sorted(page for page in expected if page.is_file() or twin(page).is_file())


@pytest.mark.parametrize("page", originals(), ids=identify)
def test_a_chinese_page_says_what_its_original_says(page: Path):
    assert page.is_file(), f"{twin(page).name} is a translation of no page"
    assert twin(page).is_file(), f"{page.name} has no {twin(page).name}"
    found = "\n".join(differences(page))
    assert not found, found
    top, top_of_twin = sections(page)[1], sections(twin(page))[1]
    assert top.links[:1] == [twin(page).name], "the first link leads to the Chinese page"
    assert top_of_twin.links[:1] == [page.name], "the first link leads to the original"


PAGE = """# Title

[other](page{suffix})

Half of 1,905 pictures are tuned by `tune`.

    transferscope tune photos/      # {comment}

![{comment}](picture.webp)

## {heading}

See [{heading}](#{anchor}).
"""


def english_page(folder: Path) -> Path:
    page = folder / "page.md"
    words = {"comment": "fast", "heading": "An end", "anchor": "an-end"}
    page.write_text(PAGE.format(suffix=SUFFIX, **words), encoding="utf-8")
    return page


def chinese_text() -> str:
    return PAGE.format(suffix=".md", comment="很快", heading="结尾", anchor="结尾")


def test_a_translation_of_sentences_comments_and_anchors_is_no_difference(tmp_path: Path):
    page = english_page(tmp_path)
    twin(page).write_text(chinese_text(), encoding="utf-8")
    assert not list(differences(page))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("## 结尾", "## 多余\n\n## 结尾", "headings"),
        ("## 结尾", "### 结尾", "headings"),
        ("    transferscope tune", "    transferscope doctor\n    transferscope tune", "code"),
        ("photos/  ", "photos/ --epochs 3  ", "code"),
        ("`tune`", "`advise`", "names"),
        ("1,905", "1,950", "numbers"),
        ("picture.webp", "another.webp", "pictures"),
        ("(#结尾)", "(#an-end)", "links"),
        ("(page.md)", "(page.zh-CN.md)", "links"),
    ],
)
def test_what_one_side_has_alone_is_found(tmp_path: Path, old: str, new: str, told: str):
    page = english_page(tmp_path)
    assert chinese_text().count(old) == 1
    twin(page).write_text(chinese_text().replace(old, new), encoding="utf-8")
    assert [found.split()[0].strip(":") for found in differences(page)] == [told]
