"""Processes that work together: what is exchanged by what, and what one of them does for all."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch
from torch import distributed as dist

from forks import python
from transferscope import distributed
from transferscope.errors import InputError


def test_tensors_on_cpus_go_by_gloo_also_where_there_is_cuda():
    devices = dist.BackendConfig(
        dist.Backend(distributed.backends(cuda=True))
    ).get_device_backend_map()
    assert devices["cpu"] == "gloo"
    assert devices["cuda"] == "nccl"
    assert distributed.backends(cuda=False) == "gloo"


def test_alone_the_work_is_simply_done():
    assert distributed.by_first(lambda: 7) == 7


def test_more_processes_than_cuda_devices_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    told = r"process 3 .* 2 CUDA devices; give --nproc-per-node 2"
    with pytest.raises(InputError, match=told), distributed.joined():
        pass


PROCESS = """
import json, sys
import torch
from torch import distributed as dist
from transferscope import distributed
from transferscope.errors import TransferscopeError

rank = int(sys.argv[1])
dist.init_process_group(
    "cpu:gloo,cuda:gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2
)
done: list[int] = []

def work() -> dict[str, torch.Tensor]:
    done.append(rank)
    return {"a": torch.tensor([1.0, 2.0])}

def fail() -> None:
    raise TransferscopeError("the folder is empty")

found = distributed.by_first(work)["a"].tolist()
try:
    distributed.by_first(fail)
    said = ""
except TransferscopeError as error:
    said = str(error)
tensors = [torch.tensor([rank + 1.0]), torch.tensor([rank + 1])]
distributed.add_up(tensors)
distributed.wait_for_all()
print(json.dumps([found, done, said, [float(t) for t in tensors]]))
dist.destroy_process_group()
"""


def test_process_0_does_the_work_and_all_have_what_it_gave(tmp_path):
    processes = [
        subprocess.Popen(
            [*python(), "-c", PROCESS, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    first, second = (json.loads(one.communicate(timeout=60)[0]) for one in processes)
    assert first == [[1.0, 2.0], [0], "the folder is empty", [3.0, 3.0]]
    assert second == [
        [1.0, 2.0],
        [],
        "process 0 could not go on: the folder is empty",
        [3.0, 3.0],
    ]
