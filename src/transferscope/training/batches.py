"""Where the loop's batches come from: the boundary cache, or files that are decoded as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch

from transferscope.acceleration.folding import folded
from transferscope.acceleration.precision import Precision, autocast
from transferscope.activations import TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.data.augmentation import Augmentation
from transferscope.data.loading import in_order
from transferscope.images import as_float

_AHEAD = 3
"""Batches made ready while one is worked on."""


class Rows(Protocol):
    """Activations of N pictures, of which a batch can be taken: a tensor, or a memory-mapped cache."""

    def __getitem__(self, chosen: torch.Tensor, /) -> torch.Tensor: ...


class Batches(Protocol):
    """Makes batches of one split's pictures, as the tuned part of the network takes them."""

    def of(self, epoch: int, chunks: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """A float tensor (n, ...) for each chunk, int64 (n,) of picture numbers, in order.

        Epoch 0 is how prediction sees the pictures; 1, 2, ... is how training does in that epoch.
        """


@dataclass(frozen=True, eq=False)
class CachedBatches:
    """Batches from activations that are stored already.

    Attributes:
        rows: the stored activations of an epoch; called once an epoch.
    """

    rows: Callable[[int], Rows]

    def of(self, epoch: int, chunks: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """See `Batches`."""
        rows = self.rows(epoch)
        with closing(in_order(rows.__getitem__, chunks, workers=1, ahead=_AHEAD)) as batches:  # type: ignore[type-var]
            yield from batches


@dataclass(frozen=True, eq=False)
class FileBatches:
    """Batches from files, decoded and augmented anew in every epoch, by all cores.

    Attributes:
        classifier: owns the input; unchanged.
        files: N pictures.
        hashes: sha256 of each, the picture's identity for augmentation.
        augmentation: what training does to them.
        seed: with epoch and identity it decides what augmentation draws.
        front: the frozen part of the network; None: all of it is tuned.
    """

    classifier: Classifier
    files: Sequence[Path]
    hashes: Sequence[str]
    augmentation: Augmentation
    seed: int
    front: Callable[[torch.Tensor], torch.Tensor] | None = None

    def of(self, epoch: int, chunks: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """See `Batches`."""
        spec = self.classifier.input

        def load(index: int) -> torch.Tensor:
            if epoch == 0:
                return spec.load(self.files[index])
            return self.augmentation.load(
                self.files[index], spec, seed=self.seed, view=epoch, identity=self.hashes[index]
            )

        indices = chain.from_iterable(chunk.tolist() for chunk in chunks)
        ahead = _AHEAD * max((len(chunk) for chunk in chunks), default=1)
        with closing(in_order(load, indices, ahead=ahead)) as pictures:  # type: ignore[type-var]
            for chunk in chunks:
                if not len(chunk):  # a process that has no part of the last batch
                    yield torch.empty(0)
                    continue
                batch = torch.stack([next(pictures) for _ in range(len(chunk))])
                ready = spec.normalise(as_float(batch.to(self.classifier.device)))
                yield self.front(ready) if self.front else ready


def frozen_front(
    classifier: Classifier, boundary: str, precision: Precision
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The part of a network up to a boundary, as a function of normalised pictures (N, C, H, W).

    It gives what the boundary cache stores: the folded network's activations, rounded to half
    precision where they fit in it.
    """
    network = folded(classifier.network, classifier.example()).to(memory_format=torch.channels_last)
    forward = TruncatedForward(network, [boundary], classifier.example())

    def front(pictures: torch.Tensor) -> torch.Tensor:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(classifier.device, precision):
            activation = forward(pictures)[boundary].float()
        half = activation.half()
        return half.float() if bool(torch.isfinite(half).all()) else activation

    return front


@dataclass(frozen=True, eq=False)
class Part:
    """One split, as the loop works through it.

    Attributes:
        batches: see `Batches`.
        labels: int64 (N,).
        names: of the N pictures, for errors that name a batch's files; may be empty.
    """

    batches: Batches
    labels: torch.Tensor
    names: Sequence[str] = ()

    @classmethod
    def of_tensor(
        cls, activations: torch.Tensor, labels: torch.Tensor, names: Sequence[str] = ()
    ) -> Part:
        """A part whose activations (N, ...) are in memory, the same in every epoch."""
        return cls(CachedBatches(lambda epoch: activations), labels, names)

    def __len__(self) -> int:
        return len(self.labels)
