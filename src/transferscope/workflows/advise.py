"""`advise`: how well a set of pictures would transfer, measured before anything is tuned."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope import distributed
from transferscope.acceleration.precision import Precision, find_device, training_precision
from transferscope.backbones.catalogue import DEFAULT_BACKBONE
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.backbones.weights import load_backbone
from transferscope.data.exclusions import say
from transferscope.data.lookalike_groups import LOOKALIKES
from transferscope.data.readings import LayoutName
from transferscope.data.scan import Measure, Picture, Scan, scan
from transferscope.data.split import Split, make_split, parse_ratio
from transferscope.errors import InputError
from transferscope.features.extraction import POOLED, cached_pictures, extract, mean_of
from transferscope.features.probe import fit_probe
from transferscope.features.store import cache_budget
from transferscope.files import refuse_foreign, replaced_folder, write_json, write_text
from transferscope.report.figures.advice import plane_figure, stage_figure
from transferscope.training.advice import (
    Advice,
    AdvisedStrategy,
    BackboneAdvice,
    Cut,
    StageProbe,
    choose_backbone,
    probe_stages,
    quadrant,
    recommend,
)
from transferscope.training.recipe import choose_recipe
from transferscope.training.similarity import source_similarity, transfer_gain
from transferscope.training.speed import Speed, measure_speed, tuning_seconds
from transferscope.workflows.lookalikes import scanned_together
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import labels_of, refuse_inside

PROBED = 3000
"""Training pictures that stages are probed with at most; of more, so many are drawn, class by class."""

COMPARED = 128
"""Training pictures whose statistics are compared with the source's."""

STAGE_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Regularisations tried for a stage's probe: fewer than for a head that will be used."""

_FOLDS = 5
_CONTROL_SEED = 0  # of the random weights


def advise(
    data: str | Path,
    *,
    backbones: str | Sequence[str] = DEFAULT_BACKBONE,
    dataset: str | None = None,
    weights: str | Path | None = None,
    download: bool = False,
    group: str | None = None,
    layout: LayoutName = "auto",
    ratio: str | tuple[int, int, int] = (70, 15, 15),
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    pictures: int | None = None,
    out: str | Path | None = None,
    reporter: Reporter = SILENT,
) -> Advice:
    """How transferable each depth of a network is for a set of pictures, and which strategy fits.

    Only pictures of the training split are read, the split that `tune` would make with the same ratio,
    group and seed. One forward pass gives the features of all stages, and leaves in the cache what the
    probe of `tune` needs.

    Args:
        data: see `tune` for this, `dataset`, `download`, `group`, `layout` and `precision`.
        backbones: a catalogue name, or several that are compared side by side.
        weights: local weights, of the one backbone.
        ratio: of train, validation and test, where the folder does not say.
        seed: of the split, the folds and the sample.
        device: cpu, cuda, mps; None: the best there is.
        pictures: training pictures that are measured at most; None: `PROBED`. Fewer are quicker.
        out: a folder for stages.svg, plane.svg and advice.json.

    Raises:
        DataError: a set that cannot be trained on, or features that are not finite.
        InputError: an option that cannot be used.
        UnknownName, WeightsError: see `load_backbone`.
    """
    _refuse_out(out, None if dataset else data)
    shares = parse_ratio(ratio) if isinstance(ratio, str) else ratio
    cache_budget()  # refuses a wrong value
    device_found = find_device(device)
    training_precision(device_found, precision)  # refused before any work
    asked = (backbones,) if isinstance(backbones, str) else tuple(backbones)
    sources = _load(asked, weights, download, device_found)
    together = group == LOOKALIKES

    def read(measure: Measure | None = None) -> Scan:
        with reporter.task("reading pictures") as progress:
            return scan(
                data,
                dataset=dataset,
                group=None if together else group,
                layout=layout,
                download=download,
                channels=sources[0].input.channels,
                known_readable=cached_pictures(sources[0], precision=precision),
                measure=measure,
                on_progress=progress,
            )

    if together:
        targets = stage_targets(sources[0])
        found = scanned_together(
            read, sources[0], precision=precision, targets=targets, reporter=reporter
        )
    else:
        found = read()
    say(found.excluded, reporter.say)
    split = make_split(found, ratio=shares, seed=seed)
    sample = Sample.draw(split, seed, precision, reporter, most=pictures)
    placed = [place(source, sample) for source in sources]
    advised = [
        advise_classifier(source, sample, one) for source, one in zip(sources, placed, strict=True)
    ]
    names, speeds = [one.backbone for one in advised], [one.milliseconds for one in advised]
    chosen = choose_backbone(names, [one.hits for one in placed], speeds, seed=seed)
    result = Advice(sample.whole, sample.classes, len(sample.files), tuple(advised), *chosen)
    _keep(result, out)
    return result


def _refuse_out(out: str | Path | None, data: str | Path | None) -> None:
    """Refuses a folder that cannot be written, or that lies in the pictures' own."""
    if out is not None:
        if data is not None:
            refuse_inside(Path(out), data)
        refuse_foreign(Path(out))


