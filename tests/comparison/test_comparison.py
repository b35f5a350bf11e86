"""What a comparison keeps, its JSON, its shortlist and its sentences."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from transferscope.comparison.change import LEARNED, LOOKS_DIFFERENT, MATTERS, MOVED, Witnessed
from transferscope.comparison.headline import headline, sentences
from transferscope.comparison.records import (
    ChannelDrawings,
    Comparison,
    Exemplar,
    LayerComparison,
    Quartiles,
)
from transferscope.comparison.shortlist import (
    AT_RANDOM,
    LEAST_LEARNED,
    MOST_LEARNED,
    MOST_MATTERING,
    shortlist,
)
from transferscope.errors import RunError

CHANNELS = 8


def rows(layer: str = "blocks.6", *, learned: int = 3, losing: int = 1) -> tuple[Witnessed, ...]:
    """The first `learned` channels gain beyond the controls; the next `losing` lose less than these do."""
    found = []
    for channel in range(CHANNELS):
        gain = 0.4 - 0.1 * channel if channel < learned else -0.05
        beyond = channel < learned + losing
        q = 0.01 if beyond else 0.7
        low, high = gain - 0.04, gain + 0.04
        found.append(Witnessed(layer, channel, LEARNED, gain, low, high, -0.1, q / 2, q))
        found.append(Witnessed(layer, channel, MOVED, 0.3, 0.2, 0.4, 0.01, 1e-9, 1e-8))
    return tuple(found)


def drawn(channel: int = 0, *, status: str = "optimized") -> ChannelDrawings:
    activation = float("nan") if status == "non_finite" else 3.5
    return ChannelDrawings(
        layer="blocks.6",
        channel=channel,
        sign="plus",
        reason=MOST_LEARNED,
        seeds=(0, 1),
        statuses={"base": ("optimized", "optimized"), "tuned": ("optimized", status)},
        activation={"base": 2.0, "tuned": activation},
        exemplar_max={"base": 1.5, "tuned": None},
        exemplars={"base": (Exemplar("a/1.jpg", 1.5),), "tuned": (Exemplar("猫/2.jpg", 1.2),)},
        shared_top20=0.45,
    )


def comparison(**changes) -> Comparison:
    quartiles = {"base": Quartiles(0.1, 0.2, 0.3), "tuned": Quartiles(0.2, 0.3, 0.4)}
    made = Comparison(
        pair=("base", "tuned"),
        split="test",
        pictures=360,
        classes=36,
        layers=(
            LayerComparison("blocks.4", 80, True, {}),
            LayerComparison("blocks.6", CHANNELS, False, quartiles),
        ),
        rows=rows(),
        drawings=(drawn(),),
        controls=3,
        false_in_controls=(0, 0, 1),
        seeds=(0, 1),
        steps=120,
        size=224,
    )
    return replace(made, **changes)


def test_it_survives_a_round_trip(tmp_path):
    found = comparison(retunings=1, reproduced=(2,))
    found.save(tmp_path)
    assert Comparison.load(tmp_path) == found
    lines = (tmp_path / "comparison.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "layer,channel,witness,value,low,high,null,p,q"
    assert len(lines) == 1 + len(found.rows)


def test_a_drawing_that_left_the_numbers_is_saved(tmp_path):
    comparison(drawings=(drawn(status="non_finite"),)).save(tmp_path)
    (loaded,) = Comparison.load(tmp_path).drawings
    assert loaded.activation == {"base": 2.0, "tuned": None}
    assert loaded.statuses["tuned"] == ("optimized", "non_finite")


def test_what_an_earlier_version_wrote_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps({"layers": [], "fdr": 0.05}))
    with pytest.raises(RunError, match="'transferscope compare' makes it again"):
        Comparison.load(tmp_path)


def test_it_speaks_the_contracts_json():
    told = json.loads(json.dumps(comparison().to_dict(), allow_nan=False))
    keys = {"channels", "identical", "moved", "learned", "matters", "looks_different", "drawn"}
    assert keys | {"class_information", "cka"} <= set(told["layers"]["blocks.6"])
    layer = told["layers"]["blocks.6"]
    assert (layer["channels"], layer["moved"], layer["learned"], layer["drawn"]) == (8, 8, 3, 1)
    assert layer["matters"] is layer["looks_different"] is None, "not asked is not none found"
    assert layer["class_information"] == {"base": 0.2, "tuned": 0.3}
    assert told["layers"]["blocks.4"]["identical"]
    assert told["layers"]["blocks.4"]["learned"] == 0
    assert told["learned"]["channels"] == 3
    assert told["learned"]["tested"] == CHANNELS
    assert told["learned"]["false_in_controls"] == [0, 0, 1]
    gains = [one["gain"] - one["controls"] for one in told["most_learned"]]
    assert gains == sorted(gains, reverse=True)
    assert [one["learned"] for one in told["most_learned"][:4]] == [True, True, True, False]
    assert told["least_learned"] == told["most_learned"][::-1]
    assert told["headline"] == headline(comparison())


def test_losing_less_than_the_controls_is_not_counted_as_learned():
    found = comparison(rows=rows(learned=0, losing=CHANNELS))
    assert found.to_dict()["learned"]["channels"] == 0


# ---------------------------------------------------------------------------- sentences


def test_the_headline_says_what_where_how_sure_and_what_the_controls_show():
    said = headline(comparison(retunings=1, reproduced=(2,)))
    assert "3 of 8 channels of blocks.6 learned: on 360 test pictures" in said
    assert "36 classes apart better than before, by more than 3 control transfers" in said
    assert "at a false discovery rate of 5%" in said
    assert (
        "Each control asked the same against the others seems to have learned 0, 0 and 1." in said
    )
    assert "Tuned again from another seed, 2 of these 3 learned again." in said
    assert "blocks.4 is bit-identical in both networks" in said


def test_where_nothing_is_beyond_the_controls_it_says_that_and_not_more():
    said = headline(comparison(rows=rows(learned=0)))
    assert said.startswith("No channel of blocks.6 was found to have learned")
    assert "not proof that nothing was learned" in said
    assert "8 of 8 answer held-out pictures differently, which a network tuned on shuffled" in said


def test_without_controls_nothing_is_said_to_have_learned():
    found = comparison(controls=0, false_in_controls=())
    assert not found.found(LEARNED)
    told = found.to_dict()
    assert told["learned"]["channels"] is None
    assert told["layers"]["blocks.6"]["learned"] is None
    said = headline(found)
    assert (
        "8 channels tell the 36 classes of 360 test pictures apart better in tuned than in base"
        in said
    )
    assert "whether tuned learned anything was not asked" in said
    alone = headline(replace(found, rows=(), pair=("photos", "resnet")))
    assert alone.startswith("photos and resnet have no channels in common: only layers")


def test_drawings_that_no_test_tells_apart_are_not_called_the_same():
    (said,) = [one for one in sentences(comparison()) if "drawn" in one]
    assert said == (
        "1 channel was drawn; it could not be told apart from drawing one network twice with 2 seeds."
    )


def test_matters_and_looks_are_told_where_they_were_asked():
    extra = (
        Witnessed("blocks.6", 0, MATTERS, 0.2, 0.1, 0.3, 0.0, 0.001, 0.008),
        Witnessed("blocks.6", 1, MATTERS, 0.0, -0.1, 0.1, 0.0, 0.5, 0.5),
        Witnessed("blocks.6", 0, LOOKS_DIFFERENT, 0.2, 0.1, 0.3, 0.0, 0.01, 0.01),
    )
    found = comparison(rows=rows() + extra)
    said = headline(found)
    assert "1 of 2 would be missed: with base's activations in their place" in said
    assert "1 channel was drawn; 1 of them looks different." in said
    counts = found.to_dict()["layers"]["blocks.6"]
    assert (counts["matters"], counts["looks_different"]) == (1, 1)


# ---------------------------------------------------------------------------- the shortlist


def test_the_shortlist_takes_turns_and_says_why():
    matters = tuple(
        Witnessed("blocks.6", c, MATTERS, float(c == 6), 0.0, 1.0, 0.0, 0.5, 0.5) for c in range(8)
    )
    chosen = shortlist(rows() + matters, "blocks.6", CHANNELS, 4, seed=0)
    reasons = {reason: channel for channel, reason in chosen.items()}
    assert set(reasons) == {MOST_LEARNED, MOST_MATTERING, LEAST_LEARNED, AT_RANDOM}
    assert reasons[MOST_LEARNED] == 0
    assert reasons[MOST_MATTERING] == 6
    assert list(chosen) == sorted(chosen)
    assert list(shortlist(rows(), "blocks.6", CHANNELS, None, seed=0)) == list(range(CHANNELS))
    assert shortlist(rows(), "blocks.6", CHANNELS, 0, seed=0) == {}
    assert len(shortlist((), "blocks.6", 300, 6, seed=0)) == 6
    assert len(shortlist(rows(), "blocks.6", CHANNELS, 100, seed=0)) == CHANNELS


def test_what_is_drawn_at_random_follows_the_seed():
    draws = {tuple(shortlist((), "blocks.6", 300, 6, seed=seed)) for seed in (0, 0, 1)}
    assert len(draws) == 2
    assert all(np.diff(one).min() > 0 for one in draws)
