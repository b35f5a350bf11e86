"""The verb `activations`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Device, Download, Json, Model, Quiet, Weights, network_name
from transferscope.terminal import Terminal


@app.command()
@verb
def activations(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the sheets; open its index.html.")],
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Dotted name, as often as wanted; default: every convolution."),
    ] = None,
    scale: Annotated[
        Literal["layer", "channel"],
        typer.Option(help="One colour scale for all channels of a layer, or each channel its own."),
    ] = "layer",
    save_arrays: Annotated[
        bool, typer.Option("--save-arrays", help="The values too, as maps.safetensors.")
    ] = False,
    weights: Weights = None,
    download: Download = False,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what every channel of a network's layers makes of a picture, first to last."""
    from transferscope.workflows.activations import activation_sheets
    from transferscope.workflows.open_model import open_model

    sheets = activation_sheets(
        open_model(model, weights=weights, download=download, device=device),
        image,
        out=out,
        layers=layer or None,
        scale=scale,
        save_arrays=save_arrays,
        called=network_name(model),
        reporter=Terminal(quiet),
    )
    if json_:
        print_json([sheet.to_dict() for sheet in sheets])
        return
    table(
        ("layer", "type", "-output", "-zero everywhere", "-least", "-mean", "-largest"),
        [
            (
                sheet.layer,
                sheet.type,
                " x ".join(map(str, sheet.shape)),
                f"{sheet.dead} of {sheet.channels}",
                *("-" if v is None else f"{v:.3g}" for v in (sheet.min, sheet.mean, sheet.max)),
            )
            for sheet in sheets
        ],
    )
    typer.echo(f"\nfirst to last on one page: {out / 'index.html'}")
