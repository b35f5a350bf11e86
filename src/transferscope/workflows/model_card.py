"""`card_of`: what a run knows of itself, as a model card."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from transferscope.backbones.catalogue import find_backbone
from transferscope.data.duplicates import COPY
from transferscope.data.exclusions import is_loss
from transferscope.data.inspection import Inspection, across_splits
from transferscope.data.lookalike_groups import LOOKALIKES
from transferscope.data.scan import SPLITS
from transferscope.errors import InputError, RunError
from transferscope.evaluation.calibration import LEAST_EVIDENCE
from transferscope.evaluation.metrics import Evaluation
from transferscope.exports.description import preprocessing
from transferscope.exports.hub import timm_architecture
from transferscope.files import read_json
from transferscope.report.model_card import ModelCard
from transferscope.workflows.run import Run

_TABLES = (".csv", ".tsv", ".parquet")


def card_of(
    run: Run, *, name: str | None = None, inspection: Inspection | None = None
) -> ModelCard:
    """The model card of a run: its pictures, its training, and its test figures if it was evaluated.

    Args:
        run: a finished run.
        name: of the classifier; None: the run folder's.
        inspection: of the run's pictures; None: near duplicates are said to be unknown.
    """
    classifier = run.classifier
    tuned, base = run_evaluations(run)
    reasons = [reason for _, reason in run.record["excluded"]]
    copies = sum(reason.startswith(COPY) for reason in reasons)
    alike = inspection.near_duplicates if inspection is not None else ()
    return ModelCard(
        name=name or run.path.resolve().name,
        backbone=run.config.backbone,
        classes=classifier.classes,
        data=run_title(run),
        counts=counts_of(run),
        split=_split_line(run),
        excluded=sum(map(is_loss, reasons)),
        copies=copies,
        near_duplicates=sum(map(across_splits, alike)) if inspection is not None else None,
        training=training_facts(run),
        evaluation=tuned,
        evaluation_base=base,
        weights_licence=_licence(run),
        preprocessing=preprocessing(classifier.input),
        temperature=classifier.temperature,
        library="timm" if timm_architecture(classifier) else "transferscope",
        environment=run.record["environment"]["packages"],
    )


def run_title(run: Run) -> str:
    """The name of the run's pictures: of the set, or of their folder."""
    if run.config.dataset:
        return run.config.dataset
    data = Path(run.config.data)
    return data.stem if data.suffix.lower() in _TABLES else data.name


def run_evaluations(run: Run) -> tuple[Evaluation | None, Evaluation | None]:
    """The test figures of the tuned classifier and of the base, if the run was evaluated."""
    file = run.path / "evaluation" / "metrics.json"
    if not file.is_file():
        return None, None
    metrics = read_json(file)
    if not isinstance(metrics, dict) or not {"tuned", "base"} <= set(metrics):
        raise RunError(
            f"{str(file)!r} is not what an evaluation leaves; "
            f"'transferscope evaluate {shlex.quote(str(run.path))}' writes it again"
        )
    return Evaluation.from_dict(metrics["tuned"]), Evaluation.from_dict(metrics["base"])


def counts_of(run: Run) -> dict[str, dict[str, int]]:
    """Pictures of each class by split."""
    labels = {part: Counter(one.label for one in run.split.part(part)) for part in SPLITS}
    classes = run.split.scan.classes
    return {
        part: {name: counts[index] for index, name in enumerate(classes)}
        for part, counts in labels.items()
    }


def training_facts(run: Run) -> dict[str, str]:
    """How the classifier came about, label to value."""
    results, recipe = run.results, run.recipe
    facts = {
        "Backbone": run.config.backbone,
        "Strategy": results["strategy"],
        "Seed": str(run.config.seed),
    }
    if results.get("head", "linear") != "linear":
        facts["Head"] = results["head"]
    if results["strategy"] != "probe":
        facts["Frozen up to"] = results["boundary"] or "nothing"
        facts["Fine-tuning"] = (
            f"{len(run.history) - 1} epochs, {recipe.optimizer} {recipe.learning_rate:.3g}, "
            f"batch {recipe.batch_size}, augmentation {recipe.augment}"
        )
        if results.get("share", 1) < 1:
            facts["Weights"] = f"{results['share']:.0%} tuned, the rest those of the start"
    value = f"{results['temperature']:.3f}"
    judged = results["pictures"]["validation"]
    if judged < LEAST_EVIDENCE:
        value += f"; chosen on {judged} validation pictures, which tell little, as epoch and strategy were"
    return facts | {"Temperature": value}


def _split_line(run: Run) -> str:
    config = run.config
    if config.split_from:
        return "The split is that of another run."
    groups = f", with each {config.group} in one part" if config.group else ""
    if config.group == LOOKALIKES:
        groups = ", with lookalikes in one part"
    copies = "copies of training pictures left out" if config.dedupe else "no copies across parts"
    drawn = "/".join(map(str, config.ratio))
    return (
        f"Train, validation and test as the folders say, or else drawn {drawn} within classes with seed "
        f"{config.seed}{groups}; {copies}."
    )


def _licence(run: Run) -> str:
    if run.config.weights:
        return "unknown"
    try:
        return find_backbone(run.config.backbone).licence
    except InputError:
        return "unknown"
