"""Two readings of folders: every folder a class, or splits with the same classes in each of them.

Everything here is decided by paths alone; no file is opened.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from transferscope.data.class_names import canonical, merged_names
from transferscope.data.exclusions import OUTSIDE
from transferscope.errors import DataError

LayoutName = Literal["auto", "splits", "classes"]
"""How folders called train, test and the like are read; auto refuses what is not certain."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "训练", "训练集"), "train"),
    **dict.fromkeys(
        ("valid", "validation", "validate", "val", "dev", "devel", "development", "eval", "evaluation",
         "验证", "验证集"),
        "validation",
    ),
    **dict.fromkeys(("test", "testing", "tst", "测试", "测试集"), "test"),
}  # fmt: skip
"""Names of a split, in lower case, as folders and tables have them."""

_WORDS = """set sets data dataset images image imgs img pictures picture pics photos photo split splits folder
samples sample seg part crops"""
_BESIDE = frozenset(
    _WORDS.split()
)  # may stand beside a split's name: test_set, seg_train, Train Images
_SHARED = (
    0.5  # of the smaller split's classes, that another split has too, from which splits are certain
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that should be a picture, before it is opened.

    Attributes:
        path: from the set's root, with forward slashes.
        class_name: None where the layout does not say.
        split: train, validation, test, or None.
        group: pictures of one group belong into one split; None: alone.
    """

    path: str
    class_name: str | None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Reading:
    """What the folders of a set say in one reading.

    Attributes:
        candidates: ordered by path.
        stray: (path, reason) of pictures that belong to no class while others do.
        empty: class folders without a picture.
        unsorted: split folders without class folders.
        merged: the spellings of each class that has several.
    """

    candidates: tuple[Candidate, ...]
    stray: tuple[tuple[str, str], ...] = ()
    empty: tuple[str, ...] = ()
    unsorted: tuple[str, ...] = ()
    merged: tuple[tuple[str, ...], ...] = ()

    @property
    def classes(self) -> list[str]:
        """Names, sorted."""
        return sorted({one.class_name for one in self.candidates if one.class_name is not None})


class TwoReadings(DataError):
    """Folders that may be splits, or classes."""


def split_of(name: str) -> tuple[str, bool] | None:
    """The split that a folder's name says, and whether it says nothing else; None: no split."""
    plain = name.strip().lower()
    if plain in SPLIT_NAMES:
        return SPLIT_NAMES[plain], True
    words = re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name.strip()).lower())
    left = [word for word in words if word not in _BESIDE]
    if len(left) != 1:
        return None
    word = left[0] if left[0] in SPLIT_NAMES else re.sub(r"(set|data|images)$", "", left[0])
    return (SPLIT_NAMES[word], False) if word in SPLIT_NAMES else None


def read_folders(
    root: Path, files: Sequence[str], folders: Sequence[str], layout: LayoutName = "auto"
) -> Reading:
    """The reading that holds: as splits only where the folders themselves show that they are splits.

    That is certain where folders with the names of two or more splits hold the same classes, at any depth,
    above the class folders or in them; and where the only folders of the set are called exactly as splits are.

    Args:
        root: for messages.
        files: paths of the pictures, from the root.
        folders: paths of all folders.
        layout: which reading; auto: the certain one.

    Raises:
        TwoReadings: neither reading is certain; shows both.
        DataError: two folders for one split, or `layout` is splits and no folder has a split's name.
    """
    tree = _Tree(tuple(files), tuple(folders))
    if layout == "classes" or (layout == "auto" and not tree.levels):
        return _as_classes(tree)
    if not tree.levels:
        raise DataError(
            f"no folder of {str(root)!r} has the name of a split (train, validation, test), and --layout is "
            "splits; rename the folders, or use --layout classes"
        )
    if layout == "splits":
        return _as_splits(root, tree)
    doubt = _doubt(tree)
    if doubt is None:
        return _as_splits(root, tree) if _is_splits(tree) else _as_classes(tree)
    raise TwoReadings(_two_readings(root, tree, doubt))


