"""Figures of a tuning show what decided it, with gaps, one epoch, many trials or a loss that explodes."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import atlas_content as made
import matplotlib as mpl
import numpy as np
import pytest

from transferscope.errors import InputError
from transferscope.report.figures.search import TRIAL_CAP, search_figure
from transferscope.report.figures.style import BASE_COLOUR, TUNED_COLOUR
from transferscope.report.figures.training import _loss_limits, history_figure, lr_figure

RATES = np.geomspace(1e-6, 1, 61)
LOSSES = 2 - 0.5 / (1 + np.exp(-4 * (np.log10(RATES) + 3))) + np.maximum(0, RATES - 0.05) * 1e4


def texts(svg: str) -> list[str]:
    return [
        "".join(element.itertext()).strip()
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Means over five steps of the finite losses; what is not finite stays."""
    known = np.isfinite(losses)
    smooth = losses.copy()
    smooth[known] = np.convolve(np.pad(losses[known], 2, mode="edge"), np.full(5, 0.2), "valid")
    return smooth


def rates_figure(losses: np.ndarray = LOSSES, suggestion: float | None = None) -> str:
    return lr_figure(
        RATES.tolist(), losses.tolist(), suggestion, smoothed=smoothed(losses).tolist()
    )


def trials(count: int) -> list[dict[str, Any]]:
    """The second half the better; the last one chosen; every third stopped early."""
    return [
        {
            "trial": number,
            "settings": {"head": "mlp", "unfreeze": number % 4, "lr": 3e-4, "augment": "light"},
            "top1": 0.5 + 0.4 * number / count,
            "loss": 1.0,
            "seconds": 2.5,
            "status": "stopped early" if number % 3 == 0 and number < count else "finished",
            "chosen": number == count,
        }
        for number in range(1, count + 1)
    ]


EVERY: dict[str, Callable[[], str]] = {
    "history": lambda: history_figure(made.history()),
    "rates": lambda: rates_figure(LOSSES, 1e-3),
    "search": lambda: search_figure(trials(12)),
}


@pytest.mark.parametrize("name", EVERY)
def test_figures_are_the_same_twice_and_hold_on_light_and_dark_pages(name: str) -> None:
    before = dict(mpl.rcParams)
    svg = EVERY[name]()
    assert svg == EVERY[name]()
    assert dict(mpl.rcParams) == before
    assert "currentColor" in svg
    colours = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert colours <= {"#22262b", "#e6e6e3", BASE_COLOUR, TUNED_COLOUR}
    head = ElementTree.fromstring(svg)
    assert head.get("width") == "760"
    scale = 760 / float(head.get("viewBox", "").split()[2])
    sizes = re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", svg)
    assert min(map(float, sizes)) * scale >= 10


# ---------------------------------------------------------------------------- history


def test_history_names_its_panels_its_lines_and_the_best_epoch() -> None:
    shown = texts(history_figure(made.history()))
    assert {"Loss", "Accuracy", "Learning rate", "training", "validation"} <= set(shown)
    assert {"best: epoch 2", "epoch 2: 70.0%", "epoch 2: 0.733", "start", "0.003"} <= set(shown)


def test_the_calibrated_loss_is_the_one_that_is_marked() -> None:
    rows = [row | {"calibrated_loss": "0.512"} for row in made.history()]
    shown = texts(history_figure(rows))
    assert {"epoch 2: 0.512", "validation loss before calibration"} <= set(shown)
    assert not any("calibration" in text for text in texts(history_figure(made.history())))


def test_a_start_that_stayed_the_best_is_called_so() -> None:
    rows = [row | {"best": str(int(row["epoch"] == "0"))} for row in made.history()]
    assert {"best: the start", "the start: 60.0%"} <= set(texts(history_figure(rows)))


def test_a_history_with_gaps_is_drawn_with_dots_between_them() -> None:
    rows = [made.history()[1] | {"epoch": str(epoch), "best": "0"} for epoch in range(100)]
    assert len(drawn_dots(history_figure(rows))) == 0
    for epoch in (40, 42):
        for name in ("train_loss", "train_top1"):
            rows[epoch] = rows[epoch] | {name: ""}
    assert len(drawn_dots(history_figure(rows))) == 2  # epoch 41, in both panels


def drawn_dots(svg: str) -> list[str]:
    """Markers of a line, without the ticks' and the legend's."""
    return re.findall(r"<use [^>]*style=\"fill: currentColor[^\"]*opacity", svg)


