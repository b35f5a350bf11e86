"""`evaluate_run`: the tuned classifier on labelled pictures, with the fair *before* beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from transferscope.acceleration.precision import Precision, find_device
from transferscope.backbones.classifier import Classifier
from transferscope.data.scan import Picture, refuse_unreadable, scan
from transferscope.errors import DataError, RunError, UnknownName, WeightsError
from transferscope.evaluation.calibration import fit_temperature
from transferscope.evaluation.metrics import Evaluation, evaluate
from transferscope.evaluation.mistakes import ErrorStudy, error_study, write_study
from transferscope.evaluation.paired import PairedDifference, paired_difference
from transferscope.evaluation.predictions import Predictions, predict_files, refuse_other_classes
from transferscope.evaluation.tta import ViewsGain, refuse_views, views_gain
from transferscope.features.extraction import POOLED, extract
from transferscope.features.probe import fit_probe
from transferscope.files import is_writable, sha256_bytes, write_json, write_text
from transferscope.report.figures import classes, evaluation
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, files_of, folder_in, labels_of

_OUT_OF_FOLD = "out-of-fold"
_CONVERGED = "probe.json"  # beside what fits left that were followed to their optimum


@dataclass(frozen=True, eq=False)
class _Sample:
    """The labelled pictures of one evaluation.

    Attributes:
        name: of the split, or of the set.
        part: the split that they are in: train, validation or test.
        folder: where the figures go.
        files: N files.
        paths: of each, relative to its set's folder.
        hashes: sha256 of each.
        labels: int64 (N,), in the run's class order.
        seen: pictures left out because their very bytes were trained or chosen on.
        excluded: (path, reason) of files left out because they could not be used.
    """

    name: str
    part: str
    folder: Path
    files: list[Path]
    paths: tuple[str, ...]
    hashes: list[str]
    labels: torch.Tensor
    seen: int = 0
    excluded: tuple[tuple[str, str], ...] = ()


def evaluate_run(
    run: Run,
    *,
    split: str = "test",
    data: str | Path | None = None,
    tta: int = 0,
    against: Run | str | Path | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Judges the tuned classifier on labelled pictures, and the untuned *before* beside it.

    Writes into evaluation/ of the run (of the test split; of others into a folder of it with their
    name): metrics.json, predictions.safetensors and .csv, study.json and study.csv, the figures, and
    the untuned network's predictions under base.

    Args:
        run: a finished run.
        split: train, validation or test of its split.csv.
        data: the folder, if it is no longer where it was; or another set of pictures in class folders
            with the run's class names. Of that, its own split of this name is judged where its layout has
            splits, and else all of it; pictures whose very bytes were trained or chosen on are
            left out.
        tta: average the answers over this many views of each picture, and say what that gains and
            costs; 0: no.
        against: another run, whose answers for the same pictures are compared with this one's.
        device: cpu, cuda, mps; None: the best there is.
        precision: of the forward passes.
        reporter: hears of the progress.

    Raises:
        DataError: no such split, pictures of one class alone, pictures that are gone or are no longer
            those of the split, classes that the run does not know, or no picture in common with the
            other run's split.
        InputError: another run with other classes, or fewer than two views.
    """
    if tta:
        refuse_views(tta)  # before the work
    other = against if against is None or isinstance(against, Run) else Run(against)
    sample = _sample(run, split, data, reporter)
    shared = (
        _shared_rows(run, other, sample) if other is not None else []
    )  # refused before the work
    place = find_device(device)

    def predicted(classifier: Classifier, words: str) -> tuple[Predictions, float]:
        began = time.perf_counter()
        with reporter.task(f"{sample.name} pictures, {words}") as progress:
            logits = predict_files(
                classifier.to(place), sample.files, precision=precision, on_progress=progress
            )
        return _predictions(sample, logits, classifier), time.perf_counter() - began

    predictions, seconds = predicted(run.classifier, "tuned")
    training = Counter(run.split.scan.class_of(picture) for picture in run.split.part("train"))
    validation = _kept_validation(run) if sample.part != "validation" else None
    kept = _writable(run, sample, validation, reporter)

    def judged(found: Predictions, chosen_on: Predictions | None) -> Evaluation:
        return evaluate(
            found,
            split=sample.name,
            confusable=run.config.confusable,
            training={str(name): n for name, n in training.items()},
            validation=chosen_on,
            seed=run.config.seed,
        )

    result = replace(
        judged(predictions, validation), seen=sample.seen, excluded=len(sample.excluded)
    )
    plain, before = result, None
    if run.results["strategy"] != "probe" or run.results.get("head") == "mlp":
        base_predictions, _ = predicted(run.base, "base")
        before = judged(base_predictions, None)
        if kept:
            base_predictions.save(sample.folder / "base")
        gain = paired_difference(
            predictions, base_predictions, names=("tuned", "base"), seed=run.config.seed
        )
        result = replace(result, gain=gain)
    if tta:
        result = replace(
            result, views=_views(run, sample, predictions, tta, seconds, precision, reporter)
        )
    if other is not None:
        result = replace(
            result,
            against=_against(run, other, sample, shared, predictions, place, precision, reporter),
        )
    held_out = out_of_fold(run, data=data, reporter=reporter)
    study = error_study(predictions, split=sample.name, out_of_fold=held_out)
    result = replace(
        result,
        chosen_on=len(run.split.part("validation")),
        probable_label_errors=None if held_out is None else study.probable,
        label_suspects=study.flagged(),
    )
    if kept:
        _keep(sample.folder, predictions, study, (plain, result, before))
    return result


