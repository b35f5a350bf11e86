"""Several processes as one: who am I, which share is mine, and sums over all. A no-op alone.

`torchrun --nproc-per-node 2 -m transferscope tune ...` starts the processes and tells each its rank in
the environment; nothing else is needed. Every process works through the same steps on its own share of
each batch, and process 0 alone writes the run folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed as dist

Item = TypeVar("Item")


def world() -> int:
    """Number of processes that work together: 1 alone."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Number of this process: 0 alone."""
    return dist.get_rank() if _joined() else 0


def is_first() -> bool:
    """Whether this is process 0, which writes what all have made."""
    return rank() == 0


def speaks() -> bool:
    """Whether this process reports for all: `torchrun`'s first, before and after they have joined too."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that `torchrun` started for the block; without torchrun it does nothing.

    Processes meet by gloo on CPUs and by NCCL on CUDA devices, of which each takes its own.
    """
    if _joined() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=2))
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of a list: every item is in exactly one process's share."""
    return items[rank() :: world()]


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if _joined():
        dist.barrier()


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over all processes, in one exchange a dtype."""
    if world() == 1:
        return
    by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, flat.split([t.numel() for t in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


def from_first(tensors: Iterable[torch.Tensor]) -> None:
    """Replaces each tensor, in place, by process 0's."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def gathered(value: Item) -> list[Item]:
    """Every process's value, in the order of their ranks, in every process."""
    values: list[Item] = [value] * world()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
