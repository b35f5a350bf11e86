"""Verbs to begin with: the demonstration, and a look at the pictures before any training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferscope.cli.options import (
    Data,
    Dataset,
    Device,
    Group,
    Json,
    Precision,
    Quiet,
    Ratio,
    Root,
    Seed,
)
from transferscope.cli.talking import app, print_json, source_of, table, verb
from transferscope.terminal import Terminal

if TYPE_CHECKING:
    from transferscope.training.advice import Advice

CLASSES_SHOWN = 15
"""Classes at either end of a table in the terminal; the report has all."""

FILES_SHOWN = 10


@app.command()
@verb
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
        print_json(
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
    table(("test pictures", "-right", "-with O/0 and I/1 as one"), rows)
    typer.echo(f"\nopen {atlas}")


@app.command()
@verb
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
    from transferscope.data import findings, opening
    from transferscope.workflows import inspect_data, write_report

    terminal = Terminal(quiet)
    source = source_of(data, dataset, root)
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
        print_json(found.to_dict() | ({"report": str(page)} if page else {}))
        return
    typer.echo(opening(found) + "\n")
    counts = found.counts()
    names = sorted(counts, key=lambda name: (-sum(counts[name].values()), name))
    rows = [(name, *(f"{counts[name][part]:,}" for part in found.splits)) for name in names]
    hidden = len(rows) - 2 * CLASSES_SHOWN
    if hidden > 0:
        between = (f"... {hidden} classes between ...", *("" for _ in found.splits))
        rows = [*rows[:CLASSES_SHOWN], between, *rows[-CLASSES_SHOWN:]]
    if rows:
        table(("class", *(f"-{part}" for part in found.splits)), rows)
    if found.split_drawn:
        typer.echo(f"\nThe layout has no splits: these are what 'tune' draws with --ratio {ratio}.")
    for path, reason in found.scan.excluded[:FILES_SHOWN]:
        typer.echo(f"left out {path}: {reason}")
    if len(found.scan.excluded) > FILES_SHOWN:
        typer.echo(f"and {len(found.scan.excluded) - FILES_SHOWN} more; --json lists all")
    words = {"stop": "must be mended", "fix": "worth mending", "know": "good to know"}
    rows = [(words[f.gravity], f.sentence, f.remedy) for f in findings(found)]
    typer.echo("")
    table(("before training", "", ""), rows or [("nothing to mend", "", "")])
    typer.echo(f"\nopen {page}" if page else "\n--out DIR writes a report with the pictures")


@app.command()
@verb
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
    from transferscope.workflows.advise import advise as run_advise

    source = source_of(data, dataset, root)
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
        print_json(advice.to_dict())
        return
    from transferscope.training.advice import told

    _advice_tables(advice)
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


def _advice_tables(advice: Advice) -> None:
    """A table of the probes by stage for each backbone, and one of the backbones."""
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
        table(("stage", "", "-right", "95% interval", ""), rows, title=title)
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
        table((*columns, "-similarity", "strategy"), compared)
        typer.echo("")
