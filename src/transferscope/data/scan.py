"""What a folder of pictures holds: every file hashed and decoded once, unreadable ones named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from transferscope.data.layouts import LAYOUTS, Candidate, Layout, folder_layout, listed
from transferscope.data.loading import in_order
from transferscope.errors import DataError, PictureError
from transferscope.images import FileFacts, read_with_facts
from transferscope.storage import sha256_file

SPLITS = ("train", "validation", "test")
"""Names of the three parts, in the order of a ratio."""

UNREADABLE_CAP = 0.05
"""Share of a set's files that may be unreadable; with more of them the set itself is in doubt."""

_DECODED_SIDE = 256  # a JPEG's every byte is still read when it is decoded at 1/8 of its size


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


Measure = Callable[[Picture, Image.Image, FileFacts], None]
"""Is shown every picture while it is decoded, from several threads at once."""


def scan(
    root: str | Path,
    *,
    channels: int = 3,
    known_readable: Collection[str] = (),
    lenient: bool = False,
    measure: Measure | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Finds, hashes and completely decodes the pictures of a set.

    Layouts: one folder a class; or folders train, valid (validation, val) and test, in upper or
    lower case, of class folders. Some of the three may be absent. A class is the topmost folder
    that holds pictures itself, so `a/x` and `b/x` are two classes, and `cat/1.jpg` and `cat/more/2.jpg`
    one. Hidden files, and files that do not end like a picture (`images.SUFFIXES`),
    are passed over.

    Args:
        root: the folder.
        channels: how pictures will be decoded, 3 (RGB) or 1 (grey).
        known_readable: SHA-256 digests of files that need not be decoded again.
        lenient: takes a set as it is, for looking at it: also one that cannot be trained on, without
            classes or with many unreadable files.
        measure: is shown every readable picture. With it, known pictures are decoded too.
        on_progress: called with (files done, files in all) after every file.

    Returns:
        The set; an unreadable file is in `excluded` and nothing takes its place.

    Raises:
        DataError: no folder, no pictures; and unless `lenient`, no classes to tell apart, a class
            without (training) pictures, or more than 5% of the files unreadable.
    """
    layout = folder_layout(Path(root))
    if not lenient:
        _refuse_layout(layout)
    root, candidates = layout.root, layout.candidates
    known = frozenset(known_readable) if measure is None else frozenset()
    names = {candidate.class_name for candidate in candidates} - {None}
    classes = tuple(sorted(name for name in (*names, *layout.empty) if name is not None))
    labels: dict[str | None, int] = {name: label for label, name in enumerate(classes)}

    def check(candidate: Candidate) -> Picture | str:
        """The picture, or why there is none."""
        file = root / candidate.path
        try:
            digest = sha256_file(file)
            picture = Picture(
                candidate.path,
                labels.get(candidate.class_name),
                candidate.split,
                candidate.group,
                digest,
            )
            if digest not in known:
                decoded, facts = read_with_facts(file, channels=channels, least_side=_DECODED_SIDE)
                if measure is not None:
                    measure(picture, decoded, facts)
        except PictureError as error:
            return error.reason
        except FileNotFoundError:
            return "there is no such file"
        except OSError as error:
            return f"it cannot be opened ({error.strerror or error})"
        return picture

    pictures: list[Picture] = []
    unreadable: list[tuple[str, str]] = []
    for done, (candidate, found) in enumerate(
        zip(candidates, in_order(check, candidates), strict=True), start=1
    ):
        if isinstance(found, str):
            unreadable.append((candidate.path, found))
        else:
            pictures.append(found)
        if on_progress is not None:
            on_progress(done, len(candidates))
    result = Scan(root, tuple(pictures), classes, tuple(sorted([*unreadable, *layout.stray])))
    if not lenient:
        _refuse_unreadable(root, unreadable, len(candidates))
        _refuse_empty_classes(result)
    return result


# ---------------------------------------------------------------------------- refusing


def _refuse_layout(layout: Layout) -> None:
    if layout.unsorted:
        raise DataError(
            f"{str(layout.root / layout.unsorted[0])!r} is a split without class folders; put its "
            "pictures into one folder a class, or remove it to have it drawn from the training pictures"
        )
    if layout.empty:
        raise DataError(
            f"no pictures in {str(layout.root)!r} for {listed(layout.empty)}; every class folder needs "
            "some: add them, or remove the folder"
        )
    if all(candidate.class_name is None for candidate in layout.candidates):
        raise DataError(
            f"{str(layout.root)!r} holds {len(layout.candidates)} pictures but none in a class folder; "
            f"sort them into {LAYOUTS}"
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
            f"least two: give {LAYOUTS}"
        )
    empty = [name for name, count in found.counts().items() if not count]
    if empty:
        raise DataError(
            f"no picture of {listed(empty)} in {str(found.root)!r} can be read; repair them, or "
            "remove the class"
        )
    trained = {picture.label for picture in found.pictures if picture.split == "train"}
    lacking = [name for label, name in enumerate(found.classes) if label not in trained]
    if trained and lacking:
        raise DataError(
            f"the training split of {str(found.root)!r} has no pictures of {listed(lacking)}, "
            "which other splits have; add some, or remove the class from the other splits"
        )
