"""Where the work on a run stands, as its folder says: what a process elsewhere has written so far."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transferscope.errors import RunError
from transferscope.files import read_json
from transferscope.records import Record
from transferscope.training.checkpoints import last_progress
from transferscope.wording import counted, duration, percent
from transferscope.workflows.comparisons import planned_comparison

Phase = Literal["tuning", "comparing", "idle"]

SHOWN_UNITS = 60
"""Drawn channels that are named, the last ones."""

_QUIET = 300.0  # seconds without a new file after which it is said
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class DrawnUnit(Record):
    """A channel that is drawn in both networks.

    Attributes:
        layer: dotted name.
        channel: index.
        keys: of its first drawing in the sweep, by network.
    """

    layer: str
    channel: int
    keys: dict[str, str]


@dataclass(frozen=True)
class RunProgress(Record):
    """What of the work on a run is done.

    Attributes:
        phase: what is being done; `idle`: nothing that the folder tells of.
        sentences: the same in words.
        done: steps of the phase that are done: epochs, or drawings where they have begun, or transfers.
        of: steps in all; 0 where that is not known yet.
        epochs: finished epochs of the tuning that is going on: number, validation accuracy, best.
        units: channels that are drawn, the last `SHOWN_UNITS` of the order in which they are drawn.
    """

    phase: Phase = "idle"
    sentences: tuple[str, ...] = ()
    done: int = 0
    of: int = 0
    epochs: tuple[dict[str, Any], ...] = ()
    units: tuple[DrawnUnit, ...] = ()


def run_progress(folder: Path) -> RunProgress:
    """Where the work on a run stands. Only names, times and heads of files are read."""
    if not (folder / "run.json").is_file():
        return _tuning(folder)
    planned = planned_comparison(folder / "comparison")
    return RunProgress() if planned is None else _comparing(folder, planned)


def _tuning(folder: Path) -> RunProgress:
    started: dict[str, Any] = {}
    with suppress(RunError):
        started = read_json(folder / "started.json")
    if not started:
        return RunProgress()
    course = _last_course(folder)
    longer = course.name.removeprefix("checkpoints-")
    epochs = int(started.get("recipe", {}).get("epochs", 0))
    epochs = int(longer) if longer.isdecimal() else epochs
    found = last_progress(course)
    history = found.history if found else []
    best = found.best if found else 0
    done = max((row.epoch for row in history), default=0)
    if found is None:
        said = "Tuning: pictures are read, features computed and the probe is fitted."
    else:
        said = f"Tuning: {done} of at most {counted(epochs, 'epoch')} done."
        right = {row.epoch: row.validation_top1 for row in history}
        if best in right:
            said += f" The best so far is epoch {best}: {percent(right[best])} of validation right."
    last = [folder / "started.json", folder / "split.csv", *_files(course)]
    rows = [
        {"epoch": row.epoch, "top1": row.validation_top1, "best": row.epoch == best}
        for row in history
    ]
    return RunProgress("tuning", (said, *_silence(last)), done, epochs, tuple(rows))


def _last_course(folder: Path) -> Path:
    """Where the checkpoints lie that were begun last: `checkpoints`, or of a longer course."""
    begun = [one for one in folder.glob("checkpoints-*") if one.is_dir()]
    return max(begun, key=lambda one: one.stat().st_mtime, default=folder / "checkpoints")


def _comparing(folder: Path, planned: Mapping[str, Any]) -> RunProgress:
    tails = folder / "controls"
    said, done, of = [], 0, 0
    for kind, name in (("control", "control transfer"), ("retuning", "retuning")):
        count = int(planned.get(f"{kind}s", 0))
        if count:
            there = sum((tails / f"{kind}-{n:03d}.safetensors").is_file() for n in range(count))
            said.append(f"{there} of {counted(count, name)} made")
            done, of = done + there, of + count
    drawings = planned.get("drawings")
    units: tuple[DrawnUnit, ...] = ()
    if drawings is not None:
        files = drawn_files(folder / "sweep", (row["key"] for row in drawings))
        done, of = sum(row["key"] in files for row in drawings), len(drawings)
        said.append(f"{done:,} of {counted(of, 'drawing')} done")
        units = _units(drawings, files)
    seen = [*_files(tails), *_files(folder / "sweep"), folder / "comparison"]
    words = f"Comparing: {', '.join(said)}." if said else "Comparing."
    return RunProgress("comparing", (words, *_silence(seen)), done, of, units=units)


def drawn_files(sweep: Path, keys: Iterable[str]) -> dict[str, Path]:
    """The files of those drawings that are there, by key; what is no key is passed over."""
    there = {file.stem for file in _files(sweep) if file.suffix == ".safetensors"}
    return {
        key: sweep / f"{key}.safetensors" for key in keys if key in there and _KEY.fullmatch(key)
    }


def _units(
    drawings: Iterable[Mapping[str, Any]], files: Mapping[str, Path]
) -> tuple[DrawnUnit, ...]:
    """Channels whose first drawing is there in both networks."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for row in drawings:
        if row["key"] in files:
            keys = found.setdefault((row["layer"], row["channel"]), {})
            keys.setdefault(row["network"], row["key"])
    whole = [DrawnUnit(*place, keys) for place, keys in found.items() if len(keys) == 2]
    return tuple(whole[-SHOWN_UNITS:])


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _silence(files: Iterable[Path]) -> tuple[str, ...]:
    """Whether nothing was written for long: who writes may have ended."""
    times = []
    for file in files:
        with suppress(OSError):
            times.append(file.stat().st_mtime)
    quiet = time.time() - max(times, default=0.0)
    if quiet < _QUIET:
        return ()
    return (
        f"Nothing was written for {duration(quiet)}: a long step, or the work was interrupted; the same "
        "command goes on with it.",
    )
