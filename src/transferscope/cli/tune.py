"""The verb that trains."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from transferscope.cli.options import (
    Data,
    Dataset,
    Device,
    Group,
    Json,
    Precision,
    Quiet,
    Ratio,
    Root,
    Seed,
)
from transferscope.cli.talking import app, print_json, source_of, table, verb
from transferscope.errors import InputError
from transferscope.terminal import Terminal

_PICTURES, _STRATEGY, _RECIPE = "Split", "Strategy", "Recipe (partial's defaults)"
"""Panels of the help of `tune`."""


def _rate(text: str | None) -> float | Literal["auto"] | None:
    """The value of --lr."""
    if text is None or text == "auto":
        return text  # type: ignore[return-value]  # "auto" and None are all that is left
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--lr is {text!r}; give a number such as 3e-4, or auto") from None


@app.command()
@verb
def tune(
    out: Annotated[Path, typer.Option(help="A new folder for the run.")],
    data: Data = None,
    dataset: Dataset = None,
    root: Root = None,
    backbone: Annotated[
        str, typer.Option(help="See 'transferscope backbones'.")
    ] = "efficientnet_lite0",
    weights: Annotated[Path | None, typer.Option(help="A local .safetensors or .pth.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Permit fetching weights and --dataset.")
    ] = False,
    strategy: Annotated[
        Literal["auto", "probe", "partial", "full", "scratch"],
        typer.Option(
            help="auto: what 'advise' recommends or the probe, the better on validation. scratch: the control.",
            rich_help_panel=_STRATEGY,
        ),
    ] = "auto",
    unfreeze: Annotated[
        int | None,
        typer.Option(
            help="Stages that 'partial' tunes, from the end; default 3, or what is advised.",
            show_default=False,
            rich_help_panel=_STRATEGY,
        ),
    ] = None,
    boundary: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="Instead of --unfreeze: the last layer that stays frozen.",
            rich_help_panel=_STRATEGY,
        ),
    ] = None,
    head: Annotated[
        Literal["linear", "mlp"],
        typer.Option(help="mlp: 256 hidden units, ReLU, dropout 0.4.", rich_help_panel=_STRATEGY),
    ] = "linear",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Of fine-tuning, at most; default 12.", show_default=False, rich_help_panel=_RECIPE
        ),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="X|auto",
            help="Peak learning rate; auto: a range test; default 3e-4.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Pictures a step; default 32.", show_default=False, rich_help_panel=_RECIPE
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            help="Work a batch through in so many parts, to save memory; default 1.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd"] | None,
        typer.Option(
            help="AdamW, or SGD with momentum; default adamw.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Of matrices and kernels; default 0.05.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            help="In training only; default 0.1.", show_default=False, rich_help_panel=_RECIPE
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Each stage's share of the rate of the stage behind it; default 1.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    gradual: Annotated[
        bool,
        typer.Option(
            "--gradual",
            help="Unfreeze the last stage first, then one an epoch.",
            rich_help_panel=_RECIPE,
        ),
    ] = False,
    balance: Annotated[
        Literal["none", "weights", "sampling"] | None,
        typer.Option(
            help="For classes of unequal size; default none.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of averaged weights, such as 0.99; 0: none; default 0.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without progress; 0: never; default 5.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    augment: Annotated[
        Literal["none", "light", "strong"] | None,
        typer.Option(
            help="What fine-tuning sees of the training pictures; 'inspect --out' shows it; default light.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    cache_views: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Augmented views that are cached and cycled, an epoch each; default 4.",
            show_default=False,
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    no_flip: Annotated[
        bool,
        typer.Option(
            "--no-flip",
            help="Never mirror: for characters, roads, X-rays.",
            rich_help_panel=_RECIPE,
        ),
    ] = False,
    ratio: Ratio = "70/15/15",
    group: Group = None,
    split_from: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Take the split of this run.", rich_help_panel=_PICTURES),
    ] = None,
    dedupe: Annotated[
        bool,
        typer.Option(
            "--dedupe",
            help="Leave copies of training pictures out of other splits.",
            rich_help_panel=_PICTURES,
        ),
    ] = False,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="tensorboard or mlflow; may be given twice.", show_default=False
        ),
    ] = None,
    search: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Try N settings of head, depth, rate and augmentation first.",
            rich_help_panel=_STRATEGY,
        ),
    ] = 0,
    keep_every: Annotated[
        int, typer.Option(metavar="K", help="Keep every K-th epoch's weights in RUN/timeline.")
    ] = 0,
    device: Device = None,
    precision: Precision = "auto",
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a pretrained network on a folder of pictures."""
    from transferscope.distributed import speaks
    from transferscope.workflows import tune as run_tune

    recipe = {
        "accumulate": accumulate,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "layer_decay": layer_decay,
        "gradual": gradual or None,
        "balance": balance,
        "ema": ema,
        "patience": patience,
        "views": cache_views,
    }
    run = run_tune(
        source_of(data, dataset, root),
        out=out,
        dataset=dataset,
        backbone=backbone,
        weights=weights,
        download=download,
        strategy=strategy,
        unfreeze=unfreeze,
        boundary=boundary,
        head=head,
        epochs=epochs,
        lr=_rate(lr),
        batch_size=batch_size,
        augment=augment,
        flip=False if no_flip else None,
        recipe=recipe,
        search=search,
        keep_every=keep_every,
        loggers=tuple(logger or ()),
        ratio=ratio,
        group=group,
        split_from=split_from,
        dedupe=dedupe,
        seed=seed,
        device=device,
        precision=precision,
        resume=resume,
        reporter=Terminal(quiet or not speaks()),
    )
    if not speaks():
        return
    results = run.results
    if json_:
        report = {key: results[key] for key in ("strategy", "seconds", "cached", "validation")}
        print_json({"run": str(run.path), "backbone": run.config.backbone, **report})
        return
    rows = [
        (
            name,
            f"{score['top1']:.1%}",
            f"{score['loss']:.3f}",
            "kept" if name == results["strategy"] else "",
        )
        for name, score in results["candidates"].items()
    ]
    table(("strategy", "-validation top-1", "-loss", ""), rows)
    typer.echo(
        f"\n{run.path}: {results['seconds']} s, features of {results['cached']} pictures were cached; "
        f"next: {shlex.join(('transferscope', 'evaluate', str(run.path)))}"
    )