def _writable(
    run: Run, sample: _Sample, validation: Predictions | None, reporter: Reporter
) -> bool:
    """Whether the figures can be kept in the run; says, before the work, what will be missing."""
    if validation is None and sample.part == "test":
        reporter.say(
            "no thresholds for abstaining are proposed: 'transferscope evaluate --split validation' first "
            "gives the answers that they are chosen on"
        )
    writable = is_writable(run.path)
    if not writable:
        reporter.say(
            f"{run.path} cannot be written: the figures are told and not kept; copy the run to a folder that "
            "can be to have them in it"
        )
    return writable


def _keep(
    folder: Path,
    predictions: Predictions,
    study: ErrorStudy,
    judged: tuple[Evaluation, Evaluation, Evaluation | None],
) -> None:
    """Writes predictions, study, figures and last of all metrics.json.

    Args:
        judged: the classifier's figures, these with all that was asked for beside them, and those of the
            base; None: it is a probe, and its own base.
    """
    plain, result, before = judged
    predictions.save(folder)
    write_study(study, folder / "study.csv")
    write_json(folder / "study.json", study.to_dict())
    _write_figures(folder, result, before, predictions)
    write_json(
        folder / "metrics.json", {"tuned": result.to_dict(), "base": (before or plain).to_dict()}
    )


