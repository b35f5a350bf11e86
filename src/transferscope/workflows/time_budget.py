"""`tune --minutes N`: how many epochs fit into the time that is left, by what a step costs on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from transferscope import distributed
from transferscope.files import read_json, write_json
from transferscope.training.far import variants
from transferscope.training.recipe import Recipe
from transferscope.training.search import Settings, short
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


@dataclass(frozen=True)
class PlannedTrials:
    """How many short trials will be run, and the same in words."""

    trials: int
    sentence: str


def plan_trials(
    job: Job,
    features: Features,
    first: Settings,
    asked: Collection[str],
    *,
    share: float,
    folder: Path,
) -> PlannedTrials:
    """Whether there is time for trials far from home, with what they and the tuning will take.

    Args:
        job: whose `minutes`, if there are any, bound the trials.
        first: the settings that they begin with.
        asked: settings that stay as they are.
        share: of the time left that the trials may take.
        folder: where the decision is kept for a resumed run.
    """
    kept = folder / "plan.json"
    if not kept.is_file():
        trials = 1 + len(variants(first, features.train.labels, asked))
        recipe = first.recipe(job.options.recipe)

        def measured() -> tuple[float, float, bool]:
            cost = _measured(job, features, first.boundary)
            seconds = trials * cost(short(recipe))
            return seconds, cost(recipe), seconds <= share * seconds_left(job)

        seconds, course, fits = distributed.by_first(measured)
        if distributed.is_first():
            plan = {"trials": trials, "seconds": seconds, "course": course, "fits": fits}
            write_json(kept, plan)
        distributed.wait_for_all()
    plan = read_json(kept)
    then = f"{duration(plan['course'])} for {counted(job.options.recipe.epochs, 'epoch')}"
    tried = f"{counted(plan['trials'], 'short trial')} of one setting each"
    if plan["trials"] < 2:
        return PlannedTrials(0, f"Every setting is given, so none is tried. About {then}")
    if not plan["fits"]:
        return PlannedTrials(
            0, f"--minutes {job.options.minutes:g} leaves no time for {tried}. About {then}"
        )
    return PlannedTrials(
        plan["trials"],
        f"First {tried}, judged on validation, about {duration(plan['seconds'])}; then about {then}, "
        "and more while validation still gains",
    )


def time_for_course(
    job: Job, features: Features, boundary: str | None, recipe: Recipe, out: Path
) -> bool:
    """Whether a longer course fits into the time that is left; says how long it will take, or would."""
    kept = out / f"course-{recipe.epochs}.json"
    if not kept.is_file():

        def measured() -> tuple[float, bool]:
            seconds = _measured(job, features, boundary)(recipe)
            return seconds, seconds <= seconds_left(job)

        seconds, fits = distributed.by_first(measured)
        if distributed.is_first():
            write_json(kept, {"seconds": round(seconds, 1), "fits": fits})
        distributed.wait_for_all()
    decided = read_json(kept)
    words = f"{counted(recipe.epochs, 'epoch')}, about {duration(decided['seconds'])}"
    if decided["fits"]:
        job.reporter.say(f"validation was still gaining at the end: anew with {words}")
    else:
        job.reporter.say(
            f"validation was still gaining at the end, and --minutes {job.options.minutes:g} leaves no time "
            f"for {words}"
        )
    return bool(decided["fits"])


def seconds_left(job: Job) -> float:
    """Of `--minutes`, counted from the job's beginning; without end where none are given."""
    if job.options.minutes is None:
        return math.inf
    return _SECONDS_A_MINUTE * job.options.minutes - (time.perf_counter() - job.began)


def _measured(job: Job, features: Features, boundary: str | None) -> Callable[[Recipe], float]:
    """Seconds that fine-tuning by a recipe will take, by the measured speed of this machine."""
    with job.reporter.task("measuring the speed"):
        speed = measure_speed(
            job.source,
            features.train.files,
            boundary,
            classes=len(features.classes),
            precision=job.options.precision,
        )
    train, validation = len(features.train.files), len(features.validation.files)
    return lambda recipe: tuning_seconds(
        speed, recipe, train=train, validation=validation, whole=boundary is None
    )


def _fitting(
    job: Job, features: Features, boundary: str | None, recipe: Recipe
) -> tuple[int, float]:
    """Epochs that fit, at most the recipe's, and the seconds that they will take; of none, those of one."""
    cost = _measured(job, features, boundary)
    left = seconds_left(job)
    seconds = [cost(replace(recipe, epochs=epochs)) for epochs in range(1, recipe.epochs + 1)]
    epochs = sum(one <= left for one in seconds)
    return epochs, seconds[max(0, epochs - 1)]
