"""The card is read by machines and people, whatever the names, and says what is not known."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import atlas_content as made
import huggingface_hub
import pytest
import yaml

import transferscope
from transferscope.report.model_card import (
    ModelCard,
    card_sections,
    front_matter,
    limits,
    model_card_markdown,
)

ODD = (
    "a|b",
    "- item",
    "1. one",
    "# head",
    "`code`",
    "[x](http://y)",
    "a\nb\r\n---",
    "\x00\x7f\ud800",
    "🦊",
)


def front(text: str) -> dict[str, Any]:
    _, between, _ = text.split("---\n", 2)
    found = yaml.safe_load(between)
    assert isinstance(found, dict)
    return found


def plain(text: str) -> str:
    """Markdown's text as it is shown."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def test_the_front_matter_is_what_the_hub_reads() -> None:
    found = front(model_card_markdown(made.card()))
    assert found["library_name"] == "timm"
    assert found["pipeline_tag"] == "image-classification"
    assert found["base_model"] == "timm/tf_efficientnet_lite0.in1k"
    assert found["license"] == "unknown"
    (entry,) = found["model-index"]
    (result,) = entry["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["name"] == "flowers --- license: mit"
    metrics = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert metrics["Top-1 accuracy"] == 0.8
    assert metrics["Macro F1"] == 0.78
    assert metrics["Expected calibration error, 15 bins"] == 0.031


def test_huggingface_hub_reads_the_metrics() -> None:
    read = huggingface_hub.ModelCard(model_card_markdown(made.card()))
    assert read.data.library_name == "timm"
    assert {result.metric_value for result in read.data.eval_results} >= {0.8, 0.031}
    assert read.data.eval_results[0].dataset_split == "test"


@pytest.mark.parametrize("name", ODD)
def test_no_name_breaks_the_front_matter_or_a_table(name: str) -> None:
    classes = (name, "other")
    card = dataclasses.replace(
        made.card(),
        name=name,
        data=name,
        licence=name,
        classes=classes,
        counts={"train": dict.fromkeys(classes, 30)},
        evaluation=None,
    )
    text = model_card_markdown(card)
    found = front(text)
    assert set(found) == {"license", "library_name", "pipeline_tag", "tags", "base_model"}
    rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = [len(re.split(r"(?<!\\)\|", row)) for row in rows[:4]]
    assert columns == [4] * 4
    assert sum(line.startswith("# ") for line in text.splitlines()) == 1
    text.encode("utf-8")


def test_html_and_markdown_in_names_are_literal() -> None:
    text = model_card_markdown(made.card())
    body = text.split("---\n", 2)[2]
    assert not re.search(r"(?<!\\)<b", body)
    assert made.NASTY in plain(body)


def test_it_says_what_was_measured() -> None:
    words = plain(model_card_markdown(made.card()))
    assert "95% interval 68.0% to 90.0% (Wilson)" in words
    assert "a perfectly calibrated one would show 1.20% to 5.50% (95%)" in words
    assert "A linear probe on the untuned backbone has a top-1 of 70.00%" in words
    assert "no more than chance explains" in words
    assert "4 classes had fewer than 20 training pictures" in words
    assert f"| {made.NASTY} | Löwenzahn | 3 |" in words
    assert "Apache-2.0, as their publisher states it." in words
    assert 'timm.create_model("local-dir:FOLDER"' in words
    assert "/ 1.31)" in words


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    bare = ModelCard(name="x", backbone="net", classes=("a", "b"), data="d", counts={})
    words = plain(model_card_markdown(bare))
    for sentence in (
        "How they were split is unknown.",
        "Files that could not be used: unknown. Copies (the same bytes) left out: unknown.",
        "How it was trained is unknown.",
        "It was not evaluated: how often it is right is unknown.",
        "Whether near duplicates stand on both sides of the split is unknown",
        "The licence of the weights of net that it was tuned from is unknown",
        "own licence has not been chosen",
        "How a file becomes the network's input is unknown.",
        "The versions of what it was made with are unknown.",
        "numbers unknown",
    ):
        assert sentence in words
    assert "timm.create_model" not in words
    assert "model-index" not in front(model_card_markdown(bare))


def test_limits_follow_the_figures() -> None:
    card = made.card()
    assert card.evaluation is not None
    calibration = dataclasses.replace(card.evaluation.calibration, ece=0.2)
    off = dataclasses.replace(card.evaluation, ece=0.2, calibration=calibration)
    found = " ".join(limits(dataclasses.replace(card, evaluation=off, near_duplicates=1)))
    assert "more than chance explains: do not take them at their word" in found
    assert "1 pair of near duplicates across the splits" in found
    assert "Fewer than 80% are recognised of" in found
    clean = " ".join(limits(dataclasses.replace(card, near_duplicates=0)))
    assert "near duplicates" not in clean
    untested = dict(list(card.evaluation.per_class.items())[1:])
    partly = dataclasses.replace(card.evaluation, per_class=untested)
    assert "1 class had no test picture: “foxglove”." in limits(
        dataclasses.replace(card, evaluation=partly)
    )


def test_many_classes_are_cut_and_counted() -> None:
    classes = tuple(f"class {number}" for number in range(1000))
    card = dataclasses.replace(made.card(), classes=classes, counts={}, evaluation=None)
    (data,) = (section for section in card_sections(card) if section.title == "Data")
    assert data.table is not None
    assert len(data.table.rows) == 200
    assert "The first 200 of 1,000 classes:" in data.paragraphs


def test_the_code_that_is_shown_uses_names_that_there_are() -> None:
    (section,) = (one for one in card_sections(made.card()) if one.code)
    codes = [code for _, code in section.code]
    for code in codes:
        compile(code, "card", "exec")
    names = set(re.findall(r"\bts\.(\w+)", codes[0]))
    assert names == {"load_hub", "predict"}
    assert names <= set(transferscope.__all__)


def test_the_same_card_gives_the_same_text() -> None:
    assert model_card_markdown(made.card()) == model_card_markdown(made.card())
    assert front_matter(made.card()).count("\n---") == 1
