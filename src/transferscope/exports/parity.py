"""Whether an exported network answers as the classifier that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from transferscope.errors import InputError, OutputError, WeightsError
from transferscope.images import InputSpec, as_float
from transferscope.records import Record

LIMIT = 1e-4
"""Largest difference of a probability at which an export is kept."""

TIE = 1e-6
"""Two classes whose probabilities differ by less are both the most probable one: fp32 cannot say more."""

FAMILIARITY_LIMIT = 1e-6
"""Likewise of a familiarity, beyond rounding: it is a count over a count."""

Probabilities: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Pictures float32 (N, C, H, W) in [0, 1] to probabilities (N, K), on the CPU."""

Difference: TypeAlias = Callable[[torch.Tensor], float]
"""Pictures likewise to the largest difference of a familiarity between classifier and export."""


@dataclass(frozen=True)
class Parity(Record):
    """How closely an exported network answers as its classifier.

    Attributes:
        n: pictures compared.
        largest_difference: of any probability of any picture.
        same_top1: pictures with the same most probable class.
        familiarity: the largest difference of a familiarity beyond what rounding of its score explains; None:
            the export has no such output.
    """

    n: int
    largest_difference: float
    same_top1: int
    familiarity: float | None = None

    @property
    def holds(self) -> bool:
        """Whether every probability is within `LIMIT`, every picture's class and familiarity the same."""
        same = self.same_top1 == self.n and (self.familiarity or 0) <= FAMILIARITY_LIMIT
        return same and self.largest_difference <= LIMIT


def measure_parity(
    reference: Probabilities,
    exported: Probabilities,
    batches: Iterable[torch.Tensor],
    *,
    familiarity: Difference | None = None,
) -> Parity:
    """Compares the answers on every picture.

    The first batch is also given picture by picture and twice over in one batch, so that batches of
    one and of several are compared whatever `batches` holds.

    Args:
        reference: the classifier's.
        exported: the file's.
        batches: pictures (n, C, H, W), uint8 or float in [0, 1].
        familiarity: of both sides, where the export has that output.

    Raises:
        InputError: no pictures.
        WeightsError: the classifier's own answers are not numbers.
    """
    n = same = 0
    largest, strange = 0.0, 0.0
    for batch in batches:
        pictures = batch if batch.is_floating_point() else as_float(batch)
        wanted = reference(pictures)
        if not torch.isfinite(wanted).all():
            raise WeightsError(
                "the network answers with NaN or infinity, so there is nothing to export; restore its "
                "weights, or tune it again"
            )
        answers = [exported(pictures)]
        if not n:
            answers.append(torch.cat([exported(one) for one in pictures.split(1)]))
            answers.append(exported(torch.cat([pictures, pictures]))[len(pictures) :])
        got = torch.stack(answers)
        largest = float((got - wanted).abs().max().clamp_min(largest))
        said = wanted.expand_as(got).gather(-1, got.argmax(dim=-1, keepdim=True)).squeeze(-1)
        agrees = (wanted.max(dim=-1).values - said < TIE).all(dim=0)
        n, same = n + len(pictures), same + int(agrees.sum())
        if familiarity is not None:
            strange = max(strange, familiarity(pictures))
        if largest != largest:  # NaN: more pictures cannot make it better
            break
    if not n:
        raise InputError("an export is checked on pictures, and there are none; give at least one")
    return Parity(n, largest, same, None if familiarity is None else strange)


def check_parity(
    reference: Probabilities,
    exported: Probabilities,
    batches: Iterable[torch.Tensor],
    *,
    familiarity: Difference | None = None,
) -> Parity:
    """`measure_parity`, and an error where it does not hold.

    Raises:
        OutputError: a probability is off by more than `LIMIT`, or a picture's class or familiarity is another.
        InputError, WeightsError: see `measure_parity`.
    """
    parity = measure_parity(reference, exported, batches, familiarity=familiarity)
    if not parity.holds:
        raise OutputError(
            f"the exported network does not answer as the classifier does: on {parity.n} pictures "
            f"{parity.n - parity.same_top1} have another class and a probability differs by "
            f"{parity.largest_difference:.2g} (at most {LIMIT:g} is accepted)"
            + (f", a familiarity by {parity.familiarity:.2g}" if parity.familiarity else "")
            + "; nothing was kept: try another --format"
        )
    return parity


def noise(spec: InputSpec, *, n: int = 4) -> list[torch.Tensor]:
    """A batch of seeded noise in [0, 1], for checks where no pictures are at hand."""
    return [torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(0))]
