"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import functools
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_PART_OF_ARENA = 1 << 26  # bytes of its HEAP_MAX_SIZE on 64-bit systems


def reuse_memory() -> None:
    """Makes the C library keep freed memory for the next batch instead of returning it (glibc only).

    Tensors of more than 32 MB are otherwise mapped and zeroed by the kernel again in every layer:
    half of the time of an fp32 forward pass on a CPU. Each thread has an arena of its own; with room to
    spare at its end, an arena keeps its last part even when all of it is free. Affects the whole process,
    so only the command line calls it.
    """
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        library.mallopt(_TOP_PAD, _PART_OF_ARENA)


def release_memory() -> None:
    """Gives the memory that `reuse_memory` kept back to the system, between two pieces of work."""
    if library := _glibc():
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
