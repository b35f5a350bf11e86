"""What results show of themselves in a notebook: the sentences of the command line, escaped and small."""

from __future__ import annotations

import dataclasses
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import atlas_content as made
import numpy as np
import pytest

from hostile_names import Structure, hostile_names
from transferscope.adversarial.attacks import Perturbation
from transferscope.adversarial.sentences import attack_sentences
from transferscope.comparison.headline import layer_table, sentences
from transferscope.evaluation.sentences import measure_rows, summary_sentences
from transferscope.explain.attribution import Attribution
from transferscope.notebook import LIMIT, panel
from transferscope.visualize.records import Render
from transferscope.workflows.run import Run


def run(name: str) -> Run:
    found = object.__new__(Run)
    found.path = Path(name.replace("\0", ""))
    found.config = SimpleNamespace(backbone=name)
    scores = {"probe": {"top1": 0.8125, "loss": 0.5}, name: {"top1": 0.9, "loss": 0.25}}
    results = {"strategy": name, "candidates": scores, "pictures": {"train": 1234, name: 5}}
    results["choice"] = {"sentence": f"kept: {name}"}
    found.record = {"classes": ["a", "b"], "results": results}
    return found


def evaluation(name: str):
    found = made.evaluation(0.75)
    errors = tuple(dataclasses.replace(one, path=name, label=name) for one in found.surest_errors)
    gain = found.gain and dataclasses.replace(found.gain, first=name)
    return dataclasses.replace(found, split=name, surest_errors=errors, gain=gain)


def comparison(name: str):
    found = made.comparison(tuple(f"{n}.png" for n in range(12)))
    layers = tuple(dataclasses.replace(one, layer=f"{name}{one.layer}") for one in found.layers)
    rows = tuple(dataclasses.replace(one, layer=f"{name}{one.layer}") for one in found.rows)
    return dataclasses.replace(found, pair=(name, "tuned"), layers=layers, rows=rows, split=name)


def attribution(name: str) -> Attribution:
    heat = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    return Attribution("integrated_gradients", name, name, heat, True, 1.5, 0.125, False, 50, name)


def perturbation(name: str) -> Perturbation:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Perturbation(
        *(noise, noise, "pgd", "linf", 2 / 255, 2 / 255, name, 0.9, name, name, 0.8125, 1.0, True),
        *(name, (), name, 0.7, 0),
    )


def render(name: str, side: int = 32) -> Render:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Render(name, 7, "plus", 3, noise, 12.5, 6.25, "optimized", 128)


MAKERS = (run, evaluation, comparison, attribution, perturbation, render)


def texts(html: str) -> str:
    return " ".join(Structure(html).texts)


@pytest.mark.parametrize("make", MAKERS)
def test_no_name_makes_an_element_or_is_long(make):
    harmless = Structure(make("name")._repr_html_())
    assert {one[0].removeprefix("/") for one in harmless.elements} <= {
        *("div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"),
        *("figure", "figcaption", "img"),
    }
    assert {name for _, name, _ in harmless.values} <= {"style", "src", "alt", "colspan"}
    for name in hostile_names(500 if make in (run, attribution) else 120):
        html = make(name)._repr_html_()
        found = Structure(html)
        assert found.elements == harmless.elements, name
        assert len(html.encode()) < LIMIT
        for _, attribute, value in found.values:
            assert attribute != "src" or value.startswith("data:image/webp;base64,")
            assert attribute != "style" or "url" not in value


def test_a_name_that_is_not_escaped_would_be_noticed(monkeypatch):
    monkeypatch.setattr("transferscope.notebook.escape", lambda text: text)
    harmless = Structure(render("name", 4)._repr_html_())
    broken = [
        n
        for n in hostile_names()
        if Structure(render(n, 4)._repr_html_()).elements != harmless.elements
    ]
    assert len(broken) > 50


def test_a_run_says_what_tune_prints():
    said = texts(run("partial")._repr_html_())
    for words in (
        "81.2%",
        "90.0%",
        "0.500",
        "0.250",
        "kept",
        "Kept: partial",
        "1,234 train",
        "2 classes",
    ):
        assert words in said


def test_an_evaluation_says_what_evaluate_prints():
    found = made.evaluation(0.75)
    said = texts(found._repr_html_())
    for row in measure_rows(found):
        for cell in row:
            assert cell[:59] in said
    for sentence in summary_sentences(found):
        assert unescape(sentence) in said
    assert texts(made.evaluation(0.5)._repr_html_()) != said


def test_a_comparison_says_what_compare_prints():
    found = made.comparison(tuple(f"{n}.png" for n in range(12)))
    said = texts(found._repr_html_())
    for sentence in sentences(found):
        assert sentence in said
    _, rows, note = layer_table(found)
    assert note[1:] in said
    for row in rows:
        assert all(cell in said for cell in row)
    nothing = made.nothing_learned(found)
    assert "not proof that nothing was learned" in texts(nothing._repr_html_())


def test_an_attack_a_map_and_a_drawing_say_their_figures():
    attacked = perturbation("cat")
    assert all(sentence in texts(attacked._repr_html_()) for sentence in attack_sentences(attacked))
    assert "81.2%" in texts(attacked._repr_html_())
    assert "2/255" in texts(attacked._repr_html_())
    failed = dataclasses.replace(attacked, verified=False, answer="dog")
    assert "does not become" in texts(failed._repr_html_())
    said = texts(attribution("cat")._repr_html_())
    assert "+1.50" in said
    assert "0.125" in said
    assert "has not converged" in said
    said = texts(render("blocks.4")._repr_html_())
    for words in ("blocks.4 channel 7, plus", "12.5", "6.25", "optimized", "128 steps", "seed 3"):
        assert words in said


def test_a_map_without_a_number_is_black_and_not_an_error():
    empty = dataclasses.replace(attribution("a"), map=np.zeros((4, 4), np.float32), delta=None)
    assert "<img" in empty._repr_html_()
    broken = dataclasses.replace(empty, map=np.full((4, 4), np.nan, np.float32))
    assert "<img" in broken._repr_html_()


def test_large_pictures_are_shown_small():
    assert 10_000 < len(render("a", 1024)._repr_html_()) < LIMIT / 2


def test_much_is_cut_short_and_says_so():
    many = [("x" * 900, "<" * 900)] * 900
    html = panel("t" * 9000, sentences=["&" * 9000] * 900, columns=("a", "-b"), rows=many)
    assert len(html.encode()) < LIMIT
    assert "and 870 more" in html
    assert "And 876 more sentences." in html
