"""How channels of a run's networks answer its pictures: from the boundary cache where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.backbones.classifier import Classifier
from transferscope.comparison.change import Responses
from transferscope.data.scan import Picture
from transferscope.errors import DataError
from transferscope.features.exemplars import channel_responses, drawn_sample
from transferscope.features.extraction import boundary_rows
from transferscope.features.responses import BoundaryRows, resumed_responses
from transferscope.features.store import Rows
from transferscope.images import InputSpec, as_float
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import Run, files_of, labels_of

ENOUGH = 200
"""Held-out pictures below which a comparison says that it rests on few."""


@dataclass(frozen=True, eq=False)
class PictureRows:
    """Files as normalised pictures (n, C, H, W), decoded when they are asked for."""

    files: Sequence[Path]
    spec: InputSpec

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        pictures = torch.stack([self.spec.load(self.files[i]) for i in chosen.tolist()])
        return self.spec.normalise(as_float(pictures))


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures of a run, and what lies below the freeze boundary for them.

    Attributes:
        split: "train", "validation" or "test".
        pictures: N of them.
        files: where they are.
        boundary: the layer whose activations `rows` are; None: nothing is shared by all networks, and
            responses are computed from the files.
        rows: of the N pictures, or None.
    """

    split: str
    pictures: tuple[Picture, ...]
    files: tuple[Path, ...]
    boundary: str | None
    rows: Rows | None

    def rows_of(self, spec: InputSpec) -> BoundaryRows:
        """The activations at the boundary; where there is none, the pictures as a network takes them."""
        return self.rows if self.rows is not None else PictureRows(self.files, spec)

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 (N,)."""
        found: NDArray[np.int64] = labels_of(self.pictures).numpy()
        return found

    def responses(
        self, classifier: Classifier, layers: Sequence[str], reporter: Reporter, name: str
    ) -> dict[str, torch.Tensor]:
        """Layer -> float32 (N, channels): spatial means of every channel in a network.

        Args:
            classifier: with the run's weights up to the boundary.
            layers: behind the boundary.
            reporter: hears of the progress.
            name: of the network.
        """
        with reporter.task(f"{self.split} pictures through {name}") as progress:
            if self.boundary is None or self.rows is None:
                return channel_responses(classifier, self.files, layers, on_progress=progress)
            return resumed_responses(
                classifier, self.boundary, self.rows, layers, on_progress=progress
            )


def held_out_split(run: Run) -> str:
    """The pictures that nothing was chosen or fitted on, where there are any: "test", else "validation"."""
    return "test" if run.split.part("test") else "validation"


def read_part(
    run: Run,
    split: str,
    reporter: Reporter,
    *,
    boundary: str | None,
    sampled: bool = False,
    without: frozenset[str] = frozenset(),
) -> Part:
    """The pictures of a split with the activations of the boundary, which come from the run's cache.

    Args:
        run: finished.
        split: "train", "validation" or "test".
        reporter: hears of the progress.
        boundary: a layer up to which all networks are alike, or None.
        sampled: whether a seeded thousand of them is enough.
        without: hashes of pictures that are left out.

    Raises:
        DataError: pictures have changed or gone, or none is left.
    """
    files, pictures = files_of(run, split, None)
    chosen = drawn_sample(len(files), run.config.seed) if sampled else range(len(files))
    chosen = [index for index in chosen if pictures[index].sha256 not in without]
    if not chosen:
        raise DataError(
            f"the second model was tuned on all {len(files)} {split} pictures of {str(run.path)!r}, so "
            "there are none that both are new to; compare runs that have one split, tuned with --split-from"
        )
    files, pictures = [files[i] for i in chosen], tuple(pictures[i] for i in chosen)
    rows = None
    if boundary is not None:
        with reporter.task(f"{split} pictures up to {boundary}") as progress:
            hashes = [picture.sha256 for picture in pictures]
            rows = boundary_rows(
                run.base,
                files,
                hashes,
                boundary,
                precision=run.precision,
                on_progress=progress,
            )
    return Part(split, tuple(pictures), tuple(files), boundary, rows)


def as_arrays(responses: Mapping[str, torch.Tensor]) -> Responses:
    """Responses as the witnesses take them, float64."""
    return {layer: values.double().numpy() for layer, values in responses.items()}
