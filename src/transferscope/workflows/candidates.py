"""The candidates of a tuning: the frozen backbone with its fitted head, and what is fine-tuned from there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from transferscope import distributed
from transferscope.activations import Resumed
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.backbones.weights import load_backbone
from transferscope.data.augmentation import augmentation
from transferscope.data.split import Split
from transferscope.errors import InputError
from transferscope.evaluation.calibration import fit_temperature
from transferscope.features.extraction import (
    POOLED,
    View,
    boundary_rows,
    extract,
    planned_bytes,
)
from transferscope.features.probe import Probe, fit_probe
from transferscope.features.store import Rows, cache_budget
from transferscope.training.batches import CachedBatches, FileBatches, Part, frozen_front
from transferscope.training.checkpoints import EpochRow
from transferscope.training.config import HeadName, TuneOptions
from transferscope.training.fit import calibrated_loss, loss_and_top1
from transferscope.training.head_fit import class_weights, fit_mlp_head
from transferscope.training.loggers import Logger
from transferscope.training.loop import plan_boundary
from transferscope.training.recipe import Recipe
from transferscope.workflows.advise import Placed, stage_targets
from transferscope.workflows.kept_heads import keep_mlp, keep_probe, kept_mlp, kept_probe
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import labels_of

DEFAULT_UNFREEZE = 3
"""Stages that `partial` tunes where nothing else is asked for."""


@dataclass(frozen=True, eq=False)
class Job:
    """One tuning: what was asked for, the pretrained network, and who follows along."""

    options: TuneOptions
    source: Classifier
    reporter: Reporter
    loggers: Sequence[Logger] = ()
    began: float = field(default_factory=time.perf_counter)

    def epoch(self, row: EpochRow) -> None:
        """Tells all that follow along of a finished epoch."""
        self.reporter.epoch(row)
        for logger in self.loggers:
            logger.epoch(asdict(row))


@dataclass(frozen=True, eq=False)
class PartFeatures:
    """N pictures of one part of the split: files, sha256, paths, labels int64 (N,), features (N, D)."""

    files: list[Path]
    hashes: list[str]
    names: list[str]
    labels: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """What the frozen backbone gives of the pictures that tuning sees; the test part is not among them.

    Attributes:
        split: every picture with its part.
        train: the training part.
        validation: the validation part.
        cached: how many pictures' features were found in the cache.
    """

    split: Split
    train: PartFeatures
    validation: PartFeatures
    cached: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.split.scan.classes


@dataclass(frozen=True, eq=False)
class Base:
    """The linear head, fitted exactly, and the untuned backbone with it: the fair *before*."""

    probe: Probe
    classifier: Classifier


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way of tuning, done: its classifier, validation logits (N, K) and history."""

    classifier: Classifier
    logits: torch.Tensor
    history: tuple[EpochRow, ...]
    boundary: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Fitted:
    """All candidates of a tuning by name, the probe first; the last one is what was trained."""

    features: Features
    base: Base
    candidates: Mapping[str, Candidate]
    advice: Placed | None


# ---------------------------------------------------------------------------- features, then the fit


def read_features(job: Job, split: Split) -> Features:
    """Features of the training and validation pictures, from the cache where they are in it."""
    parts = [split.part(name) for name in ("train", "validation")]
    files = [[split.scan.file(picture) for picture in part] for part in parts]
    hashes = [[picture.sha256 for picture in part] for part in parts]
    # What the advice is made of comes with the same pass.
    targets = stage_targets(job.source) if job.options.advised else (POOLED,)
    with job.reporter.task("features of the frozen backbone") as progress:
        found = extract(
            job.source,
            [*files[0], *files[1]],
            [*hashes[0], *hashes[1]],
            targets=targets,
            precision=job.options.precision,
            on_progress=progress,
        )
    pooled = found.targets[POOLED].split([len(part) for part in parts])
    train, validation = (
        PartFeatures(files[n], hashes[n], [p.path for p in part], labels_of(part), pooled[n])
        for n, part in enumerate(parts)
    )
    return Features(split, train, validation, found.cached)


def chosen_boundary(source: Classifier, options: TuneOptions) -> str:
    """The last frozen layer that is asked for.

    Raises:
        UnknownName, InputError: no such layer or number of stages, or the layer's output does not
            determine the network's.
    """
    boundary = options.boundary
    if boundary is None:
        stages = min(DEFAULT_UNFREEZE, len(stages_of(source)) - 1)
        return plan_boundary(source, stages if options.unfreeze is None else options.unfreeze)
    Resumed(source.network, boundary, source.example())
    if boundary == source.head or boundary.startswith(f"{source.head}."):
        raise InputError(
            f"--boundary {boundary!r} is the head, so nothing behind it could be tuned; name a layer "
            "before it, or use --strategy probe"
        )
    return boundary


def _weights(job: Job, features: Features) -> torch.Tensor | None:
    """Weights of the classes, where the recipe balances them."""
    balanced = job.options.recipe.balance != "none"
    return class_weights(features.train.labels, len(features.classes)) if balanced else None


