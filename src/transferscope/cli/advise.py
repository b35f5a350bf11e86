"""The verb `advise`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferscope.cli.app import app, print_json, source_of, table, verb
from transferscope.cli.options import (
    Data,
    Dataset,
    Device,
    Group,
    Json,
    LayoutOption,
    Precision,
    Quiet,
    Ratio,
    Root,
    Seed,
)
from transferscope.terminal import Terminal

if TYPE_CHECKING:
    from transferscope.training.advice import Advice


@app.command()
@verb
def advise(
    data: Data = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="May be given several times; default efficientnet_lite0.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write stages.svg, plane.svg and advice.json here.")
    ] = None,
    dataset: Dataset = None,
    root: Root = None,
    weights: Annotated[
        Path | None, typer.Option(help="A local .safetensors or .pth, of the one backbone.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Permit fetching weights and --dataset.")
    ] = False,
    ratio: Ratio = "70/15/15",
    group: Group = None,
    layout: LayoutOption = "auto",
    seed: Seed = 0,
    device: Device = None,
    precision: Precision = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how well your pictures transfer, depth by depth, and recommend a strategy."""
    from transferscope.workflows.advise import advise as run_advise

    source = source_of(data, dataset, root)
    advice = run_advise(
        source,
        backbones=backbone or ("efficientnet_lite0",),
        dataset=dataset,
        weights=weights,
        download=download,
        group=group,
        layout=layout,
        ratio=ratio,
        seed=seed,
        device=device,
        precision=precision,
        out=out,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(advice.to_dict())
        return
    from transferscope.training.advice import advice_sentences

    _advice_tables(advice)
    for sentence in advice_sentences(advice):
        typer.echo(sentence)
    place = shlex.quote(str(source))
    what = f"--dataset {dataset} --root {place}" if dataset else place
    quoted = shlex.quote(f"runs/{dataset or source.stem}")
    what += f" --layout {layout}" if layout != "auto" else ""
    options = f"--strategy {advice.best.strategy}"
    options += f" --boundary {advice.best.boundary}" if advice.best.boundary else ""
    options += f" --backbone {advice.chosen}" if backbone else ""
    typer.echo(f"\ntransferscope tune {what} --out {quoted} {options}")
    if out is not None:
        typer.echo(f"drawn in {out / 'stages.svg'} and {out / 'plane.svg'}")


def _advice_tables(advice: Advice) -> None:
    """A table of the probes by stage for each backbone, and one of the backbones."""
    for one in advice.backbones:
        rows = [
            (
                stage.stage,
                "█" * round(24 * stage.top1),
                f"{stage.top1:.1%}",
                f"{stage.interval[0]:.1%} to {stage.interval[1]:.1%}",
                "control" if stage is one.control else "best" if stage.as_good_as_best else "",
            )
            for stage in (*one.stages, one.control)
        ]
        title = f"{one.backbone}: probes of its stages on unseen training pictures"
        table(("stage", "", "-right", "95% interval", ""), rows, title=title)
        typer.echo("")
    if len(advice.backbones) > 1:
        compared = [
            (
                one.backbone,
                f"{one.parameters / 1e6:.1f} M",
                f"{one.milliseconds:.1f}",
                f"{one.probe.top1:.1%}",
                f"{one.probe.interval[0]:.1%} to {one.probe.interval[1]:.1%}",
                f"{one.similarity:.2f}",
                one.strategy,
            )
            for one in advice.backbones
        ]
        columns = ("backbone", "-parameters", "-ms a picture", "-probe", "95% interval")
        table((*columns, "-similarity", "strategy"), compared)
        typer.echo("")
