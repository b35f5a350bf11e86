"""`tune`: folder of pictures in, run folder out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from transferscope import distributed
from transferscope.backbones import (
    DEFAULT_BACKBONE,
    Precision,
    find_device,
    load_backbone,
    training_precision,
)
from transferscope.data import (
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
from transferscope.data.augmentation import AugmentationName
from transferscope.errors import DataError, InputError, OutputError, RunError
from transferscope.evaluation import Predictions, fit_temperature
from transferscope.features import cache_budget, cached_pictures
from transferscope.report import history_figure
from transferscope.report.loggers import Logger, LoggerName, open_logger, refuse_unknown
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
    HeadName,
    choose_recipe,
    history_rows,
    loss_and_top1,
)
from transferscope.workflows.fitting import Candidate, Fitting, chosen_boundary
from transferscope.workflows.run import (
    SCHEMA,
    SILENT,
    Config,
    Reporter,
    Run,
    Strategy,
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
    unfreeze: int | None = None,
    boundary: str | None = None,
    head: HeadName = "linear",
    epochs: int | None = None,
    lr: float | Literal["auto"] | None = None,
    batch_size: int | None = None,
    augment: AugmentationName | None = None,
    flip: bool | None = None,
    recipe: Mapping[str, Any] | None = None,
    search: int = 0,
    keep_every: int = 0,
    loggers: Sequence[str] = (),
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
    probe exactly, and fine-tunes from that head. Started by `torchrun`, several processes share the
    work and process 0 writes the run.

    Args:
        data: class folders, with or without train/validation/test above them, or a table of files; see
            `scan`. With `dataset`, the folder that holds that set's files.
        out: a new folder for the run.
        dataset: name of a well-known set, such as caltech101; see `DATASETS`.
        backbone: catalogue name; see `load_backbone` for this and `weights`.
        download: permits fetching the backbone's weights and the dataset.
        strategy: `probe`: the head alone, fitted on cached features. `partial`: the last stages tuned
            from that head. `full`: the whole network likewise. `scratch`: the control, the whole
            network from random weights. `auto`: the probe and what `advise` recommends, of which the
            better by validation accuracy is kept, by validation loss where that is equal.
        unfreeze: number of stages that `partial` tunes, counted from the end; None: three, or for
            `auto` what is advised.
        boundary: in place of `unfreeze`, the name of the layer that is the last frozen one.
        head: linear, or mlp: 256 hidden units, ReLU and dropout 0.4.
        epochs: fine-tuning epochs at most; None: the recipe's.
        lr: peak learning rate; "auto": from a range test; None: the recipe's.
        batch_size: pictures a step; None: the recipe's.
        augment: what fine-tuning sees of the training pictures: none, light (crops, mirrored) or strong
            (and RandAugment, mixup, cutmix). Never of validation or test pictures, nor for the probe.
        flip: False where left and right mean something, as in characters; None: the recipe's, True.
        recipe: further `Recipe` fields by name, such as {"optimizer": "sgd", "ema": 0.99}.
        search: trials of a search over head, depth, learning rate and augmentation, decided on
            validation, before the fit itself; 0: none.
        keep_every: keep the weights of every so many epochs in the run's folder `timeline`; 0: none.
        loggers: tensorboard and mlflow, which are told of every epoch; see `report.loggers`.
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
    if strategy not in get_args(Strategy):
        raise InputError(f"strategy {strategy!r} is unknown; use {', '.join(get_args(Strategy))}")
    if head not in get_args(HeadName):
        raise InputError(f"head {head!r} is unknown; use {' or '.join(get_args(HeadName))}")
    for name, number in (("search", search), ("keep-every", keep_every)):
        if number < 0:
            raise InputError(f"--{name} is {number}; it must be 0 (none) or more")
    if search and strategy not in ("auto", "partial"):
        raise InputError(
            f"--search is {search} and the strategy {strategy}; a search runs from the boundary cache: "
            "use --strategy partial or auto"
        )
    known = refuse_unknown(loggers)
    cache_budget()  # refuses a wrong value
    out = Path(out)
    if isinstance(ratio, str):
        ratio = parse_ratio(ratio)
    given = _given(
        recipe or {},
        {
            "epochs": epochs,
            "learning_rate": lr,
            "batch_size": batch_size,
            "augment": augment,
            "flip": flip,
        },
    )
    _refuse_contradiction(strategy, unfreeze, boundary)
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
        boundary=boundary,
        head=head,
        find_rate=lr == "auto",
        search=search,
        keep_every=keep_every,
        recipe=choose_recipe(strategy, {**given, "seed": seed}),
        ratio=ratio,
        seed=seed,
        precision=precision,
        confusable=tuple(confusable),
    )
    if dataset is None:
        refuse_inside(out, config.data)
    with distributed.joined():
        finished = distributed.gathered(
            _finished(out, config, resume) if distributed.is_first() else None
        )[0]
        if finished:
            reporter.say(f"{out} is finished already")
            return finished
        source = load_backbone(backbone, weights=weights, download=download)
        source = source.to(find_device(device))
        training_precision(source.device, precision)  # like the boundary: refused before any work
        if strategy in ("partial", "auto") or boundary is not None or unfreeze is not None:
            chosen_boundary(source, config)
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
        if unused := _unused(config, given):
            reporter.say(f"the probe is fitted exactly: {unused} is not used")
        distributed.wait_for_all()  # before the folder is written that the others looked into
        _tune(Fitting(out, config, source, split, reporter), known, began)
        return Run(out)


def _given(recipe: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the recipe by name, each given once; a rate that is to be found is none.

    Raises:
        InputError: a field that is also an argument of its own, and both are given.
    """
    arguments = {"learning_rate": "lr"}
    doubled = [name for name in recipe if named.get(name) is not None and recipe[name] is not None]
    if doubled:
        name = doubled[0]
        raise InputError(
            f"recipe has {name} = {recipe[name]!r}, and {arguments.get(name, name)} = {named[name]!r} is given "
            "beside it; give one"
        )
    if recipe.get("seed") is not None:
        raise InputError(
            f"recipe has seed = {recipe['seed']!r}; give it as seed, which the split has too"
        )
    both = {**named, **{name: value for name, value in recipe.items() if value is not None}}
    if both.get("learning_rate") == "auto":
        both["learning_rate"] = None
    return {name: value for name, value in both.items() if value is not None}


