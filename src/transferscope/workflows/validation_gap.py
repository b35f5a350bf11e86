"""The gap between validation and other pictures, and what is measured of its causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from transferscope.data.cues import NUMBERS, cue_table
from transferscope.data.leakage import has_lookalike, nearest_cosines
from transferscope.data.scan import Picture
from transferscope.errors import DataError
from transferscope.evaluation.gap import (
    ToldApart,
    ValidationGap,
    familiarity_of,
    lookalike_cause,
    telling_cues,
    told_apart,
    validation_gap,
)
from transferscope.evaluation.predictions import Predictions
from transferscope.features.extraction import POOLED, extract
from transferscope.features.probe import fit_probe
from transferscope.workflows.evaluated_pictures import EvaluatedPictures, moved_root
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import Run

_STRENGTHS = (1e-3, 1e-2, 1e-1)  # of the classifier that tells parts apart
_MOST = 3000  # pictures of each part that it is fitted on


@dataclass(frozen=True, eq=False)
class _Part:
    """Features (N, D) and labels (N,) of pictures."""

    features: np.ndarray
    labels: np.ndarray


def explained_gap(
    run: Run,
    sample: EvaluatedPictures,
    validation: Predictions,
    evaluated: Predictions,
    *,
    data: str | Path | None,
    reporter: Reporter,
) -> ValidationGap:
    """The gap, and where chance does not explain it, its causes by the base's features.

    The evaluated pictures take one more pass through the untuned network; the others' features are cached.

    Args:
        run: whose validation and training pictures are meant.
        sample: the evaluated pictures.
        validation: the run's answers to its validation pictures.
        evaluated: its answers to the sample.
        data: where the run's pictures have moved to, or None.
        reporter: is told where the causes cannot be looked for.
    """
    gap = validation_gap(validation, evaluated)
    if gap.by_chance:
        return gap
    of_run = {name: run.split.part(name) for name in ("train", "validation")}
    if tuple(one.path for one in of_run["validation"]) != validation.paths:
        return gap
    root = moved_root(run, of_run["train"], data) or run.root
    files = {name: [root / one.path for one in pictures] for name, pictures in of_run.items()}
    gone = sum(not file.is_file() for some in files.values() for file in some)
    if gone:
        reporter.say(f"causes of the gap are not looked for: {gone} pictures of the run are gone")
        return gap
    with reporter.task("causes of the gap: features") as progress:
        pictures = [*of_run["train"], *of_run["validation"], *sample.pictures]
        found = extract(
            run.base,
            [*files["train"], *files["validation"], *sample.files],
            [one.sha256 for one in pictures],
            precision=run.precision,
            on_progress=progress,
        ).targets[POOLED]
    sizes = [len(of_run["train"]), len(of_run["validation"]), len(sample.files)]
    labels = [_labels(of_run["train"]), validation.labels.numpy(), evaluated.labels.numpy()]
    train, ours, theirs = (
        _Part(features.numpy(), own)
        for features, own in zip(found.split(sizes), labels, strict=True)
    )
    right = validation.right.numpy()
    return replace(
        gap,
        lookalikes=lookalike_cause(_alike(train, ours), _alike(train, theirs), right),
        familiarity=familiarity_of(
            (nearest_cosines(train.features, ours.features), ours.labels),
            (nearest_cosines(train.features, theirs.features), theirs.labels),
            right,
            seed=run.config.seed,
        ),
        told_apart=_told_apart(ours, theirs, run.config.seed),
        cues=_cues(files["validation"], ours, sample.files, theirs, run.config.seed),
    )


def _cues(
    files: Sequence[Path], ours: _Part, others: Sequence[Path], theirs: _Part, seed: int
) -> dict[str, ToldApart]:
    """Which properties of file and picture tell validation from the evaluated pictures."""
    rng = np.random.default_rng(seed)
    rows = [np.sort(rng.permutation(len(some))[:_MOST]) for some in (files, others)]
    table = cue_table([*(files[row] for row in rows[0]), *(others[row] for row in rows[1])])
    part = np.repeat([False, True], [len(some) for some in rows])
    labels = np.concatenate([ours.labels[rows[0]], theirs.labels[rows[1]]])
    return telling_cues(
        {name: table.column(name).astype(np.float64) for name in NUMBERS}, part, labels
    )


def _labels(pictures: Sequence[Picture]) -> np.ndarray:
    return np.array([picture.label for picture in pictures], dtype=np.int64)


def _alike(train: _Part, part: _Part) -> np.ndarray:
    return has_lookalike(train.features, train.labels, part.features, part.labels)


def _told_apart(ours: _Part, theirs: _Part, seed: int) -> ToldApart | None:
    """By a linear classifier on the features, which judges pictures that it was not fitted on."""
    rng = np.random.default_rng(seed)
    parts = []
    for part in (ours, theirs):
        rows = np.sort(rng.permutation(len(part.labels))[:_MOST])
        parts.append((part.features[rows], part.labels[rows]))
    features = torch.from_numpy(np.concatenate([one[0] for one in parts]))
    of_test = torch.tensor([0] * len(parts[0][1]) + [1] * len(parts[1][1]))
    try:
        probe = fit_probe(features, of_test, 2, seed=seed, strengths=_STRENGTHS)
    except DataError:  # it does not converge
        return None
    if probe.held_out is None:
        return None
    scores = (probe.held_out[:, 1] - probe.held_out[:, 0]).double().numpy()
    return told_apart(scores, of_test.numpy() == 1, np.concatenate([one[1] for one in parts]))
