"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from transferscope.cli.app import app, print_json, verb
from transferscope.cli.options import Json, Quiet, RunPath
from transferscope.terminal import Terminal


@app.command()
@verb
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
    from transferscope.workflows.export import export as run_export
    from transferscope.workflows.run import Run

    done = run_export(
        Run(run),
        format=format_,
        out=out,
        pictures=pictures,
        data=data,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(done.to_dict())
        return
    parity = done.parity
    typer.echo(
        f"{done.path}: {done.bytes / 1e6:.1f} MB; on {parity.n} {done.split} pictures its probabilities differ "
        f"from the classifier's by at most {parity.largest_difference:.1e}, and its class never"
        + ("; it says how familiar a picture is, too" if parity.familiarity is not None else "")
    )
