"""A `torch.export` program: the graph for PyTorch itself, without the code of the network."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.export import ExportedProgram

from transferscope.backbones.classifier import Classifier
from transferscope.errors import WeightsError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.exports.description import Description
from transferscope.exports.extras import first_line
from transferscope.exports.parity import Parity
from transferscope.exports.tracing import answers_of, confirm, private_copy, quiet, traced
from transferscope.files import atomic_path

_DESCRIPTION = "transferscope.json"
"""Name of the extra file inside the archive."""


def export_program(
    classifier: Classifier,
    path: str | Path,
    *,
    batches: Iterable[torch.Tensor] | None = None,
    known: KnownPictures | None = None,
) -> Parity:
    """Writes a `torch.export` program, and keeps it only if it answers as the classifier does.

    Arguments, input, outputs, what is returned and raised are those of `export_onnx`; the file is by
    convention a .pt2, and `transferscope.json` inside it is a `Description`.
    """
    private = private_copy(classifier)
    description = json.dumps(
        Description.of(classifier, known).to_dict(), ensure_ascii=False, indent=2
    )
    program = traced(private, known)
    program.example_inputs = None  # they would be stored as a pickle
    with atomic_path(path) as temporary:
        with quiet(), open(temporary, "w+b") as file:
            torch.export.save(program, file, extra_files={_DESCRIPTION: description})
        return confirm(private, answers_of(load_program(temporary)[0]), batches, known)


def load_program(path: str | Path) -> tuple[torch.nn.Module, Description]:
    """The module of a file that `export_program` wrote, and its description.

    The module maps pictures float32 (N, C, H, W) in [0, 1] to probabilities and logits, (N, K) each, and, where
    the file has it, familiarity (N,).
    PyTorch evaluates expressions while it opens such a file: open only files that you trust, as with any
    `torch.export` program.

    Raises:
        WeightsError: missing, damaged, or not written by `export_program`.
    """
    description = _description(Path(path))
    try:
        with quiet(), open(path, "rb") as file:
            program: ExportedProgram = torch.export.load(file)
            return program.module(), description
    except (OSError, RuntimeError, ValueError, LookupError, AssertionError) as error:
        raise _unreadable(path, error) from error


def _description(path: Path) -> Description:
    """What the archive says of itself, read before anything of it is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/{_DESCRIPTION}")]
            fields = json.loads(archive.read(names[0])) if names else {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    return Description.from_dict(fields, source=str(path))


def _unreadable(path: str | Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} is not a program that PyTorch {torch.__version__} opens ({first_line(error)}); export "
        "it again, with this version"
    )
