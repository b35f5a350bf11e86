"""Settings of torch that hold for a whole process: full fp32 precision and repeatable sums on CUDA devices."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CONV: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
_MATMUL: Any = torch.backends.cuda.matmul
_DETERMINISTIC: Any = torch.utils.deterministic


class _WhileUsed:
    """A setting of the process that is changed as long as any thread is within a block.

    The first thread to enter changes it and the last to leave gives it back, so that threads which
    overlap neither undo each other's setting nor leave it behind.
    """

    def __init__(self, change: Callable[[], Any], give_back: Callable[[Any], None]):
        self._change, self._give_back = change, give_back
        self._lock, self._users, self._before = threading.Lock(), 0, None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._before = self._change()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._give_back(self._before)


def _change_precision() -> tuple[str, str]:
    before = _MATMUL.fp32_precision, _CONV.fp32_precision
    _MATMUL.fp32_precision = _CONV.fp32_precision = "ieee"
    return before


def _give_precision_back(before: tuple[str, str]) -> None:
    _MATMUL.fp32_precision, _CONV.fp32_precision = before


def _change_algorithms() -> tuple[bool, bool, bool, bool]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        _DETERMINISTIC.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    _DETERMINISTIC.fill_uninitialized_memory = False
    return before


def _give_algorithms_back(before: tuple[bool, bool, bool, bool]) -> None:
    enabled, warns, benchmark, fills = before
    torch.use_deterministic_algorithms(enabled, warn_only=warns)
    torch.backends.cudnn.benchmark = benchmark
    _DETERMINISTIC.fill_uninitialized_memory = fills


_precise = _WhileUsed(_change_precision, _give_precision_back)
_repeatable = _WhileUsed(_change_algorithms, _give_algorithms_back)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """fp32 is fp32 within the block: no TF32 in products and convolutions on CUDA (10 bits instead of 23)."""
    if device.type != "cuda":
        yield
        return
    with _precise():
        yield


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Sums in the same order in every run within the block, on CUDA, where they otherwise have none.

    Operations of which torch has no such version warn by name, and then two runs may differ. On CPUs
    nothing is to be done.
    """
    if device.type != "cuda":
        yield
        return
    with _repeatable():
        yield
