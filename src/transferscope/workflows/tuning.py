"""`tune`: folder of pictures in, run folder out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
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
    Split,
    duplicates_across,
    make_split,
    parse_ratio,
    scan,
    write_split,
)
from transferscope.errors import InputError, OutputError, RunError
from transferscope.evaluation import fit_temperature
from transferscope.features import POOLED, cached_pictures, extract, fit_probe
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
)


def tune(
    data: str | Path,
    *,
    out: str | Path,
    backbone: str = DEFAULT_BACKBONE,
    weights: str | Path | None = None,
    download: bool = False,
    strategy: Strategy = "auto",
    unfreeze: int = DEFAULT_UNFREEZE,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    ratio: str | tuple[int, int, int] = (70, 15, 15),
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
        data: class folders, with or without train/validation/test above them.
        out: a new folder for the run.
        backbone: catalogue name; see `load_backbone` for this, `weights` and `download`.
        strategy: `probe`, `partial` or `auto`.
        unfreeze: number of stages that `partial` tunes, counted from the end.
        epochs: fine-tuning epochs; None: the recipe's.
        lr: peak learning rate; None: the recipe's.
        batch_size: pictures a step; None: the recipe's.
        ratio: of train, validation and test, where the folder does not say.
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
    given = {"epochs": epochs, "learning_rate": lr, "batch_size": batch_size}
    config = Config(
        data=str(Path(data).resolve()),
        backbone=backbone,
        weights=str(Path(weights).resolve()) if weights and str(weights) != "random" else weights,  # type: ignore[arg-type]
        strategy=strategy,
        unfreeze=unfreeze,
        recipe=Recipe(seed=seed, **{k: v for k, v in given.items() if v is not None}),  # type: ignore[arg-type]
        ratio=parse_ratio(ratio) if isinstance(ratio, str) else ratio,
        seed=seed,
        precision=precision,
        confusable=tuple(confusable),
    )
    if out.resolve().is_relative_to(config.data):
        raise InputError(
            f"--out {str(out)!r} lies inside the data folder, where it would be taken for a class; give a "
            "folder beside it"
        )
    if finished := _finished(out, config, resume):
        reporter.say(f"{out} is finished already")
        return finished

    source = load_backbone(backbone, weights=weights, download=download).to(find_device(device))
    boundary = plan_boundary(source, unfreeze)
    with reporter.task("reading pictures") as progress:
        scanned = scan(
            data,
            channels=source.input.channels,
            known_readable=cached_pictures(source, precision=precision),
            on_progress=progress,
        )
    for path, reason in scanned.excluded:
        reporter.say(f"left out {path}: {reason}")
    split = make_split(scanned, ratio=config.ratio, seed=seed)
    for first, second in duplicates_across(split)[:3]:
        reporter.say(f"warning: {first} and {second} are the same picture in two splits")

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
    with reporter.task("fine-tuning") as progress:
        return fine_tune(
            base,
            boundary,
            (activations[:count], labels_of(parts["train"])),
            (activations[count:], labels_of(parts["validation"])),
            recipe=config.recipe,
            names=[picture.path for picture in parts["train"]],
            precision=config.precision,
            checkpoints=out / "checkpoints",
            on_epoch=reporter.epoch,
            on_step=progress,
        )


def _loss_and_top1(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    loss = float(functional.cross_entropy(logits, labels))
    return loss, float((logits.argmax(1) == labels).float().mean())


def _write_curves(out: Path) -> None:
    write_text(out / "history.svg", history_figure(read_csv(out / "history.csv")))