def _keep(result: Advice, out: str | Path | None) -> None:
    if out is None:
        return
    with replaced_folder(out) as folder:
        write_text(folder / "stages.svg", stage_figure(result))
        write_text(folder / "plane.svg", plane_figure(result))
        write_json(folder / "advice.json", result.to_dict())


def _load(
    names: Sequence[str], weights: str | Path | None, download: bool, device: torch.device
) -> list[Classifier]:
    if not names:
        raise InputError("no backbone is named; give at least one")
    if doubled := [name for name in names if list(names).count(name) > 1]:
        raise InputError(f"backbone {doubled[0]!r} is named twice; name each once")
    if weights is not None and len(names) > 1:
        raise InputError(
            f"--weights {str(weights)!r} can be of one backbone, and {len(names)} are named; name one"
        )
    found = [load_backbone(name, weights=weights, download=download).to(device) for name in names]
    for source in found:
        source.check_head()
    return found


# ---------------------------------------------------------------------------- one backbone


@dataclass(frozen=True, eq=False)
class Sample:
    """The training pictures that are measured, and how.

    Attributes:
        files, hashes: N of them, and the sha256 of each.
        labels, classes: int64 (N,), every class present, and how many there are.
        whole: pictures in the training split.
        judged: pictures in the validation split, which `tune` will work through too; never read here.
        seed, precision: of the folds; of the forward passes.
        reporter: hears of the progress.
    """

    files: tuple[Path, ...]
    hashes: tuple[str, ...]
    labels: torch.Tensor
    classes: int
    whole: int
    judged: int
    seed: int
    precision: Precision
    reporter: Reporter

    @classmethod
    def draw(
        cls,
        split: Split,
        seed: int,
        precision: Precision,
        reporter: Reporter,
        *,
        most: int | None = None,
    ) -> Sample:
        """All training pictures, or `most` of them; None: `PROBED`."""
        train = split.part("train")
        pictures = stratified(train, PROBED if most is None else most, seed)
        return cls(
            files=tuple(split.scan.file(picture) for picture in pictures),
            hashes=tuple(picture.sha256 for picture in pictures),
            labels=labels_of(pictures),
            classes=len(split.scan.classes),
            whole=len(train),
            judged=len(split.part("validation")),
            seed=seed,
            precision=precision,
            reporter=reporter,
        )


def stratified(pictures: Sequence[Picture], cap: int, seed: int) -> list[Picture]:
    """At most about `cap` labelled pictures in the proportions of their classes, one of each at least."""
    if len(pictures) <= cap:
        return list(pictures)
    rng = np.random.default_rng(seed)
    labels = np.array([picture.label for picture in pictures])
    kept: list[int] = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = max(1, round(cap * len(places) / len(pictures)))
        kept += rng.permutation(places)[:count].tolist()
    return [pictures[place] for place in sorted(kept)]


@dataclass(frozen=True, eq=False)
class Placed:
    """Where a set stands for one network, before any time is measured.

    Attributes:
        stages: see `BackboneAdvice` for this, `control`, `gain`, `pictures` and `similarity`.
        hits: bool (N,): which pictures the probe of what the head sees recognised.
        strategy: what is recommended.
        cut: where `partial` would cut, whether or not it is recommended.
        probe_seconds: that fitting and judging the head's probe took.
    """

    stages: tuple[StageProbe, ...]
    hits: np.ndarray
    control: StageProbe
    gain: float
    pictures: float | None
    similarity: float
    strategy: AdvisedStrategy
    cut: Cut
    probe_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able figures of a run's record."""
        return {
            "strategy": self.strategy,
            "boundary": self.cut.boundary,
            "reason": self.cut.reason,
            "similarity": self.similarity,
            "gain": self.gain,
            "pictures": self.pictures,
            "stages": {stage.stage: stage.top1 for stage in self.stages},
            "control": self.control.top1,
        }


