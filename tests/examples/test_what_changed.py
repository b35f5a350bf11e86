"""What the fifth example says of the last layer, of grey drawings and of a judge of their likeness."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import tiny_classifier
from transferscope.comparison.depth_trend import DepthTrend, depth_trend
from transferscope.comparison.drawings import drawing_tests, paired_drawings
from transferscope.comparison.geometry import embed
from transferscope.comparison.records import (
    NETWORKS,
    ChannelDrawings,
    Comparison,
    LayerComparison,
)
from transferscope.visualize.records import Render

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))

import _drawings  # noqa: E402 - the examples are no package


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "05_what_changed.py"), run_name="example")


def trend(*means: float, seed: int = 0, count: int = 40) -> DepthTrend:
    """Over blocks whose channels lie around these means."""
    rng = np.random.default_rng(seed)
    return depth_trend(
        {f"blocks.{n}": rng.normal(mean, 0.05, count) for n, mean in enumerate(means)}
    )


FALLING, RISING, LEVEL = (0.9, 0.6, 0.3), (0.9, 0.5, 0.8), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("drawn", "ceiling", "moved", "said"),
    [
        (RISING, LEVEL, (0.2, 0.8, 0.4), "the network itself changed less there"),
        (RISING, RISING, (0.2, 0.4, 0.8), "it is the drawings: two of one network"),
        (RISING, LEVEL, (0.2, 0.4, 0.8), "it is the drawings, not the network"),
        (FALLING, LEVEL, (0.2, 0.4, 0.8), "No exception of the last layer was found"),
        (LEVEL, LEVEL, LEVEL, "could not be told to grow more or less alike"),
    ],
)
def test_the_last_layers_exception_is_laid_where_it_belongs(
    example: dict[str, Any], drawn: Any, ceiling: Any, moved: Any, said: str
):
    trends = (trend(*drawn), trend(*ceiling, seed=1), trend(*moved, seed=2))
    assert said in example["exception"](*trends)


def test_too_few_channels_tell_nothing(example: dict[str, Any]):
    few = trend(0.9, 0.7, 0.72, count=3)
    assert "could not be told" in example["exception"](few, few, few)


def test_grey_is_told_without_wrapping():
    grey = np.full((8, 8, 3), 120, np.uint8)
    assert _drawings.grey_error(grey) == pytest.approx(0)
    almost = grey.copy()
    almost[..., 0] -= 1  # one step below the others
    assert _drawings.grey_error(almost) < 0.005
    assert _drawings.wrapped_grey_error(almost) > 0.3  # 255 of 255 in a third of the values
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[..., 0] = 255
    assert _drawings.grey_error(colours) == pytest.approx(4 / 9)


def drawn_channel(channel: int, pictures: dict[str, np.ndarray]) -> _drawings.Drawn:
    """A channel of one layer, whose drawings are uint8 (S, H, W, 3) by network."""
    seeds = len(pictures["base"])
    renders = {
        name: [
            Render("a", channel, "plus", seed, several[seed], 1.0, 0.5, "optimized", 8)
            for seed in range(seeds)
        ]
        for name, several in pictures.items()
    }
    judge = tiny_classifier()
    vectors = [embed(judge, _drawings.torch.from_numpy(pictures[name])) for name in NETWORKS]
    test = drawing_tests([paired_drawings("a", channel, *vectors, [True] * seeds)])[0]
    record = ChannelDrawings(
        "a",
        channel,
        "plus",
        "at random",
        tuple(range(seeds)),
        dict.fromkeys(NETWORKS, ("optimized",) * seeds),
        dict.fromkeys(NETWORKS, 1.0),
        dict.fromkeys(NETWORKS, 0.5),
        dict.fromkeys(NETWORKS, ()),
        1.0,
        test=test,
    )
    return _drawings.Drawn(record, renders)


def test_another_judge_has_another_opinion_and_a_network_is_like_itself():
    rng = np.random.default_rng(0)
    of_base = rng.integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)  # 2 channels, 3 seeds
    of_tuned = rng.integers(0, 64, of_base.shape, dtype=np.uint8)
    several = [
        drawn_channel(0, {"base": of_base[0], "tuned": of_base[0]}),
        drawn_channel(1, {"base": of_base[1], "tuned": of_tuned[1]}),
    ]
    found = Comparison(
        ("base", "tuned"), "test", 0, 0, (LayerComparison("a", 2, False, {}),), (),
        tuple(one.record for one in several), 0,
    )  # fmt: skip
    judged = _drawings.rejudged(found, several, tiny_classifier(seed=5))
    same, other = (one.test for one in judged.drawings)
    assert same.similarity == pytest.approx(same.rerender["base"])
    assert other.similarity < other.rerender["base"]
    assert judged.layers[0].chance is not None
    assert same.similarity != found.drawings[0].test.similarity  # not the first judge's
    again = _drawings.rejudged(found, several, tiny_classifier())
    for one, before in zip(again.drawings, found.drawings, strict=True):
        assert one.test.similarity == pytest.approx(before.test.similarity)  # the same judge's
