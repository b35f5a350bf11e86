"""`export`: a run's classifier as a file for other programs, checked on the run's own pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from transferscope.data.loading import load_batches
from transferscope.errors import DataError, InputError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.exports.hub import export_hub
from transferscope.exports.int8 import Int8, Labelled, check_allowed, export_int8, shares
from transferscope.exports.onnx_file import export_onnx
from transferscope.exports.parity import Parity
from transferscope.exports.program import export_program
from transferscope.files import refuse_foreign
from transferscope.report.model_card import model_card_markdown
from transferscope.workflows.known_pictures import known_pictures
from transferscope.workflows.model_card import card_of
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, files_of, labels_of, refuse_inside

Format = Literal["onnx", "torch", "hub"]
SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
"""How the name of a format's file ends; a hub export is a folder."""

DROP = 0.5
"""Points of top-1 on validation pictures that int8 may lose, by default."""

HELD = 2000
"""Validation pictures, at most, that an int8 file is checked on."""

_BATCH = 16


@dataclass(frozen=True)
class Export:
    """A finished export.

    Attributes:
        format: onnx, torch or hub.
        path: the file, or the folder.
        bytes: of the file, or of all files in the folder.
        parity: how closely its answers are the classifier's, on the pictures it was checked on.
        split: where these are from: test, or validation where the run has no test split.
        seconds: all of it, the check included.
        int8: how the int8 file does beside the fp32 file, which `parity` is of; None: the export is in fp32.
    """

    format: Format
    path: Path
    bytes: int
    parity: Parity
    split: str
    seconds: float
    int8: Int8 | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return {**asdict(self), "path": str(self.path), "seconds": round(self.seconds, 2)}


def export(
    run: Run,
    *,
    format: Format,
    out: str | Path,
    pictures: int = 64,
    data: str | Path | None = None,
    card: str | None = None,
    int8: bool = False,
    int8_drop: float | None = None,
    reporter: Reporter = SILENT,
) -> Export:
    """Exports the tuned classifier, and keeps the result only if it answers as the classifier does.

    Both sides answer on the CPU in fp32, wherever the classifier is.

    Args:
        format: `onnx`, `torch` (a `torch.export` program) or `hub` (a folder for the Hub and timm).
        out: a name that ends in .onnx or .pt2, or that of a folder for `hub`.
        pictures: of the test split that it is checked on, evenly chosen; 0 or less: all of them.
        data: the folder of pictures, if it is no longer where it was.
        card: text of README.md in a hub export; None: the run's model card.
        int8: with 8-bit integers for weights and activations, calibrated and checked on validation pictures;
            of an ONNX file.
        int8_drop: points of top-1 that it may lose on these; None: `DROP`.

    Raises:
        InputError: a format or a name that cannot be used, packages that are not installed, or a
            network that cannot be written as one graph.
        DataError: pictures that are gone or are no longer those of the split.
        WeightsError: weights that are not numbers.
        OutputError: its answers are others, or it cannot be written. What was there before is untouched.
    """
    began = time.perf_counter()
    out = Path(out)
    _refuse_place(run, format, out, data)
    allowed = _allowed(format, int8, int8_drop)
    split, files = _chosen(run, pictures, data)
    known = known_pictures(run, data=data, reporter=reporter)
    known = None if known is None else known.without_names()
    with reporter.task(f"export as {format}, checked on {split} pictures") as progress:
        loaded = load_batches(files, run.classifier.input, batch_size=_BATCH)
        batches = _counted(loaded, len(files), progress)
        figures = None
        if int8:
            parity, figures = _in_int8(run, out, allowed, batches, known, data, reporter)
        elif format == "hub":
            text = card if card is not None else model_card_markdown(card_of(run))
            parity = export_hub(run.classifier, out, text, batches=batches, known=known)
        else:
            write = export_onnx if format == "onnx" else export_program
            parity = write(run.classifier, out, batches=batches, known=known)
    files = [file for file in (out, *out.rglob("*")) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    seconds = time.perf_counter() - began
    return Export(format, out, size, parity, split, seconds, figures)


def _allowed(format: Format, int8: bool, drop: float | None) -> float:
    """Share of top-1 that int8 may lose; refuses what makes no sense together."""
    if int8 and format != "onnx":
        raise InputError(f"--int8 is of an ONNX file, and --format is {format}; use --format onnx")
    if drop is not None and not int8:
        raise InputError(
            f"--int8-drop {drop:g} says what int8 may lose, and the export is in fp32; add --int8"
        )
    allowed = (DROP if drop is None else drop) / 100
    check_allowed(allowed)
    return allowed


def _in_int8(
    run: Run,
    out: Path,
    allowed: float,
    batches: Iterator[torch.Tensor],
    known: KnownPictures | None,
    data: str | Path | None,
    reporter: Reporter,
) -> tuple[Parity, Int8]:
    """`export_int8` with the run's validation pictures in two parts."""
    files, pictures = files_of(run, "validation", data)
    if len(files) > HELD:
        spread = [index * len(files) // HELD for index in range(HELD)]
        files, pictures = [files[at] for at in spread], tuple(pictures[at] for at in spread)
    labels = labels_of(pictures)

    def part(rows: list[int]) -> Labelled:
        chosen = [files[row] for row in rows]
        spec = run.classifier.input
        return Labelled(
            lambda: load_batches(chosen, spec, batch_size=_BATCH), labels[torch.tensor(rows)]
        )

    first, second = shares(len(files))
    calibration = part(first)
    held = calibration if first == second else part(second)
    with reporter.task("int8: the damage of every layer") as progress:
        return export_int8(
            run.classifier,
            out,
            calibration=calibration,
            held=held,
            allowed=allowed,
            batches=batches,
            known=known,
            progress=progress,
        )


def _refuse_place(run: Run, format: Format, out: Path, data: str | Path | None) -> None:
    """Refuses, before any work, what the export would fail at or spoil."""
    if format not in get_args(Format):
        raise InputError(f"no export format {format!r}; there are {', '.join(get_args(Format))}")
    if suffix := SUFFIXES.get(format):
        if out.suffix.lower() != suffix:
            raise InputError(
                f"--out {str(out)!r} must end in {suffix} for --format {format}, so that other programs "
                "know what it is"
            )
        if out.is_dir():
            raise InputError(f"--out {str(out)!r} is a folder; give the name of a {suffix} file")
    else:
        if out.suffix.lower() in SUFFIXES.values():
            raise InputError(
                f"--out {str(out)!r} is named as a file, and --format hub writes a folder; give a name "
                f"without {out.suffix}"
            )
        if run.path.resolve().is_relative_to(out.resolve()):
            raise InputError(
                f"--out {str(out)!r} holds the run itself, and a folder is replaced whole; give one beside "
                "it"
            )
        refuse_foreign(out)
    refuse_inside(out, run.root)
    if data is not None:
        refuse_inside(out, data)


def _chosen(run: Run, count: int, data: str | Path | None) -> tuple[str, list[Path]]:
    """The split that the check is made on, and `count` of its files evenly spread over it."""
    split = next((part for part in ("test", "validation") if run.split.part(part)), None)
    if split is None:
        raise DataError(
            f"{str(run.path)!r} has neither test nor validation pictures, which an export is checked on; "
            "tune with a split that has some"
        )
    files, _ = files_of(run, split, data)
    if 0 < count < len(files):
        files = [files[index * len(files) // count] for index in range(count)]
    return split, files


def _counted(
    batches: Iterator[torch.Tensor], total: int, progress: Callable[[int, int], None]
) -> Iterator[torch.Tensor]:
    """The same batches; `progress` hears of each once it has been used."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(done, total)
