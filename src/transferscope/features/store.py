"""The cache of features on disk: rows found by a picture's hash, memory-mapped, within a budget.

A store is a folder; its shards are safetensors files of some hundred pictures, complete or absent. A
shard's checksum is verified before its rows are first used, and again whenever the file has changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import struct
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from transferscope.errors import InputError, OutputError
from transferscope.files import sha256_json, write_tensors
from transferscope.machine import cache_dir

BUDGET_VARIABLE = "TRANSFERSCOPE_CACHE_BUDGET"
"""Environment variable with the size of the cache in GB (10^9 bytes)."""

DEFAULT_BUDGET = 20 * 10**9
"""Bytes, where nothing is said and the disk has twice as much to give."""

_DTYPES = {"F16": torch.float16, "F32": torch.float32}
_STALE = 3600.0  # seconds after which the temporary file of a killed writer is taken for litter


# ---------------------------------------------------------------------------- reading


class Rows:
    """Features of N pictures, read from memory-mapped files as they are asked for.

    `rows[indices]`, with a slice or an int64 tensor (any order, repeats), is a tensor (n, ...) of
    the asked rows alone; the set itself may be larger than the memory. Any thread may read. Files that
    are removed meanwhile (by the budget of another process) stay readable until the last `Rows` on
    them is gone: Linux and macOS keep what is mapped.

    Args:
        shards: arrays (n, ...) of one row shape, float16 or float32.
        shard_of: int64 (N,), the shard that holds each picture.
        row_of: int64 (N,), the row in it.
    """

    def __init__(self, shards: Sequence[np.ndarray], shard_of: np.ndarray, row_of: np.ndarray):
        assert shards, "no pictures were asked for"
        self._shards, self._shard_of, self._row_of = tuple(shards), shard_of, row_of
        self._dtype = np.result_type(*{array.dtype for array in shards})

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return (len(self), *self._shards[0].shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """float16; float32 if any of the shards is."""
        return torch.float32 if self._dtype == np.float32 else torch.float16

    def __getitem__(self, indices: slice | torch.Tensor) -> torch.Tensor:
        chosen = indices if isinstance(indices, slice) else indices.cpu().numpy()
        shard_of, row_of = self._shard_of[chosen], self._row_of[chosen]
        result = np.empty((len(row_of), *self.shape[1:]), self._dtype)
        # NumPy copies: torch's would start threads of their own beside those of the training.
        for shard in np.unique(shard_of):
            places = np.flatnonzero(shard_of == shard)
            result[places] = self._shards[shard][row_of[places]]
        return torch.from_numpy(result)


@dataclass(frozen=True, eq=False)
class _Shard:
    """One file of a store, as its header describes it.

    Attributes:
        path: the file.
        pictures: hashes of its n pictures.
        dtype: of its tensor.
        shape: of its tensor, (n, ...).
        offset: of the tensor's first byte in the file.
        checksum: of the tensor, as `storage.hash_tensors` makes it.
    """

    path: Path
    pictures: tuple[str, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    checksum: str

    def map(self) -> np.ndarray | None:
        """The rows, read-only; None where the file cannot be read, or is damaged and now removed.

        torch maps it, as Python's `mmap` keeps a file descriptor for every map, of which there are
        few: 256 on macOS, and a shard has 512 pictures at most.

        Raises:
            OutputError: the machine gives no further file or map.
        """
        try:
            if not self._is_whole():
                _remove(self.path)
                return None
            size = math.prod(self.shape) * self.dtype.itemsize
            # Private and never written to, so that the file needs to be readable alone.
            mapped = torch.from_file(
                str(self.path), shared=False, size=self.offset + size, dtype=torch.uint8
            )
        except OSError as error:
            _refuse_exhausted(self.path, error)
            return None
        except RuntimeError as error:  # torch's, for a file that cannot be opened or mapped
            if self.path.exists():
                raise _exhausted(self.path, str(error).splitlines()[0]) from error
            return None
        kind = np.float32 if self.dtype == torch.float32 else np.float16
        rows = mapped.numpy()[self.offset :].view(kind).reshape(self.shape)
        rows.flags.writeable = False
        return rows

    def _is_whole(self) -> bool:
        """Whether the bits have their checksum: asked once of every version of the file.

        The answer is kept beside the file, so that only the first of many runs reads everything.
        """
        status = self.path.stat()
        seal = f"{self.checksum} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
        marker = _marker(self.path)
        with suppress(OSError, ValueError):
            if marker.read_text() == seal:
                return True
        digest = hashlib.sha256(f"features|{self.dtype}|{self.shape}|".encode())
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            hashlib.file_digest(file, lambda: digest)
        if digest.hexdigest() != self.checksum:
            return False
        with suppress(OSError):  # a cache that cannot be written is verified every time
            marker.write_text(seal)
        return True


def _read_shard(path: Path) -> _Shard | None:
    """A shard's header; None where it cannot be read, or is damaged and now removed."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            size = os.fstat(file.fileno()).st_size
            header = json.loads(file.read(min(length, size)))
        entry, facts = header["features"], header["__metadata__"]
        begin, end = entry["data_offsets"]
        shard = _Shard(
            path=path,
            pictures=tuple(json.loads(facts["pictures"])),
            dtype=_DTYPES[entry["dtype"]],
            shape=tuple(entry["shape"]),
            offset=8 + length + begin,
            checksum=json.loads(facts["sha256"]),
        )
        if math.prod(shard.shape) * shard.dtype.itemsize != end - begin or size != 8 + length + end:
            raise ValueError("the file does not end where its tensor does")
    except OSError as error:
        _refuse_exhausted(path, error)
        return None
    except (struct.error, KeyError, TypeError, ValueError):
        _remove(path)
        return None
    return shard


