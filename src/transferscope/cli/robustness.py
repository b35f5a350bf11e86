"""The verb `robustness`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Device, Json, Quiet, RunPath, Seed
from transferscope.terminal import Terminal, plain


@app.command()
@verb
def robustness(
    run: RunPath,
    data: Annotated[Path | None, typer.Option(help="The data folder, if it has moved.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    pictures: Annotated[
        int, typer.Option(min=1, help="How many, drawn evenly over the classes.")
    ] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Of each try of PGD.")] = 20,
    restarts: Annotated[
        int, typer.Option(min=1, help="Tries of PGD; those after the first start at random.")
    ] = 2,
    seed: Seed = 0,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """How much the network stands before and after transfer: attacks, noise, blur, JPEG, brightness.

    Accuracy under attack is an upper bound: a stronger attack may find more. Everything is in the run's
    folder attacks/ too; the atlas shows it.
    """
    from transferscope.report.figures.robustness import share_rows, summary
    from transferscope.workflows.robustness import robustness as measure
    from transferscope.workflows.run import Run

    result = measure(
        Run(run),
        split=split,
        pictures=pictures,
        data=data,
        steps=steps,
        restarts=restarts,
        seed=seed,
        device=device,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(result.to_dict())
        return
    table(("right", "-base", "-tuned", "-difference", "-95% interval"), share_rows(result))
    for sentence in summary(result):
        typer.echo(f"\n{plain(sentence)}")
    typer.echo(f"\nfigure: {run / 'attacks' / 'robustness.svg'}")
