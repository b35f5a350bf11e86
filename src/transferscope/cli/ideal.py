"""The verb `ideal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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


@app.command()
@verb
def ideal(
    model: Model,
    name: Annotated[str, typer.Option("--class", help="The class that is drawn.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures; default, of a run: it keeps both networks'."),
    ] = None,
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
    from transferscope.workflows.ideal import draw_ideal, keep_ideals
    from transferscope.workflows.open_model import open_model
    from transferscope.workflows.run import Run

    options: dict[str, Any] = {"seed": seed, "steps": steps, "size": size}
    options["reporter"] = Terminal(quiet)
    if out is not None:
        classifier = open_model(model, weights=weights, download=download, device=device)
        rows = draw_ideal(classifier, name, out=out, called=network_name(model), **options)
    elif (Path(model) / "run.json").is_file():
        rows = keep_ideals(Run(model), name, device=device, **options)
    else:
        raise InputError(f"--out is missing; give a folder for {name!r} (a run has its own)")
    if json_:
        print_json(rows)
        return
    table(
        (
            "" if out is not None else "network",
            "version",
            "-probability",
            "-logit",
            "-total variation",
            "file",
        ),
        [
            (
                row.get("network", ""),
                row["version"],
                f"{row['probability']:.1%}",
                f"{row['logit']:.1f}",
                f"{row['total_variation']:.3f}",
                row["file"],
            )
            for row in rows
        ],
    )
    for folder in dict.fromkeys(Path(row["file"]).parent for row in rows):
        typer.echo(f"\nside by side: {folder / 'ideal.png'}")