def _refuse_exhausted(path: Path, error: OSError) -> None:
    """Tells a file that is not there from a machine that opens no more of them.

    Raises:
        OutputError: the latter.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise _exhausted(path, str(error.strerror)) from error


def _exhausted(path: Path, reason: str) -> OutputError:
    return OutputError(
        f"the cached features in {str(path)!r} cannot be read: {reason}; let the process open more files "
        "('ulimit -n 4096'), end others that hold many, or remove the file if it is not readable"
    )


# ---------------------------------------------------------------------------- the store


class FeatureStore:
    """Features of one network at one target on disk, a row a picture, found by the file's hash.

    Shards are complete files or absent; two processes that add the same picture do no harm.

    Args:
        key: JSON-able values on which the features depend, besides the picture.
    """

    def __init__(self, key: Mapping[str, object]):
        self.folder = cache_dir() / "features" / sha256_json(dict(key))[:32]
        self._where: dict[str, tuple[_Shard, int]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            if shard := _read_shard(path):
                self._note(shard)
        if self._where:
            _touch(self.folder)

    def __contains__(self, picture: str) -> bool:
        return picture in self._where

    @property
    def pictures(self) -> set[str]:
        """Hashes of the pictures that have a row."""
        return set(self._where)

    def add(self, pictures: Sequence[str], features: torch.Tensor) -> None:
        """Appends one shard: hashes of N files and their features (N, ...), float16 or float32."""
        name = sha256_json(list(pictures))[:24]
        path = self.folder / f"{name}.safetensors"
        write_tensors(path, {"features": features}, {"pictures": list(pictures)})
        _touch(self.folder)
        if shard := _read_shard(path):
            self._note(shard)

    def files(self, pictures: Sequence[str]) -> set[Path]:
        """The shards that hold these pictures, as far as there are any."""
        return {self._where[picture][0].path for picture in pictures if picture in self}

    def rows(self, pictures: Sequence[str]) -> Rows | None:
        """Features (N, ...) of these pictures, in this order.

        Returns:
            None where a shard was found damaged (and was removed), or has been removed by another
            process: some of the pictures have no features any more and must be computed again.
        """
        if not all(picture in self for picture in pictures):
            return None
        found = [self._where[picture] for picture in pictures]
        number = {shard: index for index, shard in enumerate(dict.fromkeys(s for s, _ in found))}
        arrays = [(shard, shard.map()) for shard in number]
        for shard, array in arrays:
            if array is None:
                self._forget(shard)
        whole = [array for _, array in arrays if array is not None]
        if len(whole) < len(arrays):
            return None
        return Rows(
            whole,
            np.array([number[shard] for shard, _ in found], np.int64),
            np.array([row for _, row in found], np.int64),
        )

    def _note(self, shard: _Shard) -> None:
        self._where.update((picture, (shard, row)) for row, picture in enumerate(shard.pictures))

    def _forget(self, shard: _Shard) -> None:
        for picture in shard.pictures:
            if self._where.get(picture, (None, 0))[0] is shard:
                del self._where[picture]


# ---------------------------------------------------------------------------- the budget


def cache_budget() -> int:
    """Bytes that the cache may hold: `TRANSFERSCOPE_CACHE_BUDGET`, a number of GB, decimals allowed.

    Unset, it is 20 GB, but no more than half of what the disk could give the cache: its free space and
    what the cache holds already.

    Raises:
        InputError: the variable is not a positive number.
        OutputError: the cache's folder cannot be written.
    """
    folder = cache_dir()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK) or not shutil.disk_usage(folder).total:
        raise OutputError(
            f"the cache cannot be written to {str(cache_dir())!r}; name another folder with "
            "TRANSFERSCOPE_CACHE"
        )
    said = os.environ.get(BUDGET_VARIABLE)
    if said:
        try:
            budget = float(said)
        except ValueError:
            budget = math.nan
        if not 0 < budget < math.inf:
            raise InputError(
                f"{BUDGET_VARIABLE} is {said!r}; it must be a positive number of GB, such as 20 or 0.5: "
                "correct or unset it"
            )
        return int(budget * 10**9)
    held = sum(size for _, _, size, _ in _cached_files())
    return min(DEFAULT_BUDGET, (shutil.disk_usage(folder).free + held) // 2)


def make_room(needed: int, in_use: Collection[Path]) -> None:
    """Removes the least recently used shards until `needed` more bytes fit the budget.

    A shard is as old as the last use of its store; within a store, as its writing. Two processes that
    fill the cache at once may pass the budget together; the next fill restores it.

    Args:
        needed: bytes about to be written.
        in_use: shards that stay, whatever their age.

    Raises:
        OutputError: the shards in use and the new ones exceed the budget; nothing was removed.
    """
    budget = cache_budget()
    files = sorted(_cached_files())
    held = sum(size for _, _, size, _ in files)
    kept = sum(size for _, _, size, path in files if path in in_use)
    if kept + needed > budget:
        raise OutputError(
            f"the features need {(kept + needed) / 1e9:.3g} GB and the cache in {str(cache_dir())!r} may "
            f"hold {budget / 1e9:.3g} GB; set {BUDGET_VARIABLE} to a larger number of GB, move the cache "
            "to a larger disk with TRANSFERSCOPE_CACHE, or (of activations) freeze up to a later layer"
        )
    for _, _, size, path in files:
        if held + needed <= budget:
            return
        if path not in in_use:
            _remove(path)
            held -= size


def _cached_files() -> list[tuple[float, float, int, Path]]:
    """(last use of its store, its writing, bytes, path) of every shard of every store.

    What writers that were killed have left behind is removed on the way.
    """
    found = []
    for store in (cache_dir() / "features").glob("*/"):
        used = _modified(store / ".used")
        for path in store.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == ".tmp" and time.time() - status.st_mtime > _STALE:
                    path.unlink()
                elif path.suffix == ".safetensors":
                    found.append((used, status.st_mtime, status.st_size, path))
    return found


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _touch(folder: Path) -> None:
    """Notes that a store is in use; one that cannot be written is never evicted either."""
    with suppress(OSError):
        (folder / ".used").touch()


def _remove(shard: Path) -> None:
    shard.unlink(missing_ok=True)
    _marker(shard).unlink(missing_ok=True)


def _marker(shard: Path) -> Path:
    return shard.with_suffix(".verified")
