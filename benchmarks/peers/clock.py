"""A clock of training that stands still while the test split is looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds since it was made, less those spent inside `stopped`."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.untimed = 0.0

    def seconds(self) -> float:
        return time.perf_counter() - self._began - self.untimed

    @contextmanager
    def stopped(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.untimed += time.perf_counter() - began