# ---------------------------------------------------------------------------- what the paths say


@dataclass(frozen=True)
class _Tree:
    """The folders of a set.

    Attributes:
        files: paths of pictures.
        folders: paths of all folders.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]

    @cached_property
    def filled(self) -> frozenset[str]:
        """Folders with a picture in them, at any depth."""
        found: set[str] = set()
        for path in self.files:
            folder = path.rpartition("/")[0]
            while folder not in found:
                found.add(folder)
                folder = folder.rpartition("/")[0]
        return frozenset(found)

    @cached_property
    def children(self) -> Mapping[str, list[str]]:
        """Folder to the names of the folders in it, those without pictures too."""
        found: dict[str, list[str]] = defaultdict(list)
        for folder in sorted({*self.folders, *self.filled} - {""}):
            parent, _, name = folder.rpartition("/")
            found[parent].append(name)
        return found

    def filled_children(self, folder: str) -> list[str]:
        """Names of the folders in it that have pictures."""
        return [
            name for name in self.children.get(folder, ()) if _join(folder, name) in self.filled
        ]

    @cached_property
    def levels(self) -> dict[str, dict[str, str]]:
        """Folder to the names of the folders in it that are called as splits, with the split of each.

        Of splits in splits the upper ones. One without pictures counts beside others that have some.
        """
        found: dict[str, dict[str, str]] = {}
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            named = {
                name: said[0] for name in self.children.get(folder, ()) if (said := split_of(name))
            }
            full = [name for name in self.filled_children(folder) if name in named]
            if full:
                exact = {name for name in named if (split_of(name) or ("", False))[1]}
                found[folder] = {n: s for n, s in named.items() if n in full or n in exact}
            waiting += [
                _join(folder, name) for name in self.filled_children(folder) if name not in full
            ]
        return found

    @cached_property
    def common(self) -> str:
        """The folder that all levels lie in: what stands above it is no part of a class's name."""
        paths = [level.split("/") if level else [] for level in self.levels]
        shared = []
        for parts in zip(*paths, strict=False):
            if len(set(parts)) > 1:
                break
            shared.append(parts[0])
        return "/".join(shared)

    @cached_property
    def split_folders(self) -> dict[str, tuple[str, str]]:
        """Path of a split's folder to its split and the class folder that it lies in, or nothing.

        A folder whose only content is a folder for the same split (test_set/test_set) is one with it.
        """
        found = {}
        above = len(self.common.split("/")) if self.common else 0
        for level, named in self.levels.items():
            home = "/".join(level.split("/")[above:]) if level else ""
            for name, split in named.items():
                folder = _join(level, name)
                while not self._holds(folder) and len(inner := self.filled_children(folder)) == 1:
                    said = split_of(inner[0])
                    if said is None or said[0] != split:
                        break
                    folder = _join(folder, inner[0])
                found[folder] = (split, home)
        return found

    def _holds(self, folder: str) -> bool:
        return folder in self.holders

    @cached_property
    def holders(self) -> frozenset[str]:
        """Folders with a picture directly in them."""
        return frozenset(path.rpartition("/")[0] for path in self.files)

    @cached_property
    def placed(self) -> list[tuple[str, str | None, str]]:
        """Every picture with its split (None: in none) and its class's folders, in the reading as splits."""
        found: list[tuple[str, str | None, str]] = []
        for path in self.files:
            folders = path.split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                place = self.split_folders.get("/".join(folders[:depth]))
                if place is not None:
                    rest = "/".join(folders[depth:])
                    found.append((path, place[0], _join(place[1], rest) if rest else place[1]))
                    break
            else:
                found.append((path, None, "/".join(folders)))
        return found

    @cached_property
    def classes_by_split(self) -> dict[str, set[str]]:
        """Split to its classes, in the reading as splits."""
        inside = [(split, canonical(folder)) for _, split, folder in self.placed if split]
        holders = {folder for _, folder in inside if folder}
        found: dict[str, set[str]] = defaultdict(set)
        for split, folder in set(inside):
            found[split].add(_topmost(folder, holders))
        return found

    @cached_property
    def outside(self) -> list[str]:
        """Pictures in folders beside those of splits; not those directly in a folder above them."""
        above = {""}
        for level in self.levels:
            parts = level.split("/") if level == self.common else level.split("/")[:-1]
            above |= {"/".join(parts[:depth]) for depth in range(len(parts) + 1)}
        return [
            path for path, split, folder in self.placed if split is None and folder not in above
        ]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _topmost(folder: str, holders: Set[str]) -> str:
    """The topmost folder on the way to a picture that holds pictures itself: `cat`, or `cat/siamese`."""
    parts = folder.split("/")
    above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return next((one for one in above if one in holders), folder)


