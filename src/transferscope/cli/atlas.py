"""The verb `atlas`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferscope.cli.app import app, verb
from transferscope.cli.options import Quiet, RunPath
from transferscope.errors import InputError
from transferscope.files import refuse_name
from transferscope.terminal import Terminal


def refuse_page_name(file: Path) -> None:
    """Refuses what is no name of a page, before any work."""
    refuse_name(file)
    if file.suffix.lower() not in (".html", ".htm"):
        raise InputError(
            f"--single-file {str(file)!r} is to be a page; give a name that ends in .html"
        )


@app.command()
@verb
def atlas(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="Folder; default: RUN/atlas.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data folder, if it has moved.")] = None,
    single_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also as one HTML file of less than 20 MB, to send to somebody."
        ),
    ] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Leave your own pictures out of it.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Publish the run as static pages that open without a server."""
    home = run / "atlas" if out is None else out
    if single_file is not None:
        refuse_page_name(single_file)
        if home.resolve() in single_file.resolve().parents:
            raise InputError(
                f"--single-file {str(single_file)!r} lies in the atlas's folder {str(home)!r}, which is "
                "written anew as a whole; give it a place beside that"
            )
    from transferscope.workflows.atlas import atlas_file, write_atlas
    from transferscope.workflows.run import Run

    opened = Run(run)
    page = write_atlas(
        opened, out=out, data=data, pictures=not no_pictures, reporter=Terminal(quiet)
    )
    typer.echo(f"open {page}")
    if single_file is not None:
        written = atlas_file(opened, single_file, folder=page.parent)
        typer.echo(f"open {written.file}: {written.sentence}")
