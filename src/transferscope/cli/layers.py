"""The verb `layers`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Download, Json, Model, Weights

if TYPE_CHECKING:
    from transferscope.workflows.layers import LayerRow


@app.command()
@verb
def layers(
    model: Model, weights: Weights = None, download: Download = False, json_: Json = False
) -> None:
    """List every layer of a network: name, type, stage, shape, parameters; and what they add up to."""
    from transferscope.workflows.layers import describe_layers
    from transferscope.workflows.open_model import open_model

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