# ---------------------------------------------------------------------------- which reading


def _shared(tree: _Tree) -> set[str]:
    """Classes that two or more splits have."""
    counts = Counter(name for names in tree.classes_by_split.values() for name in names if name)
    return {name for name, count in counts.items() if count > 1}


def _lone_level(tree: _Tree) -> str | None:
    """The folder that all pictures lie in and that holds nothing but folders called as splits; or None."""
    if len(tree.levels) != 1:
        return None
    (level,) = tree.levels
    folder = ""
    while folder != level:
        inside = tree.filled_children(folder)
        if len(inside) != 1:
            return None
        folder = _join(folder, inside[0])
    return level if set(tree.filled_children(level)) <= tree.levels[level].keys() else None


def _is_certain(tree: _Tree) -> bool:
    """Whether splits hold the same classes, and nothing lies beside them."""
    found = [names - {""} for names in tree.classes_by_split.values()]
    least = min(found, key=len)
    shared = _shared(tree)
    return (
        len(found) > 1 and not tree.outside and len(least & shared) >= max(1, _SHARED * len(least))
    )


def _is_splits(tree: _Tree) -> bool:
    """Whether the reading as splits holds, where `_doubt` has none."""
    if _is_certain(tree):
        return True
    level = _lone_level(tree)
    if level is None:
        return False
    exact = all((split_of(name) or ("", False))[1] for name in tree.levels[level])
    return exact or set(tree.classes_by_split) == {"train"}


def _doubt(tree: _Tree) -> str | None:
    """Why neither reading is certain; None where one is."""
    if _is_certain(tree):
        return None
    several = len(tree.classes_by_split) > 1
    lone = _lone_level(tree)
    shared = _shared(tree)
    if lone is not None and _is_splits(tree):
        flat = any("" in names for names in tree.classes_by_split.values())
        if several and not flat and not shared:
            return "the folders with names of splits have no class in common"
        return None
    if lone is not None and several:
        return "the folders are called nearly as splits, and hold no class in common"
    for level, named in tree.levels.items():
        beside = [name for name in tree.filled_children(level) if name not in named]
        words = f"it has {listed(beside)} beside the splits {listed(_filled(tree, level, named))}"
        only_folders = all(_join(level, name) not in tree.holders for name in named)
        if beside and (shared or (only_folders and len(set(named.values())) > 1)):
            return words
        if any(_same_inside(tree, level, one, other) for one in beside for other in named):
            return words
        if not beside and len(set(named.values())) > 1 and tree.outside:
            return f"{tree.outside[0]!r} is one of {len(tree.outside)} pictures outside its splits"
    return "only some of the classes are in two splits" if shared else None


def _filled(tree: _Tree, level: str, named: Iterable[str]) -> list[str]:
    return [name for name in named if _join(level, name) in tree.filled]


def _same_inside(tree: _Tree, level: str, one: str, other: str) -> bool:
    """Whether a folder has the same folders as one that is called as a split."""
    first, second = (set(tree.filled_children(_join(level, name))) for name in (one, other))
    return bool(first) and len(first & second) >= max(1, _SHARED * min(len(first), len(second)))


