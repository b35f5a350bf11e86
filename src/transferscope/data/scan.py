"""What a folder of pictures holds: every file hashed and decoded once, unreadable ones named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from transferscope.data.loading import in_order
from transferscope.errors import DataError, PictureError
from transferscope.images import SUFFIXES, read_picture
from transferscope.storage import sha256_file

SPLITS = ("train", "validation", "test")
"""Names of the three parts, in the order of a ratio."""

UNREADABLE_CAP = 0.05
"""Share of a set's files that may be unreadable; with more of them the set itself is in doubt."""

_SPLIT_FOLDERS = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
_DECODED_SIDE = 256  # a JPEG's every byte is still read when it is decoded at 1/8 of its size
_LAYOUTS = "one folder a class (DATA/cat/1.jpg), or train, validation and test folders of those"


@dataclass(frozen=True)
class Picture:
    """One picture file of a set.

    Attributes:
        path: from the set's root, with forward slashes.
        label: index into the set's classes, None where it is not known.
        split: train, validation or test; None before a split is made.
        group: pictures of one group belong into one split (one patient, one video); None: alone.
        sha256: hex digest of the file.
    """

    path: str
    label: int | None
    split: str | None
    group: str | None
    sha256: str


@dataclass(frozen=True)
class Scan:
    """The readable pictures of a folder, and why the others are left out.

    Attributes:
        root: the folder.
        pictures: ordered by path.
        classes: names in label order, sorted as plain strings when scanned and stored ever after.
        excluded: (path, reason) of each file that is not among the pictures.
    """

    root: Path
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    excluded: tuple[tuple[str, str], ...]

    def file(self, picture: Picture) -> Path:
        """Where the file of `picture` is."""
        return self.root / picture.path

    def counts(self) -> dict[str, int]:
        """Pictures of each class, in class order."""
        labels = Counter(picture.label for picture in self.pictures)
        return {name: labels[label] for label, name in enumerate(self.classes)}


@dataclass(frozen=True)
class _Candidate:
    """A file that is named like a picture, before it is opened."""

    path: str
    class_name: str
    split: str | None


