"""The verb `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferscope.cli.app import app, print_json, source_of, table, verb
from transferscope.cli.options import (
    Data,
    Dataset,
    Group,
    Json,
    LayoutOption,
    Quiet,
    Ratio,
    Root,
    Seed,
)
from transferscope.terminal import Terminal

CLASSES_SHOWN = 15
"""Classes at either end of a table in the terminal; the report has all."""


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
    layout: LayoutOption = "auto",
    features: Annotated[
        bool,
        typer.Option(
            "--features",
            help="Compute features that are not cached: finds other views of one thing.",
        ),
    ] = False,
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
    from transferscope.data.exclusions import say
    from transferscope.data.findings import findings, opening
    from transferscope.workflows.inspect import inspect as run_inspect
    from transferscope.workflows.inspect import write_report

    terminal = Terminal(quiet)
    source = source_of(data, dataset, root)
    found = run_inspect(
        source,
        dataset=dataset,
        download=download,
        group=group,
        layout=layout,
        ratio=ratio,
        seed=seed,
        features=features,
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
    say(found.scan.excluded, typer.echo)
    words = {"stop": "must be mended", "fix": "worth mending", "know": "good to know"}
    rows = [(words[f.gravity], f.sentence, f.remedy) for f in findings(found)]
    typer.echo("")
    table(("before training", "", ""), rows or [("nothing to mend", "", "")])
    typer.echo(f"\nopen {page}" if page else "\n--out DIR writes a report with the pictures")
