"""`tune`: folder of pictures in, run folder out, by five steps: scan, split, features, fit, save."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from transferscope import distributed
from transferscope.acceleration.precision import find_device, training_precision
from transferscope.backbones.catalogue import find_backbone
from transferscope.backbones.weights import load_backbone
from transferscope.data.class_names import warnings_of
from transferscope.data.duplicates import dedupe, refuse_duplicates
from transferscope.data.exclusions import say
from transferscope.data.leakage import Leakage, has_lookalike
from transferscope.data.lookalike_groups import LOOKALIKES
from transferscope.data.scan import Measure, Scan, scan
from transferscope.data.split import (
    Split,
    adopt_split,
    make_split,
    parse_ratio,
    read_split,
    write_split,
)
from transferscope.errors import DataError, InputError, OutputError, RunError
from transferscope.evaluation.calibration import fit_temperature
from transferscope.evaluation.known_pictures import FILE
from transferscope.evaluation.predictions import Predictions
from transferscope.features.extraction import cached_pictures
from transferscope.features.store import cache_budget
from transferscope.files import (
    locked,
    read_csv,
    read_json,
    write_csv,
    write_json,
    write_tensors,
    write_text,
)
from transferscope.machine import environment
from transferscope.report.figures.training import history_figure
from transferscope.training.checkpoints import EpochRow, history_rows
from transferscope.training.config import Config, HeadName, TuneOptions, tune_options
from transferscope.training.loggers import Logger, open_logger, refuse_unknown
from transferscope.training.options import asked_for, takes
from transferscope.training.recipe import Recipe
from transferscope.workflows.advise import stage_targets
from transferscope.workflows.candidates import (
    Candidate,
    Features,
    Fitted,
    Job,
    chosen_boundary,
    read_features,
)
from transferscope.workflows.choice import choose, scores_of
from transferscope.workflows.fitting import advised, fit
from transferscope.workflows.kept_heads import START
from transferscope.workflows.known_pictures import known_of
from transferscope.workflows.lookalikes import scanned_together
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import SCHEMA, Run, refuse_inside


@takes(TuneOptions, Recipe)
def tune(
    data: str | Path,
    *,
    out: str | Path,
    recipe: Mapping[str, Any] | None = None,
    reporter: Reporter = SILENT,
    **options: Any,
) -> Run:
    """Folder of pictures in, run folder out.

    Scans and splits, computes the frozen backbone's features (or finds them cached), fits the linear
    probe exactly, and fine-tunes from that head. Started by `torchrun`, several processes share the
    work and process 0 writes the run.

    Args:
        data: class folders, with or without train/validation/test above them, or a table of files; see
            `scan`. With `dataset`, the folder that holds that set's files.
        out: a new folder for the run.
        recipe: further `ts.Recipe` fields by name, such as {"clip": 0.5}.
        reporter: hears of the progress.
        options: by name.

    Raises:
        TransferscopeError: for data, weights, options or folders that cannot be used. Nothing is
            left behind unless work that `resume` can continue was done.
    """
    began = time.perf_counter()
    if isinstance(options.get("ratio"), str):
        options["ratio"] = parse_ratio(options["ratio"])
    if isinstance(options.get("loggers"), str):
        options["loggers"] = (options["loggers"],)
    if not isinstance(options.get("backbone", ""), str):
        find_backbone(options["backbone"])  # says what can be done with a network of one's own
    asked = tune_options(recipe, data=data, out=out, **options)
    refuse_unknown(asked.loggers)
    cache_budget()  # refuses a wrong value
    if asked.dataset is None:
        refuse_inside(asked.out, asked.data)
    with distributed.joined():
        finished = _finished(asked) if distributed.is_first() else None
        finished = distributed.gathered(finished)[0]
        if finished:
            reporter.say(f"{asked.out} is finished already")
            return finished
        job = _begin(asked, reporter)
        split = read_split_of(job, data)
        if asked.unused:
            reporter.say(f"the probe is fitted exactly: {asked.unused} is not used")
        distributed.wait_for_all()  # before the folder is written that the others looked into
        with _run_folder(job, split) as job:
            job, advice = advised(job, split, asked.out)
            features = read_features(job, split)
            leaks = warn_of_leakage(job, features)
            fitted = fit(job, features, asked.out, advice)
            if distributed.is_first():
                save(job, fitted, began, leaks)
            distributed.wait_for_all()
        return Run(asked.out)


# ---------------------------------------------------------------------------- scan and split


def _begin(options: TuneOptions, reporter: Reporter) -> Job:
    """Loads the network and refuses what does not fit it, before any work."""
    source = load_backbone(
        options.backbone, weights=options.weights, download=options.download, size=options.size
    ).to(find_device(options.device))
    source.check_head()
    if source.weights_note:
        reporter.say(source.weights_note)
    training_precision(source.device, options.precision)
    if options.strategy in ("partial", "auto") or options.boundary or options.unfreeze is not None:
        chosen_boundary(source, options)
    if options.split_from is not None:
        Run(options.split_from)
    return Job(options, source, reporter)


def read_split_of(job: Job, data: str | Path) -> Split:
    """The pictures that the data hold, each with its part; with several processes, the first one's."""
    if job.options.group != LOOKALIKES or job.options.split_from is not None:
        return distributed.by_first(lambda: split_pictures(job, scan_pictures(job, data)))
    together = scanned_together(
        lambda measure: scan_pictures(job, data, measure),
        job.source,
        precision=job.options.precision,
        targets=stage_targets(job.source) if job.options.advised else (),
        reporter=job.reporter,
    )
    return distributed.by_first(lambda: split_pictures(job, together))


