"""Which strategy fits a set of pictures: from measurements to a recommendation, without a network.

Numbers in, record out. What is measured: how well a linear probe of each stage's features does on
pictures that it was not fitted on, how well the same probe does on a network of random weights, and how
near the pictures are to those that the network's BatchNorm layers remember. `Advice` places a set on the
plane of the transfer-learning lesson (Stanford's CS231n: similar or different, small or large), and
`choose_cut` says where the network should be cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from transferscope.errors import InputError
from transferscope.evaluation.intervals import wilson_interval
from transferscope.evaluation.paired import paired_interval
from transferscope.wording import duration

AdvisedStrategy = Literal["probe", "partial", "full"]

SIMILAR = 0.5
"""Where `different` ends and `similar` begins: half of the way. A convention."""

SOURCE_PICTURES, SOURCE_CLASSES = 1_281_167, 1_000
"""ImageNet's training part, the yardstick of `large`, also for networks trained on other pictures."""

LARGE = SOURCE_PICTURES / SOURCE_CLASSES / 10
"""Pictures a class from which a set is large: a tenth of the source's. A convention."""

FEW = 5
"""Pictures a class below which nothing but the head is fitted."""

SOLVED = 0.995
"""A probe that is right on so many unseen pictures, at the lower end of its interval, is left as it is."""

TUNED_SHARE: Mapping[tuple[bool, bool], float] = {
    (True, False): 1 / 3,
    (True, True): 1 / 2,
    (False, False): 1 / 2,
    (False, True): 1.0,
}
"""Share of the stages that is tuned at least, by (similar, large). The whole network is `full`."""

LESSON: Mapping[tuple[bool, bool], str] = {
    (True, False): "a linear classifier on top, or a few layers tuned",
    (True, True): "fine-tune a few layers",
    (False, False): "build on earlier layers",
    (False, True): "fine-tune many layers",
}
"""What the lesson advises, by (similar, large)."""


# ---------------------------------------------------------------------------- records


@dataclass(frozen=True)
class StageProbe:
    """A linear probe of one stage's features, judged on pictures that it was not fitted on.

    Attributes:
        stage: the layer that ends it.
        channels: features a picture: the layer's spatial means.
        top1: share of the pictures recognised out of fold.
        interval: of `top1`, 95% (Wilson).
        behind_best: (low, high), 95%, of the best stage's `top1` less this one's, over the same
            pictures; where it reaches 0 this stage is not measurably worse.
    """

    stage: str
    channels: int
    top1: float
    interval: tuple[float, float]
    behind_best: tuple[float, float]

    @property
    def as_good_as_best(self) -> bool:
        """Whether no difference to the best stage can be measured."""
        return self.behind_best[0] <= 0


@dataclass(frozen=True)
class BackboneAdvice:
    """What was measured of one backbone on a set of pictures, and what follows.

    Attributes:
        backbone: catalogue name.
        parameters: values in the whole network.
        milliseconds: of one picture's forward pass on this machine, without reading it.
        stages: first to last; the last one is what the head sees.
        control: the probe of what the head sees in the same architecture with random weights.
        chance: share of the largest class.
        gain: see `transfer_gain`.
        pictures: see `picture_similarity`; None where the network has no BatchNorm to ask.
        similarity: in [0, 1], the mean of both, or `gain` alone.
        strategy: what is recommended.
        boundary: the last frozen layer if that is `partial`, else None.
        reason: why, with numbers.
        seconds: predicted for `tune` on this machine, by strategy.
    """

    backbone: str
    parameters: int
    milliseconds: float
    stages: tuple[StageProbe, ...]
    control: StageProbe
    chance: float
    gain: float
    pictures: float | None
    similarity: float
    strategy: AdvisedStrategy
    boundary: str | None
    reason: str
    seconds: Mapping[str, float]

    @property
    def probe(self) -> StageProbe:
        """The probe of what the head sees: what `tune --strategy probe` fits."""
        return self.stages[-1]


