"""The verb `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Device, Json, Quiet, RunPath
from transferscope.errors import InputError
from transferscope.terminal import Terminal


@app.command()
@verb
def compare(
    run: RunPath,
    layers: Annotated[
        str | None, typer.Option(help="Layers, with commas; default: the backbone's.")
    ] = None,
    sample: Annotated[str, typer.Option(help="Channels a layer, a number or all.")] = "16",
    seeds: Annotated[int, typer.Option(help="Renders of each channel in each network.")] = 2,
    data: Annotated[Path | None, typer.Option(help="The data folder, if it has moved.")] = None,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say, channel by channel, what the transfer changed, above the noise of rendering."""
    from transferscope.workflows.compare import compare as run_compare
    from transferscope.workflows.run import Run

    if sample != "all" and not sample.isdigit():
        raise InputError(f"--sample is {sample!r}; give a number of channels, or all")
    comparison = run_compare(
        Run(run),
        layers=layers.split(",") if layers else None,
        sample=None if sample == "all" else int(sample),
        seeds=seeds,
        data=data,
        device=device,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(comparison.to_dict())
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
    table(columns, rows)
    if all(layer.identical and not layer.channels for layer in comparison.layers):
        return  # why nothing was drawn has been said
    typer.echo(
        f"\nsimilarity: base against tuned; re-render: one network against itself (the ceiling); "
        f"chance: unrelated channels (the floor). Next: transferscope atlas {run}"
    )