def fit_base(job: Job, features: Features) -> Base:
    """The probe of the training pictures and its temperature, and the untuned backbone with it."""
    train, validation = features.train, features.validation
    with job.reporter.task("linear probe") as progress:
        probe = distributed.by_first(
            lambda: (
                kept_probe(job.options.out, train.pooled.device)
                or fit_probe(
                    train.pooled,
                    train.labels,
                    len(features.classes),
                    seed=job.options.seed,
                    class_weights=_weights(job, features),
                    held_out=False,
                )
            )
        )
        keep_probe(job.options.out, probe)
        progress(1, 1)
    classifier = job.source.with_head(probe.weight, probe.bias, features.classes)
    classifier.temperature = fit_temperature(probe.logits(validation.pooled), validation.labels)
    return Base(probe, classifier)


def headed(
    job: Job, features: Features, base: Base, head: HeadName
) -> tuple[Classifier, torch.Tensor, torch.Tensor]:
    """The untuned backbone with a fitted head, and its logits of training and validation."""
    train, validation = features.train, features.validation
    if head == "linear":
        probe = base.probe
        return base.classifier, probe.logits(train.pooled), probe.logits(validation.pooled)
    with job.reporter.task("MLP head") as progress:
        fitted = distributed.by_first(
            lambda: (
                kept_mlp(job.options.out, train.pooled.device)
                or fit_mlp_head(
                    train.pooled,
                    train.labels,
                    len(features.classes),
                    (validation.pooled, validation.labels),
                    class_weights=_weights(job, features),
                    seed=job.options.seed,
                    names=train.names,
                ).head
            )
        )
        keep_mlp(job.options.out, fitted)
        progress(1, 1)
    classifier = base.classifier.with_head_module(fitted, features.classes)
    with torch.inference_mode():
        logits = [fitted(part.pooled.float()) for part in (train, validation)]
    return classifier, logits[0].clone(), logits[1].clone()


def head_candidate(job: Job, features: Features, base: Base) -> Candidate:
    """The frozen backbone with its fitted head."""
    classifier, train, validation = headed(job, features, base, job.options.head)
    labels = features.validation.labels
    row = EpochRow(
        0,
        *loss_and_top1(train, features.train.labels),
        *loss_and_top1(validation, labels),
        calibrated_loss(validation, labels),
        learning_rate=0.0,
        seconds=0.0,
        best=True,
    )
    return Candidate(classifier, validation, (row,))


def random_start(job: Job, features: Features) -> Classifier:
    """The architecture with weights drawn from the seed, and none of the pretrained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.options.seed)
        drawn = load_backbone(
            job.options.backbone,
            weights="random",
            seed=job.options.seed,
            size=job.source.input.size,
        )
        drawn = drawn.to(job.source.device)
        layer = torch.nn.Linear(features.train.pooled.shape[1], len(features.classes))
    head = drawn.with_head(layer.weight.detach(), layer.bias.detach(), features.classes)
    distributed.from_first(head.network.state_dict().values())
    return head


# ---------------------------------------------------------------------------- what the loop works on


def loop_parts(
    job: Job, features: Features, start: Classifier, boundary: str | None, recipe: Recipe
) -> tuple[Part, Part]:
    """Both parts as the loop takes them: from the boundary cache where they fit in it."""
    train, validation = features.train, features.validation
    drawn = augmentation(recipe.augment, flip=recipe.flip)
    views = _views_that_fit(job, features, boundary, recipe) if boundary is not None else 0
    if boundary is None or not views:
        front = frozen_front(job.source, boundary, job.options.precision) if boundary else None
        batches = [
            FileBatches(start, part.files, part.hashes, drawn, recipe.seed, front)
            for part in (train, validation)
        ]
        return Part(batches[0], train.labels, train.names), Part(batches[1], validation.labels)
    rows = _cached(job, validation, boundary, None, "validation pictures")

    @cache
    def view(number: int) -> Rows:
        if drawn.name == "none":
            return _cached(job, train, boundary, None, "training pictures")
        seen = View(drawn, number, recipe.seed)
        return _cached(job, train, boundary, seen, f"augmented view {number}")

    for number in range(views):  # before the first step, so that the loop's times are the loop's
        view(number + 1)
    return (
        Part(CachedBatches(lambda epoch: view((epoch - 1) % views + 1)), train.labels, train.names),
        Part(CachedBatches(lambda epoch: rows), validation.labels),
    )


def _views_that_fit(job: Job, features: Features, boundary: str, recipe: Recipe) -> int:
    """How many views of the training part the cache's budget allows, up to the recipe's number."""
    wanted = 1 if recipe.augment == "none" else min(recipe.views, recipe.epochs)
    once = planned_bytes(job.source, boundary, len(features.train.files))
    judged = planned_bytes(job.source, boundary, len(features.validation.files))
    views = max(0, min(wanted, int((cache_budget() - judged) // once)))
    if views < wanted:
        what = f"{views} views instead of {wanted}" if views else "no view, so all is decoded anew"
        job.reporter.say(
            f"the cache's {cache_budget() / 1e9:.1f} GB hold {what}; a view at {boundary} takes "
            f"{once / 1e9:.1f} GB (TRANSFERSCOPE_CACHE_BUDGET sets the limit in GB)"
        )
    return views


def _cached(job: Job, part: PartFeatures, boundary: str, view: View | None, named: str) -> Rows:
    with job.reporter.task(f"{named} at {boundary}") as progress:
        return boundary_rows(
            job.source,
            part.files,
            part.hashes,
            boundary,
            precision=job.options.precision,
            view=view,
            on_progress=progress,
        )
