"""The machine a result was made on: versions, instruction sets, memory; and where its caches lie."""

from __future__ import annotations

import os
import platform
import stat
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from transferscope.errors import OutputError


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


def cache_dir() -> Path:
    """The folder of shared caches: `TRANSFERSCOPE_CACHE`, or the user's cache folder.

    A user without a home folder that can be written, as in many containers, has one among the temporary
    files, which is nobody else's.

    Raises:
        OutputError: `TRANSFERSCOPE_CACHE` begins with a home folder, and there is none.
    """
    if chosen := os.environ.get("TRANSFERSCOPE_CACHE"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError:
            raise OutputError(
                f"TRANSFERSCOPE_CACHE is {chosen!r}, and this user has no home folder; give a whole path"
            ) from None
    folder = _users_cache()
    return folder if folder is not None and _could_hold(folder) else _temporary_cache()


def _users_cache() -> Path | None:
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "transferscope"
        if os.name == "nt":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local or Path.home()) / "transferscope" / "cache"
        given = os.environ.get("XDG_CACHE_HOME")
        return Path(given or Path.home() / ".cache") / "transferscope"
    except RuntimeError:  # no home folder
        return None


def _could_hold(folder: Path) -> bool:
    """Whether a folder is there, or could be made."""
    try:
        if folder.is_dir():
            return True
        above = next(one for one in folder.absolute().parents if one.exists())
        return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    except OSError:
        return False


def _temporary_cache() -> Path:
    """A private folder among the temporary files, the same for every call of this user.

    Raises:
        OutputError: there is such a folder, and it is another user's.
    """
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir()) / f"transferscope-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise OutputError(
            f"there is no home folder for the cache, and {str(folder)!r} cannot be made "
            f"({error.strerror or error}); set TRANSFERSCOPE_CACHE to a folder that can be written"
        ) from error
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise OutputError(
            f"there is no home folder for the cache, and {str(folder)!r} is not this user's; set "
            "TRANSFERSCOPE_CACHE to a folder that is"
        )
    return folder
