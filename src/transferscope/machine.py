"""The machine a result was made on: versions, instruction sets, memory."""

from __future__ import annotations

import ctypes
import functools
import os
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


def reuse_memory() -> None:
    """Makes the C library keep freed memory for the next batch instead of returning it (glibc only).

    Tensors of more than 32 MB are otherwise mapped and zeroed by the kernel again in every layer:
    half of the time of an fp32 forward pass on a CPU. Each thread has an arena of its own, so what
    it holds does not depend on what the others do meanwhile; with room to spare at its end, an arena
    keeps its last part even when all of it is free. Where Linux gives huge pages to those who ask,
    torch asks for them, if it has no tensor yet (some modules make theirs when they are imported):
    forward passes, training and drawing were measured to take 4 to 7% less time. Affects the whole
    process, so only the command line calls it.
    """
    if "[madvise]" in _huge_pages():
        os.environ.setdefault(_ASKING, "1")
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        library.mallopt(_TOP_PAD, _PART_OF_ARENA)


def pool_memory() -> None:
    """After `reuse_memory`: threads share one arena, and large tensors are not kept in it.

    With an arena for each thread, and with tensors that do not fit well into one, what is held of
    drawing is chance and goes higher with every unit of a sweep. Large is 16 MB where a CPU draws in
    bf16, which on huge pages takes about as long (a tenth longer at most, ResNet-50 no longer); it is
    5 MB where it draws in fp32, whose tensors leave larger gaps: a little more than eight pictures of
    224 px, since mapping those too takes 12% longer instead of 3%. Only verbs that draw many channels
    call it, before they draw: fp32 forward passes and training would be slower. Does nothing without
    glibc or huge pages.
    """
    pages = _huge_pages()
    huge = "[always]" in pages or ("[madvise]" in pages and os.environ.get(_ASKING) == "1")
    if huge and (library := _glibc()):
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_MMAP_THRESHOLD, 1 << 24 if cpu_flags() & FAST_BF16 else 5_000_000)


_ASKING = "THP_MEM_ALLOC_ENABLE"
"""Whether torch asks for huge pages, 1 or 0."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # of malloc.h


def _huge_pages() -> str:
    """How Linux gives huge pages: `always [madvise] never`, the choice in brackets; else empty."""
    try:
        return Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return ""


_PART_OF_ARENA = 1 << 26  # bytes of glibc's HEAP_MAX_SIZE on 64-bit systems


def release_memory() -> None:
    """Gives the memory that `reuse_memory` kept back to the system, between two pieces of work."""
    if library := _glibc():
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