def _two_readings(root: Path, tree: _Tree, doubt: str) -> str:
    """Both readings, and the option that chooses."""
    counts = Counter(split for _, split, _ in tree.placed if split)
    parts = ", ".join(
        f"{name} ({counts[name]})" for name in ("train", "validation", "test") if counts[name]
    )
    names = sorted({name for found in tree.classes_by_split.values() for name in found if name})
    classes = _as_classes(tree).classes
    of_classes = f" of the {len(names)} classes {listed(names, 3)}" if names else ""
    outside = f", without {len(tree.outside)} pictures beside them" if tree.outside else ""
    return (
        f"{str(root)!r} can be read in two ways: as the splits {parts}{of_classes}{outside}; or as "
        f"{len(classes)} classes, {listed(classes, 3)}. Neither is certain: {doubt}. Choose with "
        "--layout splits or --layout classes, or rename or move the folders"
    )


# ---------------------------------------------------------------------------- the readings


def _as_classes(tree: _Tree) -> Reading:
    """A class is the topmost folder that holds pictures itself."""
    placed = [(path, None, path.rpartition("/")[0]) for path in tree.files]
    top = [name for name in tree.children.get("", ()) if name not in tree.filled]
    return _reading(placed, [canonical(name) for name in top])


def _as_splits(root: Path, tree: _Tree) -> Reading:
    """Classes below the splits' folders, or splits' folders in those of classes."""
    for level, named in tree.levels.items():
        _refuse_doubled(root / level, named)
    inside = [(path, split, folder) for path, split, folder in tree.placed if split]
    outside = [(path, OUTSIDE) for path, split, _ in tree.placed if not split]
    unsorted, empty = [], []
    for folder, (_, home) in tree.split_folders.items():
        children = tree.children.get(folder, ())
        if not home and not children:
            unsorted.append(folder)
        empty += [_join(home, name) for name in children if _join(folder, name) not in tree.filled]
    if len(tree.levels) > 1:
        beside = tree.children.get(tree.common, ())
        empty += [name for name in beside if _join(tree.common, name) not in tree.filled]
    reading = _reading(inside, [canonical(name) for name in empty])
    stray = tuple(sorted([*reading.stray, *outside]))
    return Reading(
        reading.candidates, stray, reading.empty, tuple(sorted(unsorted)), reading.merged
    )


def _reading(placed: Iterable[tuple[str, str | None, str]], empty: Iterable[str]) -> Reading:
    """Classes by the folders that are left of each path.

    Args:
        placed: path, split and folders of the class, as spelled.
        empty: class folders without pictures, among them those that have some in another split.
    """
    named = [(path, split, folder, canonical(folder)) for path, split, folder in placed]
    holders = {name for *_, name in named if name}
    candidates, stray, spellings = [], [], set()
    for path, split, folder, name in named:
        if not name:
            stray.append((path, split))
            continue
        chosen = _topmost(name, holders)
        candidates.append(Candidate(path, chosen, split))
        depth = chosen.count("/") + 1
        spellings.add(("/".join(folder.split("/")[:depth]), chosen))
    missing = set(empty) - {
        one.class_name.partition("/")[0] for one in candidates if one.class_name
    }
    if candidates:
        left = [(path, OUTSIDE) for path, _ in stray]
    else:
        candidates, left = [Candidate(path, None, split) for path, split in stray], []
    candidates.sort(key=lambda candidate: candidate.path)
    return Reading(
        tuple(candidates), tuple(left), tuple(sorted(missing)), (), merged_names(spellings)
    )


def _refuse_doubled(folder: Path, named: Mapping[str, str]) -> None:
    taken: dict[str, str] = {}
    for name, split in named.items():
        if split in taken:
            raise DataError(
                f"{str(folder)!r} has two folders for the split {split}: {taken[split]!r} and {name!r}; "
                "merge them, or rename one; if they are classes, use --layout classes"
            )
        taken[split] = name


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, quoted, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
