"""How long work tells of its progress: what the command line draws bars with, and silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from transferscope.training.checkpoints import EpochRow


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
