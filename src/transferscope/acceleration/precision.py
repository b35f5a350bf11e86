"""Where and how precisely a network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, get_args

import torch

from transferscope.acceleration.numerics import full_precision
from transferscope.errors import InputError
from transferscope.machine import FAST_BF16, cpu_flags

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def find_device(name: str | None = None) -> torch.device:
    """The device of this name, or the best there is: CUDA, then MPS, then the CPU.

    Raises:
        InputError: not a device, or not on this machine.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is unknown; use cpu, cuda, cuda:1 or mps") from None
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here.get(device.type, False):
        raise InputError(f"device {name!r} is not on this machine; use --device cpu")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 here: GPUs with it, and CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(cpu_flags() & FAST_BF16)


def training_precision(device: torch.device, precision: Precision) -> Precision:
    """What `auto` means where gradients are needed: bf16 where it is fast, else fp32.

    On CPUs this holds with `phased`: with the library's own gradients of depthwise
    convolutions bf16 is slower than fp32 (measured on EfficientNet-Lite0 behind blocks.4 with AVX-512
    BF16, a picture and step: fp32 13.6 ms, bf16 18.8 ms, bf16 phased 8.3 ms).

    Raises:
        InputError: an unknown one, or fp16 on a CPU, which has no fast arithmetic for it.
    """
    refuse_precision(device, precision)
    if precision == "auto":
        return "bf16" if fast_bf16(device) else "fp32"
    return precision


def refuse_precision(device: torch.device, precision: Precision) -> None:
    """Before any work.

    Raises:
        InputError: an unknown one, or fp16 on a CPU, which has no fast arithmetic for it.
    """
    if precision not in get_args(Precision):
        raise InputError(
            f"precision {precision!r} is unknown; use {', '.join(get_args(Precision))}"
        )
    if precision == "fp16" and device.type == "cpu":
        raise InputError(
            "precision is fp16 and the device a CPU; use bf16, or fp32, or --device cuda"
        )


@contextmanager
def autocast(device: torch.device, precision: Precision = "auto") -> Iterator[torch.dtype]:
    """Mixed precision within the block; yields the dtype that matrix products run in.

    fp32 is meant in full: TF32 is switched off meanwhile (see `full_precision`).
    """
    if precision == "auto":
        precision = "bf16" if fast_bf16(device) else "fp32"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    lower = torch.bfloat16 if precision == "fp32" else dtype
    precise = full_precision(device) if precision == "fp32" else nullcontext()
    with precise, torch.autocast(device.type, dtype=lower, enabled=precision != "fp32"):
        yield dtype
