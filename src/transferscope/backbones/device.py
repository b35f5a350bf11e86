"""Where and how precisely a network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from transferscope.errors import InputError
from transferscope.storage import cpu_flags

Precision = Literal["auto", "fp32", "bf16"]


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
    return device.type == "cpu" and bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})


def training_precision(device: torch.device, precision: Precision) -> Precision:
    """What `auto` means where gradients are needed: bf16 on GPUs, fp32 on CPUs.

    On CPUs the gradients of depthwise convolutions are slower in bf16 than in fp32 (measured on
    EfficientNet-Lite0 with AVX-512 BF16: 16 ms against 13 a picture and step).
    """
    if precision == "auto" and device.type == "cpu":
        return "fp32"
    return precision


@contextmanager
def autocast(device: torch.device, precision: Precision = "auto") -> Iterator[torch.dtype]:
    """Mixed precision within the block; yields the dtype that matrix products run in."""
    bf16 = precision == "bf16" or (precision == "auto" and fast_bf16(device))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        yield torch.bfloat16 if bf16 else torch.float32
