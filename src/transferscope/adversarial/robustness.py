"""How much two networks stand, on the same pictures: attacks of growing size, and what happens in practice.

An attack that fails proves nothing: a stronger one may succeed. So what is measured is an upper bound of the
accuracy that is left, and of the distance to the nearest picture that fools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.adversarial.attacked import Attacked, leads
from transferscope.adversarial.budgets import LEVELS, Budget, lengths
from transferscope.adversarial.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from transferscope.adversarial.deepfool import minimal_changes
from transferscope.adversarial.projected_gradient import Goal, generator_of, pgd
from transferscope.errors import DataError
from transferscope.evaluation.intervals import DRAWS, middle, wilson_interval
from transferscope.evaluation.paired import paired_interval
from transferscope.images import as_float
from transferscope.records import Record

EPSILONS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Of 255, in `linf`; those below 1 are off the grid of 8-bit pictures."""

Bools = NDArray[np.bool_]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trial(Record):
    """What is done to every picture.

    Attributes:
        epsilons: of 255, ascending, the first 0.
        steps, restarts: of PGD.
        seed: of everything random.
    """

    epsilons: tuple[float, ...] = EPSILONS
    steps: int = 20
    restarts: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Endured(Record):
    """What one network stood of one picture.

    Attributes:
        path: of the picture.
        label: its class.
        margin: the true class's logit less the largest other's.
        right: at each epsilon, whether no picture was found that fools; at 0, the picture as it is.
        noise: at each epsilon, whether it is right about random noise of that size.
        distance: the Euclidean length of DeepFool's step, 0 where it is wrong without one, None where none
            was found.
        corruptions: name to whether it is right at each strength.
    """

    path: str
    label: int
    margin: float
    right: tuple[bool, ...]
    noise: tuple[bool, ...]
    distance: float | None
    corruptions: dict[str, tuple[bool, ...]]


def endure(
    attacked: Attacked,
    pictures: torch.Tensor,
    labels: torch.Tensor,
    paths: Sequence[str],
    trial: Trial,
    *,
    on_progress: Progress | None = None,
) -> list[Endured]:
    """Attacks and corrupts pictures, and asks the network each time.

    A picture that is fooled at some epsilon is at every larger one, so it is attacked no more.

    Args:
        attacked: the network.
        pictures: uint8 (N, C, H, W).
        labels: int64 (N,), their classes.
        paths: of the pictures.
        trial: what is done.
        on_progress: called with (done, all): sizes of attacks, DeepFool, and corruptions.
    """
    total = len(trial.epsilons) + 1 + len(CORRUPTIONS)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, total)

    values = as_float(pictures)
    margins = leads(attacked.exact(pictures), labels.to(attacked.device)).cpu()
    right, noise = [margins > 0], [margins > 0]
    advance()
    for epsilon in trial.epsilons[1:]:
        budget = Budget("linf", epsilon / LEVELS, grid=False)
        right.append(_unfooled(attacked, values, labels, right[-1], budget, trial))
        noisy = budget.corner(values, [generator_of(one, trial.seed, -1) for one in values])
        noise.append(_right(attacked, noisy, labels))
        advance()
    goal = Goal(labels, targeted=False)
    distances = lengths(minimal_changes(attacked, values, goal)[0]).tolist()
    advance()
    worse: dict[str, list[torch.Tensor]] = {}
    for name in CORRUPTIONS:
        worse[name] = []
        for strength in range(1, STRENGTHS + 1):
            made = [corrupted(one, name, strength, seed=trial.seed) for one in pictures]
            worse[name].append(_right(attacked, torch.stack(made), labels))
        advance()
    return [
        Endured(
            path=path,
            label=int(labels[row]),
            margin=float(margins[row]),
            right=tuple(bool(one[row]) for one in right),
            noise=tuple(bool(one[row]) for one in noise),
            distance=distances[row] if math.isfinite(distances[row]) else None,
            corruptions={
                name: tuple(bool(one[row]) for one in flags) for name, flags in worse.items()
            },
        )
        for row, path in enumerate(paths)
    ]


