"""The verb `attack`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from transferscope.terminal import Terminal

if TYPE_CHECKING:
    from transferscope.adversarial.attacks import Perturbation


@app.command()
@verb
def attack(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the figure.")],
    to: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="What it is to be taken for; default: anything else."),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(help="The largest change; default: 2/255 in linf, 1 in l2."),
    ] = None,
    norm: Annotated[
        Literal["linf", "l2"] | None,
        typer.Option(help="linf: of any value; l2: the length of all changes."),
    ] = None,
    method: Annotated[
        Literal["pgd", "fgsm", "deepfool"],
        typer.Option(help="deepfool: about the smallest change, in l2."),
    ] = "pgd",
    steps: Annotated[int, typer.Option(min=1, help="Of each try.")] = 40,
    restarts: Annotated[
        int, typer.Option(min=1, help="Tries; those after the first start at random.")
    ] = 2,
    seed: Seed = 0,
    weights: Weights = None,
    download: Download = False,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Change a picture invisibly, so that the network takes its file for another class."""
    from transferscope.workflows.attack import attack_files, failure
    from transferscope.workflows.open_model import open_model

    rows = attack_files(
        open_model(model, weights=weights, download=download, device=device),
        images,
        to=to,
        epsilon=epsilon,
        norm=norm,
        method=method,
        steps=steps,
        restarts=restarts,
        seed=seed,
        out=out,
        called=network_name(model),
        reporter=Terminal(quiet),
    )
    failed = [row for row in rows if not row.verified]
    if json_:
        told = [row.to_dict() for row in rows]
        print_json(told[0] if len(told) == 1 else told)
    else:
        _print(rows)
    if failed:
        typer.echo(
            f"{len(failed)} of {len(rows)} pictures do not fool; the first: {failure(failed[0], steps)}",
            err=True,
        )
        raise typer.Exit(1)


def _print(rows: Sequence[Perturbation]) -> None:
    """A row a picture that fools, and the control."""
    from transferscope.adversarial.budgets import epsilon_said
    from transferscope.adversarial.sentences import noise_sentence

    table(
        (
            "file",
            "from",
            "-",
            "to",
            "-",
            "-largest change" if rows[0].norm == "linf" else "-length",
        ),
        [
            (
                row.file,
                row.source,
                f"{row.source_probability:.1%}",
                row.target,
                f"{row.probability:.1%}",
                epsilon_said(row.distance, row.norm),
            )
            for row in rows
            if row.file is not None
        ],
    )
    done = next(row for row in rows if row.verified)
    typer.echo(f"\nRead back from the file. {noise_sentence(done)}")
