"""Verbs that look into a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from transferscope.cli.options import (
    Device,
    Download,
    Json,
    Model,
    Quiet,
    RunPath,
    Seed,
    Weights,
)
from transferscope.cli.talking import app, print_json, table, verb
from transferscope.errors import InputError
from transferscope.terminal import Terminal

if TYPE_CHECKING:
    from transferscope.visualize import Plan
    from transferscope.workflows.looking import LayerRow


_UNITS_SHOWN = 6


@app.command()
@verb
def layers(
    model: Model, weights: Weights = None, download: Download = False, json_: Json = False
) -> None:
    """List every layer of a network: name, type, stage, shape, parameters; and what they add up to."""
    from transferscope.workflows import describe_layers, open_model

    classifier = open_model(model, weights=weights, download=download)
    found = describe_layers(classifier)
    if json_:
        print_json([row.to_dict() for row in found.layers])
        return
    table(
        ("layer", "type", "stage", "-output", "-parameters", "-trainable", ""),
        [
            (
                row.name,
                row.type,
                row.stage,
                " x ".join(map(str, row.output_shape)),
                f"{row.parameters:,}",
                f"{row.trainable:,}",
                ", ".join(_marks(row)),
            )
            for row in found.layers
        ],
    )
    typer.echo(
        f"\n{len(found.layers)} layers, input {classifier.input.shape}; a container's parameters include "
        "those of the layers inside it\n"
        f"{found.parameters:,} parameters ({found.trainable:,} trainable) and {found.buffers:,} buffer "
        f"values: {found.weight_bytes / 1e6:.1f} MB\n"
        f"one picture: {found.macs / 1e6:,.0f} million multiply-accumulates, "
        f"{found.activation_bytes / 1e6:.1f} MB of activations in fp32"
    )


def _marks(row: LayerRow) -> Iterator[str]:
    if row.container:
        yield "container"
    if row.signed:
        yield "signed"
    if row.calls > 1:
        yield f"x {row.calls}"


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
    from transferscope.workflows import activation_sheets, open_model

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


@app.command()
@verb
def visualize(
    model: Model,
    channels: Annotated[
        str, typer.Option(help="0,5,8-15 or all; classes with logit, also by name.")
    ],
    layer: Annotated[
        str | None, typer.Option(help="Dotted name; see 'transferscope layers'. Not with logit.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
    sign: Annotated[
        Literal["plus", "minus", "both"], typer.Option(help="Direction of a signed channel.")
    ] = "plus",
    objective: Annotated[
        Literal["channel", "neuron", "logit"],
        typer.Option(help="A channel's mean, its middle neuron, or a class's logit."),
    ] = "channel",
    steps: Annotated[int | None, typer.Option(min=1, help="Most optimization steps.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Side of a picture in pixels.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Real pictures to hold the drawings against.")
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what it will take, measured on a few, and draw nothing."),
    ] = False,
    seed: Seed = 0,
    weights: Weights = None,
    download: Download = False,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what excites channels of a layer, neurons or classes. Interrupted, it goes on where it was."""
    from transferscope.workflows import (
        Drawings,
        open_model,
        parse_channels,
        plan_visualize,
        sweep_folder,
    )
    from transferscope.workflows import visualize as run_visualize

    if out is None and not plan:
        raise InputError("no folder for the pictures is given; add --out DIR, or --plan")
    classifier = open_model(model, weights=weights, download=download, device=device)
    where = classifier.head if objective == "logit" else layer
    wanted = Drawings(
        layer=layer,
        channels=parse_channels(channels, classifier, where),
        signs=("plus", "minus") if sign == "both" else (sign,),
        seed=seed,
        steps=steps,
        size=size,
        objective=objective,
        data=data,
        called=network_name(model),
    )
    folder, reporter = sweep_folder(model), Terminal(quiet)
    if plan:
        _tell_plan(plan_visualize(classifier, wanted, sweep=folder, reporter=reporter), json_)
        return
    assert out is not None
    rows = run_visualize(classifier, wanted, out=out, sweep=folder, reporter=reporter)
    if json_:
        print_json(rows)
        return
    table(
        (
            "class" if objective == "logit" else "-channel",
            *("sign", "-activation", "-best real", "status", "file"),
        ),
        [
            (
                r.get("class", str(r["channel"])),
                r["sign"],
                "-" if r["activation"] is None else f"{r['activation']:.3f}",
                "-" if r["exemplar_max"] is None else f"{r['exemplar_max']:.3f}",
                r["status"],
                r["file"],
            )
            for r in rows
        ],
    )
    typer.echo(f"\nside by side: {', '.join(str(page) for page in sorted(out.glob('sheet*.png')))}")


def _tell_plan(plan: Plan, json_: bool) -> None:
    if json_:
        print_json(plan.to_dict())
        return
    typer.echo(
        f"{plan.left} of {plan.pictures} pictures are to be drawn; about {plan.seconds / 60:.1f} min, "
        f"{plan.disk_mb:.1f} MB on disk, {plan.memory_mb:.0f} MB of memory (from {plan.measured})"
    )
    for layer, sign, seed, channels in plan.order[:_UNITS_SHOWN]:
        typer.echo(f"  {layer} {sign}, seed {seed}: channels {', '.join(map(str, channels))}")
    if len(plan.order) > _UNITS_SHOWN:
        typer.echo(f"  and {len(plan.order) - _UNITS_SHOWN} more units of work")


@app.command()
@verb
def ideal(
    model: Model,
    name: Annotated[str, typer.Option("--class", help="The class that is drawn.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Of each version; default: 256.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Side of a picture in pixels.")] = None,
    seed: Seed = 0,
    weights: Weights = None,
    download: Download = False,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what a class wants to see, three ways: pixels alone, smoothed, and with the full recipe."""
    from transferscope.workflows import draw_ideal, open_model

    classifier = open_model(model, weights=weights, download=download, device=device)
    rows = draw_ideal(
        classifier,
        name,
        out=out,
        seed=seed,
        steps=steps,
        size=size,
        called=network_name(model),
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(rows)
        return
    table(
        ("version", "-probability", "-logit", "-total variation", "file"),
        [
            (
                row["version"],
                f"{row['probability']:.1%}",
                f"{row['logit']:.1f}",
                f"{row['total_variation']:.3f}",
                row["file"],
            )
            for row in rows
        ],
    )
    typer.echo(f"\nside by side: {out / 'ideal.png'}")


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
    from transferscope.visualize import DreamRecipe
    from transferscope.workflows import dream_file, open_model

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


def network_name(model: str) -> str:
    """What a model is called on pictures and pages: a run by its folder."""
    return Path(model).resolve().name if Path(model).exists() else model