@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_histories_of_any_length_are_drawn(epochs: int) -> None:
    row = made.history()[1]
    rows = [row | {"epoch": str(epoch), "best": "0"} for epoch in range(epochs)]
    shown = texts(history_figure(rows))
    assert "start" in shown
    assert ("Learning rate" in shown) == (epochs > 1)  # the start has none
    assert not any(text.startswith("best") for text in shown)


def test_a_history_without_rates_or_training_figures_is_drawn() -> None:
    row = made.history()[1] | {"train_loss": "", "train_top1": "", "learning_rate": ""}
    shown = texts(history_figure([row]))
    assert "Loss" in shown
    assert "Learning rate" not in shown


def test_a_history_that_is_not_numbers_is_refused() -> None:
    with pytest.raises(InputError, match=r"'train_loss' holds 'high'"):
        history_figure([made.history()[0] | {"train_loss": "high"}])
    with pytest.raises(InputError, match="no rows"):
        history_figure([])


# ---------------------------------------------------------------------------- learning rates


def test_the_suggested_rate_is_named() -> None:
    assert "suggested: 2.5e-4" in texts(rates_figure(LOSSES, 2.5e-4))
    assert not any("suggested" in t for t in texts(rates_figure()))


@pytest.mark.parametrize("explosion", [1e2, 1e12, math.inf, math.nan])
def test_a_divergence_does_not_flatten_the_test(explosion: float) -> None:
    losses = LOSSES.copy()
    losses[-4:] = explosion
    known = losses[np.isfinite(losses)]
    low, high = _loss_limits(known, smoothed(known))
    assert 1.2 < low < 1.5
    assert 2.0 < high < 2.4
    ticks = [float(t) for t in texts(rates_figure(losses, 1e-3)) if "." in t[:2]]
    assert max(ticks) < 2.4


def test_the_tests_own_smoothing_is_drawn() -> None:
    rates, losses = RATES.tolist(), LOSSES.tolist()
    assert lr_figure(rates, losses, smoothed=losses) != rates_figure()
    with pytest.raises(InputError, match="give one loss a rate"):
        lr_figure(rates, losses, smoothed=losses[1:])


def test_what_is_no_range_test_is_refused() -> None:
    with pytest.raises(InputError, match="2 rates and 3 losses"):
        lr_figure([1e-3, 1e-2], [1, 2, 3], smoothed=[1, 2, 3])
    with pytest.raises(InputError, match="rise from above 0"):
        lr_figure([1e-2, 1e-3], [1, 2], smoothed=[1, 2])
    with pytest.raises(InputError, match="rise from above 0"):
        lr_figure([0, 1e-3], [1, 2], smoothed=[1, 2])
    losses = [1, math.nan, math.inf]
    with pytest.raises(InputError, match="1 of 3 losses are finite"):
        lr_figure([1e-4, 1e-3, 1e-2], losses, smoothed=losses)


# ---------------------------------------------------------------------------- search


@pytest.mark.parametrize("count", [1, 3, 40])
def test_trials_stand_in_the_order_of_their_accuracy(count: int) -> None:
    shown = texts(search_figure(trials(count)))
    table = shown[shown.index("trial") :]
    accuracies = [float(t[:-1]) for t in table if re.fullmatch(r"\d+\.\d%", t)]
    assert len(accuracies) == count
    assert accuracies == sorted(accuracies, reverse=True)
    assert {"head", "unfreeze", "lr", "augment", "mlp", "3e-4", "light"} <= set(table)


def test_of_many_trials_the_best_are_listed_and_all_are_counted() -> None:
    shown = texts(search_figure(trials(TRIAL_CAP + 25)))
    assert shown.count("mlp") == TRIAL_CAP
    assert f"the best {TRIAL_CAP} of {TRIAL_CAP + 25} trials" in shown


def test_a_trial_without_an_accuracy_is_listed_last() -> None:
    rows = trials(3)
    rows[0] = rows[0] | {"top1": math.nan, "loss": math.nan, "settings": {"head": None}}
    shown = texts(search_figure(rows))
    assert shown.index("none") > shown.index("76.7%")
    assert "nan" not in " ".join(shown)


def test_settings_are_literal_whatever_they_say() -> None:
    rows = [trials(1)[0] | {"settings": {"head": "<b>$\\frac", "boundary": "blocks.5"}}]
    shown = texts(search_figure(rows))
    assert {"<b>$\\frac", "blocks.5"} <= set(shown)


def test_a_search_without_trials_is_refused() -> None:
    with pytest.raises(InputError, match="no trials"):
        search_figure([])
