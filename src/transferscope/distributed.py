"""Several processes as one: who am I, which share is mine, and sums over all. A no-op alone.

`torchrun --nproc-per-node 2 -m transferscope tune ...` starts the processes and tells each its rank in
the environment; nothing else is needed. Every process works through the same steps on its own share of
each batch, and process 0 alone writes the run folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist

from transferscope.errors import InputError, TransferscopeError

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


def reports_for_all() -> bool:
    """Whether this process reports for all: `torchrun`'s first, before and after they have joined too."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that `torchrun` started for the block; without torchrun it does nothing.

    Tensors on CPUs are exchanged by gloo and those on CUDA devices by NCCL, each process having its own
    device: lists of pictures and labels are on the CPU also where networks are not.

    Raises:
        InputError: more processes than CUDA devices.
    """
    if _joined() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        number, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= devices:
            raise InputError(
                f"torchrun started process {number} of this machine, which has {devices} CUDA devices; give "
                f"--nproc-per-node {devices}"
            )
        torch.cuda.set_device(number)
    dist.init_process_group(backends(cuda=cuda), timeout=timedelta(hours=2))
    try:
        yield
    finally:
        dist.destroy_process_group()


def backends(*, cuda: bool) -> str:
    """What exchanges the tensors of each kind of device, as `init_process_group` takes it."""
    return "cpu:gloo,cuda:nccl" if cuda else "gloo"


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of a list: every item is in exactly one process's share."""
    return items[rank() :: world()]


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if _joined():
        dist.all_reduce(torch.zeros(1))  # on CPUs: a barrier would take the first backend's device


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over all processes, in one exchange a dtype and device."""
    if world() == 1:
        return
    alike: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in alike.values():
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


def by_first(work: Callable[[], Item]) -> Item:
    """What `work` gives in process 0, in every process; the others wait and do not do it themselves.

    Raises:
        TransferscopeError: it failed in process 0, which raises the error itself.
    """
    if world() == 1:
        return work()
    outcome: list[Any] = [None, "it was interrupted"]
    try:
        if is_first():
            outcome = [work(), ""]
    except TransferscopeError as error:
        outcome[1] = str(error)
        raise
    finally:
        dist.broadcast_object_list(outcome, 0)
    if outcome[1]:
        raise TransferscopeError(f"process 0 could not go on: {outcome[1]}")
    result: Item = outcome[0]
    return result


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
