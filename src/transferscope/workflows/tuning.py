"""`tune`: folder of pictures in, run folder out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from transferscope.backbones import (
    DEFAULT_BACKBONE,
    Classifier,
    Precision,
    find_device,
    load_backbone,
)
from transferscope.data import (
    Picture,
    Scan,
    Split,
    adopt_split,
    dedupe,
    make_split,
    parse_ratio,
    read_split,
    refuse_duplicates,
    scan,
    write_split,
)
from transferscope.data.augmentation import AugmentationName, augmentation
from transferscope.errors import DataError, InputError, OutputError, RunError
from transferscope.evaluation import fit_temperature
from transferscope.features import POOLED, View, cached_pictures, extract, fit_probe
from transferscope.report import history_figure
from transferscope.storage import (
    environment,
    locked,
    read_csv,
    read_json,
    write_csv,
    write_json,
    write_tensors,
    write_text,
)
from transferscope.training import (
    EpochRow,
    FineTuned,
    Recipe,
    fine_tune,
    history_rows,
    plan_boundary,
)
from transferscope.workflows.run import (
    DEFAULT_UNFREEZE,
    SCHEMA,
    SILENT,
    Config,
    Reporter,
    Run,
    Strategy,
    labels_of,
    refuse_inside,
)


def tune(
    data: str | Path,
    *,
    out: str | Path,
    dataset: str | None = None,
    backbone: str = DEFAULT_BACKBONE,
    weights: str | Path | None = None,
    download: bool = False,
    strategy: Strategy = "auto",
    unfreeze: int = DEFAULT_UNFREEZE,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    augment: AugmentationName = "none",
    flip: bool = True,
    ratio: str | tuple[int, int, int] = (70, 15, 15),
    group: str | None = None,
    split_from: str | Path | None = None,
    dedupe: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    confusable: Sequence[tuple[str, str]] = (),
    resume: bool = False,
    reporter: Reporter = SILENT,
) -> Run:
    """Folder of pictures in, run folder out.

    Scans and splits, computes the frozen backbone's features (or finds them cached), fits the linear
    probe, and with `partial` or `auto` fine-tunes the last stages from that head. `auto` keeps the
    better of the two by validation accuracy, by validation loss where that is equal.

    Args:
        data: class folders, with or without train/validation/test above them, or a table of files; see
            `scan`. With `dataset`, the folder that holds that set's files.
        out: a new folder for the run.
        dataset: name of a well-known set, such as caltech101; see `DATASETS`.
        backbone: catalogue name; see `load_backbone` for this and `weights`.
        download: permits fetching the backbone's weights and the dataset.
        strategy: `probe`, `partial` or `auto`.
        unfreeze: number of stages that `partial` tunes, counted from the end.
        epochs: fine-tuning epochs; None: the recipe's.
        lr: peak learning rate; None: the recipe's.
        batch_size: pictures a step; None: the recipe's.
        augment: what fine-tuning sees of the training pictures: none, light (crops, mirrored) or strong
            (and RandAugment, mixup, cutmix). Never of validation or test pictures, nor for the probe.
        flip: False where left and right mean something, as in characters.
        ratio: of train, validation and test, where the folder does not say.
        group: a manifest's column, or a pattern searched in the paths, that names what must stay in
            one split: a patient, a video, an object.
        split_from: another run's folder, whose split is taken.
        dedupe: leaves copies of training pictures out of the other splits, instead of refusing them.
        seed: of split, folds and fine-tuning.
        device: cpu, cuda, mps; None: the best there is.
        precision: of feature extraction and fine-tuning.
        confusable: pairs of look-alike classes, reported apart at evaluation.
        resume: finish a run that was interrupted; a finished one is returned as it is.
        reporter: hears of the progress.

    Raises:
        TransferscopeError: for data, weights, options or folders that cannot be used. Nothing is
            left behind unless work that `resume` can continue was done.
    """
    began = time.perf_counter()
    if strategy not in ("auto", "probe", "partial"):
        raise InputError(f"strategy {strategy!r} is unknown; use auto, probe or partial")
    out = Path(out)
    if isinstance(ratio, str):
        ratio = parse_ratio(ratio)
    given = {"epochs": epochs, "learning_rate": lr, "batch_size": batch_size}
    config = Config(
        data=str(Path(data).resolve()),
        dataset=dataset,
        group=group,
        split_from=str(Path(split_from).resolve()) if split_from is not None else None,
        dedupe=dedupe,
        backbone=backbone,
        weights=str(Path(weights).resolve()) if weights and str(weights) != "random" else weights,  # type: ignore[arg-type]
        strategy=strategy,
        unfreeze=unfreeze,
        recipe=Recipe(
            seed=seed,
            augment=augment,
            flip=flip,
            **{k: v for k, v in given.items() if v is not None},  # type: ignore[arg-type]
        ),
        ratio=ratio,
        seed=seed,
        precision=precision,
        confusable=tuple(confusable),
    )
    if dataset is None:
        refuse_inside(out, config.data)
    if finished := _finished(out, config, resume):
        reporter.say(f"{out} is finished already")
        return finished

    source = load_backbone(backbone, weights=weights, download=download).to(find_device(device))
    boundary = plan_boundary(source, unfreeze)
    other = Run(split_from).split if split_from is not None else None
    with reporter.task("reading pictures") as progress:
        scanned = scan(
            data,
            dataset=dataset,
            group=group,
            download=download,
            channels=source.input.channels,
            known_readable=cached_pictures(source, precision=precision),
            on_progress=progress,
        )
    for path, reason in scanned.excluded:
        reporter.say(f"left out {path}: {reason}")
    split = _kept_split(out, scanned, config)
    if split is None:
        split = choose_split(scanned, ratio=ratio, seed=seed, other=other, drop_copies=dedupe)
    else:
        reporter.say(f"the split is that of {out / 'split.csv'}")

    existed = out.exists()
    try:
        with locked(out):
            write_json(out / "started.json", config.to_dict())
            write_split(split, out / "split.csv")
            return _tune_locked(out, config, source, boundary, split, began, reporter)
    except OutputError:
        if not existed and out.is_dir() and not any(p.name != ".lock" for p in out.iterdir()):
            (out / ".lock").unlink(missing_ok=True)
            out.rmdir()
        raise


def choose_split(
    scanned: Scan,
    *,
    ratio: tuple[int, int, int],
    seed: int,
    other: Split | None = None,
    drop_copies: bool = False,
) -> Split:
    """The split that a run will have: another run's, or the folder's own with the rest drawn.

    Raises:
        DataError: no such split can be made, or the same bytes lie in two parts.
    """
    split = adopt_split(scanned, other) if other else make_split(scanned, ratio=ratio, seed=seed)
    if drop_copies:
        return dedupe(split)
    refuse_duplicates(split)
    return split


def _kept_split(out: Path, scanned: Scan, config: Config) -> Split | None:
    """The split that an interrupted run in `out` has written, or None.

    Raises:
        DataError: a picture of it has changed or gone.
    """
    if not (out / "split.csv").is_file():
        return None
    kept = read_split(
        out / "split.csv",
        scanned.root,
        classes=scanned.classes,
        ratio=config.ratio,
        seed=config.seed,
    )
    found = {picture.path: picture.sha256 for picture in scanned.pictures}
    changed = [p.path for p in kept.scan.pictures if found.get(p.path) != p.sha256]
    if changed:
        raise DataError(
            f"{len(changed)} pictures of the interrupted run have changed or gone since, {changed[0]!r} "
            "among them; restore them, or start anew with another --out"
        )
    inside = {picture.path for picture in kept.scan.pictures}
    outside = [(path, "it is not in split.csv") for path in found if path not in inside]
    excluded = tuple(sorted([*scanned.excluded, *outside]))
    return replace(kept, scan=replace(kept.scan, excluded=excluded))


def _finished(out: Path, config: Config, resume: bool) -> Run | None:
    """The finished run in `out`, or None if there is work to do; refuses what is in the way."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise RunError(f"{str(out)!r} is a file; --out must name a new folder")
    present = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    stored = next((n for n in ("run.json", "started.json") if n in present), None)
    if stored is None:
        if present - {"data"}:
            raise RunError(f"{str(out)!r} holds other files; --out must name a new or empty folder")
        return None
    if not resume:
        raise RunError(
            f"{str(out)!r} holds a run already; --resume continues it, another --out starts a new one"
        )
    record = read_json(out / stored)
    before = Config.from_dict(record["config"] if stored == "run.json" else record)
    old, new = _flat(before), _flat(config)
    changed = [name for name in old if old[name] != new[name]]
    if changed:
        name = changed[0]
        raise RunError(
            f"{str(out)!r} was begun with {name} = {old[name]!r}, and now it is {new[name]!r}; repeat "
            "the first options to resume, or choose another --out"
        )
    return Run(out) if stored == "run.json" else None


