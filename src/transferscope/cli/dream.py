"""The verb `dream`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferscope.cli.app import app, print_json, verb
from transferscope.cli.options import Device, Download, Json, Model, Quiet, Seed, Weights
from transferscope.terminal import Terminal


@app.command()
@verb
def dream(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    layer: Annotated[str, typer.Option(help="Dotted name; see 'transferscope layers'.")],
    out: Annotated[Path, typer.Option(help="File for the dream: .png, .jpg or .webp.")],
    channel: Annotated[
        int | None, typer.Option(help="One channel of the layer; default: all of them.")
    ] = None,
    octaves: Annotated[
        int | None,
        typer.Option(help="Sizes climbed through, 1 or more; default: by the photo's size."),
    ] = None,
    octave_scale: Annotated[
        float, typer.Option(help="From one size to the next; above 1, at most 4.")
    ] = 1.4,
    steps: Annotated[int, typer.Option(help="Ascents an octave, 1 or more.")] = 10,
    rate: Annotated[
        float,
        typer.Option(
            help="How far a step moves a pixel on average; above 0, at most 1, which is white."
        ),
    ] = 0.006,
    tile: Annotated[
        int | None, typer.Option(help="Most pixels a side that are in work at once; default: 640.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Pixels of the longer side; default: the photo's own."),
    ] = None,
    seed: Seed = 0,
    weights: Weights = None,
    download: Download = False,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Change a photo of any size towards what a layer, or one channel, sees in it."""
    from transferscope.visualize.dream import DreamRecipe
    from transferscope.workflows.dream import dream_file
    from transferscope.workflows.open_model import open_model

    recipe = DreamRecipe(octaves, octave_scale, steps, rate, tile)
    row = dream_file(
        open_model(model, weights=weights, download=download, device=device),
        image,
        layer,
        out=out,
        channel=channel,
        recipe=recipe,
        size=size,
        seed=seed,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(row)
        return
    what = "mean square of the layer" if channel is None else f"mean of channel {channel}"
    width, height = row["size"]
    octaves_ = "1 octave" if row["octaves"] == 1 else f"{row['octaves']} octaves"
    typer.echo(
        f"{row['file']}: {width} x {height}, {octaves_}; {what} "
        f"{row['activation_before']:.3g} before, {row['activation_after']:.3g} after"
    )
