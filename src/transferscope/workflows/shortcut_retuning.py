"""`shortcuts --correct --by retune`: pictures whose cues say nothing of the class, and a run tuned on them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.explain.shortcut_records import Candidate
from transferscope.files import write_csv
from transferscope.training.recipe import Recipe
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.shortcuts import Pictures, part_of
from transferscope.workflows.tune import tune

_LOADED = 64  # pictures at a time


def retuned(
    run: Run,
    alarms: Sequence[Candidate],
    sets: Mapping[str, Pictures],
    out: Path,
    *,
    seed: int,
    reporter: Reporter,
) -> Run:
    """Tunes by the run's own settings on its pictures with the alarms' parts exchanged at random.

    Every training and validation picture is given the part of a training picture drawn from all classes
    alike, so that the part occurs everywhere and tells nothing. Test pictures stay as they are. The
    pictures lie in `out`/data, those that were changed as the network sees them.

    Args:
        alarms: whose parts are exchanged.
        sets: train, validation and test.
        out: a new folder.
        seed: of the draws.

    Raises:
        InputError: `scratch`, which does not begin at the pretrained network.
    """
    if run.results["strategy"] == "scratch":
        raise InputError(
            f"{str(run.path)!r} was tuned from scratch, and --by retune begins at the pretrained network; "
            "use --by direction or --by last-layer"
        )
    try:
        return _tuned(run, alarms, sets, out, seed, reporter)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # a new folder, so all in it is this call's
        raise


def _tuned(
    run: Run,
    alarms: Sequence[Candidate],
    sets: Mapping[str, Pictures],
    out: Path,
    seed: int,
    reporter: Reporter,
) -> Run:
    strategy = run.results["strategy"]
    table = _covered(run.classifier, alarms, sets, out / "data", seed, reporter)
    recipe = {
        one.name: getattr(run.recipe, one.name) for one in fields(Recipe) if one.name != "seed"
    }
    return tune(
        table,
        out=out,
        recipe=recipe,
        reporter=reporter,
        backbone=run.config.backbone,
        weights=run.weights(),
        strategy=strategy,
        boundary=run.results["boundary"] if strategy == "partial" else None,
        head=run.results.get("settings", {}).get("head", run.config.head),
        precision=run.config.precision,
        seed=run.config.seed,
        confusable=run.config.confusable,
    )


def _covered(
    classifier: Classifier,
    alarms: Sequence[Candidate],
    sets: Mapping[str, Pictures],
    folder: Path,
    seed: int,
    reporter: Reporter,
) -> Path:
    """Writes the pictures and the table of them."""
    rows: list[tuple[str, str, str]] = []
    count = sum(len(part.files) for part in sets.values())
    with reporter.task("pictures with their cues exchanged") as progress:
        for split, part in sets.items():
            (folder / split).mkdir(parents=True)
            names = [f"{split}/{n:06d}.png" for n in range(len(part.files))]
            if split == "test":
                names = [
                    f"{split}/{n:06d}{file.suffix.lower()}" for n, file in enumerate(part.files)
                ]
                for name, file in zip(names, part.files, strict=True):
                    shutil.copyfile(file, folder / name)
            else:
                rng = np.random.default_rng((seed, len(rows)))
                for first in range(0, len(names), _LOADED):
                    places = range(first, min(first + _LOADED, len(names)))
                    shown = _exchanged(classifier, alarms, sets["train"], part, places, rng)
                    for place, picture in zip(places, shown, strict=True):
                        _save(picture, folder / names[place])
                    progress(len(rows) + places.stop, count)
            labels = [classifier.classes[label] for label in part.labels]
            rows += zip(names, labels, [split] * len(names), strict=True)
            progress(len(rows), count)
    table = folder / "pictures.csv"
    write_csv(table, ("path", "label", "split"), rows)
    return table


def _exchanged(
    classifier: Classifier,
    alarms: Sequence[Candidate],
    donors: Pictures,
    pictures: Pictures,
    places: range,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Pictures (n, C, H, W) in [0, 1] with every alarm's part from donors of all classes alike."""
    shown = pictures.loaded(classifier, list(places))
    shares = 1 / np.bincount(donors.labels)[donors.labels]
    for one in alarms:
        drawn = rng.choice(len(donors.files), len(places), p=shares / shares.sum())
        part = part_of(classifier, one.kind, one.places)
        shown = part.moved(shown, donors.loaded(classifier, drawn.tolist()))
    return shown


def _save(picture: torch.Tensor, file: Path) -> None:
    values = (255 * picture).round().to(torch.uint8).movedim(0, -1).numpy()
    Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(file)
