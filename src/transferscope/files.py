"""Files and folders that are whole or absent: atomic writes, hashes, locks.

Every write goes to a temporary file in the same folder, is flushed to the disk, and takes its name
by `os.replace`; the folder is flushed after it. So a reader finds the old file or the new one, never
half of either, whatever kills the writer.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from transferscope.errors import OutputError, RunError, WeightsError

if TYPE_CHECKING:
    import torch

FOLDER_MARK = ".transferscope"
"""A folder with this file in it was written by us, and may be replaced by us."""


# ---------------------------------------------------------------------------- writing


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path; when the block ends well, the file there takes the name `path`.

    Raises:
        OutputError: the folder cannot be written or the disk is full. `path` is then unchanged and
            the temporary file is gone.
    """
    path = Path(path)
    temporary = _beside(path, "tmp")
    with _failing_as_output_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            open(temporary, "xb").close()
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
            _flush_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def _failing_as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a part of its path is a file, not a folder" if in_the_way else error.strerror
        raise OutputError(
            f"cannot write {str(path)!r}: {reason or error}; what was there before is untouched; "
            "choose a folder that can be written, or make room on the disk"
        ) from error


def _beside(path: Path, kind: str) -> Path:
    """A new hidden name in the same folder, no longer than names may be."""
    return path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}.{kind}"


def is_writable(folder: str | Path) -> bool:
    """Whether a file can be made in a folder, or in the nearest folder above it that exists."""
    place = Path(folder)
    while not place.is_dir() and place != place.parent:
        place = place.parent
    trial = _beside(place / "trial", "tmp")
    try:
        open(trial, "xb").close()
        trial.unlink()
    except OSError:
        return False
    return True


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            written = file.write(data)
            file.flush()
        # A file-size limit makes the write short without an error (SIGXFSZ is ignored by Python).
        if written != len(data) or temporary.stat().st_size != len(data):
            raise OSError(f"only {temporary.stat().st_size} of {len(data)} bytes were taken")


def same_file(source: str | Path, path: str | Path) -> None:
    """Makes `path` another name of the file `source`, or a copy where the file system has no links.

    Raises:
        OutputError: `path` cannot be written.
    """
    path = Path(path)
    temporary = _beside(path, "tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, temporary)
        os.replace(temporary, path)
    except OSError:  # another disk, or a file system without links
        write_bytes(path, Path(source).read_bytes())
    finally:
        with suppress(OSError):  # two names of one file are left as two by os.replace
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text to `path`, whole or not at all; of a file name that is no UTF-8, bytes as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """`value` as JSON with the key order given; of a file name that is no UTF-8, bytes as escapes.

    Reading it again gives back the very name. NaN is refused, since JSON has none.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Writes `value` as UTF-8 JSON with the key order given."""
    write_text(path, json_text(value, indent=indent) + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON value in `path`.

    Raises:
        RunError: missing, or not JSON.
    """
    with _reading(path, "JSON"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


@contextmanager
def _reading(path: str | Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise RunError(
            f"{str(path)!r} is missing: is this a run folder that was finished?"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(
            f"cannot read {str(path)!r} as {kind}: {error}; restore or remove it"
        ) from error


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table as UTF-8 CSV with one header line."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(header)
    for row in rows:  # a carriage return needs quotes, which the plain writer does not know
        (quoted if any("\r" in str(value) for value in row) else plain).writerow(row)
    write_text(path, text.getvalue())


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file, each a mapping from the header's names.

    Raises:
        RunError: missing, or not CSV in UTF-8.
    """
    with _reading(path, "CSV"), open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes a safetensors file whose metadata values are JSON.

    Args:
        tensors: name to tensor; each is written contiguous, on the CPU, in its own dtype.
        metadata: JSON-able values; a `sha256` of all tensors is added, as the format has no checksum.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {key: _json_line(value) for key, value in metadata.items()}
    header["sha256"] = json.dumps(hash_tensors(plain))
    write_bytes(path, save(plain, header))


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file; the checksum of `write_tensors` is verified.

    Metadata of other writers that is not JSON (`format: pt`) stays text.

    Raises:
        WeightsError: missing, damaged, or not a safetensors file. Nothing is unpickled.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            header = {key: _from_json(value) for key, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"{str(path)!r} does not exist") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{str(path)!r} is not a readable safetensors file ({error}); it may be cut short: "
            "write it again"
        ) from error
    if "sha256" in header and header["sha256"] != hash_tensors(tensors):
        raise WeightsError(
            f"{str(path)!r} is damaged: its tensors do not have the checksum it was saved with; "
            "restore it from a copy or write it again"
        )
    return tensors, header


def _json_line(value: Any, *, sort_keys: bool = False) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=sort_keys)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _from_json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


