"""How well strangers are told: share caught, false alarms and AUROC, by every score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transferscope.errors import DataError
from transferscope.evaluation.intervals import wilson_interval
from transferscope.evaluation.known_pictures import KnownPictures, Neighbour
from transferscope.evaluation.strangers import SCORES, Values, allowance, familiarity
from transferscope.records import Record
from transferscope.wording import percent

_EXAMPLES = 12
"""Pictures that are kept of each kind of error."""


@dataclass(frozen=True)
class Told(Record):
    """How well one score tells strangers, at the share of false alarms that is allowed.

    Attributes:
        auroc: probability that a picture of the classes is more familiar than a stranger.
        auroc_interval: 95%, DeLong et al. 1988 on the scale of log-odds.
        caught: share of the strangers that are called so; None where validation is too small to call any so.
        caught_interval: 95%, Wilson.
        false_alarms: share of the pictures of the classes that are called strangers.
        false_alarms_interval: 95%, Wilson.
    """

    auroc: float
    auroc_interval: tuple[float, float]
    caught: float | None
    caught_interval: tuple[float, float] | None
    false_alarms: float | None
    false_alarms_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Example(Record):
    """A picture that was told wrongly.

    Attributes:
        path: of a stranger, in the folder of strangers; of another picture, in the data folder.
        taken_for: the most probable class.
        probability: of that.
        familiarity: see `strangers.familiarity`.
        nearest: class of the nearest training picture.
        nearest_path: its file in the data folder.
    """

    path: str
    taken_for: str
    probability: float
    familiarity: float
    nearest: str
    nearest_path: str | None


@dataclass(frozen=True)
class Detection(Record):
    """How well a classifier tells strangers from pictures of its classes.

    Attributes:
        name: of the folder of strangers.
        root: the folder.
        n: strangers.
        own: pictures of the classes, of the split that was evaluated.
        split: its name.
        allowed: share of false alarms that was allowed.
        validation: pictures that the threshold rests on.
        range: where the true share of false alarms then is, see `Allowance`.
        score: by which strangers are told; `scores` has the others.
        auroc, auroc_interval, caught, caught_interval, false_alarms, false_alarms_interval: see `Told`.
        scores: all that is registered, by name.
        called: class to the number of strangers taken for it, the most first.
        missed: the most familiar strangers that were not caught.
        alarmed: the least familiar pictures of the classes that were called strangers.
        familiarity_strangers, familiarity_own: ascending, for a figure.
        seen: files in the folder that are pictures of the run, left out.
        excluded: files that could not be read.
    """

    name: str
    root: str
    n: int
    own: int
    split: str
    allowed: float
    validation: int
    range: tuple[float, float] | None
    score: str
    auroc: float
    auroc_interval: tuple[float, float]
    caught: float | None
    caught_interval: tuple[float, float] | None
    false_alarms: float | None
    false_alarms_interval: tuple[float, float] | None
    scores: dict[str, Told]
    called: dict[str, int]
    missed: tuple[Example, ...]
    alarmed: tuple[Example, ...]
    familiarity_strangers: tuple[float, ...]
    familiarity_own: tuple[float, ...]
    seen: int = 0
    excluded: int = 0

    @property
    def drifted(self) -> bool:
        """Whether more alarms are false than the share allowed, beyond chance in either set of pictures."""
        interval, bounds = self.false_alarms_interval, self.range
        return interval is not None and bounds is not None and interval[0] > bounds[1]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures as the classifier sees them: paths, features (N, D), logits (N, K) before the temperature."""

    paths: Sequence[str]
    features: Values
    logits: Values