def scan(
    root: str | Path,
    *,
    channels: int = 3,
    known_readable: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Finds, hashes and completely decodes the pictures of a folder.

    Layouts: one folder a class; or folders train, valid (validation, val) and test, in upper or
    lower case, of class folders. Some of the three may be absent. A class is the topmost folder
    that holds pictures itself, so `a/x` and `b/x` are two classes, and `cat/1.jpg` and `cat/more/2.jpg`
    one. Hidden files, and files that do not end like a picture (`images.SUFFIXES`),
    are passed over.

    Args:
        root: the folder.
        channels: how pictures will be decoded, 3 (RGB) or 1 (grey).
        known_readable: SHA-256 digests of files that need not be decoded again.
        on_progress: called with (files done, files in all) after every file.

    Returns:
        The set; an unreadable file is in `excluded` and nothing takes its place.

    Raises:
        DataError: no folder, no pictures, no classes to tell apart, a class without (training)
            pictures, or more than 5% of the files unreadable.
    """
    root = Path(root)
    candidates, stray = _find(root)
    known = frozenset(known_readable)

    def check(candidate: _Candidate) -> Picture | str:
        """The picture without its label, or why there is none."""
        file = root / candidate.path
        try:
            digest = sha256_file(file)
            if digest not in known:
                read_picture(file, channels=channels, least_side=_DECODED_SIDE)
        except PictureError as error:
            return error.reason
        except FileNotFoundError:
            return "there is no such file"
        except OSError as error:
            return f"it cannot be opened ({error.strerror or error})"
        return Picture(candidate.path, None, candidate.split, None, digest)

    classes = tuple(sorted({candidate.class_name for candidate in candidates}))
    labels = {name: label for label, name in enumerate(classes)}
    pictures: list[Picture] = []
    unreadable: list[tuple[str, str]] = []
    for done, (candidate, found) in enumerate(
        zip(candidates, in_order(check, candidates), strict=True), start=1
    ):
        if isinstance(found, str):
            unreadable.append((candidate.path, found))
        else:
            label = labels[candidate.class_name]
            pictures.append(Picture(found.path, label, found.split, None, found.sha256))
        if on_progress is not None:
            on_progress(done, len(candidates))
    _refuse_unreadable(root, unreadable, len(candidates))
    result = Scan(root, tuple(pictures), classes, tuple(sorted(unreadable + stray)))
    _refuse_empty_classes(result)
    return result


# ---------------------------------------------------------------------------- finding


def _find(root: Path) -> tuple[list[_Candidate], list[tuple[str, str]]]:
    """Files named like pictures in order of their paths, and those that lie outside every class."""
    if not root.exists():
        raise DataError(
            f"there is no folder {str(root)!r}; give a folder of pictures that exists: {_LAYOUTS}"
        )
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is a file, not a folder of pictures; give {_LAYOUTS}")
    top, stray = _listing(root, "")
    splits = _split_folders(root, top)
    homes: list[tuple[str, str | None]] = []
    if splits is None:
        homes += [(name, None) for name in top]
    else:
        for name, given in splits.items():
            inside, loose = _listing(root, f"{name}/")
            if not inside:
                raise DataError(
                    f"{str(root / name)!r} is a split without class folders; put its pictures into "
                    "one folder a class, or remove it to have it drawn from the training pictures"
                )
            stray += loose
            homes += [(f"{name}/{child}", given) for child in inside]
    # A link to one of these, from below a class, does not make its pictures that class's.
    visited = {_identity(root / folder) for folder in ("", *top, *(home for home, _ in homes))}
    found: list[
        tuple[str, str, str | None]
    ] = []  # split folder with its slash, path below it, split
    empty = []
    for home, split in homes:
        prefix = home[: home.rfind("/") + 1]
        files = [path.removeprefix(prefix) for path in _walk(root, home, visited)]
        found += [(prefix, path, split) for path in files]
        if not files:
            empty.append(home.removeprefix(prefix))
    if not found:
        _refuse_no_pictures(root, stray)
    holders = {path.rpartition("/")[0] for _, path, _ in found}
    candidates = [
        _Candidate(pre + path, _class_of(path, holders), split) for pre, path, split in found
    ]
    missing = sorted(set(empty) - {path.partition("/")[0] for _, path, _ in found})
    if missing:
        raise DataError(
            f"no pictures in {str(root)!r} for {_listed(missing)}; every class folder needs some: "
            "add them, or remove the folder"
        )
    candidates.sort(key=lambda candidate: candidate.path)
    reason = "it lies outside every class folder"
    return candidates, [(path, reason) for path in stray]


def _class_of(path: str, holders: Set[str]) -> str:
    """The topmost folder on the way to a picture that holds pictures itself: `cat`, or `cat/siamese`."""
    folders = path.split("/")[:-1]
    above = ("/".join(folders[:depth]) for depth in range(1, len(folders)))
    return next((folder for folder in above if folder in holders), "/".join(folders))


def _split_folders(root: Path, names: Sequence[str]) -> dict[str, str] | None:
    """Folder name to split when the top of a set is made of splits; None when it is of classes."""
    found: dict[str, str] = {}
    for name in names:
        split = _SPLIT_FOLDERS.get(name.lower())
        if split is None:
            return None
        for other, taken in found.items():
            if taken == split:
                raise DataError(
                    f"{str(root)!r} has two folders for the split {split}: {other!r} and {name!r}; "
                    "merge them, or rename one"
                )
        found[name] = split
    return found or None


def _listing(root: Path, prefix: str) -> tuple[list[str], list[str]]:
    """Folder names, and paths of files named like pictures, directly below a folder; sorted."""
    folders, files = [], []
    try:
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(_spelled(root, prefix, entry.name))
                elif _is_candidate(entry):
                    files.append(prefix + _spelled(root, prefix, entry.name))
    except OSError as error:
        raise DataError(
            f"cannot list {str(root / prefix)!r}: {error.strerror or error}; make it readable, or "
            "move it out of the set"
        ) from error
    return sorted(folders), sorted(files)


def _walk(root: Path, home: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Paths of files named like pictures at any depth; a folder reached twice is read once."""
    waiting = [home]
    while waiting:
        folder = waiting.pop()
        folders, files = _listing(root, f"{folder}/")
        yield from files
        for child in (f"{folder}/{name}" for name in folders):
            identity = _identity(root / child)
            if identity not in visited:  # otherwise a link back up, or a second one to a folder
                visited.add(identity)
                waiting.append(child)


def _identity(folder: Path) -> tuple[int, int]:
    """What two names of one folder have in common."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_candidate(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is named like a picture and is a file, or a link that leads nowhere."""
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122 (a name, not a path)
        return False
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:
        return True


def _spelled(root: Path, prefix: str, name: str) -> str:
    """`name`, if it can be written down: split files and reports are UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"the name {name!r} in {str(root / prefix)!r} is not valid UTF-8; rename it"
        ) from None
    return name


# ---------------------------------------------------------------------------- refusing


def _refuse_no_pictures(root: Path, stray: Sequence[str]) -> None:
    if stray:
        raise DataError(
            f"{str(root)!r} holds {len(stray)} pictures but none in a class folder; sort them into "
            f"{_LAYOUTS}"
        )
    raise DataError(
        f"{str(root)!r} holds no pictures (files ending in .jpg, .png, .webp and the like); give {_LAYOUTS}"
    )


def _refuse_unreadable(root: Path, unreadable: Sequence[tuple[str, str]], total: int) -> None:
    if len(unreadable) <= UNREADABLE_CAP * total:
        return
    examples = "; ".join(f"{path!r}: {reason}" for path, reason in unreadable[:3])
    more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
    raise DataError(
        f"{len(unreadable)} of the {total} pictures in {str(root)!r} "
        f"({len(unreadable) / total:.1%}; at most {UNREADABLE_CAP:.0%} may be) cannot be read: "
        f"{examples}{more}; repair or remove them"
    )


def _refuse_empty_classes(found: Scan) -> None:
    if len(found.classes) < 2:
        raise DataError(
            f"{str(found.root)!r} holds the one class {found.classes[0]!r}; a classifier needs at "
            f"least two: give {_LAYOUTS}"
        )
    empty = [name for name, count in found.counts().items() if not count]
    if empty:
        raise DataError(
            f"no picture of {_listed(empty)} in {str(found.root)!r} can be read; repair them, or "
            "remove the class"
        )
    trained = {picture.label for picture in found.pictures if picture.split == "train"}
    lacking = [name for label, name in enumerate(found.classes) if label not in trained]
    if trained and lacking:
        raise DataError(
            f"the training split of {str(found.root)!r} has no pictures of {_listed(lacking)}, "
            "which other splits have; add some, or remove the class from the other splits"
        )


def _listed(names: Sequence[str]) -> str:
    """Up to five names, quoted, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name) for name in names[:5]) + more
