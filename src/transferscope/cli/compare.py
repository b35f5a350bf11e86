"""The verb `compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Device, Json, Quiet, RunPath, Weights
from transferscope.errors import InputError
from transferscope.terminal import Terminal

if TYPE_CHECKING:
    from transferscope.comparison.records import Comparison


@app.command()
@verb
def compare(
    run: RunPath,
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN2]",
            help="Hold RUN against another run, a classifier's file or a backbone.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers, with commas; default: the backbone's.")
    ] = None,
    controls: Annotated[
        int, typer.Option(help="Transfers from shuffled labels to hold gains against; 0: none.")
    ] = 3,
    retunings: Annotated[
        int, typer.Option(help="Transfers from other seeds: how reproducible a gain is.")
    ] = 0,
    draw: Annotated[str, typer.Option(help="Channels a layer to draw, a number or all.")] = "6",
    seeds: Annotated[int, typer.Option(help="Drawings of each channel in each network.")] = 3,
    steps: Annotated[
        int | None, typer.Option(help="Steps of a drawing, at most.", show_default=False)
    ] = None,
    patch: Annotated[
        str, typer.Option(help="Channels to set back to base and see what is missed, or all.")
    ] = "128",
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Draw one of N shares, in a cache that all share."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Who draws: local, or ray for Ray's workers.")
    ] = "local",
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what is to be done and how long it takes; do nothing."),
    ] = False,
    weights: Weights = None,
    data: Annotated[Path | None, typer.Option(help="The data folder, if it has moved.")] = None,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say, channel by channel, what the transfer taught, against transfers from shuffled labels."""
    from transferscope.workflows.compare import compare as run_compare
    from transferscope.workflows.comparison_plan import plan_compare
    from transferscope.workflows.run import Run

    options: dict[str, Any] = {
        "layers": layers.split(",") if layers else None,
        "controls": controls,
        "retunings": retunings,
        "draw": _count("--draw", draw),
        "patch": _count("--patch", patch),
        "seeds": seeds,
        "steps": steps,
        "shard": _share(shard),
        "engine": engine,
    }
    places: dict[str, Any] = {
        "weights": weights,
        "data": data,
        "device": device,
        "reporter": Terminal(quiet),
    }
    if plan:
        found = plan_compare(Run(run), second, **places, **options)
        if json_:
            print_json(found.to_dict())
        else:
            typer.echo("\n".join(found.sentences()))
        return
    comparison = run_compare(Run(run), second, **places, **options)
    if json_:
        print_json(comparison.to_dict())
        return
    _print(comparison)
    if comparison.rows:
        typer.echo(f"\nnext: {shlex.join(('transferscope', 'atlas', str(run)))}")


def _print(comparison: Comparison) -> None:
    """A table of layers, and what was found in sentences."""
    from transferscope.comparison.headline import layer_table, sentences

    columns, rows, note = layer_table(comparison)
    table(columns, rows)
    if note:
        typer.echo(f"\n{note}")
    typer.echo()
    for sentence in sentences(comparison):
        typer.echo(sentence)


def _count(option: str, value: str) -> int | None:
    if value != "all" and not value.isdigit():
        raise InputError(f"{option} is {value!r}; give a number of channels, or all")
    return None if value == "all" else int(value)


def _share(shard: str | None) -> tuple[int, int] | None:
    if shard is None:
        return None
    part, slash, of = shard.partition("/")
    if not (slash and part.isdigit() and of.isdigit()):
        raise InputError(f"--shard is {shard!r}; give I/N, such as 1/4")
    return int(part), int(of)
