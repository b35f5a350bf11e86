"""The program's voice: the command itself, its errors, JSON and tables."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from transferscope.errors import InputError, TransferscopeError
from transferscope.files import json_text
from transferscope.glossary import TERMS
from transferscope.terminal import console, plain

_IN_HELP = ("probe", "stage", "temperature", "nats", "CKA", "false discovery rate")
"""Words that verbs print, and that not everybody knows."""


def _brief(term: str) -> str:
    """The first sentence of a word's explanation."""
    first = re.split(r"(?<!\bet al)\.(?: |$)", dict(TERMS)[term])[0]
    return first + "."


app = typer.Typer(
    name="transferscope",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Fine-tune a pretrained vision network on your own pictures, and see, unit by unit, what it "
    "learned and what the transfer changed.",
    epilog="MODEL is the name of a backbone or a run folder. Start with: transferscope demo\n\n"
    "Words: "
    + " ".join(f"{term}: {_brief(term)}" for term in _IN_HELP)
    + " More in docs/glossary.md and on "
    "every atlas's page Glossary.",
)

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Our errors as one sentence: exit code 2 for a wrong option, 1 otherwise, 130 for Ctrl-C."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from transferscope.acceleration.memory import reuse_memory

        reuse_memory()
        try:
            return function(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - the outermost layer; TRANSFERSCOPE_DEBUG shows it
            say_error(error)
            raise typer.Exit(2 if isinstance(error, InputError) else 1) from None
        except KeyboardInterrupt:
            console().print(
                "interrupted; what was finished is kept: tune and demo go on with --resume, visualize and "
                "compare by themselves",
                soft_wrap=True,
            )
            raise typer.Exit(130) from None

    return wrapped


DEBUG = "TRANSFERSCOPE_DEBUG"
"""Set to 1, the traceback stands before an error's sentence."""


def say_error(error: BaseException) -> None:
    """One sentence on stderr; before it the traceback, where that is asked for."""
    if os.environ.get(DEBUG, "") not in ("", "0"):
        console().print(plain("".join(traceback.format_exception(error))), highlight=False)
    console().print(
        f"[bold red]error:[/] {plain(sentence_of(error))}", highlight=False, soft_wrap=True
    )


def sentence_of(error: BaseException) -> str:
    """What an error says to a user: our own ones as they are, others with what can be done."""
    if isinstance(error, TransferscopeError):
        return str(error)
    said = " ".join(str(error).split()) or "no more is known"
    if isinstance(error, MemoryError) or _of_memory(error):
        return (
            f"there is not enough memory ({type(error).__name__}: {clipped_text(said)}); close other programs, "
            "give a smaller --batch-size or --size, or take a machine with more"
        )
    if isinstance(error, OSError) and error.errno is not None:
        about = f"{clipped_text(str(error.filename))!r}: " if error.filename else ""
        return (
            f"{about}{error.strerror or said}; give another path, or see that it can be read and written "
            f"({DEBUG}=1 shows where it happened)"
        )
    return (
        f"{type(error).__name__}: {clipped_text(said)}; this is not meant to happen: {DEBUG}=1 shows the "
        "traceback, which belongs into a report"
    )


def _of_memory(error: BaseException) -> bool:
    """Whether torch says in its own way that memory was refused."""
    words = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in words or "can't allocate memory" in words
    )


def clipped_text(text: str, most: int = 240) -> str:
    """The beginning and the end of a long text."""
    return text if len(text) <= most else f"{text[: most - 60]} ... {text[-55:]}"


def source_of(data: Path | None, dataset: str | None, root: Path | None) -> Path:
    """Where the pictures are: DATA, or --dataset under --root."""
    if dataset is None:
        if root is not None:
            raise InputError(
                f"--root {str(root)!r} is the folder of a --dataset, and none is named; give its name, "
                "or give the folder as DATA"
            )
        if data is None:
            raise InputError("no pictures are named; give DATA, or --dataset NAME --root DIR")
        return data
    if data is not None:
        raise InputError(
            f"DATA {str(data)!r} and --dataset {dataset!r} are both given; give one of them"
        )
    if root is None:
        raise InputError(f"--dataset {dataset!r} needs --root DIR, the folder that holds its files")
    return root


def print_json(value: Any) -> None:
    """A result on stdout; NaN is refused, since JSON has none."""
    typer.echo(json_text(value))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table on stdout; numbers (columns that begin with a dash in `columns`) are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        right = name.startswith("-")
        table.add_column(name.removeprefix("-"), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    wide = None if sys.stdout.isatty() else 140
    Console(width=wide, highlight=False).print(table)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"transferscope {version('transferscope')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
