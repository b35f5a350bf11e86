"""The verb `serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from transferscope.cli.app import app, verb
from transferscope.cli.options import Device, Quiet, RunPath
from transferscope.terminal import Terminal


@app.command()
@verb
def serve(
    run: RunPath,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="To listen on; default: a free one.")
    ] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Show the run in this machine's browser: its atlas, its progress, and pictures to try."""
    from transferscope.workflows.serve import serve as serve_run

    def started(address: str) -> None:
        typer.echo(f"open {address} (Ctrl-C ends it)")

    serve_run(run, port=port, device=device, reporter=Terminal(quiet), on_start=started)
    typer.echo("stopped")
