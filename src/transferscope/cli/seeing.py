"""Verbs that look into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from transferscope.cli.options import (
    Device,
    Json,
    Model,
    Quiet,
    RunPath,
    Seed,
)
from transferscope.cli.talking import app, print_json, table, verb
from transferscope.errors import InputError
from transferscope.terminal import Terminal


@app.command()
@verb
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
        print_json(
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
    table(("layer", "type", "stage", "-output", "-parameters", ""), rows)
    total = sum(parameter.numel() for parameter in classifier.network.parameters())
    typer.echo(f"\n{len(found)} layers, {total:,} parameters, input {classifier.input.shape}")


@app.command()
@verb
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
        print_json(rows)
        return
    table(
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
@verb
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
    typer.echo(
        f"\nsimilarity: base against tuned; re-render: one network against itself (the ceiling); "
        f"chance: unrelated channels (the floor). Next: transferscope atlas {run}"
    )