def scan_pictures(job: Job, data: str | Path, measure: Measure | None = None) -> Scan:
    """The pictures and labels that the data hold; what cannot be used is reported."""
    options = job.options
    with job.reporter.task("reading pictures") as progress:
        found = scan(
            data,
            dataset=options.dataset,
            group=None if options.group == LOOKALIKES else options.group,
            layout=options.layout,
            download=options.download,
            measure=measure,
            channels=job.source.input.channels,
            known_readable=cached_pictures(job.source, precision=options.precision),
            on_progress=progress,
        )
    say(found.excluded, job.reporter.say)
    for sentence, remedy in warnings_of(found.classes, found.merged):
        job.reporter.say(f"{sentence} {remedy}")
    return found


def split_pictures(job: Job, found: Scan) -> Split:
    """The split that an interrupted run has written; or another run's; or drawn where the data have none.

    Raises:
        DataError: no such split can be made, the same bytes lie in two parts, or a picture of the
            interrupted run has changed.
    """
    options = job.options
    if (kept := _kept_split(found, options)) is not None:
        job.reporter.say(f"the split is that of {options.out / 'split.csv'}")
        return kept
    if options.split_from is not None:
        _refuse_other_grouping(options)
        split = adopt_split(found, Run(options.split_from).split)
    else:
        split = make_split(found, ratio=options.ratio, seed=options.seed)
    if options.dedupe:
        return dedupe(split)
    refuse_duplicates(split)
    return split


def _refuse_other_grouping(options: TuneOptions) -> None:
    """Lookalikes are kept together when a split is drawn: one that is taken has them together, or not."""
    if options.group == LOOKALIKES and Run(str(options.split_from)).config.group != LOOKALIKES:
        raise InputError(
            f"--split-from {options.split_from} takes a split that was drawn without --group {LOOKALIKES}; "
            "leave out one of the two"
        )