def out_of_fold(
    run: Run, *, data: str | Path | None = None, reporter: Reporter = SILENT
) -> Predictions | None:
    """What linear probes say of the training pictures that they were not fitted on.

    The backbone's features come from the cache; strength and folds are those of the run's own probe, and
    every fit is followed to its optimum. The temperature is fitted on these answers, as they are of pictures
    that their fits have not seen. Kept in the run folder.

    Returns:
        None where a class has but one picture, training pictures are gone whose features are not
        cached, or a fit does not converge; the reporter is told.
    """
    pictures = run.split.part("train")
    folder = run.path / "evaluation" / _OUT_OF_FOLD
    kept = _kept(folder) if (folder / _CONVERGED).is_file() else None
    if kept is not None and kept.paths == tuple(picture.path for picture in pictures):
        return kept
    root = _moved_root(run, pictures, data) or run.root
    files = [root / picture.path for picture in pictures]
    gone = sum(not file.is_file() for file in files)
    if gone:
        reporter.say(f"label errors are not looked for: {gone} training pictures are gone")
        return None
    with reporter.task("features of the training pictures") as progress:
        found = extract(
            run.base,
            files,
            [picture.sha256 for picture in pictures],
            precision=run.precision,
            on_progress=progress,
        )
    labels = labels_of(pictures)
    try:
        probe = fit_probe(
            found.targets[POOLED],
            labels,
            len(run.classifier.classes),
            seed=run.config.seed,
            strengths=(run.results["probe_strength"],),
        )
    except DataError as error:
        reporter.say(f"label errors are not looked for: {error}")
        return None
    if probe.held_out is None:
        reporter.say("label errors are not looked for: a class has one training picture alone")
        return None
    predictions = Predictions(
        tuple(picture.path for picture in pictures),
        labels,
        probe.held_out,
        run.base.classes,
        fit_temperature(probe.held_out, labels),
    )
    if is_writable(run.path):
        predictions.save(folder)
        write_json(
            folder / _CONVERGED, {"strengths": {str(c): v for c, v in probe.strengths.items()}}
        )
    return predictions


# ---------------------------------------------------------------------------- the pictures


def _sample(run: Run, split: str, data: str | Path | None, reporter: Reporter) -> _Sample:
    home = run.path / "evaluation"
    pictures = run.split.part(split)
    if data is not None and _moved_root(run, pictures, data) is None:
        return _other_set(run, split, Path(data), reporter)
    files, pictures = files_of(run, split, data)
    return _Sample(
        name=split,
        part=split,
        folder=home if split == "test" else home / split,
        files=files,
        paths=tuple(picture.path for picture in pictures),
        hashes=[picture.sha256 for picture in pictures],
        labels=labels_of(pictures),
    )


def _moved_root(run: Run, pictures: Sequence[Picture], data: str | Path | None) -> Path | None:
    """The folder in `data` that holds the run's own pictures, or None if it holds others.

    It is theirs if at least half of them are in it.
    """
    if data is None:
        return None
    try:
        root = folder_in(data, [picture.path for picture in pictures])
    except DataError:
        return None
    present = sum((root / picture.path).is_file() for picture in pictures)
    return root if 2 * present >= len(pictures) else None


def _other_set(run: Run, split: str, data: Path, reporter: Reporter) -> _Sample:
    """Pictures of another set, with the run's labels."""
    found = scan(data, channels=run.classifier.input.channels, lenient=True)
    for path, reason in found.excluded:
        reporter.say(f"left out {path}: {reason}")
    refuse_unreadable(found)
    classes = run.classifier.classes
    named = [(picture, found.class_of(picture)) for picture in found.pictures]
    unknown = Counter(name for _, name in named if name not in classes)
    if unknown:
        name, count = unknown.most_common(1)[0]
        if name is None:
            raise DataError(
                f"{str(data)!r} has pictures without a class ({count}); put them into folders with the names "
                "of the run's classes, or use 'transferscope predict'"
            )
        raise UnknownName(
            "class",
            name,
            classes,
            where=f"the run {run.path.name!r}, which knows {len(classes)}",
            remedy=f"rename or take out the folder ({count} pictures): a classifier cannot be judged on a "
            "class that it was not taught",
        )
    if any(picture.split for picture, _ in named):
        named = [(picture, name) for picture, name in named if picture.split == split]
        if not named:
            raise DataError(
                f"{str(data)!r} has no pictures in a {split} folder; choose another --split, or give a folder "
                "of class folders"
            )
    known = {p.sha256 for part in ("train", "validation") for p in run.split.part(part)}
    kept = [(picture, name) for picture, name in named if picture.sha256 not in known]
    if not kept:
        raise DataError(
            f"every picture of {str(data)!r} ({len(named)}) was trained or chosen on; give pictures that are "
            "new to the run, or use --split"
        )
    home = data.resolve()
    return _Sample(
        name=home.name,
        part=split,
        folder=run.path / "evaluation" / f"data-{home.name}-{sha256_bytes(bytes(home))[:6]}",
        files=[found.file(picture) for picture, _ in kept],
        paths=tuple(picture.path for picture, _ in kept),
        hashes=[picture.sha256 for picture, _ in kept],
        labels=torch.tensor([classes.index(str(name)) for _, name in kept], dtype=torch.int64),
        seen=len(named) - len(kept),
        excluded=found.excluded,
    )


