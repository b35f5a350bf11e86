"""Where a fit stands, on disk: the last two checkpoints, each complete or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from transferscope.errors import RunError, WeightsError
from transferscope.files import read_tensors, write_tensors


@dataclass(frozen=True)
class EpochRow:
    """One line of history.csv. Epoch 0 is the start: the fitted head on the untuned backbone.

    Losses are cross-entropy in nats without label smoothing; training figures are means over the
    epoch's steps, in the mode that training sees, and None for epoch 0, which has no steps.
    `calibrated_loss` is the validation loss at the temperature that makes it least, which a classifier
    is given in the end: it decides which epoch is the best. By the plain loss a network that is right
    more often, but too sure or not sure enough of it, would look worse than it will be.
    """

    epoch: int
    train_loss: float | None
    train_top1: float | None
    validation_loss: float
    validation_top1: float
    calibrated_loss: float
    learning_rate: float
    seconds: float
    best: bool = False


def history_rows(history: Sequence[EpochRow]) -> Iterator[tuple[Any, ...]]:
    """Rows of history.csv, in the order of `EpochRow`'s fields; an empty cell where there is none."""
    for row in history:
        values = asdict(row).values()
        yield tuple("" if v is None else int(v) if isinstance(v, bool) else v for v in values)


@dataclass
class Progress:
    """Where a fit stands. All of its randomness is a function of these numbers and the seed.

    Attributes:
        epoch: in which it is (1, 2, ...); 0 before the start has been evaluated.
        step: steps done in this epoch.
        loss: sum of the epoch's losses over its pictures so far.
        right: how many of them were classified right.
        seconds: spent on the epoch before the last interruption.
        history: of finished epochs.
        best: the epoch with the lowest calibrated validation loss.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0
    history: list[EpochRow] = field(default_factory=list)
    best: int = 0


@dataclass(frozen=True, eq=False)
class Saved:
    """What a checkpoint holds: progress, and tensors by kind (now, best, optimizer, average)."""

    progress: Progress
    kinds: Mapping[str, dict[str, torch.Tensor]]
    scale: Mapping[str, Any]


class Journal:
    """The checkpoints of one fit in a folder.

    Args:
        folder: None: nothing is saved.
        identity: JSON-able; what the fit depends on. A checkpoint of another fit is refused.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]):
        self.folder = folder
        self._identity = dict(identity)

    def save(self, saved: Saved, *, name: int) -> None:
        """Writes one checkpoint and removes all but the last two.

        Args:
            name: steps done in all, which orders the checkpoints; of one with the same number the
                later stays.
        """
        if self.folder is None:
            return
        tensors = {
            f"{kind}/{key}": tensor
            for kind, tensors in saved.kinds.items()
            for key, tensor in tensors.items()
        }
        metadata = {
            "identity": self._identity,
            "progress": asdict(saved.progress),
            "scale": dict(saved.scale),
        }
        write_tensors(self.folder / f"step-{name:09d}.safetensors", tensors, metadata)
        for old in self._found()[:-2]:
            old.unlink(missing_ok=True)

    def load(self) -> Saved | None:
        """The newest whole checkpoint; None if there is none.

        Raises:
            RunError: it is of another fit.
        """
        for path in reversed(self._found()):
            try:
                tensors, metadata = read_tensors(path)
            except WeightsError:
                continue  # damaged: the one before it is whole
            if metadata.get("identity") != self._identity:
                raise RunError(
                    f"{str(path)!r} was made with other settings than these; repeat the options of "
                    "the first call, or choose another --out"
                )
            kinds: dict[str, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                kind, _, key = name.partition("/")
                kinds.setdefault(kind, {})[key] = tensor
            return Saved(_progress_of(metadata["progress"]), kinds, metadata["scale"])
        return None

    def _found(self) -> list[Path]:
        return _saved_in(self.folder) if self.folder else []


def last_progress(folder: Path) -> Progress | None:
    """Where the fit whose checkpoints lie in a folder stood last; None where that is not known.

    Only the heads of files are read: cheap enough to ask every second, while the fit goes on.
    """
    from safetensors import SafetensorError, safe_open

    for path in reversed(_saved_in(folder)):
        try:
            with safe_open(str(path), framework="pt") as file:
                values = json.loads((file.metadata() or {})["progress"])
            return _progress_of(values)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue  # being replaced, or of another version
    return None


def _progress_of(values: Mapping[str, Any]) -> Progress:
    history = [EpochRow(**row) for row in values["history"]]
    return Progress(**{**values, "history": history})


def _saved_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