def _kept_split(found: Scan, options: TuneOptions) -> Split | None:
    """The split that an interrupted run has written, or None.

    Raises:
        DataError: a picture of it has changed or gone.
    """
    file = options.out / "split.csv"
    if not file.is_file():
        return None
    kept = read_split(
        file, found.root, classes=found.classes, ratio=options.ratio, seed=options.seed
    )
    present = {picture.path: picture.sha256 for picture in found.pictures}
    changed = [p.path for p in kept.scan.pictures if present.get(p.path) != p.sha256]
    if changed:
        raise DataError(
            f"{len(changed)} pictures of the interrupted run have changed or gone since, {changed[0]!r} "
            "among them; restore them, or start anew with another --out"
        )
    inside = {picture.path for picture in kept.scan.pictures}
    outside = [(path, "it is not in split.csv") for path in present if path not in inside]
    excluded = tuple(sorted([*found.excluded, *outside]))
    return replace(kept, scan=replace(kept.scan, excluded=excluded))


# ---------------------------------------------------------------------------- the folder


def _finished(options: TuneOptions) -> Run | None:
    """The finished run in the folder, or None if there is work to do; refuses what is in the way."""
    out = options.out
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
    if not options.resume:
        raise RunError(
            f"{str(out)!r} holds a run already; --resume with the same options continues it; to begin with "
            "others, give another --out or remove it"
        )
    record = read_json(out / stored)
    old = _flat(Config.from_dict(record["config"] if stored == "run.json" else record))
    new = _flat(options)
    for name in old:
        if old[name] != new[name]:
            raise RunError(
                f"{str(out)!r} was begun with {_typed(name, old[name])}, and now it is "
                f"{_typed(name, new[name])}; repeat the first options to resume, or choose another --out"
            )
    return Run(out) if stored == "run.json" else None


def _typed(name: str, value: Any) -> str:
    """An option of tune or of the recipe by its name on the command line."""
    known = asked_for(TuneOptions) | asked_for(Recipe)
    label = known[name][0] if name in known else name.replace("_", " ")
    return f"no {label}" if value is None else f"{label} {value}"


def _flat(config: Config) -> dict[str, Any]:
    """What is stored of the options and of the recipe, by name."""
    values = config.to_dict()
    return {**values.pop("recipe"), **values}


@contextmanager
def _run_folder(job: Job, split: Split) -> Iterator[Job]:
    """Process 0 holds the folder and writes what a resumed run needs; the loggers hear of the epochs.

    A folder in which nothing could be written is removed again.
    """
    out, first = job.options.out, distributed.is_first()
    existed = out.exists()
    try:
        with locked(out) if first else nullcontext(), ExitStack() as stack:
            if first:
                loggers: list[Logger] = []
                write_json(out / "started.json", job.options.to_dict())
                write_split(split, out / "split.csv")
                parameters = {
                    name: value if isinstance(value, str | int | float | None) else str(value)
                    for name, value in _flat(job.options).items()
                }
                for name in refuse_unknown(job.options.loggers):
                    logger = open_logger(name, out, run_name=out.name, parameters=parameters)
                    loggers.append(stack.enter_context(logger))
                job = replace(job, loggers=loggers)
            distributed.wait_for_all()
            yield job
    except OutputError:
        if not existed and out.is_dir() and not any(p.name != ".lock" for p in out.iterdir()):
            (out / ".lock").unlink(missing_ok=True)
            out.rmdir()
        raise


# ---------------------------------------------------------------------------- before training


def warn_of_leakage(job: Job, features: Features) -> Leakage | None:
    """How many validation pictures have a lookalike in training, and what that means where they are many."""
    train, validation = features.train, features.validation
    with_one = has_lookalike(
        train.pooled.numpy(),
        train.labels.numpy(),
        validation.pooled.numpy(),
        validation.labels.numpy(),
    )
    count = int(with_one.sum())
    found = Leakage(n=len(with_one), by_hash=None, by_features=count, either=count)
    if found.much:
        job.reporter.say(f"{found.sentence} {found.meaning}")
    return found


# ---------------------------------------------------------------------------- save


