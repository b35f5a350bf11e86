"""How long work tells of its progress: what the command line draws bars with, and silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from transferscope.training.checkpoints import EpochRow
from transferscope.wording import duration


class Reporter(Protocol):
    """How long work tells of itself; the command line draws bars with it."""

    def task(self, name: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A piece of work; the block is given a function to call with (done, total)."""

    def say(self, text: str) -> None:
        """One line of news."""

    def epoch(self, row: EpochRow) -> None:
        """A finished epoch of fine-tuning."""


class Silent:
    """A `Reporter` that says nothing."""

    @contextmanager
    def task(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Yields a function that does nothing."""
        yield lambda done, total: None

    def say(self, text: str) -> None:
        """Says nothing."""

    def epoch(self, row: EpochRow) -> None:
        """Says nothing."""


SILENT = Silent()


class Outlook:
    """Says once, from the first of many pieces of work, how long all of them will take.

    Args:
        total: steps of all pieces; nothing is said of none.
        what: the steps are, such as "drawings".
        reporter: told of it, where it is more than `_LONG` seconds.
    """

    def __init__(self, total: int, what: str, reporter: Reporter):
        self._total, self._what, self._reporter = total, what, reporter
        self._before = 0
        self._began: float | None = None
        self._said = False

    def through(
        self, progress: Callable[[int, int], None], lacks: int
    ) -> Callable[[int, int], None]:
        """A function that hears of one piece's progress, and hands it on.

        Args:
            progress: of the piece.
            lacks: how many of its steps are still to be done when it begins.
        """
        before = self._before
        self._before += lacks
        self._began = self._began if self._began is not None or not lacks else time.monotonic()

        def heard(done: int, total: int) -> None:
            progress(done, total)
            self._look(before + max(0, done - (total - lacks)))

        return heard

    def _look(self, done: int) -> None:
        if self._said or not done or self._began is None:
            return
        passed = time.monotonic() - self._began
        if passed < _EARLY:
            return
        self._said = True
        left = passed / done * (self._total - done)
        if left > _LONG:
            self._reporter.say(
                f"{self._total:,} {self._what} are to be made: about {duration(left)} from here"
            )


_EARLY, _LONG = 2.0, 60.0  # seconds: measured for so long; told where so much is left
