"""`dream_file`: a photo in, its dream in another file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, OutputError
from transferscope.visualize.dream import DreamRecipe, dream, read_photo, refuse_dream_file
from transferscope.workflows.reporter import SILENT, Reporter


def dream_file(
    classifier: Classifier,
    image: str | Path,
    layer: str,
    *,
    out: str | Path,
    channel: int | None = None,
    recipe: DreamRecipe | None = None,
    size: int | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Dreams on a photo and writes the result, after checking that it can be written.

    Args:
        image: the photo's file.
        layer: dotted name.
        out: the file to write, .png, .jpg or .webp; replaced if it exists.
        classifier, channel, recipe, size, seed: see `dream`.
        reporter: hears of the progress.

    Returns:
        file, layer, channel, size (width, height), octaves, steps (an octave), seed,
        activation_before, activation_after.

    Raises:
        UnknownName, PictureError, InputError: see `dream`; also if `out` is the photo itself.
        OutputError: `out` cannot be written.
    """
    photo = read_photo(image, channels=classifier.input.channels, size=size)
    refuse_dream_file(out, photo.size)
    if Path(out).exists() and Path(out).samefile(image):  # under whatever name
        raise InputError(f"--out is {str(out)!r}, the photo itself; give the dream another name")
    _refuse_unwritable(out)
    with reporter.task(f"dreaming of {layer}") as progress:
        dreamt = dream(
            classifier,
            photo,
            layer,
            channel=channel,
            recipe=recipe,
            seed=seed,
            on_progress=progress,
        )
    dreamt.save(out)
    return {
        "file": str(out),
        "layer": layer,
        "channel": channel,
        "size": list(dreamt.size),
        "octaves": len(dreamt.octaves),
        "steps": dreamt.steps,
        "seed": seed,
        "activation_before": dreamt.activation_before,
        "activation_after": dreamt.activation_after,
    }


def _refuse_unwritable(out: str | Path) -> None:
    folder = Path(out).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write {str(out)!r}: {error.strerror or error}; choose a folder that can be written"
        ) from error