@contextmanager
def replaced_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `path`, whole, when the block ends well.

    An existing folder is replaced only if it is empty, or one that this function made and that nothing
    was added to since. It is moved aside for the last rename and removed after it.

    Raises:
        OutputError: `path` holds something that is not ours, or cannot be written.
    """
    path = Path(path)
    refuse_foreign(path)
    fresh, old = _beside(path, "new"), _beside(path, "old")
    with _failing_as_output_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.mkdir()
            yield fresh
            _mark(fresh)
            if path.exists():
                os.replace(path, old)
            os.replace(fresh, path)
            _flush_folder(path.parent)
        finally:
            if old.exists() and not path.exists():  # interrupted between the two renames
                os.replace(old, path)
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def refuse_foreign(path: Path) -> None:
    """Refuses a folder that `replaced_folder` would: long work can ask before it begins.

    Raises:
        OutputError: `path` is a file, or a folder that holds something that is not ours.
    """
    with _failing_as_output_error(
        path
    ):  # a name that is too long, a folder that may not be entered
        _look_up(path)
        exists = path.exists()
    if exists and not path.is_dir():
        raise OutputError(f"{str(path)!r} is a file; give the name of a folder")
    if not path.is_dir() or all(one.name in _OF_VIEWERS for one in path.iterdir()):
        return
    foreign = _unlisted(path)
    if foreign is None:
        raise OutputError(
            f"{str(path)!r} holds files that are not Transferscope's and would be lost; "
            "give an empty or a new folder"
        )
    if foreign:
        more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise OutputError(
            f"{str(path)!r} holds {foreign[0]!r}{more}, which Transferscope did not write and which would "
            "be lost; move that elsewhere, or give a new folder"
        )


def refuse_name(path: str | Path) -> None:
    """Refuses a name that no file can have here: long work can ask before it begins.

    Raises:
        OutputError: it is too long, or that of a folder.
    """
    path = Path(path)
    with _failing_as_output_error(path):
        _look_up(path)
        if path.is_dir():
            raise OutputError(f"{str(path)!r} is a folder; give the name of a file")


def _look_up(path: Path) -> None:
    """Raises OSError for a name that the file system does not take, before there is anything to write."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()


def refuse_read_only(folder: str | Path) -> None:
    """Refuses a folder that cannot be written, or made: long work can ask before it begins.

    Raises:
        OutputError: it, or the folder that it would be made in, cannot be written.
    """
    folder = Path(folder)
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not (there.is_dir() and is_writable(there)):
        raise OutputError(
            f"cannot write in {str(folder)!r}: "
            + (f"{str(there)!r} is read-only" if there.is_dir() else f"{str(there)!r} is a file")
            + "; copy the run to a folder that can be written, or change its permissions"
        )


_OF_VIEWERS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # what looking into a folder leaves in it

_MARKED = (
    "written by transferscope; replaced as a whole, unless it holds files that are not listed here"
)


def _mark(folder: Path) -> None:
    """Leaves a list of the folder's files in it, by which it is known later."""
    listed = json.dumps(_files(folder))
    (folder / FOLDER_MARK).write_text(f"{_MARKED}\n{listed}\n", encoding="utf-8")


def _unlisted(folder: Path) -> list[str] | None:
    """Files that were added to one of our folders; None if it is not ours."""
    try:
        first, _, rest = (folder / FOLDER_MARK).read_text(encoding="utf-8").partition("\n")
        listed = (
            json.loads(rest) if first == _MARKED else _files(folder)
        )  # earlier versions had no list
    except (OSError, ValueError):
        return None
    added = {*_files(folder)} - {FOLDER_MARK, *listed}
    return sorted(file for file in added if Path(file).name not in _OF_VIEWERS)


def _files(folder: Path) -> list[str]:
    """Relative paths of everything in a folder that is not itself a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder has no handle to flush there
        return
    # By now the file has its name. Some file systems (SMB, FUSE) cannot flush a folder, or open one; what
    # is lost then is only the promise that the name outlives a power failure.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---------------------------------------------------------------------------- hashing


def sha256_bytes(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex digest of a JSON-able value, independent of key order."""
    return sha256_bytes(_json_line(value, sort_keys=True).encode())


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hex digest of names, dtypes, shapes and bits of tensors, independent of their order."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------- lock


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Holds a folder for one process; the operating system releases it when that process dies.

    Raises:
        RunError: another process holds it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder / ".lock"), blocking=False)
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{str(folder)!r} is in use by another transferscope process; wait for it, or choose "
            "another folder"
        ) from None
    except OSError as error:
        raise OutputError(
            f"cannot write in {str(folder)!r}: {error.strerror or error}; choose a folder that can "
            "be written"
        ) from error
    try:
        yield
    finally:
        lock.release()
