"""Settings of a tuning found by short trials on validation: drawn ones, or single changes far from home."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from transferscope import distributed
from transferscope.backbones.stages import stages_of
from transferscope.files import read_json, write_json, write_text
from transferscope.report.figures.search import search_figure
from transferscope.training.far import Change, compared, picture_losses, variants, with_change
from transferscope.training.fit import loss_and_top1
from transferscope.training.loop import fine_tune, plan_boundary
from transferscope.training.search import Settings, Trial, best_trial, draw_settings, short
from transferscope.workflows.candidates import Base, Features, Job, headed, loop_parts

SEARCHED_STAGES = (2, 3, 4)
"""Numbers of tuned stages that a search chooses from, besides the one it begins with."""


def search(
    job: Job, features: Features, base: Base, first: Settings, folder: Path
) -> tuple[list[Trial], Settings]:
    """All trials, each saved as it ends and found again by a resumed run, and the best settings."""
    boundaries = [str(first.boundary)]
    for stages in SEARCHED_STAGES:
        layer = plan_boundary(job.source, min(stages, len(stages_of(job.source)) - 1))
        boundaries += [layer] if layer not in boundaries else []
    drawn = draw_settings(first, boundaries, count=job.options.search, seed=job.options.seed)
    trials = []
    for number, settings in enumerate(drawn):
        trial, _ = _tried(job, features, base, number, settings, folder)
        trials.append(trial)
        job.reporter.say(trial.sentence(len(drawn)))
    best = best_trial(trials)
    _draw(trials, best, folder)
    return trials, best.settings


def change_settings(
    job: Job, features: Features, base: Base, first: Settings, asked: Collection[str], folder: Path
) -> tuple[list[Trial], list[Change], Settings]:
    """Trials that change one setting after the other, each kept where validation is measurably better.

    Args:
        asked: settings that stay as they are.

    Returns:
        The trials, the first of them without a change; what the changes did; the settings found.
    """
    found = first
    trial, losses = _tried(job, features, base, 0, first, folder)
    trials, changes = [trial], []
    for number, (what, settings) in enumerate(
        variants(first, features.train.labels, asked), start=1
    ):
        trial, new = _tried(
            job, features, base, number, with_change(found, first, settings), folder
        )
        change = compared(what, losses, new)
        trials.append(trial)
        changes.append(change)
        job.reporter.say(f"trial {number + 1}: {change.sentence}")
        if change.kept:
            found, losses = trial.settings, new
    _draw(trials, next(one for one in trials if one.settings == found), folder)
    return trials, changes, found


def _draw(trials: Sequence[Trial], best: Trial, folder: Path) -> None:
    rows = [
        {**trial.to_dict(), "trial": trial.number, "status": "finished", "chosen": trial is best}
        for trial in trials
    ]
    if distributed.is_first():
        write_text(folder / "search.svg", search_figure(rows))


def _tried(
    job: Job, features: Features, base: Base, number: int, settings: Settings, folder: Path
) -> tuple[Trial, list[float]]:
    """A trial, and the calibrated losses of the validation pictures; both kept in the folder."""
    file = folder / f"trial-{number:03d}.json"
    if not file.is_file():
        trial, losses = _try(job, features, base, number, settings)
        if distributed.is_first():
            write_json(file, {**trial.to_dict(), "losses": losses})
        distributed.wait_for_all()
    stored = read_json(file)
    return Trial.from_dict(stored), [float(one) for one in stored["losses"]]


def _try(
    job: Job, features: Features, base: Base, number: int, settings: Settings
) -> tuple[Trial, list[float]]:
    began = time.perf_counter()
    start, _, _ = headed(job, features, base, settings.head)
    recipe = settings.recipe(short(job.options.recipe))
    train, validation = loop_parts(job, features, start, settings.boundary, recipe)
    with job.reporter.task(f"trial {number}") as progress:
        tuned = fine_tune(
            start,
            settings.boundary,
            train,
            validation,
            recipe=recipe,
            precision=job.options.precision,
            on_step=progress,
        )
    labels = features.validation.labels
    loss, top1 = loss_and_top1(tuned.validation_logits, labels)
    trial = Trial(number, settings, top1, loss, time.perf_counter() - began)
    return trial, picture_losses(tuned.validation_logits, labels).round(6).tolist()