def place(source: Classifier, sample: Sample) -> Placed:
    """Measures how a set transfers from one network, and what follows for strategy and cut."""
    stages, hits, seconds = _probed_stages(source, sample)
    control = _control(source, sample)
    with sample.reporter.task(f"{source.backbone}: statistics beside the source's"):
        few = sample.files[:: max(1, len(sample.files) // COMPARED)][:COMPARED]
        pictures = source_similarity(source, few, seed=sample.seed, precision=sample.precision)
    gain = transfer_gain(stages[-1].top1, control.top1)
    similarity = gain if pictures is None else (gain + pictures) / 2
    per_class = sample.whole / sample.classes
    similar, large = quadrant(similarity, per_class)
    strategy, cut = recommend(stages, similar=similar, large=large, per_class=per_class)
    return Placed(stages, hits, control, gain, pictures, similarity, strategy, cut, seconds)


def advise_classifier(source: Classifier, sample: Sample, placed: Placed) -> BackboneAdvice:
    """What was measured of one backbone, with its speed and the time that tuning it will take."""
    boundary = placed.cut.boundary
    with sample.reporter.task(f"{source.backbone}: measuring its speed"):
        speed = measure_speed(
            source, sample.files, boundary, classes=sample.classes, precision=sample.precision
        )
    return BackboneAdvice(
        backbone=source.backbone,
        parameters=sum(p.numel() for p in source.network.parameters()),
        milliseconds=1000 * speed.network,
        stages=placed.stages,
        control=placed.control,
        chance=float(torch.bincount(sample.labels).max()) / len(sample.labels),
        gain=placed.gain,
        pictures=placed.pictures,
        similarity=placed.similarity,
        strategy=placed.strategy,
        boundary=boundary if placed.strategy == "partial" else None,
        reason=placed.cut.reason,
        seconds=_predicted(speed, sample, placed.probe_seconds),
    )


def stage_targets(source: Classifier) -> tuple[str, ...]:
    """What one pass gives that stages are probed with: the head's input, and every stage's means."""
    return (POOLED, *map(mean_of, stages_of(source)))


def _probed_stages(
    source: Classifier, sample: Sample
) -> tuple[tuple[StageProbe, ...], np.ndarray, float]:
    """Probes of every stage; the last one's hits; the seconds that the head's probe took to fit."""
    names = stages_of(source)
    with sample.reporter.task(f"{source.backbone}: features of every stage") as progress:
        found = extract(
            source,
            sample.files,
            sample.hashes,
            targets=stage_targets(source),
            precision=sample.precision,
            on_progress=progress,
        ).targets
    columns = {name: found[mean_of(name)] for name in names}
    pooled, last = found[POOLED], columns[names[-1]]
    # The last stage, pooled as the head sees it, is often the head's input to rounding.
    same = last.shape == pooled.shape and torch.allclose(last, pooled, rtol=0.01, atol=0.01)
    columns[names[-1] if same else "head input"] = pooled
    hits = []
    with sample.reporter.task(f"{source.backbone}: probing its stages") as progress:
        for done, features in enumerate(columns.values(), start=1):
            began = time.perf_counter()
            hits.append(distributed.by_first(partial(_hits, features, sample)))
            progress(done, len(columns))
        seconds = time.perf_counter() - began
    channels = [features.shape[1] for features in columns.values()]
    return probe_stages(tuple(columns), channels, hits, seed=sample.seed), hits[-1], seconds


def _hits(features: torch.Tensor, sample: Sample) -> np.ndarray:
    """bool (N,): which pictures a probe of the other folds recognises.

    The only picture of a class counts as not recognised.
    """
    several = torch.bincount(sample.labels, minlength=sample.classes) > 1
    judged = several[sample.labels]
    hits = np.zeros(len(judged), dtype=bool)
    if (count := int(several.sum())) > 1:
        kept = (several.cumsum(0) - 1)[sample.labels[judged]]
        probe = fit_probe(
            features[judged], kept, count, seed=sample.seed, strengths=STAGE_STRENGTHS, folds=_FOLDS
        )
        assert probe.held_out is not None, "every class has two pictures, so there are folds"
        hits[judged.numpy()] = (probe.held_out.argmax(1) == kept).numpy()
    return hits


def probe_hits(source: Classifier, sample: Sample) -> np.ndarray:
    """bool (N,): which pictures of the sample a probe of what the head sees recognises, out of fold."""
    with sample.reporter.task(f"{source.backbone} at {source.input.size[0]} pixels") as progress:
        pooled = extract(
            source,
            sample.files,
            sample.hashes,
            precision=sample.precision,
            on_progress=progress,
        ).targets[POOLED]
    return distributed.by_first(lambda: _hits(pooled, sample))


def _control(source: Classifier, sample: Sample) -> StageProbe:
    """The probe of what the head sees in the same architecture with seeded random weights."""
    random = load_backbone(
        source.backbone, weights="random", seed=_CONTROL_SEED, size=source.input.size
    )
    random = random.to(source.device)
    with sample.reporter.task(f"{source.backbone}: the control, random weights") as progress:
        found = extract(
            random, sample.files, sample.hashes, precision=sample.precision, on_progress=progress
        )
        pooled = found.targets[POOLED]
        hits = _hits(pooled, sample)
    return probe_stages(("random weights",), (pooled.shape[1],), (hits,))[0]


# ---------------------------------------------------------------------------- time


def _predicted(speed: Speed, sample: Sample, probe_seconds: float) -> dict[str, float]:
    """Seconds that `tune` will take by strategy, with its default recipe, all its epochs run.

    The features that were computed here are in the cache by then.
    """
    train, judged = sample.whole, sample.judged
    probe = (train - len(sample.files) + judged) * speed.features
    probe += probe_seconds * train / len(sample.files)
    seconds = {"probe": probe} | {
        name: probe
        + tuning_seconds(
            speed, choose_recipe(name, {}), train=train, validation=judged, whole=name == "full"
        )
        for name in ("partial", "full")
    }
    return {name: round(value, 2) for name, value in seconds.items()}
