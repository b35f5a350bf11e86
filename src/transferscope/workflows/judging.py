"""`evaluate_run`: the tuned classifier on one split, with the fair *before* beside it."""

from __future__ import annotations

from pathlib import Path

from transferscope.backbones import Classifier, find_device
from transferscope.evaluation import Evaluation, Predictions, evaluate, predict_files
from transferscope.storage import write_json
from transferscope.workflows.run import SILENT, Reporter, Run, files_of, labels_of


def evaluate_run(
    run: Run,
    *,
    split: str = "test",
    data: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Judges the tuned classifier on one split, and the untuned *before* beside it.

    Writes evaluation/ of the run: metrics.json, predictions.safetensors and .csv, and the same for
    the untuned network under evaluation/base.

    Args:
        run: a finished run.
        split: train, validation or test of its split.csv.
        data: the folder, if it is no longer where it was.
        device: cpu, cuda, mps; None: the best there is.
        reporter: hears of the progress.

    Raises:
        DataError: no such split, or pictures that are gone or are no longer those of the split.
    """
    files, pictures = files_of(run, split, data)
    place = find_device(device)

    def judge(classifier: Classifier, name: str) -> tuple[Predictions, Evaluation]:
        with reporter.task(name) as progress:
            logits = predict_files(classifier.to(place), files, on_progress=progress)
        predictions = Predictions(
            tuple(picture.path for picture in pictures),
            labels_of(pictures),
            logits,
            classifier.classes,
            classifier.temperature,
        )
        found = evaluate(predictions, split=split, confusable=run.config.confusable)
        return predictions, found

    predictions, result = judge(run.classifier, f"{split} pictures, tuned")
    before = result
    if run.results["strategy"] != "probe" or run.results.get("head") == "mlp":
        base_predictions, before = judge(run.base, f"{split} pictures, base")
        base_predictions.save(run.path / "evaluation" / "base")
    predictions.save(run.path / "evaluation")
    metrics = {"tuned": result.to_dict(), "base": before.to_dict()}
    write_json(run.path / "evaluation" / "metrics.json", metrics)
    return result
