"""`evaluate_run`: the tuned classifier on labelled pictures, with the fair *before* beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from transferscope.acceleration.precision import Precision, find_device, refuse_precision
from transferscope.backbones.classifier import Classifier
from transferscope.data.columns import groups_of
from transferscope.data.exclusions import is_loss
from transferscope.data.manifest import MANIFESTS
from transferscope.errors import DataError, RunError, WeightsError
from transferscope.evaluation.calibration import fit_temperature
from transferscope.evaluation.detection import Detection
from transferscope.evaluation.groups import accuracy_by_group
from transferscope.evaluation.metrics import SUREST, Evaluation, LeftOut, evaluate
from transferscope.evaluation.mistakes import ErrorStudy, error_study, write_study
from transferscope.evaluation.paired import PairedDifference, paired_difference
from transferscope.evaluation.predictions import Predictions, predict_files, refuse_other_classes
from transferscope.evaluation.strangers import refuse_false_alarms
from transferscope.evaluation.tta import ViewsGain, refuse_views, views_gain
from transferscope.features.extraction import POOLED, extract
from transferscope.features.probe import fit_probe
from transferscope.files import is_writable, write_json, write_text
from transferscope.report.figures import classes, evaluation
from transferscope.report.figures.groups import groups_figure
from transferscope.workflows.evaluated_pictures import (
    EvaluatedPictures,
    evaluated_pictures,
    moved_root,
)
from transferscope.workflows.known_pictures import StrangerFiles, detect, stranger_files
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, labels_of
from transferscope.workflows.validation_gap import explained_gap

_CONVERGED = "probe.json"  # beside what fits left that were followed to their optimum


@dataclass(frozen=True, eq=False)
class _Work:
    """What is evaluated, on which pictures, where and how precisely."""

    run: Run
    sample: EvaluatedPictures
    device: torch.device
    precision: Precision
    reporter: Reporter

    def predicted(
        self, classifier: Classifier, words: str, rows: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Logits of the sample's pictures, or of some of them."""
        files = self.sample.files
        files = files if rows is None else [files[row] for row in rows]
        with self.reporter.task(f"{self.sample.name} pictures, {words}") as progress:
            return predict_files(
                classifier.to(self.device), files, precision=self.precision, on_progress=progress
            )

    def predictions(self, classifier: Classifier, words: str) -> Predictions:
        """The answers of the run's classifier, or of its base."""
        return Predictions(
            tuple(picture.path for picture in self.sample.pictures),
            self.sample.labels,
            self.predicted(classifier, words),
            classifier.classes,
            classifier.temperature,
        )

    def evaluated(self, found: Predictions, validation: Predictions | None = None) -> Evaluation:
        """Every figure of some answers; `validation` is what thresholds are chosen on."""
        split = self.run.split
        training = Counter(str(split.scan.class_of(picture)) for picture in split.part("train"))
        return evaluate(
            found,
            split=self.sample.name,
            confusable=self.run.config.confusable,
            training=training,
            validation=validation,
            seed=self.run.config.seed,
        )

    def validation(self) -> Predictions | None:
        """The answers that thresholds are chosen on: tuning, or an evaluation of that split, left them."""
        if self.sample.part == "validation":
            return None
        found = _kept(self.run.path / "evaluation" / "validation")
        if found is None and self.sample.part == "test":
            self.reporter.say(
                "no thresholds for abstaining are proposed: 'transferscope evaluate --split validation' first "
                "gives the answers that they are chosen on"
            )
        return found

    def groups(self, column: str) -> list[str | None]:
        """The group of each picture."""
        table = None
        if self.sample.root is None:
            listed = Path(self.run.config.data)
            table = listed if listed.suffix.lower() in MANIFESTS and listed.is_file() else None
        with self.reporter.task(f"groups by {column}") as progress:
            return groups_of(
                self.sample.pictures, self.sample.files, column, table=table, on_progress=progress
            )

    def strangers(
        self, found: StrangerFiles, false_alarms: float, data: str | Path | None
    ) -> Detection:
        """How well pictures of none of the classes are told."""
        return detect(
            self.run,
            found,
            split=self.sample.name,
            files=self.sample.files,
            pictures=self.sample.pictures,
            false_alarms=false_alarms,
            data=data if self.sample.root is None else None,
            reporter=self.reporter,
        )

    def views(self, predictions: Predictions, views: int, seconds: float) -> ViewsGain:
        """What averaging over views gains, beside predictions that took some seconds."""
        with self.reporter.task(f"{views} views of each picture") as progress:
            return views_gain(
                self.run.classifier,
                predictions,
                self.sample.files,
                [picture.sha256 for picture in self.sample.pictures],
                views=views,
                flip=self.run.recipe.flip,
                seconds=seconds,
                precision=self.precision,
                on_progress=progress,
            )

    def before(self, predictions: Predictions, kept: bool) -> tuple[Evaluation, PairedDifference]:
        """The untuned network's figures, and what the tuned one's predictions gain on them."""
        base = self.predictions(self.run.base, "base")
        if kept:
            base.save(self.sample.folder / "base")
        names, seed = ("tuned", "base"), self.run.config.seed
        return self.evaluated(base), paired_difference(predictions, base, names=names, seed=seed)

    def against(
        self, other: Run, rows: Sequence[int], predictions: Predictions
    ) -> PairedDifference:
        """The difference to another run on the pictures that are as new to it as to this one."""
        run, theirs = self.run, other.classifier
        ours = predictions.rows(torch.tensor(rows))
        second = replace(
            ours.for_classes(theirs.classes),
            logits=self.predicted(theirs, other.path.name, rows),
            temperature=theirs.temperature,
        )
        names = (run.path.name, other.path.name)
        return paired_difference(
            ours,
            second,
            names=names if names[0] != names[1] else (str(run.path), str(other.path)),
            left_out=len(self.sample.files) - len(rows),
            seed=run.config.seed,
        )


