"""How long work tells of itself on stderr: bars and a growing table on a terminal, lines elsewhere; and
standard streams as they are met: closed, read by half, full, in any encoding."""

from __future__ import annotations

import errno
import functools
import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from transferscope.wording import duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress
    from rich.table import Table

    from transferscope.training.checkpoints import EpochRow

_EPOCHS_SHOWN = 12
"""Rows of the table of epochs: the last ones, and the best above them where it is not among them."""

_FRAMES = 4  # a second: a bar that moves, and nothing for the eye to trip over
_NEWS = 10.0  # seconds between two lines of one piece of work, where there is no terminal
_EARLY, _LONG = 2.0, 60.0  # seconds after which work that will take so much longer says so


@functools.cache
def console() -> Console:
    """The one console of all news and errors: stderr."""
    from rich.console import Console

    return Console(stderr=True)


def plain(text: str) -> str:
    """`text` with nothing in it that rich takes for markup."""
    from rich.markup import escape

    return escape(text)


class Terminal:
    """A `workflows.Reporter`.

    On a terminal one live display holds everything that moves: the table of epochs, once there are
    any, and below it a bar for each piece of work in progress. News scroll past above it. What
    remains when the work ends is the table and the finished bar.

    Args:
        quiet: say nothing at all.
        to: the console; None: stderr's.
    """

    def __init__(self, quiet: bool, *, to: Console | None = None):
        self._quiet = quiet
        self._to = to
        self._live: Live | None = None
        self._bars: Progress | None = None
        self._epochs: list[EpochRow] = []

    @property
    def _console(self) -> Console:
        return self._to or console()

    @contextmanager
    def task(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A bar while the block runs; the block is given a function to call with (done, total)."""
        from transferscope.acceleration.memory import release_memory

        if self._quiet:
            yield lambda done, total: None
        else:
            with self._bar(name) if self._console.is_terminal else self._lines(name) as advance:
                yield advance
        release_memory()

    def say(self, text: str) -> None:
        """One line, above what moves."""
        if not self._quiet:
            self._console.print(plain(text), highlight=False, soft_wrap=True)

    def epoch(self, row: EpochRow) -> None:
        """A row of the table, or a line of its own where none is shown.

        An epoch that does not follow those before it begins another fit.
        """
        if self._quiet:
            return
        if self._epochs and row.epoch <= self._epochs[-1].epoch:
            self._epochs = []
        self._epochs.append(row)
        if self._live is not None:
            self._live.refresh()
            return
        best = "  best so far" if row is best_of(self._epochs) else ""
        self.say(
            f"epoch {row.epoch:3d}  train {_cell(row.train_loss, '.3f')} {_cell(row.train_top1, '.1%'):>6}  "
            f"validation {_cell(row.validation_loss, '.3f')} {_cell(row.validation_top1, '.1%'):>6}  "
            f"rate {_rate(row)}  {row.seconds:.1f} s{best}"
        )

    # ------------------------------------------------------------------------ on a terminal

    @contextmanager
    def _bar(self, name: str) -> Iterator[Callable[[int, int], None]]:
        with self._display() as bars:
            bar = bars.add_task(plain(name), total=None)
            outermost = len(bars.tasks) == 1
            try:
                yield lambda done, total: bars.update(bar, completed=done, total=total)
            finally:
                if not outermost:  # finished work within other work leaves no bar behind
                    bars.remove_task(bar)

    @contextmanager
    def _display(self) -> Iterator[Progress]:
        """The bars of the one live display, which the outermost piece of work opens and closes."""
        if self._bars is not None:
            yield self._bars
            return
        from rich import progress as parts
        from rich.live import Live

        self._epochs = []
        self._bars = parts.Progress(  # the live display draws it: it is never started itself
            "{task.description}",
            parts.BarColumn(),
            parts.MofNCompleteColumn(),
            parts.TimeElapsedColumn(),
            "left",
            parts.TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
        )
        try:
            with Live(
                console=self._console,
                get_renderable=self._picture,
                refresh_per_second=_FRAMES,
                vertical_overflow="crop",
            ) as self._live:
                yield self._bars
        finally:
            self._live = self._bars = None

    def _picture(self) -> RenderableType:
        from rich.console import Group

        assert self._bars is not None
        if not self._epochs:
            return self._bars
        # What fits on this terminal, beside heading, gap, bar and the cursor's line.
        rows = max(2, min(_EPOCHS_SHOWN, self._console.height - 5 - len(self._bars.tasks)))
        return Group(epoch_table(self._epochs, rows=rows), "", self._bars)

    # ------------------------------------------------------------------------ elsewhere

    @contextmanager
    def _lines(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A line at the end, and one every ten seconds of long work."""
        began = said = time.monotonic()
        seen = 0

        def advance(done: int, total: int) -> None:
            nonlocal said, seen
            seen = total
            now = time.monotonic()
            left = (now - began) / max(done, 1) * (total - done)
            first = said == began and now - began > _EARLY and left > _LONG
            if done < total and (now - said > _NEWS or first):
                said = now
                self.say(f"{name}: {done}/{total}, about {duration(left)} left")

        yield advance
        count = f" ({seen})" if seen > 1 else ""
        self.say(f"{name}{count}: {time.monotonic() - began:.1f} s")


# ---------------------------------------------------------------------------- epochs


def best_of(epochs: list[EpochRow]) -> EpochRow:
    """The row with the lowest calibrated loss, the earliest of equals: the one that is kept."""
    return min(epochs, key=lambda row: (math.isnan(row.calibrated_loss), row.calibrated_loss))


def epoch_table(epochs: list[EpochRow], *, rows: int = _EPOCHS_SHOWN) -> Table:
    """The last `rows` epochs, with the best so far above them where it is older than these."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading, _ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=4)
    best = best_of(epochs)
    shown: list[EpochRow | None] = [*epochs[-rows:]]
    if best not in shown:
        shown = [best, *epochs[-(rows - 1) :]]
        if epochs[1 - rows].epoch > best.epoch + 1:
            shown[1] = None
    for row in shown:
        cells = ["⋮"] if row is None else [cell(row) for _, cell in _COLUMNS]
        if row is best:
            table.add_row(*cells, "best", style="bold green")
        else:
            table.add_row(*cells, style="dim" if row is None else None)
    return table


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _rate(row: EpochRow) -> str:
    return "-" if row.epoch == 0 else f"{row.learning_rate:.1e}"


_COLUMNS: tuple[tuple[str, Callable[[EpochRow], str]], ...] = (
    ("epoch", lambda row: str(row.epoch or "start")),
    ("train loss", lambda row: _cell(row.train_loss, ".3f")),
    ("top-1", lambda row: _cell(row.train_top1, ".1%")),
    ("val. loss", lambda row: _cell(row.validation_loss, ".3f")),
    ("calibrated", lambda row: _cell(row.calibrated_loss, ".3f")),
    ("top-1", lambda row: _cell(row.validation_top1, ".1%")),
    ("rate", _rate),
    ("seconds", lambda row: f"{row.seconds:.1f}"),
)


# ---------------------------------------------------------------------------- in Python


def interactive() -> bool:
    """Whether someone is looking on: a terminal or a notebook."""
    return console().is_terminal or console().is_jupyter


def with_progress(function: Callable[..., Any]) -> Callable[..., Any]:
    """A public function with an argument `progress`: True shows bars, False none.

    None, the default, shows them in a terminal or notebook.

    A `reporter` or `on_progress` that is given has precedence.
    """
    taken = inspect.signature(function)
    heard = next(name for name in ("reporter", "on_progress") if name in taken.parameters)

    @functools.wraps(function)
    def wrapped(*args: Any, progress: bool | None = None, **options: Any) -> Any:
        shown = interactive() if progress is None else progress
        if not shown or heard in taken.bind_partial(*args, **options).arguments:
            return function(*args, **options)
        terminal = Terminal(quiet=False)
        if heard == "reporter":
            return function(*args, reporter=terminal, **options)
        with terminal.task(function.__name__) as advance:
            return function(*args, on_progress=advance, **options)

    own = list(taken.parameters.values())
    last = own.pop() if own[-1].kind is inspect.Parameter.VAR_KEYWORD else None
    keyword = inspect.Parameter.KEYWORD_ONLY
    own.append(inspect.Parameter("progress", keyword, default=None, annotation="bool | None"))
    wrapped.__signature__ = taken.replace(parameters=[*own, *([last] if last else [])])  # type: ignore[attr-defined]
    return wrapped


# ---------------------------------------------------------------------------- standard streams


class Stream:
    """A text stream whose reader may go at any time: what is written then is dropped, and work goes on.

    Everything but writing is the stream's own.

    Args:
        stream: standard output or standard error.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or drops what nobody reads.

        Raises:
            OSError: the stream cannot take it for another reason, such as a full disk.
        """
        if not self._gone:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:
                self._forgive(error)
        return len(text)

    def flush(self) -> None:
        """Flushes, or drops what nobody reads."""
        if not self._gone:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._forgive(error)

    def _forgive(self, error: OSError | ValueError) -> None:
        closed = isinstance(error, ValueError) and "closed file" in str(error)
        if not closed and not (isinstance(error, OSError) and error.errno in _NOBODY_READS):
            raise error
        self._gone = True
        _discard(self._stream)


_NOBODY_READS = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ESHUTDOWN)
"""A closed pipe, a closed descriptor, a terminal that hung up."""


def patient_streams() -> None:
    """Makes standard streams that survive their readers and have room for any name."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            stream = _nowhere(number)
        _with_any_name(stream)
        setattr(sys, name, Stream(stream))
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for the process's whole life
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files as the system has them


def _with_any_name(stream: TextIO) -> None:
    """Names that are not text leave as the bytes they are; letters the encoding lacks as escapes."""
    utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _nowhere(number: int) -> TextIO:
    """A stream that drops everything, in the place of a closed one, which another file would take."""
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    return open(number, "w", encoding="utf-8", closefd=False)


def _discard(stream: TextIO) -> None:
    """Lets what is still in the stream's buffer go nowhere, so that leaving Python says nothing of it."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
