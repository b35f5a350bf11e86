"""The verb `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import (
    Device,
    Json,
    Quiet,
    Seed,
)
from transferscope.terminal import Terminal


@app.command()
@verb
def demo(
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("demo"),
    data: Annotated[
        Path | None,
        typer.Option(help="Your own pictures in place of generated ones.", show_default=False),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue, or show what is done.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune, evaluate, compare and publish in one command, on generated pictures or on your own."""
    from transferscope.files import read_json
    from transferscope.workflows.demo import demo as run_demo
    from transferscope.workflows.run import Run

    run: Run = run_demo(
        out, data=data, seed=seed, device=device, resume=resume, reporter=Terminal(quiet)
    )
    metrics = read_json(run.path / "evaluation" / "metrics.json")
    atlas = run.path / "atlas" / "index.html"
    places = {"run": str(run.path), "atlas": str(atlas)}
    if data is not None:
        if json_:
            print_json({**places, "evaluation": metrics["tuned"]})
        else:
            low, high = metrics["tuned"]["top1_interval"]
            typer.echo(f"right: {metrics['tuned']['top1']:.1%} ({low:.1%} to {high:.1%})")
            typer.echo(f"\nopen {atlas}")
        return
    strips = read_json(run.path / "evaluation" / "strips.json")
    if json_:
        print_json({**places, "characters": metrics["tuned"], "strips": strips})
        return
    tuned, base = metrics["tuned"], metrics["base"]
    low, high = tuned["top1_interval"]
    merged, merged_strips = tuned["confusable"], strips["share_with_lookalikes_merged"]
    rows = [
        ("characters, before (probe)", f"{base['top1']:.1%}", f"{base['confusable']:.1%}"),
        ("characters, after", f"{tuned['top1']:.1%} ({low:.1%} to {high:.1%})", f"{merged:.1%}"),
        ("strips of four, after", f"{strips['share']:.1%}", f"{merged_strips:.1%}"),
    ]
    table(("test pictures", "-right", "-with O/0 and I/1 as one"), rows)
    typer.echo(f"\nopen {atlas}")
