"""The machine a result was made on: versions, instruction sets, memory."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """What a result depends on besides its inputs: versions, machine, threads.

    Returns:
        JSON-able values. No host name, user name or path: a run folder is meant to be shared.
    """
    import torch

    packages = ("transferscope", "torch", "torchvision", "timm", "scikit-learn", "numpy", "Pillow")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "threads": torch.get_num_threads(),
        "cpu": sorted(cpu_flags()),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
    }


FAST_BF16 = frozenset({"amx_bf16", "avx512_bf16"})
"""Instruction sets with which a CPU computes faster in bf16 than in fp32."""


def cpu_flags() -> set[str]:
    """The instruction sets of this CPU that decide speed: bf16, AMX, AVX-512 (Linux; else empty)."""
    wanted = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve"}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return wanted & set(line.split(":", 1)[1].split())
    except OSError:
        pass
    return set()


def peak_memory() -> int:
    """The most memory in bytes that this process has held so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