def _refuse_contradiction(strategy: Strategy, unfreeze: int | None, boundary: str | None) -> None:
    """A depth for a strategy that has none of its own."""
    if strategy in ("full", "scratch") and (unfreeze is not None or boundary is not None):
        option = f"--unfreeze {unfreeze}" if unfreeze is not None else f"--boundary {boundary}"
        raise InputError(
            f"{option} is given with --strategy {strategy}, which trains every layer; use --strategy partial, "
            "or leave it out"
        )


def _unused(config: Config, given: Mapping[str, Any]) -> str:
    """What was given and means nothing to a linear probe, by name."""
    if config.strategy != "probe" or config.head != "linear":
        return ""
    names = [name for name in given if name not in ("balance", "flip")]
    names += [name for name in ("unfreeze", "boundary") if getattr(config, name) is not None]
    return ", ".join(name.replace("_", " ") for name in names)


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
            f"{str(out)!r} holds a run already; --resume with the same options continues it; to begin with "
            "others, give another --out or remove it"
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


def _tune(fitting: Fitting, loggers: Sequence[LoggerName], began: float) -> None:
    """Fits what was asked for; process 0 holds the run folder and writes it."""
    out, existed = fitting.out, fitting.out.exists()
    first = distributed.is_first()
    try:
        with locked(out) if first else nullcontext(), ExitStack() as stack:
            if first:
                write_json(out / "started.json", fitting.config.to_dict())
                write_split(fitting.split, out / "split.csv")
                told = [
                    stack.enter_context(
                        open_logger(name, out, run_name=out.name, parameters=_told(fitting.config))
                    )
                    for name in loggers
                ]
                fitting = replace(fitting, reporter=_Logged(fitting.reporter, told))
            distributed.wait_for_all()
            candidates = _fitted(fitting)
            if first:
                results = _write(fitting, candidates, began)
                for logger in told:
                    logger.figure("history", out / "history.svg")
                    logger.finish(results)
            distributed.wait_for_all()
    except OutputError:
        if not existed and out.is_dir() and not any(p.name != ".lock" for p in out.iterdir()):
            (out / ".lock").unlink(missing_ok=True)
            out.rmdir()
        raise


