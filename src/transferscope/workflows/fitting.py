"""From features to the candidates of a tuning: the probe, and what the strategy fine-tunes from it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transferscope import distributed
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.data.split import Split
from transferscope.evaluation.paired import paired_interval
from transferscope.files import read_json, write_csv, write_json, write_text
from transferscope.images import shorter_side
from transferscope.report.figures.training import lr_figure
from transferscope.training.batches import Part
from transferscope.training.far import FAR, MOST_EPOCHS, larger_side, settled
from transferscope.training.loop import fine_tune
from transferscope.training.lr_finder import find_rate
from transferscope.training.recipe import Recipe, adapted
from transferscope.training.search import Settings
from transferscope.workflows.advise import Placed, Sample, place, probe_hits
from transferscope.workflows.candidates import (
    Base,
    Candidate,
    Features,
    Fitted,
    Job,
    chosen_boundary,
    fit_base,
    head_candidate,
    headed,
    loop_parts,
    random_start,
)
from transferscope.workflows.settings_search import change_settings, search
from transferscope.workflows.time_budget import plan_trials, time_for_course, within_minutes

_TRIALS_SHARE = 1 / 3  # of the time that --minutes leaves: more would be lost to the tuning itself


def advised(job: Job, split: Split, out: Path) -> tuple[Job, Placed | None]:
    """What is measured of the training pictures before any head is fitted, where that decides.

    Far from home a larger input is tried, where it is not given and the pictures have the pixels: it is
    taken where the probe is measurably better with it, out of fold.

    Args:
        out: the run folder, where the size is kept that was found.

    Returns:
        The job, with another size of the input where that was found better; the measurements, or None
        where the strategy or the depth is given.
    """
    if not job.options.advised:
        return job, None
    sample = Sample.draw(split, job.options.seed, job.options.precision, job.reporter)
    placed = distributed.gathered(place(job.source, sample))[0]
    if placed.gain < FAR and job.options.size is None:
        larger = _larger(job, sample, placed, out / "size.json")
        if larger is not None:
            job = replace(job, source=larger)
            placed = distributed.gathered(place(larger, sample))[0]
    job.reporter.say(f"advice: {placed.strategy}; {placed.cut.reason}")
    return job, placed


def fit(job: Job, features: Features, out: Path, advice: Placed | None) -> Fitted:
    """The probe, and what the strategy fine-tunes; checkpoints and what trials found are kept in `out`."""
    options = job.options
    base = fit_base(job, features)
    candidates = {"probe": head_candidate(job, features, base)}
    strategy, boundary = _strategy(job, advice)
    fitted = Fitted(features, base, candidates, advice)
    if strategy == "probe":
        return fitted
    whole = advice is not None and strategy == "full"
    recipe = adapted(options.recipe, "full") if whole else options.recipe
    job = replace(job, options=replace(options, recipe=recipe))
    settings = Settings.of(recipe, options.head, boundary)
    details: dict[str, Any] = {}
    far = advice is not None and advice.gain < FAR and not options.search
    if advice is not None and far:
        settings, details = _far_settings(job, features, base, settings, advice, out / "search")
    elif options.search and strategy == "partial":
        trials, settings = search(job, features, base, settings, out / "search")
        details = {"search": [one.to_dict() for one in trials], "settings": settings.to_dict()}
    bounded = within_minutes(job, features, settings.boundary, settings.recipe(recipe), out)
    if bounded is None:
        return fitted
    scratch = strategy == "scratch"
    start = (
        random_start(job, features) if scratch else headed(job, features, base, settings.head)[0]
    )
    asked = "epochs" in options.given or options.keep_every
    grows = far and not asked and bounded.epochs == recipe.epochs
    tuned = _fine_tuned(job, features, start, settings.boundary, bounded, out)
    if grows:
        tuned = _until_settled(job, features, start, tuned, bounded, out)
    candidates[strategy] = replace(tuned, details={**details, **tuned.details})
    return fitted


def _strategy(job: Job, advice: Placed | None) -> tuple[str, str | None]:
    """The strategy and the last frozen layer: as measured, or as given."""
    if advice is not None:
        return advice.strategy, advice.cut.boundary if advice.strategy == "partial" else None
    strategy = "partial" if job.options.strategy == "auto" else job.options.strategy
    return strategy, chosen_boundary(job.source, job.options) if strategy == "partial" else None


# ---------------------------------------------------------------------------- far from home


def _larger(job: Job, sample: Sample, placed: Placed, kept: Path) -> Classifier | None:
    """The network with a larger input, where its probe is measurably better; a resumed run keeps that."""
    side = larger_side(job.source.input.size)
    if not kept.is_file() and shorter_side(sample.files) < side:
        return None
    source = load_backbone(
        job.options.backbone, weights=job.options.weights, download=job.options.download, size=side
    ).to(job.source.device)
    if not kept.is_file():
        hits = probe_hits(source, sample)
        low, high = paired_interval(hits, placed.hits, seed=sample.seed)
        if distributed.is_first():
            write_json(kept, {"side": side, "gain": [low, high], "taken": low > 0})
        distributed.wait_for_all()
        job.reporter.say(
            f"an input of {side} pixels: the probe is {100 * low:+.1f} to {100 * high:+.1f} points better on "
            f"unseen pictures, {'taken' if low > 0 else 'left as it was'}"
        )
    return source if read_json(kept)["taken"] else None


def _far_settings(
    job: Job, features: Features, base: Base, first: Settings, advice: Placed, folder: Path
) -> tuple[Settings, dict[str, Any]]:
    """The settings that short trials found, and what is recorded of them."""
    asked = {*job.options.given, *(["learning_rate"] if job.options.find_rate else [])}
    planned = plan_trials(job, features, first, asked, share=_TRIALS_SHARE, folder=folder)
    job.reporter.say(
        f"far from home: the pretrained features cover {advice.gain:.2f} of the way from random ones to no "
        f"mistake (near: {FAR:.2f} or more). {planned.sentence}"
    )
    found: dict[str, Any] = {"gain": advice.gain, "changes": []}
    if not planned.trials:
        return first, {"far": found}
    trials, changes, settings = change_settings(job, features, base, first, asked, folder)
    found["changes"] = [change.to_dict() for change in changes]
    search = [trial.to_dict() for trial in trials]
    return settings, {"far": found, "search": search, "settings": settings.to_dict()}


def _until_settled(
    job: Job, features: Features, start: Classifier, first: Candidate, recipe: Recipe, out: Path
) -> Candidate:
    """The course with the lowest validation loss, of ever longer ones while that is still falling.

    Each begins at the start, so that its learning rate follows one schedule from its first epoch to its
    last, as that of a control can.
    """
    found, courses = first, [recipe.epochs]
    while not settled(found.history) and 2 * recipe.epochs <= MOST_EPOCHS:
        epochs = 2 * recipe.epochs
        recipe = replace(
            recipe,
            epochs=epochs,
            patience=max(recipe.patience, epochs // 4) if recipe.patience else 0,
        )
        if not time_for_course(job, features, first.boundary, recipe, out):
            break
        longer = _fine_tuned(
            job, features, start, first.boundary, recipe, out, f"checkpoints-{epochs}"
        )
        courses.append(epochs)
        if _least(longer) >= _least(found):
            break
        found = longer
    return replace(found, details={**found.details, "courses": courses})


def _least(candidate: Candidate) -> float:
    return min(row.calibrated_loss for row in candidate.history)


# ---------------------------------------------------------------------------- one course


def _fine_tuned(
    job: Job,
    features: Features,
    start: Classifier,
    boundary: str | None,
    recipe: Recipe,
    out: Path,
    checkpoints: str = "checkpoints",
) -> Candidate:
    train, validation = loop_parts(job, features, start, boundary, recipe)
    details: dict[str, Any] = {}
    if job.options.find_rate:
        recipe = _found_rate(job, start, boundary, train, recipe, out)
        details["learning_rate"] = recipe.learning_rate

    def keep(epoch: int, classifier: Classifier) -> None:
        classifier.save(out / "timeline" / f"epoch-{epoch:04d}.safetensors")

    with job.reporter.task("fine-tuning") as progress:
        tuned = fine_tune(
            start,
            boundary,
            train,
            validation,
            recipe=recipe,
            precision=job.options.precision,
            checkpoints=out / checkpoints,
            keep_every=job.options.keep_every,
            on_keep=keep,
            on_epoch=job.epoch,
            on_step=progress,
        )
    details |= {"share": tuned.share, "recipe": asdict(recipe)}
    return Candidate(tuned.classifier, tuned.validation_logits, tuned.history, boundary, details)


def _found_rate(
    job: Job, start: Classifier, boundary: str | None, train: Part, recipe: Recipe, out: Path
) -> Recipe:
    """The recipe with the rate that the range test suggests; a resumed run keeps the first's."""
    table = out / "learning_rate.json"
    if not table.is_file():
        with job.reporter.task("learning rate range test") as progress:
            test = find_rate(
                start,
                boundary,
                train,
                recipe=recipe,
                precision=job.options.precision,
                on_step=progress,
            )
        if distributed.is_first():
            marked = test.suggestion if test.found else None
            picture = lr_figure(test.rates, test.losses, marked, smoothed=test.smoothed)
            write_text(table.with_suffix(".svg"), picture)
            rows = zip(test.rates, test.losses, test.smoothed, strict=True)
            write_csv(table.with_suffix(".csv"), ("rate", "loss", "smoothed"), rows)
            write_json(table, {"suggestion": test.suggestion, "found": test.found})
        distributed.wait_for_all()
    kept = read_json(table)
    rate = float(kept["suggestion"])
    why = "from the range test" if kept["found"] else "the recipe's: the loss fell at no rate"
    job.reporter.say(f"learning rate {rate:.2g}, {why}; see {table.with_suffix('.svg')}")
    return replace(recipe, learning_rate=rate)
