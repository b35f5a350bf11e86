"""`draw_ideal`: what a class wants to see, in a folder of pictures; of a run, in both networks, kept in it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from transferscope.acceleration.precision import find_device
from transferscope.backbones.classifier import Classifier
from transferscope.errors import RunError, UnknownName
from transferscope.files import read_json, refuse_read_only, replaced_folder, write_json
from transferscope.images import to_picture
from transferscope.report.pages.content import KeptIdeal
from transferscope.report.sheets.ideal import ideal_figure
from transferscope.visualize.ideal import ideal
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run

IDEALS = "ideals"
"""The folder of a run that class pictures are kept in."""

_RECORD = "ideal.json"
_SHOWN = "full"  # the version that an atlas shows


def draw_ideal(
    classifier: Classifier,
    name: str,
    *,
    out: str | Path,
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    called: str | None = None,
    of: str | None = None,
    reporter: Reporter = SILENT,
) -> list[dict[str, Any]]:
    """Draws what a class wants to see: pixels alone, with total variation, with the full recipe.

    Args:
        classifier: unchanged.
        name: of the class.
        out: a new folder, or one that this function wrote: a PNG a version, ideal.png with all, ideal.json.
        seed: of starts and movements.
        steps: of each version; None: 256.
        size: side in pixels; None: the network's input size.
        called: what the network is called on the picture; None: its backbone's name.
        of: what the record says of the networks, see `keep_ideals`.
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
        shown = next(one for one in versions if one.version == _SHOWN)
        write_json(folder / _RECORD, {"class": name, "of": of, "probability": shown.probability})
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


def keep_ideals(
    run: Run,
    name: str,
    *,
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
) -> list[dict[str, Any]]:
    """`draw_ideal` in both networks of a run, base with its probe's head, kept in it for its atlas.

    Args:
        run: in whose folder ideals/ the pictures are kept, a folder a class and network.
        name: of the class.
        seed, steps, size, reporter: as there.
        device: None: the best here.

    Returns:
        As there, with `network`: base or tuned.

    Raises:
        UnknownName: no such class.
        OutputError: the run cannot be written.
        RunError: the untuned network cannot be made again.
    """
    where = find_device(device)
    networks = {"base": run.base.to(where), "tuned": run.classifier.to(where)}
    place = run.classifier.classes.index(name) if name in run.classifier.classes else 0
    home = run.path / IDEALS / str(place)
    refuse_read_only(run.path)
    found = []
    for network, classifier in networks.items():
        rows = draw_ideal(
            classifier,
            name,
            out=home / network,
            seed=seed,
            steps=steps,
            size=size,
            called=network,
            of=run.networks_hash,
            reporter=reporter,
        )
        found += [{"network": network, **row} for row in rows]
    return found


def kept_ideals(run: Run) -> dict[str, dict[str, KeptIdeal]]:
    """By class and network, what `keep_ideals` left of the networks that the run has now."""
    found: dict[str, dict[str, KeptIdeal]] = {}
    for file in sorted((run.path / IDEALS).glob(f"*/*/{_RECORD}")):
        with suppress(RunError, KeyError, TypeError):
            told = read_json(file)
            picture = file.parent / f"{_SHOWN}.png"
            if told["of"] == run.networks_hash and picture.is_file():
                one = KeptIdeal(picture, float(told["probability"]))
                found.setdefault(told["class"], {})[file.parent.name] = one
    return found
