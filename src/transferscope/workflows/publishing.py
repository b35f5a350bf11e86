"""`write_run_atlas`: a run as a folder of static pages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from transferscope.comparison import Comparison
from transferscope.errors import RunError
from transferscope.evaluation import Evaluation, Predictions
from transferscope.report import AtlasContent, write_atlas
from transferscope.storage import read_json
from transferscope.visualize import Render, Sweep, WorkUnit
from transferscope.workflows.inspecting import inspect_run, previews
from transferscope.workflows.run import SILENT, Reporter, Run


def write_run_atlas(
    run: Run,
    *,
    out: str | Path | None = None,
    pictures: bool = True,
    title: str | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Writes the atlas of a run: a folder of static pages that opens without a server.

    Args:
        run: with a comparison; an evaluation is shown if there is one.
        out: folder; None: atlas/ of the run.
        pictures: whether real pictures (exemplars, errors) are copied into it.
        title: of the pages; None: the name of the data folder.
        reporter: hears of the progress.

    Returns:
        The path of index.html.

    Raises:
        RunError: the run was not compared yet.
        OutputError: `out` is not ours to replace.
    """
    if not (run.path / "comparison" / "comparison.json").is_file():
        raise RunError(
            f"{str(run.path)!r} has no comparison to show; 'transferscope compare {run.path}' makes it"
        )
    comparison = Comparison.load(run.path / "comparison")
    evaluation = base_evaluation = predictions = None
    if (run.path / "evaluation" / "metrics.json").is_file():
        metrics = read_json(run.path / "evaluation" / "metrics.json")
        evaluation = Evaluation.from_dict(metrics["tuned"])
        base_evaluation = Evaluation.from_dict(metrics["base"])
        predictions = Predictions.load(run.path / "evaluation")
    strips = run.path / "evaluation" / "strips.json"
    inspection = inspect_run(run, reporter=reporter)
    recipe = run.recipe
    augmented = recipe.augment != "none" and run.results["strategy"] != "probe"
    scores = run.results["candidates"]
    content = AtlasContent(
        title=title or run.config.dataset or Path(run.config.data).stem,
        facts=_facts(run, comparison),
        classes=run.classifier.classes,
        counts={part: _counts(run, part) for part in ("train", "validation", "test")},
        validation_before=scores["probe"]["top1"],
        validation_after=run.results["validation"]["top1"],
        evaluation=evaluation,
        evaluation_base=base_evaluation,
        predictions=predictions,
        history=run.history,
        comparison=comparison,
        renders=_shown_renders(run, comparison),
        data_root=run.root,
        strips=read_json(strips) if strips.is_file() else None,
        inspection=inspection,
        preview=(
            previews(inspection, (recipe.augment,), flip=recipe.flip, seed=recipe.seed)
            if inspection and augmented and pictures
            else None
        ),
    )
    return write_atlas(content, Path(out) if out else run.path / "atlas", pictures=pictures)


def _counts(run: Run, part: str) -> dict[str, int]:
    """Pictures of each class in one part of the split."""
    labels = Counter(picture.label for picture in run.split.part(part))
    return {name: labels[index] for index, name in enumerate(run.classifier.classes)}


def _facts(run: Run, comparison: Comparison) -> dict[str, str]:
    """Where the numbers come from, label to value."""
    results, recipe = run.results, run.recipe
    packages = run.record["environment"]["packages"]
    facts = {
        "Backbone": run.config.backbone,
        "Strategy": results["strategy"],
        "Pictures": ", ".join(f"{n} {name}" for name, n in results["pictures"].items()),
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
    facts |= {
        "Temperature": f"{results['temperature']:.3f}",
        "Renders": f"{comparison.steps} steps at {comparison.size} px, seeds "
        + ", ".join(map(str, comparison.seeds)),
        "Exemplars": f"best of {comparison.pictures} training pictures",
        "Made with": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }
    return facts


def _shown_renders(
    run: Run, comparison: Comparison
) -> dict[tuple[str, str, int, str, int], Render]:
    """Renders by (network, layer, channel, sign, seed), read from the sweep."""
    sweep = Sweep(run.path / "sweep")
    shown: dict[tuple[str, str, int, str, int], Render] = {}
    for layer in comparison.layers:
        channels = tuple(channel.channel for channel in layer.channels)
        for network, classifier in (("base", run.base), ("tuned", run.classifier)):
            source = run.base if layer.identical else classifier
            ceiling = {c.channel: c.exemplar_max[network] for c in layer.channels}
            for seed in comparison.seeds:
                unit = WorkUnit.of(source, layer.layer, channels, seed=seed)
                for render in sweep.load(unit, exemplar_max=ceiling):
                    key = (network, layer.layer, render.channel, render.sign, render.seed)
                    shown[key] = render
    return shown