def _flat(config: Config) -> dict[str, Any]:
    """Fields of the configuration and of its recipe by name."""
    values = config.to_dict()
    return {**values.pop("recipe"), **values}


def _tune_locked(
    out: Path,
    config: Config,
    source: Classifier,
    boundary: str,
    split: Split,
    began: float,
    reporter: Reporter,
) -> Run:
    parts = {name: split.part(name) for name in ("train", "validation", "test")}
    pictures = [picture for part in parts.values() for picture in part]
    files = [split.scan.file(picture) for picture in pictures]
    with reporter.task("features of the frozen backbone") as progress:
        pooled = extract(
            source,
            files,
            [p.sha256 for p in pictures],
            precision=config.precision,
            on_progress=progress,
        )
    count = len(parts["train"])
    upto = count + len(parts["validation"])
    features = pooled.targets[POOLED]
    train_labels, validation_labels = labels_of(parts["train"]), labels_of(parts["validation"])

    with reporter.task("linear probe") as progress:
        probe = fit_probe(features[:count], train_labels, len(split.scan.classes), seed=config.seed)
        progress(1, 1)
    base_logits = probe.logits(features[count:upto])
    base = source.with_head(probe.weight, probe.bias, split.scan.classes)
    base.temperature = fit_temperature(base_logits, validation_labels)
    candidates = {"probe": (base, base_logits)}
    history: tuple[EpochRow, ...] = (
        EpochRow(
            0,
            *_loss_and_top1(probe.logits(features[:count]), train_labels),
            *_loss_and_top1(base_logits, validation_labels),
            0.0,
            0.0,
            best=True,
        ),
    )
    if config.strategy != "probe":
        tuned = _fine_tune(out, config, base, boundary, split, parts, reporter)
        history = tuned.history
        candidates["partial"] = (tuned.classifier, tuned.validation_logits)

    scores = {
        name: _loss_and_top1(logits, validation_labels)[::-1]
        for name, (_, logits) in candidates.items()
    }
    chosen = (
        max(scores, key=lambda name: (scores[name][0], -scores[name][1]))
        if config.strategy == "auto"
        else config.strategy
    )
    classifier, logits = candidates[chosen]
    classifier.temperature = fit_temperature(logits, validation_labels)

    classifier.save(out / "classifier.safetensors")
    head = {"weight": probe.weight, "bias": probe.bias}
    metadata = {"classes": list(split.scan.classes), "temperature": base.temperature}
    write_tensors(out / "base_head.safetensors", head, metadata)
    header = [f.name for f in fields(EpochRow)]
    write_csv(out / "history.csv", header, history_rows(history))
    _write_curves(out)
    record = {
        "schema": SCHEMA,
        "config": config.to_dict(),
        "backbone": config.backbone,
        "root": str(split.scan.root.resolve()),
        "body_hash": source.body_hash(),
        "classes": list(split.scan.classes),
        "input": source.input.to_dict(),
        "environment": environment(),
        "excluded": [list(pair) for pair in split.scan.excluded],
        "results": {
            "strategy": chosen,
            "boundary": boundary if chosen == "partial" else None,
            "seconds": round(time.perf_counter() - began, 2),
            "cached": pooled.cached,
            "pictures": {name: len(part) for name, part in parts.items()},
            "probe_strength": probe.strength,
            "temperature": classifier.temperature,
            "validation": {"top1": scores[chosen][0], "loss": scores[chosen][1]},
            "candidates": {n: {"top1": s[0], "loss": s[1]} for n, s in scores.items()},
        },
    }
    write_json(out / "run.json", record)
    (out / "started.json").unlink(missing_ok=True)
    return Run(out)


