"""The verb `visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import (
    Device,
    Download,
    Json,
    Model,
    Quiet,
    Seed,
    Weights,
    network_name,
)
from transferscope.errors import InputError
from transferscope.terminal import Terminal
from transferscope.wording import short

if TYPE_CHECKING:
    from transferscope.visualize.plan import Plan

_UNITS_SHOWN = 6


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
    from transferscope.workflows.open_model import open_model
    from transferscope.workflows.visualize import (
        Drawings,
        parse_channels,
        plan_visualize,
    )
    from transferscope.workflows.visualize import visualize as run_visualize

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
    reporter = Terminal(quiet)
    if plan:
        _print_plan(plan_visualize(classifier, wanted, reporter=reporter), json_)
        return
    assert out is not None
    rows = run_visualize(classifier, wanted, out=out, reporter=reporter)
    if json_:
        print_json(rows)
        return
    _print_drawings(rows)
    typer.echo(f"\nside by side: {', '.join(str(page) for page in sorted(out.glob('sheet*.png')))}")


def _print_drawings(rows: list[dict[str, Any]]) -> None:
    unit = "class" if rows and "class" in rows[0] else "-channel"
    table(
        (unit, "sign", "-activation", "-best real", "status", "file"),
        [
            (
                r.get("class", str(r["channel"])),
                r["sign"],
                "-" if r["activation"] is None else short(r["activation"]),
                "-" if r["exemplar_max"] is None else short(r["exemplar_max"]),
                r["status"],
                r["file"],
            )
            for r in rows
        ],
    )


def _print_plan(plan: Plan, json_: bool) -> None:
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
