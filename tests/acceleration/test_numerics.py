"""Settings of the whole process: changed while any thread needs them, and given back by the last."""

from __future__ import annotations

import threading

import pytest
import torch

from transferscope.acceleration.numerics import full_precision, repeatable
from transferscope.acceleration.precision import autocast

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def precisions() -> tuple[str, str]:
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
    )


def algorithms() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture(autouse=True)
def workspace(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_fp32_on_cuda_is_not_tf32():
    before = precisions()
    with autocast(CUDA, "fp32") as dtype:
        assert dtype == torch.float32
        assert precisions() == ("ieee", "ieee")
    assert precisions() == before


def test_sums_on_cuda_are_repeatable_and_cpus_are_left_alone():
    before = algorithms()
    with repeatable(CUDA):
        assert algorithms() == (True, True, False)
    assert algorithms() == before
    with repeatable(CPU), full_precision(CPU):
        assert algorithms() == before


def test_threads_that_overlap_neither_undo_nor_leave_the_setting():
    before, entered, leave = precisions(), threading.Event(), threading.Event()

    def other() -> None:
        with full_precision(CUDA):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_precision(CUDA):
        thread.start()
        entered.wait(10)
    assert precisions() == ("ieee", "ieee")  # the other is still within
    leave.set()
    thread.join()
    assert precisions() == before
