"""What the overview says of whole stages: what each is worth, which pictures it costs, when it was learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transferscope.comparison.depth_trend import DepthTrend
from transferscope.comparison.effects import Effect
from transferscope.comparison.records import Comparison
from transferscope.wording import number, probability, series, signed


@dataclass(frozen=True)
class Stage:
    """A stage set back to base: figures in words."""

    name: str
    identical: bool
    accuracy: str
    accuracy_interval: str
    loss: str
    loss_interval: str
    given_back: int
    taken_away: int


@dataclass(frozen=True)
class Lost:
    """A held-out picture that base had right and the tuned network has wrong, and what gives it back."""

    path: str
    stages: tuple[str, ...]


def stages(comparison: Comparison) -> list[Stage]:
    """Of the tuned stages in order, the head last; none where it was not asked."""
    if comparison.rewinding is None:
        return []
    return [
        Stage(
            name=one.stage,
            identical=one.identical,
            accuracy=_points(one.effect.accuracy),
            accuracy_interval=_points_between(one.effect),
            loss=signed(one.effect.loss, 3),
            loss_interval=f"{signed(one.effect.loss_low, 3)} to {signed(one.effect.loss_high, 3)}",
            given_back=len(one.gives_back),
            taken_away=len(one.takes_away),
        )
        for one in comparison.rewinding.stages
    ]


def lost_pictures(comparison: Comparison, most: int) -> list[Lost]:
    """The first pictures that tuning lost, those that a stage alone gives back before the others."""
    known = comparison.rewinding
    if known is None:
        return []
    found = [
        Lost(comparison.paths[picture], known.given_back_by(picture))
        for picture in known.flips.lost
    ]
    return sorted(found, key=lambda one: not one.stages)[:most]


def flips_sentence(comparison: Comparison) -> str:
    """How many pictures tuning won and lost; empty where it was not asked."""
    if comparison.rewinding is None:
        return ""
    flips = comparison.rewinding.flips
    return (
        f"Of {comparison.rewinding.pictures:,} {comparison.split} pictures tuning won {len(flips.won):,} and "
        f"lost {len(flips.lost):,}; {flips.both:,} were and are right, {flips.neither:,} neither."
    )


def trend_sentences(trends: Mapping[str, DepthTrend]) -> dict[str, str]:
    """Whether gains and similarities go with depth, by what goes."""
    words = {
        "class_information": "Gains of class information",
        "drawings": "How alike the two networks' drawings are",
    }
    return {name: _trend(words[name], trend) for name, trend in trends.items() if name in words}


def _trend(what: str, trend: DepthTrend) -> str:
    verb = {"Gains of class information": ("rise", "fall")}.get(what, ("rises", "falls"))
    figures = (
        f"Somers' D {signed(trend.effect)}, {number(trend.low)} to {number(trend.high)}, p "
        f"{probability(trend.p)}"
    )
    if trend.direction is None:
        return f"{what}: no trend over depth could be shown ({figures})."
    words = f"{what} {verb[0] if trend.effect > 0 else verb[1]} with depth ({figures})"
    if trend.exceptions:
        steps = series([f"from {one.shallow} to {one.deep}" for one in trend.exceptions])
        words += f", but not {steps}"
    return f"{words}."


def _points(share: float) -> str:
    """A difference of accuracy in percentage points."""
    return signed(100 * share, 1)


def _points_between(effect: Effect) -> str:
    return f"{_points(effect.accuracy_low)} to {_points(effect.accuracy_high)}"