def _told(config: Config) -> dict[str, str | int | float | bool | None]:
    """The configuration as a logger takes it."""
    values = _flat(config)
    return {
        name: value if isinstance(value, str | int | float | None) else str(value)
        for name, value in values.items()
    }


@dataclass(frozen=True)
class _Logged:
    """A `Reporter` that tells loggers of the epochs too."""

    reporter: Reporter
    loggers: Sequence[Logger]

    def task(self, name: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return self.reporter.task(name)

    def say(self, text: str) -> None:
        self.reporter.say(text)

    def epoch(self, row: EpochRow) -> None:
        self.reporter.epoch(row)
        for logger in self.loggers:
            logger.epoch(asdict(row))


def _fitted(fitting: Fitting) -> dict[str, Candidate]:
    """The candidates of a strategy by name, the probe first."""
    config = fitting.config
    candidates = {"probe": fitting.head_candidate()}
    strategy, boundary = config.strategy, None
    if config.advised:
        strategy, boundary = fitting.advice.strategy, fitting.advice.cut.boundary
    elif strategy == "auto":
        strategy = "partial"
    if strategy == "partial":
        boundary = boundary or chosen_boundary(fitting.source, config)
        candidates[strategy] = fitting.tuned_behind(boundary)
    elif strategy == "full":
        candidates[strategy] = fitting.whole()
    elif strategy == "scratch":
        candidates[strategy] = fitting.from_scratch()
    return candidates


def _write(fitting: Fitting, candidates: Mapping[str, Candidate], began: float) -> dict[str, Any]:
    """The whole run folder, run.json last; returns the figures that a logger is told."""
    out, config, split, source = fitting.out, fitting.config, fitting.split, fitting.source
    labels = fitting.labels["validation"]
    scores = {name: loss_and_top1(c.logits, labels)[::-1] for name, c in candidates.items()}
    chosen: str = config.strategy
    if chosen == "auto":
        chosen = max(scores, key=lambda name: (scores[name][0], -scores[name][1]))
    kept = candidates[chosen]
    fitted = candidates[list(candidates)[-1]]  # the history is of what was trained, kept or not
    kept.classifier.temperature = fit_temperature(kept.logits, labels)

    Predictions(
        tuple(picture.path for picture in fitting.parts["validation"]),
        labels,
        kept.logits,
        fitting.classes,
        kept.classifier.temperature,
    ).save(out / "evaluation" / "validation")
    kept.classifier.save(out / "classifier.safetensors")
    head = {"weight": fitting.probe.weight, "bias": fitting.probe.bias}
    metadata = {"classes": list(fitting.classes), "temperature": fitting.base.temperature}
    write_tensors(out / "base_head.safetensors", head, metadata)
    header = [f.name for f in fields(EpochRow)]
    write_csv(out / "history.csv", header, history_rows(fitted.history))
    _write_curves(out)
    pictures = {name: len(split.part(name)) for name in ("train", "validation", "test")}
    record = {
        "schema": SCHEMA,
        "config": config.to_dict(),
        "backbone": config.backbone,
        "root": str(split.scan.root.resolve()),
        "body_hash": source.body_hash(),
        "classes": list(fitting.classes),
        "input": source.input.to_dict(),
        "environment": environment(),
        "excluded": [list(pair) for pair in split.scan.excluded],
        "results": {
            "strategy": chosen,
            "boundary": kept.boundary,
            "head": config.head,
            "seconds": round(time.perf_counter() - began, 2),
            "cached": fitting.pooled[1],
            "pictures": pictures,
            "probe_strength": fitting.probe.strength,
            "temperature": kept.classifier.temperature,
            "validation": {"top1": scores[chosen][0], "loss": scores[chosen][1]},
            "candidates": {n: {"top1": s[0], "loss": s[1]} for n, s in scores.items()},
            **fitted.details,
            **({"advice": fitting.advice.to_dict()} if config.advised else {}),
        },
    }
    write_json(out / "run.json", record)
    (out / "started.json").unlink(missing_ok=True)
    return {
        "strategy": chosen,
        "validation_top1": scores[chosen][0],
        "validation_loss": scores[chosen][1],
        "seconds": record["results"]["seconds"],  # type: ignore[index]
    }


def _write_curves(out: Path) -> None:
    write_text(out / "history.svg", history_figure(read_csv(out / "history.csv")))