def _fine_tune(
    out: Path,
    config: Config,
    base: Classifier,
    boundary: str,
    split: Split,
    parts: Mapping[str, tuple[Picture, ...]],
    reporter: Reporter,
) -> FineTuned:
    pictures = [*parts["train"], *parts["validation"]]
    with reporter.task(f"activations at {boundary}") as progress:
        cached = extract(
            base,
            [split.scan.file(picture) for picture in pictures],
            [picture.sha256 for picture in pictures],
            targets=(boundary,),
            precision=config.precision,
            on_progress=progress,
        )
    activations = cached.targets[boundary]
    count = len(parts["train"])
    recipe, views = config.recipe, _Views(config, base, boundary, split, parts["train"])
    if recipe.augment != "none":
        for number in range(1, min(recipe.views, recipe.epochs) + 1):
            with reporter.task(f"augmented view {number} at {boundary}") as progress:
                views.activations(number, on_progress=progress)
    with reporter.task("fine-tuning") as progress:
        return fine_tune(
            base,
            boundary,
            (activations[:count], labels_of(parts["train"])),
            (activations[count:], labels_of(parts["validation"])),
            recipe=recipe,
            activations_of=None if recipe.augment == "none" else views.activations,
            names=[picture.path for picture in parts["train"]],
            precision=config.precision,
            checkpoints=out / "checkpoints",
            on_epoch=reporter.epoch,
            on_step=progress,
        )


@dataclass(frozen=True)
class _Views:
    """The training pictures' activations at the boundary, as augmentation shows them by epoch."""

    config: Config
    base: Classifier
    boundary: str
    split: Split
    pictures: tuple[Picture, ...]

    def activations(
        self, epoch: int, on_progress: Callable[[int, int], None] | None = None
    ) -> torch.Tensor:
        """(N, ...) in an epoch (1, 2, ...): the views take turns."""
        recipe = self.config.recipe
        number = (epoch - 1) % recipe.views + 1
        found = extract(
            self.base,
            [self.split.scan.file(picture) for picture in self.pictures],
            [picture.sha256 for picture in self.pictures],
            targets=(self.boundary,),
            precision=self.config.precision,
            view=View(augmentation(recipe.augment, flip=recipe.flip), number, recipe.seed),
            on_progress=on_progress,
        )
        return found.targets[self.boundary]


def _loss_and_top1(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    loss = float(functional.cross_entropy(logits, labels))
    return loss, float((logits.argmax(1) == labels).float().mean())


def _write_curves(out: Path) -> None:
    write_text(out / "history.svg", history_figure(read_csv(out / "history.csv")))
