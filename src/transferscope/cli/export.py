"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from transferscope.cli.app import app, print_json, verb
from transferscope.cli.options import Json, Quiet, RunPath
from transferscope.terminal import Terminal

if TYPE_CHECKING:
    from transferscope.workflows.export import Export


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
        int, typer.Option(min=0, help="Test pictures it is checked on before it is kept; 0: all.")
    ] = 64,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="ONNX in 8-bit integers, calibrated and checked on validation pictures."
        ),
    ] = False,
    int8_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Points of top-1 that int8 may lose.  [default: 0.5]"),
    ] = None,
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
        int8=int8,
        int8_drop=int8_drop,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(done.to_dict())
        return
    if done.int8 is not None:
        typer.echo(int8_sentence(done))
        return
    parity = done.parity
    typer.echo(
        f"{done.path}: {done.bytes / 1e6:.1f} MB; on {parity.n} {done.split} pictures its probabilities differ "
        f"from the classifier's by at most {parity.largest_difference:.1e}, and its class never"
        + ("; it says how familiar a picture is, too" if parity.familiarity is not None else "")
    )


def int8_sentence(done: Export) -> str:
    """What an int8 file is worth, in words."""
    figures = done.int8
    assert figures is not None
    low, high = figures.interval
    left = ", ".join(figures.fp32_layers) or "none"
    which = f"{figures.n} others" if figures.apart else "the same, as there are few"
    return (
        f"{done.path}: {done.bytes / 1e6:.1f} MB ({figures.fp32_bytes / 1e6:.1f} in fp32), "
        f"{figures.speedup:.2f} times the pictures a second\n"
        f"calibrated on {figures.calibration} validation pictures, checked on "
        f"{which}: top-1 "
        f"{figures.top1:.2%}, {figures.fp32_top1:.2%} in fp32; {100 * figures.lost:.2f} points lost (95% "
        f"interval {100 * low:.2f} to {100 * high:.2f}), {figures.changed:.1%} of answers changed\n"
        f"left in fp32, beside the head: {left} ({len(figures.fp32_layers)} of {figures.layers} layers)"
    )
