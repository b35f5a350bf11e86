"""`write_atlas`: a run as a folder of static pages."""

from __future__ import annotations

from pathlib import Path

from transferscope.comparison.records import Comparison
from transferscope.errors import OutputError, RunError
from transferscope.evaluation.mistakes import ErrorStudy
from transferscope.evaluation.predictions import Predictions
from transferscope.files import is_writable, read_json
from transferscope.report.pages import atlas as pages
from transferscope.report.pages.content import AtlasContent
from transferscope.visualize.records import Render
from transferscope.visualize.units import Sweep
from transferscope.workflows.compare import compared_units, nothing_changed
from transferscope.workflows.inspect import inspect_run, previews
from transferscope.workflows.model_card import (
    card_of,
    counts_of,
    run_evaluations,
    run_title,
    training_facts,
)
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run


def write_atlas(
    run: Run,
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    pictures: bool = True,
    title: str | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Writes the atlas of a run: a folder of static pages that opens without a server.

    Args:
        run: with an evaluation, a comparison, or both.
        out: folder; None: atlas/ of the run.
        data: where the run's pictures are, if they are no longer where they were.
        pictures: whether real pictures (exemplars, errors) are copied into it.
        title: of the pages; None: the name of the data folder.
        reporter: hears of the progress.

    Returns:
        The path of index.html.

    Raises:
        RunError: the run was neither evaluated nor compared yet.
        OutputError: `out` is not ours to replace, or the run folder cannot be written and no other is named.
        DataError: the run's pictures are not in `data`.
    """
    run = run.at(data)
    if out is None and not is_writable(run.path):
        raise OutputError(
            f"{str(run.path)!r} cannot be written; say with --out where the atlas is to be"
        )
    compared = (run.path / "comparison" / "comparison.json").is_file()
    evaluation, base_evaluation = run_evaluations(run)
    if not compared and evaluation is None:
        changed = f"'transferscope compare {run.path}' what changed"
        if run.untuned:
            changed += " (nothing: its body is untuned)"
        raise RunError(
            f"{str(run.path)!r} has nothing to show; 'transferscope evaluate {run.path}' says how good it is, "
            f"{changed}"
        )
    if not compared and run.untuned:
        reporter.say(nothing_changed(run))
    comparison = Comparison.load(run.path / "comparison") if compared else None
    home = run.path / "evaluation"
    strips, study = home / "strips.json", home / "study.json"
    inspection = inspect_run(run, reporter=reporter)
    recipe = run.recipe
    augmented = recipe.augment != "none" and run.results["strategy"] != "probe"
    scores = run.results["candidates"]
    content = AtlasContent(
        title=title or run_title(run),
        facts=_facts(run, comparison),
        classes=run.classifier.classes,
        counts=counts_of(run),
        validation_before=scores["probe"]["top1"],
        validation_after=run.results["validation"]["top1"],
        evaluation=evaluation,
        evaluation_base=base_evaluation,
        predictions=Predictions.load(home) if evaluation is not None else None,
        history=run.history,
        comparison=comparison,
        renders=_shown_renders(run, comparison) if comparison is not None else {},
        data_root=run.root,
        strips=read_json(strips) if strips.is_file() else None,
        inspection=inspection,
        preview=(
            previews(inspection, (recipe.augment,), flip=recipe.flip, seed=recipe.seed)
            if inspection and augmented and pictures
            else None
        ),
        study=ErrorStudy.from_dict(read_json(study)) if study.is_file() else None,
        card=card_of(run, name=title, inspection=inspection),
    )
    return pages.write_atlas(content, Path(out) if out else run.path / "atlas", pictures=pictures)


def _facts(run: Run, comparison: Comparison | None) -> dict[str, str]:
    """Where the numbers come from, label to value."""
    counted = ", ".join(f"{n} {name}" for name, n in run.results["pictures"].items())
    facts = {**training_facts(run), "Pictures": counted}
    if comparison is not None:
        facts |= {
            "Renders": f"{comparison.steps} steps at {comparison.size} px, seeds "
            + ", ".join(map(str, comparison.seeds)),
            "Exemplars": f"best of {comparison.pictures} training pictures",
        }
    elif run.untuned:
        facts["Comparison"] = "none: the body is untuned, every layer is that of the base"
    packages = run.record["environment"]["packages"]
    made = ", ".join(f"{name} {version}" for name, version in packages.items())
    return facts | {"Made with": made}


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
            units = compared_units(source, layer.layer, channels, comparison.seeds)
            for render in sweep.renders(units, exemplar_max=ceiling):
                key = (network, layer.layer, render.channel, render.sign, render.seed)
                shown[key] = render
    return shown
