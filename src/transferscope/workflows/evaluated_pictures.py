"""The labelled pictures of one evaluation: a split of the run, or another set with the run's classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from transferscope.data.class_names import canonical
from transferscope.data.exclusions import say
from transferscope.data.readings import LayoutName, TwoReadings
from transferscope.data.scan import Picture, Scan, refuse_unreadable, scan
from transferscope.errors import DataError, UnknownName
from transferscope.files import sha256_bytes, sha256_file
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import Run, files_of, folder_in, labels_of

_HASHED = 64  # files whose bytes say whether a folder holds the run's own pictures
_READINGS: tuple[LayoutName, ...] = ("splits", "classes")


@dataclass(frozen=True, eq=False)
class EvaluatedPictures:
    """The labelled pictures of one evaluation.

    Attributes:
        name: of the split, or of the set.
        part: the split that they are in: train, validation or test.
        folder: where the figures go.
        files: N files, whose `pictures` have their paths in the set's folder and their hashes.
        labels: int64 (N,), in the run's class order.
        seen: pictures left out because their very bytes were trained or chosen on.
        excluded: (path, reason) of files left out.
        root: of another set, the folder that its paths start from.
    """

    name: str
    part: str
    folder: Path
    files: list[Path]
    pictures: Sequence[Picture]
    labels: torch.Tensor
    seen: int = 0
    excluded: tuple[tuple[str, str], ...] = ()
    root: Path | None = None


def evaluated_pictures(
    run: Run, split: str, data: str | Path | None, reporter: Reporter
) -> EvaluatedPictures:
    """The pictures of a split of the run, or of another set; see `evaluate_run`."""
    home = run.path / "evaluation"
    pictures = run.split.part(split)
    if data is not None and moved_root(run, pictures, data) is None:
        return _other_set(run, split, Path(data), reporter)
    files, pictures = files_of(run, split, data)
    folder = home if split == "test" else home / split
    return EvaluatedPictures(split, split, folder, files, pictures, labels_of(pictures))


def moved_root(run: Run, pictures: Sequence[Picture], data: str | Path | None) -> Path | None:
    """The folder in `data` that holds the run's own pictures, or None if it holds others.

    It is theirs if at least half of them are in it: files of their names, most of which have their bytes.
    Of many, the bytes of `_HASHED` files are asked, spread evenly; another set may well have the same names.
    """
    if data is None:
        return None
    try:
        root = folder_in(data, [picture.path for picture in pictures])
    except DataError:
        return None
    present = [picture for picture in pictures if (root / picture.path).is_file()]
    if not present or 2 * len(present) < len(pictures):
        return None
    asked = present[:: max(1, len(present) // _HASHED)]
    return root if 2 * sum(_is_same(root, picture) for picture in asked) >= len(asked) else None


def _is_same(root: Path, picture: Picture) -> bool:
    """Whether a file is the run's own picture: by its bytes, and by its name where it cannot be opened."""
    try:
        return sha256_file(root / picture.path) == picture.sha256
    except OSError:
        return True


def _scanned(run: Run, data: Path) -> Scan:
    """Another set, in the reading of its folders that has the run's classes where both are possible."""
    channels = run.classifier.input.channels
    try:
        return scan(data, channels=channels, lenient=True)
    except TwoReadings as error:
        known = {canonical(name) for name in run.classifier.classes}
        for layout in _READINGS:
            found = scan(data, channels=channels, layout=layout, lenient=True)
            if found.classes and known.issuperset(found.classes):
                return found
        raise error


def _other_set(run: Run, split: str, data: Path, reporter: Reporter) -> EvaluatedPictures:
    """Pictures of another set, with the run's labels."""
    found = _scanned(run, data)
    say(found.excluded, reporter.say)
    refuse_unreadable(found)
    classes = run.classifier.classes
    own = {canonical(name): name for name in classes}
    named = [
        (picture, own.get(name, name) if (name := found.class_of(picture)) else None)
        for picture in found.pictures
    ]
    unknown = Counter(name for _, name in named if name not in classes)
    if unknown:
        name, count = unknown.most_common(1)[0]
        if name is None:
            raise DataError(
                f"{str(data)!r} has pictures without a class ({count}); put them into folders with the names "
                "of the run's classes, or use 'transferscope predict'"
            )
        raise UnknownName(
            "class",
            name,
            classes,
            where=f"the run {run.path.name!r}, which knows {len(classes)}",
            remedy=f"rename or take out the folder ({count} pictures): a classifier cannot be judged on a "
            "class that it was not taught",
        )
    if any(picture.split for picture, _ in named):
        named = [(picture, name) for picture, name in named if picture.split == split]
        if not named:
            raise DataError(
                f"{str(data)!r} has no pictures in a {split} folder; choose another --split, or give a folder "
                "of class folders"
            )
    known = {p.sha256 for part in ("train", "validation") for p in run.split.part(part)}
    kept = [(picture, name) for picture, name in named if picture.sha256 not in known]
    if not kept:
        raise DataError(
            f"every picture of {str(data)!r} ({len(named)}) was trained or chosen on; give pictures that are "
            "new to the run, or use --split"
        )
    home = data.resolve()
    return EvaluatedPictures(
        name=home.name,
        part=split,
        folder=_other_folder(run, data),
        files=[found.file(picture) for picture, _ in kept],
        pictures=[picture for picture, _ in kept],
        labels=torch.tensor([classes.index(str(name)) for _, name in kept], dtype=torch.int64),
        seen=len(named) - len(kept),
        excluded=found.excluded,
        root=found.root.resolve(),
    )


def _other_folder(run: Run, data: Path) -> Path:
    """Where the evaluation of another set lies in a run."""
    home = data.resolve()
    return run.path / "evaluation" / f"data-{home.name}-{sha256_bytes(bytes(home))[:6]}"
