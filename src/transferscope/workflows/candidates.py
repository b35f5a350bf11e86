"""What a tuning fits: the probe, a head, and whatever is fine-tuned from there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from transferscope import distributed
from transferscope.activations import Resumed
from transferscope.backbones import Classifier, load_backbone, stages_of
from transferscope.data import Picture, Split
from transferscope.data.augmentation import augmentation
from transferscope.errors import InputError
from transferscope.evaluation import fit_temperature
from transferscope.features import (
    POOLED,
    Probe,
    Rows,
    View,
    boundary_rows,
    cache_budget,
    extract,
    fit_probe,
    mean_of,
    planned_bytes,
)
from transferscope.report import lr_figure, search_figure
from transferscope.storage import read_json, write_csv, write_json, write_text
from transferscope.training import (
    CachedBatches,
    EpochRow,
    FileBatches,
    HeadName,
    Part,
    Recipe,
    Settings,
    Trial,
    adapted,
    best_trial,
    calibrated_loss,
    class_weights,
    draw_settings,
    find_rate,
    fine_tune,
    fit_mlp_head,
    frozen_front,
    loss_and_top1,
    plan_boundary,
    short,
)
from transferscope.workflows.advising import Placed, Sample, place
from transferscope.workflows.run import Config, Reporter, labels_of

DEFAULT_UNFREEZE = 3
"""Stages that `partial` tunes where nothing else is asked for."""

SEARCHED_STAGES = (2, 3, 4)
"""Numbers of tuned stages that a search chooses from, besides the one it begins with."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way of tuning, done: its classifier, validation logits (N, K) and history."""

    classifier: Classifier
    logits: torch.Tensor
    history: tuple[EpochRow, ...]
    boundary: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Fitting:
    """The pictures, the pretrained network and the folder of one tuning, and what is fitted of them.

    Attributes:
        out: the run folder.
        config: what was asked for.
        source: the pretrained network.
        split: every picture with its part.
        reporter: hears of the progress.
    """

    out: Path
    config: Config
    source: Classifier
    split: Split
    reporter: Reporter

    # ------------------------------------------------------------------ pictures

    @cached_property
    def parts(self) -> dict[str, tuple[Picture, ...]]:
        """The pictures that tuning sees; those of the test split are not among them."""
        return {name: self.split.part(name) for name in ("train", "validation")}

    @cached_property
    def labels(self) -> dict[str, torch.Tensor]:
        """int64 (N,) by part."""
        return {name: labels_of(part) for name, part in self.parts.items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.split.scan.classes

    def _files(self, part: str) -> tuple[list[Path], list[str]]:
        pictures = self.parts[part]
        return [self.split.scan.file(p) for p in pictures], [p.sha256 for p in pictures]

    @cached_property
    def pooled(self) -> tuple[dict[str, torch.Tensor], int]:
        """Pooled features (N, D) by part, and how many pictures' were found in the cache."""
        (files, hashes), (more, others) = self._files("train"), self._files("validation")
        targets = [POOLED]
        if self.config.advised:  # what the advice is made of comes with the same pass
            targets += [mean_of(stage) for stage in stages_of(self.source)]
        with self.reporter.task("features of the frozen backbone") as progress:
            found = extract(
                self.source,
                [*files, *more],
                [*hashes, *others],
                targets=targets,
                precision=self.config.precision,
                on_progress=progress,
            )
        features, count = found.targets[POOLED], len(files)
        return {"train": features[:count], "validation": features[count:]}, found.cached

    # ------------------------------------------------------------------ heads

    @cached_property
    def probe(self) -> Probe:
        """The linear head, fitted exactly."""
        features, _ = self.pooled
        with self.reporter.task("linear probe") as progress:
            weighted = self.config.recipe.balance != "none"
            probe = fit_probe(
                features["train"],
                self.labels["train"],
                len(self.classes),
                seed=self.config.seed,
                class_weights=self._class_weights() if weighted else None,
            )
            distributed.from_first([probe.weight, probe.bias])
            progress(1, 1)
        return probe

    @cached_property
    def base(self) -> Classifier:
        """The untuned backbone with the probe for a head: the fair *before*."""
        base = self.source.with_head(self.probe.weight, self.probe.bias, self.classes)
        logits = self.probe.logits(self.pooled[0]["validation"])
        base.temperature = fit_temperature(logits, self.labels["validation"])
        return base

    def headed(self, head: HeadName) -> tuple[Classifier, torch.Tensor, torch.Tensor]:
        """The untuned backbone with a fitted head, and its logits of training and validation."""
        features, _ = self.pooled
        if head == "linear":
            logits = {name: self.probe.logits(values) for name, values in features.items()}
            return self.base, logits["train"], logits["validation"]
        with self.reporter.task("MLP head") as progress:
            weighted = self.config.recipe.balance != "none"
            fitted = fit_mlp_head(
                features["train"],
                self.labels["train"],
                len(self.classes),
                (features["validation"], self.labels["validation"]),
                class_weights=self._class_weights() if weighted else None,
                seed=self.config.seed,
                names=[picture.path for picture in self.parts["train"]],
            )
            distributed.from_first(fitted.head.state_dict().values())
            progress(1, 1)
        classifier = self.base.with_head_module(fitted.head, self.classes)
        return classifier, fitted.logits(features["train"]), fitted.logits(features["validation"])

    def head_candidate(self) -> Candidate:
        """The frozen backbone with its fitted head."""
        classifier, train, validation = self.headed(self.config.head)
        row = EpochRow(
            0,
            *loss_and_top1(train, self.labels["train"]),
            *loss_and_top1(validation, self.labels["validation"]),
            calibrated_loss(validation, self.labels["validation"]),
            learning_rate=0.0,
            seconds=0.0,
            best=True,
        )
        return Candidate(classifier, validation, (row,))

    def _class_weights(self) -> torch.Tensor:
        return class_weights(self.labels["train"], len(self.classes))

    # ------------------------------------------------------------------ fine-tuning

    @cached_property
    def advice(self) -> Placed:
        """What the measurements advise; process 0's, where there are several."""
        sample = Sample.draw(self.split, self.config.seed, self.config.precision, self.reporter)
        placed = distributed.gathered(place(self.source, sample))[0]
        self.reporter.say(f"advice: {placed.strategy}; {placed.cut.reason}")
        return placed

    def tuned_behind(self, boundary: str) -> Candidate:
        """The network tuned behind a boundary, from its fitted head; after a search if asked for."""
        settings = Settings(
            head=self.config.head,
            boundary=boundary,
            learning_rate=self.config.recipe.learning_rate,
            augment=self.config.recipe.augment,
        )
        details: dict[str, Any] = {}
        if self.config.search:
            trials, settings = self._search(settings)
            details["search"] = [trial.to_dict() for trial in trials]
            details["settings"] = settings.to_dict()
        start, _, _ = self.headed(settings.head)
        recipe = settings.recipe(self.config.recipe)
        return self._fit(start, settings.boundary, recipe, details)

    def whole(self) -> Candidate:
        """The whole network tuned, from its fitted head."""
        start, _, _ = self.headed(self.config.head)
        recipe = self.config.recipe
        if self.config.strategy == "auto":
            recipe = adapted(recipe, "full")
        return self._fit(start, None, recipe, {})

    def from_scratch(self) -> Candidate:
        """The control: the whole network from random weights."""
        return self._fit(self._random(), None, self.config.recipe, {})

    def _random(self) -> Classifier:
        """The architecture with weights drawn from the seed, and none of the pretrained ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            drawn = load_backbone(self.config.backbone, weights="random").to(self.source.device)
            layer = torch.nn.Linear(self.probe.weight.shape[1], len(self.classes))
        head = drawn.with_head(layer.weight.detach(), layer.bias.detach(), self.classes)
        distributed.from_first(head.network.state_dict().values())
        return head

    def _fit(
        self, start: Classifier, boundary: str | None, recipe: Recipe, details: dict[str, Any]
    ) -> Candidate:
        train, validation = self._loaded(start, boundary, recipe)
        if self.config.find_rate:
            recipe = self._found_rate(start, boundary, train, recipe)
            details["learning_rate"] = recipe.learning_rate
        with self.reporter.task("fine-tuning") as progress:
            tuned = fine_tune(
                start,
                boundary,
                train,
                validation,
                recipe=recipe,
                precision=self.config.precision,
                checkpoints=self.out / "checkpoints",
                keep_every=self.config.keep_every,
                on_keep=self._keep,
                on_epoch=self.reporter.epoch,
                on_step=progress,
            )
        details |= {"share": tuned.share, "recipe": asdict(recipe)}
        return Candidate(
            tuned.classifier, tuned.validation_logits, tuned.history, boundary, details
        )

    def _keep(self, epoch: int, classifier: Classifier) -> None:
        classifier.save(self.out / "timeline" / f"epoch-{epoch:04d}.safetensors")

    def _found_rate(
        self, start: Classifier, boundary: str | None, train: Part, recipe: Recipe
    ) -> Recipe:
        """The recipe with the rate that the range test suggests; a resumed run keeps the first's."""
        table = self.out / "learning_rate.json"
        if not table.is_file():
            with self.reporter.task("learning rate range test") as progress:
                test = find_rate(
                    start,
                    boundary,
                    train,
                    recipe=recipe,
                    precision=self.config.precision,
                    on_step=progress,
                )
            if distributed.is_first():
                picture = lr_figure(
                    test.rates,
                    test.losses,
                    test.suggestion if test.found else None,
                    smoothed=test.smoothed,
                )
                write_text(self.out / "learning_rate.svg", picture)
                rows = zip(test.rates, test.losses, test.smoothed, strict=True)
                write_csv(self.out / "learning_rate.csv", ("rate", "loss", "smoothed"), rows)
                write_json(table, {"suggestion": test.suggestion, "found": test.found})
            distributed.wait_for_all()
        told = read_json(table)
        rate = float(told["suggestion"])
        why = "from the range test" if told["found"] else "the recipe's: the loss fell at no rate"
        self.reporter.say(f"learning rate {rate:.2g}, {why}; see {table.with_suffix('.svg')}")
        return replace(recipe, learning_rate=rate)

    # ------------------------------------------------------------------ what the loop is fed with

    def _loaded(self, start: Classifier, boundary: str | None, recipe: Recipe) -> tuple[Part, Part]:
        """Both splits as the loop takes them: from the boundary cache where they fit in it."""
        views = self._views_that_fit(boundary, recipe)
        names = [picture.path for picture in self.parts["train"]]
        if boundary is not None and views:
            rows = self._cached(boundary, "validation", None, "validation pictures")
            looks = _Looks(self, boundary, recipe, views)
            looks.fill()
            train = Part(CachedBatches(looks.of), self.labels["train"], names)
            validation = Part(CachedBatches(lambda epoch: rows), self.labels["validation"])
            return train, validation
        front = None
        if boundary is not None:
            front = frozen_front(self.source, boundary, self.config.precision)
        drawn = augmentation(recipe.augment, flip=recipe.flip)

        def batches(part: str) -> FileBatches:
            return FileBatches(start, *self._files(part), drawn, recipe.seed, front)

        return (
            Part(batches("train"), self.labels["train"], names),
            Part(batches("validation"), self.labels["validation"]),
        )

    def _views_that_fit(self, boundary: str | None, recipe: Recipe) -> int:
        """How many views of the training split the cache's budget allows, up to the recipe's number."""
        if boundary is None:
            return 0
        wanted = 1 if recipe.augment == "none" else min(recipe.views, recipe.epochs)
        once = planned_bytes(self.source, boundary, len(self.parts["train"]))
        left = cache_budget() - planned_bytes(self.source, boundary, len(self.parts["validation"]))
        views = max(0, min(wanted, int(left // once)))
        if views < wanted:
            what = (
                f"{views} views instead of {wanted}" if views else "no view, so all is decoded anew"
            )
            self.reporter.say(
                f"the cache's {cache_budget() / 1e9:.1f} GB hold {what}; a view at {boundary} takes "
                f"{once / 1e9:.1f} GB (TRANSFERSCOPE_CACHE_BUDGET sets the limit in GB)"
            )
        return views

    def _cached(self, boundary: str, part: str, view: View | None, named: str) -> Rows:
        files, hashes = self._files(part)
        with self.reporter.task(f"{named} at {boundary}") as progress:
            return boundary_rows(
                self.source,
                files,
                hashes,
                boundary,
                precision=self.config.precision,
                view=view,
                on_progress=progress,
            )

    # ------------------------------------------------------------------ search

    def _search(self, first: Settings) -> tuple[list[Trial], Settings]:
        """All trials, each saved as it ends and found again by a resumed run, and the best settings."""
        boundaries = [first.boundary]
        for stages in SEARCHED_STAGES:
            layer = plan_boundary(self.source, min(stages, len(stages_of(self.source)) - 1))
            boundaries += [layer] if layer not in boundaries else []
        drawn = draw_settings(first, boundaries, count=self.config.search, seed=self.config.seed)
        trials = []
        for number, settings in enumerate(drawn):
            file = self.out / "search" / f"trial-{number:03d}.json"
            if not file.is_file():
                trial = self._try(number, settings)
                if distributed.is_first():
                    write_json(file, trial.to_dict())
                distributed.wait_for_all()
            trials.append(Trial.from_dict(read_json(file)))
            self.reporter.say(_told(trials[-1], len(drawn)))
        best = best_trial(trials)
        rows = [
            {
                "trial": trial.number,
                "settings": trial.settings.to_dict(),
                "top1": trial.top1,
                "loss": trial.loss,
                "seconds": trial.seconds,
                "status": "finished",
                "chosen": trial is best,
            }
            for trial in trials
        ]
        if distributed.is_first():
            write_text(self.out / "search" / "search.svg", search_figure(rows))
        return trials, best.settings

    def _try(self, number: int, settings: Settings) -> Trial:
        began = time.perf_counter()
        start, _, _ = self.headed(settings.head)
        recipe = settings.recipe(short(self.config.recipe))
        train, validation = self._loaded(start, settings.boundary, recipe)
        with self.reporter.task(f"trial {number}") as progress:
            tuned = fine_tune(
                start,
                settings.boundary,
                train,
                validation,
                recipe=recipe,
                precision=self.config.precision,
                on_step=progress,
            )
        loss, top1 = loss_and_top1(tuned.validation_logits, self.labels["validation"])
        return Trial(number, settings, top1, loss, time.perf_counter() - began)


class _Looks:
    """The training pictures' activations at a boundary, by epoch: augmented views take turns."""

    def __init__(self, fitting: Fitting, boundary: str, recipe: Recipe, views: int):
        self._fitting, self._boundary, self._views = fitting, boundary, views
        self._seed = recipe.seed
        self._augmentation = augmentation(recipe.augment, flip=recipe.flip)
        self._opened: dict[int, Rows] = {}

    def fill(self) -> None:
        """Computes all views before the first step, so that the loop's times are the loop's."""
        for epoch in range(1, self._views + 1):
            self.of(epoch)

    def of(self, epoch: int) -> Rows:
        """The rows of an epoch (1, 2, ...)."""
        number = (epoch - 1) % self._views + 1
        if number not in self._opened:
            plain = self._augmentation.name == "none"
            named = "training pictures" if plain else f"augmented view {number}"
            view = None if plain else View(self._augmentation, number, self._seed)
            self._opened[number] = self._fitting._cached(self._boundary, "train", view, named)
        return self._opened[number]


def chosen_boundary(source: Classifier, config: Config) -> str:
    """The last frozen layer that a configuration asks for.

    Raises:
        UnknownName, InputError: no such layer or number of stages, both are given, or the layer's
            output does not determine the network's.
    """
    if config.boundary is not None and config.unfreeze is not None:
        raise InputError(
            f"--boundary {config.boundary!r} and --unfreeze {config.unfreeze} are both given; give one"
        )
    if config.boundary is not None:
        Resumed(source.network, config.boundary, source.example())
        if config.boundary == source.head or config.boundary.startswith(f"{source.head}."):
            raise InputError(
                f"--boundary {config.boundary!r} is the head, so nothing behind it could be tuned; name a "
                "layer before it, or use --strategy probe"
            )
        return config.boundary
    if config.unfreeze is not None:
        return plan_boundary(source, config.unfreeze)
    return plan_boundary(source, min(DEFAULT_UNFREEZE, len(stages_of(source)) - 1))


def _told(trial: Trial, count: int) -> str:
    settings = trial.settings
    return (
        f"trial {trial.number + 1} of {count}: validation {trial.top1:.1%}, loss {trial.loss:.3f} "
        f"({settings.head} head, behind {settings.boundary}, rate {settings.learning_rate:g}, "
        f"augmentation {settings.augment}; {trial.seconds:.0f} s)"
    )
