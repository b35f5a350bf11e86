"""`draw_ideal`: what a class wants to see, in a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transferscope.backbones.classifier import Classifier
from transferscope.errors import UnknownName
from transferscope.files import replaced_folder
from transferscope.images import to_picture
from transferscope.report.sheets.ideal import ideal_figure
from transferscope.visualize.ideal import ideal
from transferscope.workflows.reporter import SILENT, Reporter


def draw_ideal(
    classifier: Classifier,
    name: str,
    *,
    out: str | Path,
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    called: str | None = None,
    reporter: Reporter = SILENT,
) -> list[dict[str, Any]]:
    """Draws what a class wants to see: pixels alone, with total variation, with the full recipe.

    Args:
        classifier: unchanged.
        name: of the class.
        out: a new folder, or one that this function wrote: a PNG a version, and ideal.png with all.
        seed: of starts and movements.
        steps: of each version; None: 256.
        size: side in pixels; None: the network's input size.
        called: what the network is called on the picture; None: its backbone's name.
        reporter: hears of the progress.

    Returns:
        One mapping a version: version, class, seed, logit, probability, total_variation, file.

    Raises:
        UnknownName: no such class.
        OutputError: `out` is not ours to replace, or cannot be written.
    """
    if name not in classifier.classes:
        raise UnknownName(
            "class",
            name,
            classifier.classes,
            where="this network",
            remedy="'transferscope predict MODEL IMAGE' shows the names of some",
        )
    with replaced_folder(out) as folder:
        with reporter.task(f"drawing {name}") as progress:
            index = classifier.classes.index(name)
            versions = ideal(
                classifier, index, seed=seed, steps=steps, size=size, on_progress=progress
            )
        for one in versions:
            to_picture(one.picture).save(folder / f"{one.version}.png")
        page = ideal_figure(versions, name=name, model=called or classifier.backbone)
        page.save(folder / "ideal.png")
    return [
        {
            "version": one.version,
            "class": name,
            "seed": seed,
            "logit": one.logit,
            "probability": one.probability,
            "total_variation": one.total_variation,
            "file": str(Path(out) / f"{one.version}.png"),
        }
        for one in versions
    ]
