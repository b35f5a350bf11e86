"""`write_atlas`: a run as a folder of static pages; `atlas_file`: the same as one file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from transferscope.comparison.records import NETWORKS, Comparison, channels_of
from transferscope.errors import OutputError, RunError, WeightsError
from transferscope.evaluation.metrics import Evaluation
from transferscope.evaluation.mistakes import ErrorStudy
from transferscope.evaluation.predictions import Predictions
from transferscope.files import is_writable, read_json, refuse_foreign
from transferscope.machine import cache_dir
from transferscope.report.pages import atlas as pages
from transferscope.report.pages.channels import channel_addresses
from transferscope.report.pages.content import AtlasContent, OtherSet, RenderKey
from transferscope.report.single_file import SingleFile, write_single_file
from transferscope.visualize.records import Render
from transferscope.visualize.units import Sweep
from transferscope.wording import counted, percent
from transferscope.workflows.atlas_pictures import shown_pictures
from transferscope.workflows.compare import nothing_changed
from transferscope.workflows.comparisons import render_keys, shown_comparison
from transferscope.workflows.explanations import HOME, kept_explanations
from transferscope.workflows.ideal import kept_ideals
from transferscope.workflows.inspect import inspect_run, previews
from transferscope.workflows.known_pictures import stored_detection
from transferscope.workflows.model_card import (
    card_of,
    counts_of,
    run_evaluations,
    run_title,
    training_facts,
)
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.robustness import stored_robustness
from transferscope.workflows.run import Run
from transferscope.workflows.shortcuts import kept_shortcuts
from transferscope.workflows.verdicts import kept_verdicts


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
    home = Path(out) if out else run.path / "atlas"
    refuse_foreign(home)  # before the pictures are looked at
    content = _content(run, title, reporter)
    if pictures:
        content = _with_pictures(content, run, reporter)
    page = pages.write_atlas(content, home, pictures=pictures)
    reporter.say(_holds(page.parent))
    return page


def _content(run: Run, title: str | None, reporter: Reporter) -> AtlasContent:
    """All that the run holds.

    Raises:
        RunError: it was neither evaluated nor compared yet.
    """
    comparison, which = shown_comparison(run.path / "comparison")
    evaluation, base_evaluation = run_evaluations(run)
    others = _other_sets(run)
    if comparison is None and evaluation is None and not others:
        raise _nothing_to_show(run)
    if which is not None:
        reporter.say(which)
    if comparison is None and run.untuned:
        reporter.say(nothing_changed(run))
    home = run.path / "evaluation"
    strips, study = home / "strips.json", home / "study.json"
    inspection = inspect_run(run, reporter=reporter)
    scores = run.results["candidates"]
    return AtlasContent(
        title=title or run_title(run),
        facts=_facts(run, comparison, which),
        classes=run.classifier.classes,
        counts=counts_of(run),
        validation_before=scores["probe"]["top1"],
        validation_after=run.results["validation"]["top1"],
        evaluation=evaluation,
        evaluation_base=base_evaluation,
        predictions=Predictions.load(home) if evaluation is not None else None,
        history=run.history,
        comparison=comparison,
        renders=_shown_renders(run, comparison, reporter) if comparison is not None else {},
        data_root=run.root,
        strips=read_json(strips) if strips.is_file() else None,
        inspection=inspection,
        study=ErrorStudy.from_dict(read_json(study)) if study.is_file() else None,
        card=card_of(run, name=title, inspection=inspection),
        others=others,
        robustness=stored_robustness(run.path),
        strangers=stored_detection(run.path),
        explanations=kept_explanations(run),
        verdicts=kept_verdicts(run.path / HOME, run.classifier),
        view=run.classifier.input,
        shortcuts=kept_shortcuts(run.path),
        ideals=kept_ideals(run),
    )


def _with_pictures(content: AtlasContent, run: Run, reporter: Reporter) -> AtlasContent:
    """The same with what is made of single pictures of the data."""
    recipe, evaluation = run.recipe, content.evaluation
    augmented = recipe.augment != "none" and run.results["strategy"] != "probe"
    preview = shown = None
    if content.inspection and augmented:
        names = (recipe.augment,)
        preview = previews(content.inspection, names, flip=recipe.flip, seed=recipe.seed)
    if evaluation is not None:
        shown = shown_pictures(
            run,
            content.predictions,
            split=evaluation.split,
            explanations=content.explanations,
            verdicts=content.verdicts,
            reporter=reporter,
        )
    return replace(content, preview=preview, pictures=shown)


def _holds(home: Path) -> str:
    """How large an atlas is, and how many of the user's own pictures are in it."""
    files = [file for file in home.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    own = len((home / "assets/own_pictures.txt").read_text(encoding="utf-8").splitlines())
    listed = "; assets/own_pictures.txt lists them, --no-pictures leaves them out" if own else ""
    return f"{len(files):,} files, {size:,.1f} MB, with {counted(own, 'picture')} of your own in them{listed}"


def atlas_file(run: Run, file: str | Path, *, folder: str | Path | None = None) -> SingleFile:
    """Writes an atlas of a run as one file, with the pages of the most learned channels where not all fit.

    Args:
        run: whose atlas was written.
        file: to write.
        folder: where the atlas is; None: atlas/ of the run.

    Raises:
        OutputError: it would be too large for one file, or cannot be written.
    """
    comparison, _ = shown_comparison(run.path / "comparison")
    order: list[str] = []
    if comparison is not None:
        addresses = channel_addresses(comparison)
        places = channels_of(comparison.ranked())
        places += [(one.layer, one.channel) for one in comparison.drawings]
        found = (addresses[place] for place in dict.fromkeys(places))
        order = [address for address in found if "#" not in address]
    return write_single_file(Path(folder) if folder else run.path / "atlas", file, order=order)


def _nothing_to_show(run: Run) -> RunError:
    path = shlex.quote(str(run.path))
    taught = f"'transferscope compare {path}' what it learned"
    if run.untuned:
        taught += " (nothing: its body is untuned)"
    return RunError(
        f"{str(run.path)!r} has nothing to show; 'transferscope evaluate {path}' says how good it is, "
        f"{taught}"
    )


def _other_sets(run: Run) -> tuple[OtherSet, ...]:
    """What 'evaluate --data' has left of other sets; what cannot be read is passed over."""
    found = []
    for file in sorted((run.path / "evaluation").glob("data-*/set.json")):
        with suppress(RunError, KeyError, TypeError):
            known, metrics = read_json(file), read_json(file.parent / "metrics.json")
            study = ErrorStudy.from_dict(read_json(file.parent / "study.json"))
            evaluation = Evaluation.from_dict(metrics["tuned"])
            found.append(OtherSet(known["name"], Path(known["root"]), evaluation, study))
    return tuple(found)


def _facts(run: Run, comparison: Comparison | None, which: str | None) -> dict[str, str]:
    """Where the numbers come from, label to value."""
    pictures = ", ".join(f"{n} {name}" for name, n in run.results["pictures"].items())
    facts = {**training_facts(run), "Pictures": pictures}
    if comparison is not None:
        facts |= _comparison_facts(comparison)
        if which is not None:
            facts["Comparison"] += f"; {which}"
    elif run.untuned:
        facts["Comparison"] = "none: the body is untuned, every layer is that of the base"
    packages = run.record["environment"]["packages"]
    made = ", ".join(f"{name} {version}" for name, version in packages.items())
    return facts | {"Made with": made}


def _comparison_facts(comparison: Comparison) -> dict[str, str]:
    """What a comparison rests on."""
    facts = {
        "Comparison": f"{comparison.pictures:,} {comparison.split} pictures, false discovery rate "
        f"{percent(comparison.fdr, 0)}",
        "Controls": f"{comparison.controls} from shuffled labels"
        if comparison.controls
        else "none",
    }
    if comparison.retunings:
        facts["Retunings"] = f"{comparison.retunings} from other seeds"
    facts["Drawings"] = "none"
    if comparison.drawings:
        drawn = counted(len(comparison.drawings), "channel")
        seeds = ", ".join(map(str, comparison.seeds))
        facts["Drawings"] = (
            f"{drawn}, at most {comparison.steps:,} steps at {comparison.size} px, seeds {seeds}"
        )
    return facts


class _ShownRenders(Mapping[RenderKey, Render]):
    """Renders by key, read from the run's sweep/ or the cache when they are asked for."""

    def __init__(self, sweep: Sweep, keys: Mapping[RenderKey, tuple[str, float | None]]):
        self._sweep, self._keys = sweep, keys

    def __getitem__(self, key: RenderKey) -> Render:
        name, best = self._keys[key]
        try:
            return self._sweep.load_key(name, best)
        except WeightsError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[RenderKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _shown_renders(run: Run, comparison: Comparison, reporter: Reporter) -> _ShownRenders:
    """Renders by (network, layer, channel, sign, seed), under the keys that the comparison was kept with.

    What is neither in the run's sweep/ nor in the cache is missing; the reporter is told.
    """
    sweep = Sweep(cache_dir() / "sweep", kept=run.path / "sweep")
    best = {(one.layer, one.channel): one.exemplar_max for one in comparison.drawings}
    known: dict[RenderKey, tuple[str, float | None]] = {}
    for row in render_keys(run.path / "comparison"):
        network, place = row["network"], (row["layer"], row["channel"])
        if place in best and sweep.path(row["key"]).is_file():
            key = (network, *place, row["sign"], row["seed"])
            known[key] = row["key"], best[place].get(network)
    expected = len(NETWORKS) * sum(len(one.seeds) for one in comparison.drawings)
    if len(known) < expected:
        reporter.say(
            f"{expected - len(known)} of {expected} drawings of the comparison are neither in "
            f"{str(run.path / 'sweep')!r} nor in the cache; "
            f"'transferscope compare {shlex.quote(str(run.path))}' draws them"
        )
    return _ShownRenders(sweep, known)