def _right(attacked: Attacked, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (leads(attacked.exact(pictures), labels.to(attacked.device)) > 0).cpu()


def _unfooled(
    attacked: Attacked,
    values: torch.Tensor,
    labels: torch.Tensor,
    before: torch.Tensor,
    budget: Budget,
    trial: Trial,
) -> torch.Tensor:
    """Of the pictures that stood the smaller epsilon, those that stand this one, bool (N,)."""
    after = before.clone()
    rows = before.nonzero().flatten()
    if len(rows):
        found = pgd(
            attacked,
            values[rows],
            Goal(labels[rows], targeted=False),
            budget,
            steps=trial.steps,
            restarts=trial.restarts,
            seed=trial.seed,
        )
        after[rows] = found.leads <= 0
    return after


# ---------------------------------------------------------------------------- two networks


@dataclass(frozen=True)
class Share(Record):
    """A share of right answers under one condition, of two networks on the same pictures.

    Attributes:
        base, tuned: the shares.
        base_interval, tuned_interval: 95%, Wilson.
        difference: tuned less base.
        interval: 95% of the difference, paired bootstrap over pictures (Wilson where no picture differs); it
            says nothing of other tunings.
    """

    base: float
    tuned: float
    base_interval: tuple[float, float]
    tuned_interval: tuple[float, float]
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Middle(Record):
    """Medians of a quantity of two networks, over the pictures that both take for what they are.

    Attributes:
        n: of them.
        base, tuned: the medians.
        base_interval, tuned_interval: 95%, bootstrap.
        difference: the median of tuned less base, picture by picture.
        interval: 95% of it.
    """

    n: int
    base: float
    tuned: float
    base_interval: tuple[float, float]
    tuned_interval: tuple[float, float]
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Robustness(Record):
    """What base and tuned stood, on the same pictures of the same classes.

    The accuracies under attack are upper bounds: a stronger attack may find more. So are the distances.

    Attributes:
        split: of the pictures.
        n: pictures, evenly over the classes.
        of: pictures of the split.
        classes: how many.
        trial: what was done.
        attacks: at each epsilon of the trial, accuracy under PGD in `linf`.
        noise: at each epsilon, under random noise of that size: the control.
        distance: the minimal Euclidean distance by DeepFool, or None where no picture is recognised by both.
        margin: the true class's logit less the largest other's, likewise.
        corruptions: name to accuracy at each strength.
        base, tuned: every picture's results.
        seconds: that it took.
    """

    made_by: ClassVar[str] = "transferscope robustness"

    split: str
    n: int
    of: int
    classes: int
    trial: Trial
    attacks: tuple[Share, ...]
    noise: tuple[Share, ...]
    distance: Middle | None
    margin: Middle | None
    corruptions: dict[str, tuple[Share, ...]]
    base: tuple[Endured, ...]
    tuned: tuple[Endured, ...]
    seconds: float


def robustness_of(
    base: Sequence[Endured],
    tuned: Sequence[Endured],
    *,
    trial: Trial,
    split: str,
    of: int,
    classes: int,
    seconds: float = 0.0,
) -> Robustness:
    """The shares and medians of two networks.

    Args:
        base, tuned: of the same pictures in the same order.
        trial, split, of, classes, seconds: reported as they are.

    Raises:
        DataError: no pictures, or not the same ones.
    """
    if not base or [one.path for one in base] != [one.path for one in tuned]:
        raise DataError(
            f"base has {len(base)} pictures and tuned {len(tuned)}, and they must be the same ones in the same "
            "order; give both the same"
        )
    seed = trial.seed

    def share(of_one: Callable[[Endured], bool]) -> Share:
        flags = [np.array([of_one(one) for one in rows]) for rows in (base, tuned)]
        return _share(flags[0], flags[1], seed)

    places = range(len(trial.epsilons))
    both = [
        (one, other)
        for one, other in zip(base, tuned, strict=True)
        if one.right[0] and other.right[0]
    ]
    ways: list[tuple[float, float]] = [
        (one.distance, other.distance)
        for one, other in both
        if one.distance is not None and other.distance is not None
    ]
    return Robustness(
        split=split,
        n=len(base),
        of=of,
        classes=classes,
        trial=trial,
        attacks=tuple(share(lambda one, at=at: one.right[at]) for at in places),  # type: ignore[misc]
        noise=tuple(share(lambda one, at=at: one.noise[at]) for at in places),  # type: ignore[misc]
        distance=_middle(ways, seed),
        margin=_middle([(one.margin, other.margin) for one, other in both], seed),
        corruptions={
            name: tuple(
                share(lambda one, name=name, at=at: one.corruptions[name][at])  # type: ignore[misc]
                for at in range(STRENGTHS)
            )
            for name in CORRUPTIONS
        },
        base=tuple(base),
        tuned=tuple(tuned),
        seconds=seconds,
    )


def _share(base: Bools, tuned: Bools, seed: int) -> Share:
    n = len(base)
    return Share(
        base=float(base.mean()),
        tuned=float(tuned.mean()),
        base_interval=wilson_interval(int(base.sum()), n),
        tuned_interval=wilson_interval(int(tuned.sum()), n),
        difference=float(tuned.mean() - base.mean()),
        interval=_paired(tuned, base, seed),
    )


def _paired(tuned: Bools, base: Bools, seed: int) -> tuple[float, float]:
    """95% of the difference; where no picture differs, what so many pictures cannot exclude."""
    if bool((tuned == base).all()):
        most = wilson_interval(0, len(base))[1]
        return -most, most
    return paired_interval(tuned, base, seed=seed)


def _middle(pairs: Sequence[tuple[float, float]], seed: int) -> Middle | None:
    if not pairs:
        return None
    values = np.array(pairs, dtype=np.float64)
    values = np.column_stack([values, values[:, 1] - values[:, 0]])
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(values), (DRAWS, len(values)))
    drawn = np.median(values[rows], axis=1)
    base, tuned, difference = np.median(values, axis=0).tolist()
    intervals = [middle(drawn[:, column]) for column in range(3)]
    return Middle(len(values), base, tuned, intervals[0], intervals[1], difference, intervals[2])


def balanced(labels: Sequence[int], n: int, *, seed: int = 0) -> list[int]:
    """Indices of n pictures, drawn as evenly over the classes as there are, ascending; all if there are fewer.

    Args:
        labels: of all pictures.
        n: at least 1.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    of_class: Mapping[int, list[int]] = {
        label: [row for row, one in enumerate(labels) if one == label]
        for label in sorted(set(labels))
    }
    turns: list[tuple[int, float, int]] = []
    for rows in of_class.values():
        for turn, row in enumerate(rng.permutation(rows).tolist()):
            turns.append(
                (turn, float(rng.random()), row)
            )  # by chance who is left out of the last turn
    return sorted(row for _, _, row in sorted(turns)[:n])