@dataclass(frozen=True)
class Advice:
    """Where a set of pictures stands, backbone by backbone, and what to do with it.

    Attributes:
        pictures: of the training split.
        classes: their number.
        measured: how many pictures the probes were fitted on and judged by.
        backbones: in the order asked for.
        chosen: name of the recommended one.
        reason: why that backbone; empty if there was one alone.
    """

    pictures: int
    classes: int
    measured: int
    backbones: tuple[BackboneAdvice, ...]
    chosen: str
    reason: str = ""

    @property
    def best(self) -> BackboneAdvice:
        """The recommended backbone's advice."""
        return next(one for one in self.backbones if one.backbone == self.chosen)

    @property
    def per_class(self) -> float:
        """Training pictures a class, on average."""
        return self.pictures / self.classes

    @property
    def quadrant(self) -> tuple[bool, bool]:
        """(similar, large), of the recommended backbone."""
        return quadrant(self.best.similarity, self.per_class)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the recommendation first, then all that was measured."""
        similar, large = self.quadrant
        best = self.best
        return {
            "backbone": self.chosen,
            "strategy": best.strategy,
            "boundary": best.boundary,
            "reason": best.reason,
            "seconds": best.seconds[best.strategy],
            "similar": similar,
            "large": large,
            "lesson": LESSON[self.quadrant],
            "pictures": self.pictures,
            "classes": self.classes,
            "per_class": self.per_class,
            "measured": self.measured,
            "backbone_reason": self.reason,
            "backbones": [asdict(one) for one in self.backbones],
        }


# ---------------------------------------------------------------------------- probes


def probe_stages(
    names: Sequence[str], channels: Sequence[int], hits: Sequence[np.ndarray], *, seed: int = 0
) -> tuple[StageProbe, ...]:
    """What stages' out-of-fold predictions say, each beside the best of them.

    Args:
        names, channels: of S stages.
        hits: S arrays, bool (N,): which of the same N pictures were recognised.
    """
    best = max(hits, key=lambda found: int(found.sum()))
    return tuple(
        StageProbe(
            name,
            count,
            float(found.mean()),
            wilson_interval(int(found.sum()), len(found)),
            paired_interval(best, found, seed=seed),
        )
        for name, count, found in zip(names, channels, hits, strict=True)
    )


# ---------------------------------------------------------------------------- recommendation


def quadrant(similarity: float, per_class: float) -> tuple[bool, bool]:
    """(similar, large): where a set lies on the plane. Both borders are conventions."""
    return similarity >= SIMILAR, per_class >= LARGE


@dataclass(frozen=True)
class Cut:
    """Where a network is cut: `boundary` is the last frozen layer, None to freeze nothing."""

    boundary: str | None
    reason: str


def choose_cut(stages: Sequence[StageProbe], *, similar: bool, large: bool) -> Cut:
    """Which stages to tune.

    At least the share of stages that `TUNED_SHARE` has for the quadrant is tuned. If an earlier
    stage's probe is as good as the best one's, no stage behind it has added anything for these pictures:
    what lies there is of the source task, and the cut moves there.

    Args:
        stages: first to last.
        similar, large: see `quadrant`.
    """
    tuned = max(1, int(TUNED_SHARE[similar, large] * len(stages)))
    if tuned >= len(stages):
        return Cut(None, f"{_words(similar, large)}: every stage is worth tuning")
    place = len(stages) - 1 - tuned
    frozen, last, best = stages[place], stages[-1], max(stages, key=lambda stage: stage.top1)
    enough = next(i for i, stage in enumerate(stages) if stage.as_good_as_best)
    if enough < place:
        one = stages[enough]
        return Cut(
            one.stage,
            f"a probe of {one.stage} is right on {one.top1:.1%} of unseen pictures and no later stage does "
            "measurably better: what lies behind it belongs to the source task",
        )
    depth = (
        f"from {frozen.top1:.1%} at {frozen.stage} to {last.top1:.1%} at {last.stage}: depth helps, and "
        "its last part is made to fit"
        if last.as_good_as_best
        else f"to {best.top1:.1%} at {best.stage} and fall to {last.top1:.1%} at {last.stage}: what lies "
        "behind belongs to the source task"
    )
    return Cut(
        frozen.stage,
        f"{_words(similar, large)}: the last {tuned} of {len(stages)} stages are tuned. "
        f"Probes rise {depth}",
    )


def recommend(
    stages: Sequence[StageProbe], *, similar: bool, large: bool, per_class: float
) -> tuple[AdvisedStrategy, Cut]:
    """The strategy for a set, and where `partial` would cut, whether or not it is recommended.

    The probe alone is recommended where a class has fewer than `FEW` pictures to learn from, or where
    the probe leaves nothing to gain; in the other cases the cut decides.
    """
    cut = choose_cut(stages, similar=similar, large=large)
    probe = stages[-1]
    if per_class < FEW:
        why = f"a class has {per_class:.1f} training pictures: too few to tune more than the head"
    elif probe.interval[0] >= SOLVED:
        why = (
            f"the probe is right on {probe.top1:.1%} of unseen pictures: tuning has nothing to add"
        )
    else:
        return ("full" if cut.boundary is None else "partial"), cut
    return "probe", Cut(cut.boundary, why)


def choose_backbone(
    names: Sequence[str],
    hits: Sequence[np.ndarray],
    milliseconds: Sequence[float],
    *,
    seed: int = 0,
) -> tuple[str, str]:
    """The backbone to take, and why: the fastest of those whose probes are as good as the best one's.

    Args:
        names: of B backbones.
        hits: B arrays, bool (N,): which of the same N pictures each probe recognised.
        milliseconds: a picture.

    Raises:
        InputError: no backbone.
    """
    if not names:
        raise InputError("no backbone is named; give at least one")
    if len(names) == 1:
        return names[0], ""
    best = max(range(len(names)), key=lambda i: (int(hits[i].sum()), -milliseconds[i]))
    behind = [paired_interval(hits[best], found, seed=seed) for found in hits]
    equal = [i for i, (low, _) in enumerate(behind) if i == best or low <= 0]
    taken = min(equal, key=lambda i: milliseconds[i])
    if taken == best:
        return names[best], f"its probe is the best, {hits[best].mean():.1%} of unseen pictures"
    low, high = behind[taken]
    return names[taken], (
        f"it takes {milliseconds[taken]:.1f} ms a picture and {names[best]}, whose probe is not measurably "
        f"better, {milliseconds[best]:.1f} ({100 * low:+.1f} to {100 * high:+.1f} points)"
    )


def advice_sentences(advice: Advice) -> list[str]:
    """The advice in sentences: where the set stands, what to do, why, and how long it will take."""
    best = advice.best
    similar, large = advice.quadrant
    looks = (
        "it has no BatchNorm, so the pictures cannot be held against its source's"
        if best.pictures is None
        else f"by their statistics the pictures are {best.pictures:.2f} of the way from scrambled ones to its "
        "source's"
    )
    sentences = [
        f"Similarity to the source task {best.similarity:.2f}: {best.backbone}'s features cover "
        f"{best.gain:.2f} of the way from random weights ({best.control.top1:.1%}) to no mistake; {looks}.",
        f"Size: {advice.per_class:,.0f} training pictures a class, {advice.pictures:,} in all (ImageNet: "
        f"{SOURCE_PICTURES / SOURCE_CLASSES:,.0f}, {SOURCE_PICTURES:,}).",
        f"That is {_words(similar, large)}. The transfer-learning lesson of Stanford's CS231n "
        f"advises: {LESSON[similar, large]}.",
    ]
    if advice.measured < advice.pictures:
        sentences.append(
            f"Measured on {advice.measured:,} of the training pictures, drawn class by class."
        )
    if advice.reason:
        sentences.append(f"Backbone: {advice.chosen}, because {advice.reason}.")
    where = f" behind {best.boundary}" if best.boundary else ""
    sentences.append(f"Recommended: {best.strategy}{where}. Why: {best.reason}.")
    times = ", ".join(f"{name} {duration(value)}" for name, value in best.seconds.items())
    sentences.append(f"Time on this machine, predicted from measured steps: {times}.")
    return sentences


def _words(similar: bool, large: bool) -> str:
    return (
        f"a {'large' if large else 'small'} set of {'similar' if similar else 'different'} pictures"
    )