def save(job: Job, fitted: Fitted, began: float, leaks: Leakage | None = None) -> None:
    """Writes the run folder, run.json last: the best candidate by validation, and the figures of all."""
    options, features, base = job.options, fitted.features, fitted.base
    out, labels, candidates = options.out, features.validation.labels, fitted.candidates
    scores = scores_of(candidates, labels)
    advised = fitted.advice.strategy if fitted.advice is not None else None
    choice = choose(options, candidates, scores, len(labels), advised=advised)
    chosen, kept = choice.kept, candidates[choice.kept]
    trained = candidates[list(candidates)[-1]]  # the history is of what was trained, kept or not
    history = trained.history if kept is trained else _of_the_start(trained, options.head)
    temperature = kept.classifier.temperature = fit_temperature(kept.logits, labels)
    names = tuple(features.validation.names)
    Predictions(names, labels, kept.logits, features.classes, temperature).save(
        out / "evaluation" / "validation"
    )
    kept.classifier.save(out / "classifier.safetensors")
    untuned = (features.train.pooled, features.validation.pooled)
    known_of(
        kept.classifier,
        features.split,
        seed=options.seed,
        features=untuned if kept is candidates["probe"] else None,
        reporter=job.reporter,
    ).save(out / FILE)
    head = {"weight": base.probe.weight, "bias": base.probe.bias}
    metadata = {"classes": list(features.classes), "temperature": base.classifier.temperature}
    write_tensors(out / "base_head.safetensors", head, metadata)
    header = [column.name for column in fields(EpochRow)]
    write_csv(out / "history.csv", header, history_rows(history))
    write_text(out / "history.svg", history_figure(read_csv(out / "history.csv")))
    split = features.split
    results = {
        "strategy": chosen,
        "boundary": kept.boundary,
        "head": options.head,
        "seconds": round(time.perf_counter() - began, 2),
        "cached": features.cached,
        "pictures": {name: len(split.part(name)) for name in ("train", "validation", "test")},
        "probe_strength": base.probe.strength,
        "temperature": temperature,
        "validation": {**scores[chosen], "n": len(labels)},
        "candidates": scores,
        "choice": choice.to_dict(),
        **({"leakage": leaks.to_dict()} if leaks else {}),
        **trained.details,
        **({"advice": fitted.advice.to_dict()} if fitted.advice else {}),
    }
    write_json(out / "run.json", _record(job, split, results))
    (out / "started.json").unlink(missing_ok=True)
    shutil.rmtree(out / START, ignore_errors=True)
    job.reporter.say(choice.sentence)
    for logger in job.loggers:
        logger.figure("history", out / "history.svg")
        figures = {f"validation_{name}": value for name, value in scores[chosen].items()}
        logger.finish({"strategy": chosen, **figures, "seconds": results["seconds"]})


def _of_the_start(trained: Candidate, head: HeadName) -> tuple[EpochRow, ...]:
    """The history of what was trained and not kept: its start, the probe, is what was; no epoch is."""
    same = trained.details.get("settings", {}).get("head", head) == head
    return tuple(replace(row, best=same and row.epoch == 0) for row in trained.history)


def _record(job: Job, split: Split, results: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json holds."""
    out, weights = job.options.out, job.options.weights
    beside = {"root_from_run": _from_run(split.scan.root, out)}
    if weights not in (None, "random"):
        beside["weights_from_run"] = _from_run(Path(str(weights)), out)
    return {
        "schema": SCHEMA,
        "config": job.options.to_dict(),
        "backbone": job.options.backbone,
        "root": str(split.scan.root.resolve()),
        **{name: path for name, path in beside.items() if path is not None},
        "precision": training_precision(job.source.device, job.options.precision),
        "body_hash": job.source.body_hash(),
        "weights_note": job.source.weights_note,
        "classes": list(split.scan.classes),
        "input": job.source.input.to_dict(),
        "environment": environment(),
        "excluded": [list(pair) for pair in split.scan.excluded],
        "results": results,
    }


def _from_run(path: Path, out: Path) -> str | None:
    """A path from the run folder, which stays true when both are moved; None on another drive."""
    try:
        return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:
        return None
