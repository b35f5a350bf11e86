"""One walk of folders for every verb: which files are pictures, and why the others are not taken."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transferscope.data.exclusions import (
    ABOVE,
    DEAD_LINK,
    HIDDEN,
    NO_PICTURE,
    NOT_UTF8,
    READ_ALREADY,
    SPECIAL,
    SYSTEM_FILE,
    in_system_folder,
    unlisted,
)
from transferscope.data.loading import in_order
from transferscope.files import FOLDER_MARK
from transferscope.formats import SUFFIXES, kind, not_read, readable

_SYSTEM_FOLDERS = re.compile(
    r"@eadir|@tmp|#recycle|#snapshot|@recycle|@recently-snapshot|@synoeadir|__macosx|\$recycle\.bin|"
    r"system volume information|lost\+found|\.trash.*|\.appledouble|\.thumbnails|\.ipynb_checkpoints|"
    r"\.spotlight-v100|\.fseventsd|\.documentrevisions-v100|\.temporaryitems|network trash folder|"
    r"temporary items|__pycache__|\.git|\.svn|\.hg|\.dvc|\.picasaoriginals",
    re.IGNORECASE,
)
"""Folders in which systems, viewers and network drives keep what is theirs: thumbnails, copies, waste."""

_SYSTEM_FILES = re.compile(
    r"(eh)?thumbs(_vista)?\.db|desktop\.ini|\.?picasa\.ini|\.ds_store|\._.*|icon\r|\.localized|\.directory|"
    r"folder\.htt|zbthumbnail\.info|.*@synoeastream",
    re.IGNORECASE,
)
_AT_ONCE = 64  # files whose first bytes one task of a thread reads


@dataclass(frozen=True)
class Walk:
    """What lies below a folder; paths start from it, with forward slashes.

    Attributes:
        files: that are decoded, ordered by path: pictures by their ending or by their bytes.
        folders: ordered by path, without those of the system and hidden ones.
        left_out: (path, reason) of every other file, ordered by path.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


@dataclass
class _Found:
    """A walk under way.

    Attributes:
        root: where it began.
        files, folders, left_out: see `Walk`.
        doubtful: files whose ending says nothing: their bytes will.
        links: folders that are links, which are followed after all folders that are none.
        visited: folders that have been read, by what two names of one have in common.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    visited: set[tuple[int, int]] = field(default_factory=set)


def walk(root: Path) -> Walk:
    """Every file below a folder, at any depth.

    Endings only speed things up: a file of another ending is a picture where its first bytes say so, and a
    file with a picture's ending is decoded later, which tells. Hidden files and what systems, viewers and
    network drives leave behind (`@eaDir`, `__MACOSX`, `Thumbs.db`...) are counted and not read. Links are
    followed once all other folders are read, those nearest to the root first; no folder is read twice.

    Args:
        root: an existing folder, whose own name may be anything.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    found = _Found(root)
    found.visited.add(_identity(root))
    above = {_identity(parent) for parent in root.resolve().parents}
    os.scandir(root).close()  # an error of the folder itself is the caller's
    waiting = deque([""])
    while waiting or found.links:
        if waiting:
            prefix = waiting.popleft()
            waiting.extend(_listed(found, prefix))
            continue
        found.links.sort(key=lambda path: (path.count("/"), path), reverse=True)
        path = found.links.pop()
        identity = _identity(root / path)
        if identity in found.visited or identity in above:
            found.left_out.append((path, ABOVE if identity in above else READ_ALREADY))
            continue
        found.visited.add(identity)
        found.folders.append(path)
        waiting.append(f"{path}/")
    _decide(found)
    return Walk(
        tuple(sorted(found.files)), tuple(sorted(found.folders)), tuple(sorted(found.left_out))
    )


def _listed(found: _Found, prefix: str) -> Iterator[str]:
    """Sorts the entries of one folder; yields the folders in it that are no links, with a slash."""
    try:
        with os.scandir(found.root / prefix) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        found.left_out.append((prefix.rstrip("/"), unlisted(error)))
        return
    for entry in entries:
        if entry.name == FOLDER_MARK:  # our own
            continue
        path = prefix + entry.name
        folder = _is_folder(entry)
        reason = _never(entry.name, folder=folder)
        if not _is_utf8(entry.name):
            found.left_out.append((os.fsencode(path).decode("utf-8", "backslashreplace"), NOT_UTF8))
        elif reason is not None:
            inside = _inside(found.root, path) if folder and not entry.is_symlink() else [path]
            found.left_out += [(one, reason) for one in inside]
        elif not folder:
            _sort_file(found, entry, path)
        elif entry.is_symlink():
            found.links.append(path)
        elif (identity := _identity(found.root / path)) in found.visited:
            found.left_out.append((path, READ_ALREADY))
        else:
            found.visited.add(identity)
            found.folders.append(path)
            yield f"{path}/"


def _sort_file(found: _Found, entry: os.DirEntry[str], path: str) -> None:
    """A file is taken by its ending, or looked at later, or is none."""
    if os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 (a name)
        found.files.append(path)
        return
    try:
        regular = entry.is_file()
    except OSError:  # a link that leads to itself
        regular = False
    if regular:
        found.doubtful.append(path)
    elif entry.is_symlink():
        found.left_out.append((path, DEAD_LINK))
    else:
        found.left_out.append((path, SPECIAL))


def _decide(found: _Found) -> None:
    """Reads the first bytes of the files whose ending says nothing."""

    def reasons(paths: list[str]) -> list[str | None]:
        return [why_no_picture(found.root / path) for path in paths]

    starts = range(0, len(found.doubtful), _AT_ONCE)
    parts = [found.doubtful[start : start + _AT_ONCE] for start in starts]
    for paths, whys in zip(parts, in_order(reasons, parts), strict=True):
        for path, why in zip(paths, whys, strict=True):
            if why is None:
                found.files.append(path)
            else:
                found.left_out.append((path, why))


def why_no_picture(file: Path) -> str | None:
    """Why a file is not decoded, by its first bytes; None: it is a picture of a format that is read."""
    try:
        name = kind(file)
    except OSError as error:
        return f"it cannot be opened ({error.strerror or error})"
    if name is None:
        return NO_PICTURE
    return None if name in readable() else not_read(name)


def _never(name: str, *, folder: bool) -> str | None:
    """Why an entry of this name is passed over, whatever is in it; None: it is not."""
    if folder:
        if _SYSTEM_FOLDERS.fullmatch(name):
            return in_system_folder(name)
    elif _SYSTEM_FILES.fullmatch(name):
        return SYSTEM_FILE
    return HIDDEN if name.startswith(".") else None


def _inside(root: Path, folder: str) -> Iterator[str]:
    """Paths of the files in a folder that is passed over; what cannot be listed is not counted."""
    for place, folders, files in os.walk(root / folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name).relative_to(root).as_posix()
            yield os.fsencode(path).decode("utf-8", "backslashreplace")


def _identity(folder: Path) -> tuple[int, int]:
    """What two names of one folder have in common."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_utf8(name: str) -> bool:
    """Whether a name can be written down: split files and reports are UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