def _predictions(sample: _Sample, logits: torch.Tensor, classifier: Classifier) -> Predictions:
    return Predictions(
        sample.paths, sample.labels, logits, classifier.classes, classifier.temperature
    )


def _kept_validation(run: Run) -> Predictions | None:
    """The validation predictions that tuning, or an evaluation of that split, has left."""
    return _kept(run.path / "evaluation" / "validation")


def _kept(folder: Path) -> Predictions | None:
    """Predictions that can be made again: None where they are absent or damaged."""
    try:
        return Predictions.load(folder)
    except (WeightsError, RunError):
        return None


# ---------------------------------------------------------------------------- beside the figures


def _views(
    run: Run,
    sample: _Sample,
    predictions: Predictions,
    views: int,
    seconds: float,
    precision: Precision,
    reporter: Reporter,
) -> ViewsGain:
    with reporter.task(f"{views} views of each picture") as progress:
        return views_gain(
            run.classifier,
            predictions,
            sample.files,
            sample.hashes,
            views=views,
            flip=run.recipe.flip,
            seconds=seconds,
            precision=precision,
            on_progress=progress,
        )


def _shared_rows(run: Run, other: Run, sample: _Sample) -> list[int]:
    """The pictures that are as new to another run as to this one.

    Raises:
        DataError: there are none.
        InputError: the other run has other classes.
    """
    refuse_other_classes(run.classifier.classes, other.classifier.classes)
    other_part = {picture.sha256: picture.split for picture in other.split.scan.pictures}
    rows = [
        row
        for row, digest in enumerate(sample.hashes)
        if other_part.get(digest, sample.part) == sample.part
    ]
    if not rows:
        raise DataError(
            f"all {len(sample.files)} {sample.name} pictures of {run.path.name!r} are in other splits of "
            f"{other.path.name!r}, which was trained or chosen on them; tune it with --split-from {run.path}"
        )
    return rows


def _against(
    run: Run,
    other: Run,
    sample: _Sample,
    rows: Sequence[int],
    predictions: Predictions,
    place: torch.device,
    precision: Precision,
    reporter: Reporter,
) -> PairedDifference:
    """The difference to another run on the pictures that are as new to it as to this one."""
    ours = predictions.rows(torch.tensor(rows))
    files = [sample.files[row] for row in rows]
    with reporter.task(f"{sample.name} pictures, {other.path.name}") as progress:
        logits = predict_files(
            other.classifier.to(place), files, precision=precision, on_progress=progress
        )
    second = replace(
        ours.for_classes(other.classifier.classes),
        logits=logits,
        temperature=other.classifier.temperature,
    )
    names = (run.path.name, other.path.name)
    return paired_difference(
        ours,
        second,
        names=names if names[0] != names[1] else (str(run.path), str(other.path)),
        left_out=len(sample.files) - len(rows),
        seed=run.config.seed,
    )


def _write_figures(
    folder: Path, result: Evaluation, before: Evaluation | None, predictions: Predictions
) -> None:
    drawn = {
        "reliability": evaluation.reliability_figure(result.calibration),
        "coverage": evaluation.coverage_figure(result.abstention),
        "per-class": classes.per_class_figure(result, base=before),
        "confusion": classes.confusion_figure(predictions),
    }
    if result.trend is not None:
        drawn["class-sizes"] = classes.size_trend_figure(result)
    for name, svg in drawn.items():
        write_text(folder / f"{name}.svg", svg)


Run.evaluator = staticmethod(evaluate_run)
