"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only results and errors.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:N or mps; default: the best here.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="auto: bf16 where the hardware is fast at it; fp16 on CUDA only."),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Folder of class folders, or a table (.csv, .parquet) of files. With --dataset: none.",
        show_default=False,
    ),
]
Dataset = Annotated[
    str | None, typer.Option(help="A well-known set by name, such as caltech101, under --root.")
]
Root = Annotated[
    Path | None, typer.Option("--root", help="The folder that holds the files of --dataset.")
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|PATTERN|lookalikes",
        help="What must stay in one split: a table's column, a pattern searched in the paths, such as "
        "'(patient[0-9]+)', or lookalikes.",
    ),
]
LayoutOption = Annotated[
    Literal["auto", "splits", "classes"],
    typer.Option(
        help="How folders called train, test and the like are read; auto: where it is certain."
    ),
]
Ratio = Annotated[str, typer.Option(help="train/validation/test, where the layout has none.")]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A backbone's name or a run folder.", show_default=False),
]
Weights = Annotated[
    Path | None, typer.Option(help="For a backbone by name: a local .safetensors or .pth.")
]
Download = Annotated[
    bool, typer.Option("--download", help="Permit fetching the weights of a backbone.")
]


def network_name(model: str) -> str:
    """What a model is called on pictures and pages: a run by its folder."""
    return Path(model).resolve().name if Path(model).exists() else model
