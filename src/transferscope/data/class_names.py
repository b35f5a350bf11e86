"""Names of classes: which spellings are one name, and which others only look alike."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"
_LATIN = str.maketrans(  # letters of other scripts that are drawn like Latin ones, in lower case
    "аеорсухѕіјԁһкмтвнαεοριυκντβηχγωı",
    "aeopcyxsijdhkmtbhaeopiukvtbnxywi",
)
_EMPTY = frozenset(("nan", "n/a", "#n/a", "<na>", "null", "nat", "nil", ""))
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_MOST = 3  # groups of names that a message shows


def canonical(name: str) -> str:
    """The one spelling of names that are canonically equal: composed Unicode (NFC), no blanks at the ends.

    Of a name with slashes, every part by itself. A part of blanks alone stays as it is.

    Reference: Unicode Standard Annex 15, canonical equivalence.
    """
    return "/".join(_part(part) for part in name.split("/"))


def _part(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    return composed.strip().strip(_INVISIBLE).strip() or composed


def merged_names(spellings: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Of pairs (name as spelled, its canonical name): the spellings of each class that has several."""
    found: dict[str, set[str]] = defaultdict(set)
    for spelled, name in spellings:
        found[name].add(spelled)
    return tuple(tuple(sorted(names)) for _, names in sorted(found.items()) if len(names) > 1)


def alike_names(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of different names that look alike: one class may have been written in two ways.

    They differ in upper and lower case, in the number or kind of blanks, dashes and underscores, in letters of
    another script that are drawn alike, in invisible characters, or are one number (0, 0.0, 00).
    """
    found: Mapping[str, list[str]] = defaultdict(list)
    for name in names:
        found[_looks(name)].append(name)
    return tuple(tuple(sorted(group)) for group in found.values() if len(group) > 1)


def empty_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names that programs write for a cell without a value: NaN, null, N/A."""
    return tuple(name for name in names if name.strip().casefold() in _EMPTY)


def repeated_folders(names: Iterable[str]) -> tuple[str, ...]:
    """Of classes in folders: the first folders that hold the same two or more classes (a/x, a/y, b/x, b/y)."""
    inside: dict[str, set[str]] = defaultdict(set)
    for name in names:
        folder, _, last = name.rpartition("/")
        inside[folder].add(last)
    alike: dict[frozenset[str], list[str]] = defaultdict(list)
    for folder, found in sorted(inside.items()):
        if folder and len(found) > 1:
            alike[frozenset(found)].append(folder)
    return next((tuple(found) for found in alike.values() if len(found) > 1), ())


def warnings_of(classes: Sequence[str], merged: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
    """What to check in the names of the classes, as sentences with their remedy."""
    found = []
    if alike := alike_names(classes):
        shown = "; ".join(" and ".join(map(repr, group)) for group in alike[:_MOST])
        more = f"; and {len(alike) - _MOST} more" if len(alike) > _MOST else ""
        found.append(
            (
                f"Classes have names that look alike: {shown}{more}.",
                "If they are one class, rename one of them; they are taught as different classes.",
            )
        )
    if empty := empty_names(classes):
        found.append(
            (
                f"The class {' and '.join(map(repr, empty))} may stand for pictures without a label.",
                "Leave those cells empty, or their pictures out; it is taught as a class.",
            )
        )
    if twice := repeated_folders(classes):
        found.append(
            (
                f"The folders {' and '.join(map(repr, twice))} hold folders of the same names, which are "
                "taught as different classes.",
                "If these are parts of one set, merge them, or call them train, validation and test.",
            )
        )
    if merged:
        shown = "; ".join(" and ".join(map(repr, group)) for group in merged[:_MOST])
        more = f"; and {len(merged) - _MOST} more" if len(merged) > _MOST else ""
        found.append(
            (
                f"Spellings of one name are taken as one class: {shown}{more}.",
                "They differ in blanks at the ends or in how letters with accents are stored.",
            )
        )
    return found


def _looks(name: str) -> str:
    """What names that look alike have in common."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = plain.translate({ord(letter): None for letter in _INVISIBLE}).translate(_LATIN)
    plain = re.sub(r"[\s_\-‐-―]+", " ", unicodedata.normalize("NFC", plain)).strip()
    if _NUMBER.fullmatch(plain):
        return f"number {float(plain):g}"
    return plain
