"""One list of words for the atlas, the documentation and the help."""

from __future__ import annotations

from pathlib import Path

from conftest import command
from transferscope.glossary import TERMS, as_markdown


def test_the_words_that_are_printed_are_explained_once_in_order():
    terms = [term for term, _ in TERMS]
    assert terms == sorted(terms, key=str.casefold)
    assert {"CKA", "temperature", "nats", "probe", "stage", "false discovery rate"} <= set(terms)
    assert all(words.endswith(".") for _, words in TERMS)


def test_the_documentation_has_the_same_words():
    file = Path(__file__).parents[1] / "docs" / "glossary.md"
    assert file.read_text(encoding="utf-8") == as_markdown()


def test_help_explains_the_words_and_says_where_more_are():
    said = " ".join(command("--help").stdout.split())
    for term in ("CKA:", "temperature:", "nats:", "probe:", "stage:", "false discovery rate:"):
        assert term in said
    assert "docs/glossary.md" in said
    assert "(Kornblith et al. 2019)." in said  # a sentence does not end within a reference
    for opened in said.split("(")[1:]:
        assert ")" in opened


def test_a_default_is_told_one_way():
    from transferscope.training.recipe import Recipe

    told = (Path(__file__).parents[1] / "docs" / "inspect.md").read_text(encoding="utf-8")
    assert f"`tune --augment none|light|strong`, default `{Recipe().augment}`" in told
