"""Sets that are far from a network's source: which settings are tried, and when more epochs are worth it.

Near the source the default recipe is good, and trying others costs more than it brings. Where the
source's features are of little use more has to change, more of it depends on the set, and it takes longer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from transferscope.evaluation.calibration import fit_temperature
from transferscope.records import Record
from transferscope.training.checkpoints import EpochRow
from transferscope.training.search import Settings

FAR = 2 / 3
"""Transfer gain below which a set is far: a third of the way is left to what tuning learns. A convention."""

UNBALANCED = 3
"""Pictures of the largest class for one of the smallest, from which balancing is tried."""

FASTER = 3
"""What the learning rate is multiplied by in a trial: half an order of magnitude."""

LARGER = 1.3
"""What the side of the input is multiplied by in a trial, rounded to whole steps of 32 pixels."""

MOST_EPOCHS = 48
"""No course is longer."""

_STEP = 32  # pixels: what most networks divide their input by
_LEARNED = 0.99  # of the training pictures right: further epochs have little left to learn from


@dataclass(frozen=True)
class Change(Record):
    """One setting that was changed in a short trial, and what that did on the same validation pictures.

    Attributes:
        what: the setting and its value.
        fall: by how much the mean calibrated loss fell, in nats.
        error: standard error of `fall`, over pictures.
        kept: whether it fell by more than that.
    """

    what: str
    fall: float
    error: float
    kept: bool

    @property
    def sentence(self) -> str:
        """What was tried and found."""
        verdict = "kept" if self.kept else "left as it was"
        return f"{self.what}: loss {-self.fall:+.3f} (standard error {self.error:.3f}), {verdict}"


def larger_side(size: tuple[int, int]) -> int:
    """Side in pixels of the larger square that is tried for an input (height, width)."""
    return max(max(size) + _STEP, round(LARGER * max(size) / _STEP) * _STEP)


def variants(
    settings: Settings, labels: torch.Tensor, asked: Collection[str] = ()
) -> list[tuple[str, Settings]]:
    """What is tried one after the other, in words and as a change of these settings.

    Args:
        settings: what a trial would do without a change.
        labels: int64 (N,), of the training pictures.
        asked: names of settings that stay as they are.
    """
    rate = FASTER * settings.learning_rate
    found = [
        (f"learning rate {rate:.2g}", replace(settings, learning_rate=rate)),
        ("BatchNorm statistics of these pictures", replace(settings, batch_norm="train")),
        ("augmentation strong", replace(settings, augment="strong")),
    ]
    counts = torch.bincount(labels)
    counts = counts[counts > 0]
    if int(counts.max()) >= UNBALANCED * int(counts.min()):
        found.append(("classes weighted by their size", replace(settings, balance="weights")))
    own = settings.to_dict()
    changed = [{n for n, v in one.to_dict().items() if v != own[n]} for _, one in found]
    return [one for one, names in zip(found, changed, strict=True) if names - {*asked}]


def with_change(settings: Settings, before: Settings, after: Settings) -> Settings:
    """`settings` with what differs between two others."""
    old, new = before.to_dict(), after.to_dict()
    return replace(settings, **{name: new[name] for name in new if new[name] != old[name]})


def picture_losses(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Cross-entropy in nats (N,) at the temperature that makes its mean least."""
    calibrated = logits / fit_temperature(logits, labels, least=1)
    return functional.cross_entropy(calibrated, labels, reduction="none").double().numpy()


def compared(what: str, before: Sequence[float], after: Sequence[float]) -> Change:
    """Whether a change is kept: the loss must fall by more than its standard error over pictures.

    Args:
        what: the change in words.
        before, after: losses (N,) of the same pictures.

    Reference: Breiman et al. 1984, the rule of one standard error: the simpler of two that are not told apart.
    """
    falls = np.asarray(before, dtype=float) - np.asarray(after, dtype=float)
    error = float(falls.std(ddof=1) / np.sqrt(len(falls))) if len(falls) > 1 else float("inf")
    return Change(what, float(falls.mean()), error, bool(falls.mean() > error))


def settled(history: Sequence[EpochRow]) -> bool:
    """Whether more epochs would bring little: validation was best early, or training has learned it all."""
    last, best = history[-1], min(history, key=lambda row: row.calibrated_loss)
    learned = last.train_top1 is not None and last.train_top1 >= _LEARNED
    return learned or best.epoch <= 0.75 * last.epoch