def detection(
    known: KnownPictures,
    own: Pictures,
    strangers: Pictures,
    *,
    allowed: float,
    temperature: float = 1.0,
    split: str = "test",
    name: str = "strangers",
    root: str = "",
    seen: int = 0,
    excluded: int = 0,
) -> Detection:
    """Every score on pictures of the classes and on strangers; thresholds are validation's.

    Raises:
        DataError: no picture of either kind.
    """
    if not len(own.paths) or not len(strangers.paths):
        raise DataError(
            f"{len(strangers.paths)} strangers and {len(own.paths)} pictures of the classes cannot be told "
            "apart; give at least one of each"
        )
    scores: dict[str, Told] = {}
    for one in SCORES.values():
        scored = one.function(known.training)
        values = [scored(part.features, part.logits) for part in (own, strangers)]
        scores[one.name] = told(values[0], values[1], known.validation[one.name], allowed=allowed)
    main = scores[known.score]
    ours = known.familiarity(own.features, own.logits)
    theirs = known.familiarity(strangers.features, strangers.logits)
    resting = allowance(allowed, known.n)
    alarms = np.flatnonzero(ours <= allowed)
    misses = np.flatnonzero(theirs > allowed)
    called = Counter(known.classes[at] for at in strangers.logits.argmax(1))
    return Detection(
        name=name,
        root=root,
        n=len(strangers.paths),
        own=len(own.paths),
        split=split,
        allowed=allowed,
        validation=known.n,
        range=resting.range,
        score=known.score,
        auroc=main.auroc,
        auroc_interval=main.auroc_interval,
        caught=main.caught,
        caught_interval=main.caught_interval,
        false_alarms=main.false_alarms,
        false_alarms_interval=main.false_alarms_interval,
        scores=scores,
        called=dict(sorted(called.items(), key=lambda item: (-item[1], item[0]))),
        missed=_examples(
            known, strangers, theirs, misses[np.argsort(-theirs[misses])], temperature
        ),
        alarmed=_examples(known, own, ours, alarms[np.argsort(ours[alarms])], temperature),
        familiarity_strangers=tuple(np.sort(theirs).tolist()),
        familiarity_own=tuple(np.sort(ours).tolist()),
        seen=seen,
        excluded=excluded,
    )


def told(own: Values, strangers: Values, validation: Values, *, allowed: float) -> Told:
    """How well scores of pictures of the classes (N,) and of strangers (M,) are told apart."""
    auroc, interval = auroc_of(own, strangers)
    if allowance(allowed, len(validation)).range is None:
        return Told(auroc, interval, None, None, None, None)
    alarms, caught = (
        int((familiarity(one, validation) <= allowed).sum()) for one in (own, strangers)
    )
    return Told(
        auroc,
        interval,
        caught / len(strangers),
        wilson_interval(caught, len(strangers)),
        alarms / len(own),
        wilson_interval(alarms, len(own)),
    )


def auroc_of(own: Values, strangers: Values) -> tuple[float, tuple[float, float]]:
    """Area under the ROC curve of scores that are higher for one's own, and its 95% interval.

    Reference: DeLong, DeLong and Clarke-Pearson 1988, on the scale of log-odds, where it stays in [0, 1]. Where
    the two do not overlap at all, the interval is that of no error in as many pairs as there are pictures of
    the smaller set.
    """
    from scipy.stats import rankdata

    n, m = len(own), len(strangers)
    ranks = rankdata(np.concatenate([own, strangers]))
    above = (ranks[:n] - rankdata(own)) / m  # share of strangers below each of one's own
    below = 1 - (ranks[n:] - rankdata(strangers)) / n  # share of one's own above each stranger
    area = float(above.mean())
    if not 0 < area < 1:
        fewer = min(n, m)
        return area, wilson_interval(round(area * fewer), fewer)
    variance = sum(float(one.var(ddof=1)) / len(one) for one in (above, below) if len(one) > 1)
    half = 1.96 * np.sqrt(variance) / (area * (1 - area))
    middle = np.log(area / (1 - area))
    low, high = 1 / (1 + np.exp(-(middle + np.array([-half, half]))))
    return area, (float(low), float(high))


SCORE_COLUMNS = ("told by", "-AUROC", "-95% interval", "-caught", "-false alarms", "")
"""Of the table of scores."""


def score_rows(found: Detection) -> list[tuple[str, ...]]:
    """Every score in words, the one in use first."""
    order = sorted(found.scores, key=lambda name: (name != found.score, -found.scores[name].auroc))
    return [
        (
            SCORES[name].title,
            f"{one.auroc:.3f}",
            f"{one.auroc_interval[0]:.3f} to {one.auroc_interval[1]:.3f}",
            percent(one.caught),
            percent(one.false_alarms),
            "in use" if name == found.score else "",
        )
        for name in order
        if (one := found.scores[name])
    ]


def _examples(
    known: KnownPictures,
    pictures: Pictures,
    values: np.ndarray,
    order: np.ndarray,
    temperature: float,
) -> tuple[Example, ...]:
    chosen = order[:_EXAMPLES]
    if not len(chosen):
        return ()
    scaled = pictures.logits[chosen].astype(np.float64) / temperature
    shares = np.exp(scaled - scaled.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    nearest: list[tuple[Neighbour, ...]] = known.neighbours(pictures.features[chosen], 1)
    return tuple(
        Example(
            pictures.paths[at],
            known.classes[int(share.argmax())],
            float(share.max()),
            float(values[at]),
            near.name,
            None if known.paths == () else near.path,
        )
        for at, share, (near,) in zip(chosen, shares, nearest, strict=True)
    )
