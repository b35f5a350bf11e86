"""Why files of a folder are not among the pictures, in words, and all of that in one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from transferscope.formats import HEIF_REMEDY, NOT_READ, SUFFIXES

OUTSIDE = "it lies outside every class folder"
UNLABELLED = "it has no label"
HIDDEN = "it is hidden: its name, or that of a folder above it, begins with a dot"
SYSTEM_FILE = "it is a file that systems and viewers leave behind"
NO_PICTURE = "it is no picture by its bytes"
READ_ALREADY = "it is a link to a folder that is read already"
DEAD_LINK = "it is a link to nothing"
SPECIAL = "it is a pipe, a socket or a device"
ABOVE = "it is a link to a folder that the set itself lies in"
NOT_UTF8 = "its name is not valid UTF-8; rename it"
_SYSTEM_FOLDER = "it lies in {}, a folder of the system"
_UNLISTED = "the folder cannot be listed ({}); make it readable, or move it out of the set"

_NAMED = 10  # files that are named one by one before a line says how many there are more
_NEVER_TAKEN = (HIDDEN, SYSTEM_FILE, NO_PICTURE, READ_ALREADY, ABOVE, DEAD_LINK, SPECIAL)
_SHORT = {
    HIDDEN: "hidden",
    SYSTEM_FILE: "of the system, such as Thumbs.db",
    NO_PICTURE: "that are no pictures",
    READ_ALREADY: "links to folders that are read already",
    DEAD_LINK: "links to nothing",
    SPECIAL: "pipes, sockets or devices",
    ABOVE: "links to a folder that the set lies in",
    OUTSIDE: "outside every class folder",
    UNLABELLED: "without a label",
    NOT_UTF8: "with a name that is not UTF-8",
}
_COPY = "the same bytes as"  # how a reason of `duplicates.dedupe` begins
_IN_FOLDER = re.compile(re.escape(_SYSTEM_FOLDER).replace(r"\{\}", "(.+)"))

Excluded = Sequence[tuple[str, str]]
"""(path, reason) of files."""


def in_system_folder(name: str) -> str:
    """The reason for a file in a folder of the system of that name."""
    return _SYSTEM_FOLDER.format(name)


def unlisted(error: OSError) -> str:
    """The reason for a folder whose files are not known."""
    return _UNLISTED.format(error.strerror or error)


def is_unlisted(reason: str) -> bool:
    """Whether a reason is one of `unlisted`."""
    return reason.startswith(_UNLISTED.partition("{")[0])


def is_damage(path: str, reason: str) -> bool:
    """Whether a file was taken for a picture and could not be read.

    Others may well be readable, or were never meant as pictures: hidden files, texts, files whose ending says
    already that they are of a format that is not read.
    """
    if reason in (OUTSIDE, UNLABELLED, *_NEVER_TAKEN):
        return False
    if reason.startswith(NOT_READ):
        return PurePosixPath(path).suffix.lower() in SUFFIXES
    return not (reason.startswith(_COPY) or _IN_FOLDER.fullmatch(reason))


def is_loss(reason: str) -> bool:
    """Whether what is left out may be a picture that somebody meant to be in the set."""
    passed = reason in _NEVER_TAKEN or reason.startswith(_COPY)
    return not (passed or _IN_FOLDER.fullmatch(reason))


def summary(excluded: Excluded) -> str:
    """All files that are left out in one line, counted by reason; empty where there are none.

    For example `left out: 12 HEIC pictures (pip install 'transferscope[heif]'), 4 that are no pictures,
    3 in @eaDir`.
    """
    if not excluded:
        return ""
    counts = Counter(_short(reason) for _, reason in excluded)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    counted = ", ".join(f"{count:,} {words}" for words, count in ordered)
    for several, one in (
        ("that are no pictures", "that is no picture"),
        ("HEIC pictures", "HEIC picture"),
    ):
        counted = re.sub(rf"\b1 {several}", f"1 {one}", counted)
    return f"left out: {counted}"


def say(excluded: Excluded, speak: Callable[[str], None]) -> None:
    """Says the summary, and names the first files that may be missed."""
    if not excluded:
        return
    speak(summary(excluded))
    lost = [one for one in excluded if one[1] in (OUTSIDE, UNLABELLED) or is_damage(*one)]
    for path, reason in lost[:_NAMED]:
        speak(f"left out {path}: {reason}")
    if len(lost) > _NAMED:
        speak(
            f"and {len(lost) - _NAMED:,} more that may be missed; 'transferscope inspect --json' lists all"
        )


def rows(excluded: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """The full list, for JSON."""
    return [{"path": path, "reason": reason} for path, reason in excluded]


def _short(reason: str) -> str:
    """A reason in a few words, to stand after a number."""
    if reason in _SHORT:
        return _SHORT[reason]
    if found := _IN_FOLDER.fullmatch(reason):
        return f"in {found[1]}"
    if reason.startswith(NOT_READ):
        name, _, remedy = reason.removeprefix(f"{NOT_READ} ").partition(" (")
        remedy = f"({remedy}"
        return f"{name} pictures {remedy}" if HEIF_REMEDY in remedy else f"{name} {remedy}"
    if reason.startswith(_COPY):
        return "copies of other pictures"
    if is_unlisted(reason):
        return "folders that cannot be listed"
    return "that cannot be read"
