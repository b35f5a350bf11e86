"""`tune --minutes N`: how many epochs fit into the time that is left, by what a step costs on this machine."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from transferscope import distributed
from transferscope.files import read_json, write_json
from transferscope.training.recipe import Recipe
from transferscope.training.speed import measure_speed, tuning_seconds
from transferscope.wording import counted, duration

if TYPE_CHECKING:
    from transferscope.workflows.candidates import Features, Job

_SECONDS_A_MINUTE = 60


def within_minutes(
    job: Job, features: Features, boundary: str | None, recipe: Recipe, out: Path
) -> Recipe | None:
    """The recipe with as many of its epochs as fit; None where not one does.

    The learning rate's warm-up and cosine follow the number of epochs. A resumed run keeps the first's.

    Args:
        job: whose `minutes` count from its beginning; None: the recipe as it is.
        boundary: behind which is tuned; None: the whole network.
        out: the run folder, where the decision is kept.
    """
    minutes = job.options.minutes
    if minutes is None:
        return recipe
    kept = out / "minutes.json"
    if not kept.is_file():
        epochs, seconds = distributed.by_first(lambda: _fitting(job, features, boundary, recipe))
        if distributed.is_first():
            write_json(kept, {"epochs": epochs, "seconds": round(seconds, 1)})
        distributed.wait_for_all()
    decided = read_json(kept)
    epochs, left = int(decided["epochs"]), f"--minutes {minutes:g}"
    if not epochs:
        job.reporter.say(
            f"one epoch would take about {duration(decided['seconds'])}, more than {left} leaves: only the "
            "probe is fitted"
        )
        return None
    words = f"about {duration(decided['seconds'])} for {counted(epochs, 'epoch')}"
    if epochs < recipe.epochs:
        words += (
            f" of {recipe.epochs}, which is what {left} leaves time for; warm-up and fall of the learning rate "
            "are fitted to them"
        )
    job.reporter.say(words)
    return replace(recipe, epochs=epochs)


def _fitting(
    job: Job, features: Features, boundary: str | None, recipe: Recipe
) -> tuple[int, float]:
    """Epochs that fit, at most the recipe's, and the seconds that they will take; of none, those of one."""
    with job.reporter.task("measuring the speed"):
        speed = measure_speed(
            job.source,
            features.train.files,
            boundary,
            classes=len(features.classes),
            precision=job.options.precision,
        )
    left = _SECONDS_A_MINUTE * float(job.options.minutes or 0) - (time.perf_counter() - job.began)
    train, validation = len(features.train.files), len(features.validation.files)
    seconds = [
        tuning_seconds(
            speed,
            replace(recipe, epochs=epochs),
            train=train,
            validation=validation,
            whole=boundary is None,
        )
        for epochs in range(1, recipe.epochs + 1)
    ]
    epochs = sum(one <= left for one in seconds)
    return epochs, seconds[max(0, epochs - 1)]
