"""What is found of shortcuts, and what correcting them changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from transferscope.explain.transplants import Kind, Shift
from transferscope.records import Record

LEAST_EFFECT = 0.05
"""Probability that a cue must bring its class on other classes' pictures, by the lower end of its interval, to
raise an alarm. Taking a part away alone raises none: that of other pictures may disturb more than its own."""

LEAST_Q = 0.01
"""q-value above which nothing raises an alarm."""

By = Literal["direction", "last-layer", "retune"]
"""How a shortcut is corrected."""


@dataclass(frozen=True)
class Candidate(Record):
    """A cue of one class, and whether the predictions follow it.

    Attributes:
        label: the class.
        cue: what is moved, in words.
        kind: a fixed patch, the border, or the colours.
        accuracy: balanced, of a classifier that sees this cue alone, of the class against the rest.
        places: of a patch, (row, column) of 7 x 7 in the middle square.
        given: to held-out pictures of the other classes.
        taken: from held-out pictures of the class.
        q: of `given`, Benjamini-Hochberg over all candidates.
        layer: the last layer that has maps, or the head where none has.
        channel: of it, the one through which the cue speaks most for the class.
        pictures: exemplars of the direction among the training pictures, the strongest first.
        shared: share of these that are of the class.
        heat: mean map of the direction's contribution to the class over these, in the layer's cells, row by
            row; empty where the layer has no maps.
    """

    label: str
    cue: str
    kind: Kind
    accuracy: float
    places: tuple[tuple[int, int], ...]
    given: Shift
    taken: Shift
    q: float
    layer: str
    channel: int
    pictures: tuple[str, ...]
    shared: float
    heat: tuple[tuple[float, ...], ...]

    @property
    def effect(self) -> float:
        """The probability that the cue brings its class on pictures of others."""
        return self.given.effect

    @property
    def alarm(self) -> bool:
        """Whether predictions follow the cue: an effect beyond chance, and one that matters."""
        return self.q <= LEAST_Q and self.given.low >= LEAST_EFFECT

    def to_dict(self) -> dict[str, Any]:
        """Its fields, with `class` and `effect`."""
        return {"class": self.label, "effect": self.effect} | super().to_dict()


@dataclass(frozen=True)
class Standing(Record):
    """How right a classifier is.

    Attributes:
        n: pictures of the group.
        accuracy: share of them that are right.
        low, high: its 95% interval (Wilson).
    """

    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Correction(Record):
    """A run with its shortcuts corrected, beside the run before.

    Attributes:
        run: the corrected one's folder.
        by: how.
        before, after: of each group of pictures, its standing. `test` has all test pictures; the others are
            test pictures whose cue was changed: taken from an alarm's class, given to the other classes.
        worst_before, worst_after: the group that was least right.
    """

    run: str
    by: By
    before: dict[str, Standing]
    after: dict[str, Standing]
    worst_before: str
    worst_after: str


@dataclass(frozen=True)
class Shortcuts(Record):
    """What `shortcuts` found of a run.

    Attributes:
        candidates: everything asked, the strongest effect first.
        split: that the pictures asked are of.
        corrected: or None.
    """

    candidates: tuple[Candidate, ...]
    split: str
    corrected: Correction | None = None
    made_by: ClassVar[str] = "transferscope shortcuts"

    @property
    def alarms(self) -> tuple[Candidate, ...]:
        """The candidates that raise one."""
        return tuple(one for one in self.candidates if one.alarm)

    def to_dict(self) -> dict[str, Any]:
        """Its fields, and the alarms by themselves."""
        candidates = [one.to_dict() for one in self.candidates]
        return super().to_dict() | {
            "alarms": [one.to_dict() for one in self.alarms],
            "candidates": candidates,
        }