def evaluate_run(
    run: Run,
    *,
    split: str = "test",
    data: str | Path | None = None,
    tta: int = 0,
    against: Run | str | Path | None = None,
    strangers: str | Path | None = None,
    false_alarms: float = 0.05,
    by: str | None = None,
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
        tta: average the answers over so many views of each picture, with gain and cost; 0: no.
        against: another run, whose answers for the same pictures are compared with this one's.
        strangers: a folder of pictures of none of the classes: how many are told, and how many of the
            split's pictures are taken for such.
        false_alarms: share of these that is allowed.
        by: accuracy by group too; see `data.columns.COLUMNS`.
        device: cpu, cuda, mps; None: the best there is.
        precision: of the forward passes.
        reporter: hears of the progress.

    Raises:
        DataError: no such split, pictures of one class alone, pictures that are gone or are no longer
            those of the split, classes that the run does not know, or no picture in common with the
            other run's split.
        InputError: a run of other classes, one view, nothing to group by, no strangers, or no share.
        OutputError: the run folder cannot be written.
    """
    if tta:
        refuse_views(tta)  # before the work, and so are all that follow
    refuse_false_alarms(false_alarms)
    target = find_device(device)
    refuse_precision(target, precision)
    strange = stranger_files(run, strangers) if strangers is not None else None
    other = against if against is None or isinstance(against, Run) else Run(against)
    sample = evaluated_pictures(run, split, data, reporter)
    shared = _shared_rows(run, other, sample) if other is not None else []  # refused before, too
    kept = _writable(run, reporter)
    work = _Work(run, sample, target, precision, reporter)
    groups = work.groups(by) if by is not None else None
    began = time.perf_counter()
    predictions = work.predictions(run.classifier, "tuned")
    seconds = time.perf_counter() - began
    validation = work.validation()
    plain = result = _with_left_out(work.evaluated(predictions, validation), sample)
    before = None
    if run.results["strategy"] != "probe" or run.results.get("head") == "mlp":
        before, gain = work.before(predictions, kept)
        result = replace(result, gain=gain)
    if tta:
        result = replace(result, views=work.views(predictions, tta, seconds))
    if other is not None:
        result = replace(result, against=work.against(other, shared, predictions))
    if strange is not None:
        result = replace(result, strangers=work.strangers(strange, false_alarms, data))
    if by is not None and groups is not None:
        result = _with_groups(result, predictions, groups, column=by, seed=run.config.seed)
    if validation is not None and sample.part == "test":
        gap = explained_gap(run, sample, validation, predictions, data=data, reporter=reporter)
        result = replace(result, gap=gap)
    result, study = _studied(result, run, sample, predictions, data, reporter)
    if kept:
        _keep(sample, predictions, study, (plain, result, before))
    return result


def _studied(
    result: Evaluation,
    run: Run,
    sample: EvaluatedPictures,
    predictions: Predictions,
    data: str | Path | None,
    reporter: Reporter,
) -> tuple[Evaluation, ErrorStudy]:
    """With the surest errors, and the labels that are probably wrong where they can be judged."""
    held_out = out_of_fold(run, data=data, reporter=reporter)
    study = error_study(predictions, split=sample.name, out_of_fold=held_out)
    studied = replace(
        result,
        chosen_on=len(run.split.part("validation")),
        probable_label_errors=None if held_out is None else study.probable,
        label_suspects=study.flagged(),
        surest_errors=study.worst[:SUREST],
    )
    return studied, study


def _with_left_out(result: Evaluation, sample: EvaluatedPictures) -> Evaluation:
    return replace(
        result,
        seen=sample.seen,
        excluded=sum(is_loss(reason) for _, reason in sample.excluded),
        left_out=tuple(LeftOut(*one) for one in sample.excluded),
    )


def _with_groups(
    result: Evaluation,
    predictions: Predictions,
    groups: list[str | None],
    *,
    column: str,
    seed: int,
) -> Evaluation:
    found = accuracy_by_group(predictions, groups, column=column, seed=seed)
    return replace(
        result, groups=found.groups, worst_group=found.worst_group, group_test=found.test
    )


def _writable(run: Run, reporter: Reporter) -> bool:
    """Whether the figures can be kept in the run; says so before the work where they cannot."""
    writable = is_writable(run.path)
    if not writable:
        reporter.say(
            f"{run.path} cannot be written: the figures are told and not kept; copy the run to a folder that "
            "can be to have them in it"
        )
    return writable


def _keep(
    sample: EvaluatedPictures,
    predictions: Predictions,
    study: ErrorStudy,
    judged: tuple[Evaluation, Evaluation, Evaluation | None],
) -> None:
    """Writes predictions, study, figures and last of all metrics.json.

    Args:
        judged: the classifier's figures, these with all that was asked for beside them, and those of the
            base; None: it is a probe, and its own base.
    """
    (plain, result, before), folder = judged, sample.folder
    predictions.save(folder)
    write_study(study, folder / "study.csv")
    write_json(folder / "study.json", study.to_dict())
    if sample.root is not None:
        write_json(folder / "set.json", {"name": sample.name, "root": str(sample.root)})
    _write_figures(folder, result, before, predictions)
    metrics = {"tuned": result.to_dict(), "base": (before or plain).to_dict()}
    write_json(folder / "metrics.json", metrics)


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
    paths, hashes = tuple(p.path for p in pictures), [p.sha256 for p in pictures]
    folder = run.path / "evaluation" / "out-of-fold"
    kept = _kept(folder) if (folder / _CONVERGED).is_file() else None
    if kept is not None and kept.paths == paths:
        return kept
    root = moved_root(run, pictures, data) or run.root
    files = [root / path for path in paths]
    gone = sum(not file.is_file() for file in files)
    if gone:
        reporter.say(f"label errors are not looked for: {gone} training pictures are gone")
        return None
    with reporter.task("features of the training pictures") as progress:
        found = extract(run.base, files, hashes, precision=run.precision, on_progress=progress)
    labels = labels_of(pictures)
    try:
        probe = fit_probe(
            found.targets[POOLED],
            labels,
            len(run.base.classes),
            seed=run.config.seed,
            strengths=(run.results["probe_strength"],),
        )
    except DataError as error:
        reporter.say(f"label errors are not looked for: {error}")
        return None
    if probe.held_out is None:
        reporter.say("label errors are not looked for: a class has one training picture alone")
        return None
    temperature = fit_temperature(probe.held_out, labels)
    predictions = Predictions(paths, labels, probe.held_out, run.base.classes, temperature)
    if is_writable(run.path):
        predictions.save(folder)
        write_json(
            folder / _CONVERGED, {"strengths": {str(c): v for c, v in probe.strengths.items()}}
        )
    return predictions


# ---------------------------------------------------------------------------- what was kept


def _kept(folder: Path) -> Predictions | None:
    """Predictions that can be made again: None where they are absent or damaged."""
    try:
        return Predictions.load(folder)
    except (WeightsError, RunError):
        return None


# ---------------------------------------------------------------------------- beside the figures


def _shared_rows(run: Run, other: Run, sample: EvaluatedPictures) -> list[int]:
    """The pictures that are as new to another run as to this one.

    Raises:
        DataError: there are none.
        InputError: the other run has other classes.
    """
    refuse_other_classes(run.classifier.classes, other.classifier.classes)
    other_part = {picture.sha256: picture.split for picture in other.split.scan.pictures}
    rows = [
        row
        for row, picture in enumerate(sample.pictures)
        if other_part.get(picture.sha256, sample.part) == sample.part
    ]
    if not rows:
        raise DataError(
            f"all {len(sample.files)} {sample.name} pictures of {run.path.name!r} are in other splits of "
            f"{other.path.name!r}, which was trained or chosen on them; tune it with --split-from {run.path}"
        )
    return rows


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
    if result.groups:
        drawn["groups"] = groups_figure(result)
    for name, svg in drawn.items():
        write_text(folder / f"{name}.svg", svg)


Run.evaluator = staticmethod(evaluate_run)
