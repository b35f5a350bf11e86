"""The verb `atlas`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferscope.cli.app import app, verb
from transferscope.cli.options import Quiet, RunPath
from transferscope.terminal import Terminal


@app.command()
@verb
def atlas(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="Folder; default: RUN/atlas.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data folder, if it has moved.")] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Leave your own pictures out of it.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Publish the run as static pages that open without a server."""
    from transferscope.workflows.atlas import write_atlas
    from transferscope.workflows.run import Run

    page = write_atlas(
        Run(run), out=out, data=data, pictures=not no_pictures, reporter=Terminal(quiet)
    )
    typer.echo(f"open {page}")
