"""Files to batches: decoded ahead by threads, delivered in order, a bounded number at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import torch

from transferscope.errors import InputError
from transferscope.images import InputSpec

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    ahead: int = 64,
) -> Iterator[Result]:
    """`function` of every item, in the order of the items, computed by threads.

    Pillow releases the interpreter's lock while it decodes, so threads use all cores.

    Args:
        function: must be safe to call from several threads.
        items: read no faster than their results are taken.
        workers: threads; all cores by default, and never more than those.
        ahead: results that may be waiting to be taken.

    Yields:
        Results. An exception of `function` is raised where its result was due. When the iterator is
        closed early, what has begun is finished and the threads end.

    Raises:
        InputError: fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1 (or None for all cores)")
    threads = min(workers or cores(), cores())
    return _in_order(function, items, threads, ahead)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="transferscope-load") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def load_batches(
    files: Sequence[Path],
    spec: InputSpec,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    load: Callable[[int], torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """Pictures as a network with this `InputSpec` will see them, in the order of `files`.

    Args:
        files: of any sizes and formats; see `images.read_picture`.
        spec: size and channels.
        batch_size: pictures a batch; the last batch has what is left.
        workers: decoding threads; see `in_order`.
        load: makes the picture uint8 (C, H, W) of the file with this index, where training sees it
            differently (`Augmentation.load`); must be safe to call from several threads. None:
            `spec.load`.

    Yields:
        uint8 (n, C, H, W), contiguous; `images.as_float` makes [0, 1] of it.

    Raises:
        InputError: a batch size or a number of workers below 1.
        PictureError: a file that cannot be read, named. Batches before its own have been yielded.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if load is None:
        pictures = in_order(spec.load, files, workers=workers, ahead=2 * batch_size)
    else:
        pictures = in_order(load, range(len(files)), workers=workers, ahead=2 * batch_size)
    return _load_batches(pictures, batch_size)


def _load_batches(pictures: Iterator[torch.Tensor], batch_size: int) -> Iterator[torch.Tensor]:
    with closing(pictures):  # type: ignore[type-var]  # it is a generator; Iterator hides its close
        batch: list[torch.Tensor] = []
        for picture in pictures:
            batch.append(picture)
            if len(batch) == batch_size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)
