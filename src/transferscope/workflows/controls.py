"""Control transfers and retunings of a run: its own recipe on shuffled labels, or from other seeds."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from transferscope.acceleration.precision import find_device
from transferscope.backbones.classifier import Classifier
from transferscope.data.scan import Picture
from transferscope.errors import DataError, RunError, WeightsError
from transferscope.files import locked, read_tensors, sha256_json, write_tensors
from transferscope.training.config import Config, HeadName, TuneOptions
from transferscope.training.rerun import rerun
from transferscope.workflows.candidates import (
    Features,
    Job,
    fit_base,
    headed,
    loop_parts,
    random_start,
    read_features,
)
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, labels_of

FORMAT = "transferscope-tail-1"

Kind = Literal["control", "retuning"]

_ATTEMPTS = 100  # at a shuffling of groups that leaves every class a picture


@dataclass(frozen=True)
class TailFile:
    """What a control transfer or a retuning of a run has left: all weights behind the boundary.

    Attributes:
        file: RUN/controls/control-NNN.safetensors, or retuning-NNN.
        kind: `control`, from shuffled training labels; `retuning`, from the true ones.
        number: 0, 1, ... within its kind.
        seed: of the shuffling, the probe's folds, the order of pictures, dropout and mixing.
    """

    file: Path
    kind: Kind
    number: int
    seed: int


def control_tails(
    run: Run, count: int, *, device: str | None = None, reporter: Reporter = SILENT
) -> tuple[TailFile, ...]:
    """The first `count` control transfers of a run; those that are not there yet are made.

    A control is what the run's recipe makes of pictures whose labels mean nothing. Only the training
    labels differ, shuffled within the training split. The probe that it starts from is fitted to the
    shuffled labels, and its pictures come from the run's boundary cache. What the run chose on
    validation is not chosen again: learning rate, head and depth, the epoch and the share of the tuned
    weights are the run's. A control that chose its epoch on true labels would end where it started.

    Args:
        run: a finished run, strategy partial, full or scratch.
        count: how many; numbers 0 to count - 1.
        device: cpu, cuda, mps; None: the best there is.
        reporter: hears of the progress.

    Raises:
        RunError: tuning left the backbone as it was, so there is nothing to be controlled; or another
            process is at work on these files.
        DataError: pictures have changed or gone, or too few groups to shuffle.

    Reference: the permutation test (Fisher 1935), of a whole procedure.
    """
    return _tails(run, "control", count, device, reporter)


def retunings(
    run: Run, count: int, *, device: str | None = None, reporter: Reporter = SILENT
) -> tuple[TailFile, ...]:
    """The run tuned again from other seeds, on its true labels: how reproducible a change is.

    Arguments and errors are those of `control_tails`, and so are the epoch and the share. The split and
    the augmented views are the run's: they come from its cache.
    """
    return _tails(run, "retuning", count, device, reporter)


def tails_left(run: Run, kind: Kind, count: int) -> int:
    """How many of the first `count` controls or retunings are still to be made."""
    end = _End.of(run)
    tails = _tail_files(run, kind, count)
    return sum(not _is_there(t, _identity(run, t, _labels(run, t), end)) for t in tails)


def load_tail(run: Run, tail: TailFile) -> Classifier:
    """A control or retuning as a classifier, in eval mode.

    Its parameters and buffers below the boundary are those of `run.classifier`, the same memory: many
    controls take little more than their tails. Its temperature is 1.

    Raises:
        WeightsError: the file is damaged, or does not fit the run's network.
    """
    tensors, _ = read_tensors(tail.file)
    tuned = run.classifier
    own = dict(tuned.network.named_parameters()) | dict(tuned.network.named_buffers())
    wrong = [n for n, t in tensors.items() if n not in own or own[n].shape != t.shape]
    if wrong:
        raise WeightsError(
            f"{str(tail.file)!r} does not fit the network of {str(run.path)!r}: {wrong[0]!r} is of another "
            "shape or not in it; remove the file to have it made again"
        )
    shared = {id(tensor): tensor for name, tensor in own.items() if name not in tensors}
    network = copy.deepcopy(tuned.network, shared).eval()
    places = dict(network.named_parameters()) | dict(network.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors.items():
            places[name].copy_(tensor)
    return Classifier(network, tuned.input, tuned.classes, backbone=tuned.backbone, head=tuned.head)


def shuffled_labels(pictures: Sequence[Picture], seed: int) -> torch.Tensor:
    """Labels int64 (N,) of other pictures, by a permutation of whole groups.

    A group is given the labels of one other group, as often as it needs them. Pictures without a group
    are groups of one: where none has any, every class keeps its number of pictures.

    Args:
        pictures: N, with labels.
        seed: of the permutation.

    Raises:
        DataError: fewer than two groups, or no shuffling found that leaves every class a picture.

    Reference: Winkler et al. 2015, whole-block exchangeability.
    """
    members: dict[object, list[int]] = {}
    for place, picture in enumerate(pictures):
        members.setdefault(picture.group or place, []).append(place)
    groups, labels = list(members.values()), labels_of(pictures)
    if len(groups) < 2:
        raise DataError(
            "all training pictures are of one group, so their labels cannot be shuffled; a control needs "
            "two groups or more"
        )
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        shuffled = torch.empty_like(labels)
        for own, other in zip(groups, rng.permutation(len(groups)), strict=True):
            given = rng.permutation(labels[groups[other]].numpy())
            shuffled[own] = torch.from_numpy(np.resize(given, len(own)))
        if len(shuffled.unique()) == len(labels.unique()):
            return shuffled
    raise DataError(
        f"no shuffling of {len(groups)} groups leaves every class a training picture; a control needs "
        "more groups of the rarest class"
    )


# ---------------------------------------------------------------------------- making them


@dataclass(frozen=True)
class _End:
    """Where the run's own fit ended: its epoch, and the share of the tuned weights in its own."""

    epoch: int
    share: float

    @classmethod
    def of(cls, run: Run) -> _End:
        """Refuses a run whose backbone is the pretrained one."""
        strategy = run.results["strategy"]
        epoch = next(int(row["epoch"]) for row in run.history if row["best"] == "1")
        if strategy == "probe" or not epoch:
            why = "its strategy is probe" if strategy == "probe" else "its best epoch is the start"
            raise RunError(
                f"{str(run.path)!r} has the backbone's weights as they were ({why}), so nothing was learned "
                "that a control could be held against; tune with --strategy partial"
            )
        return cls(epoch, float(run.results["share"]))


def _tails(
    run: Run, kind: Kind, count: int, device: str | None, reporter: Reporter
) -> tuple[TailFile, ...]:
    end, tails = _End.of(run), _tail_files(run, kind, count)
    labels = [_labels(run, tail) for tail in tails]
    identities = [_identity(run, *one, end) for one in zip(tails, labels, strict=True)]
    missing = [n for n in range(count) if not _is_there(tails[n], identities[n])]
    if missing:
        with locked(run.path / "controls"):
            job = _job(run, device, reporter)
            features = read_features(job, run.split)
            for number in missing:
                _make(run, job, features, tails[number], labels[number], end, identities[number])
    return tuple(tails)


def _tail_files(run: Run, kind: Kind, count: int) -> list[TailFile]:
    folder = run.path / "controls"
    return [
        TailFile(folder / f"{kind}-{n:03d}.safetensors", kind, n, _seed(run, kind, n))
        for n in range(count)
    ]


def _seed(run: Run, kind: Kind, number: int) -> int:
    """Of a tail; none of them is the run's own."""
    return int(sha256_json(["transferscope", kind, run.config.seed, number])[:8], 16)


def _labels(run: Run, tail: TailFile) -> torch.Tensor:
    pictures = run.split.part("train")
    return shuffled_labels(pictures, tail.seed) if tail.kind == "control" else labels_of(pictures)


def _identity(run: Run, tail: TailFile, labels: torch.Tensor, end: _End) -> dict[str, Any]:
    """All that a tail depends on: the metadata of its file."""
    pictures = [(p.sha256, p.split) for p in run.split.scan.pictures if p.split != "test"]
    return {
        "format": FORMAT,
        "kind": tail.kind,
        "number": tail.number,
        "seed": tail.seed,
        "labels": sha256_json(labels.tolist()),
        "pictures": sha256_json(pictures),
        "recipe": sha256_json(asdict(run.recipe)),
        "head": _head(run),
        "boundary": run.results["boundary"],
        "body": run.record["body_hash"],
        **asdict(end),
    }


def _is_there(tail: TailFile, identity: dict[str, Any]) -> bool:
    try:
        _, metadata = read_tensors(tail.file)
    except WeightsError:  # not there, or damaged: it is made again
        return False
    return all(metadata.get(name) == value for name, value in identity.items())


def _head(run: Run) -> HeadName:
    """The head's kind: what a search has chosen, or what was asked for."""
    found: HeadName = run.results.get("settings", {}).get("head", run.config.head)
    return found


def _job(run: Run, device: str | None, reporter: Reporter) -> Job:
    """The run's tuning as it was resolved: with what a search, a rate test or an advice has settled."""
    stored = {field.name: getattr(run.config, field.name) for field in fields(Config)}
    settled = {
        "strategy": run.results["strategy"],
        "head": _head(run),
        "recipe": run.recipe,
        "search": 0,
        "find_rate": False,
    }
    options = TuneOptions(**{**stored, **settled}, out=run.path)
    return Job(options, run.base.to(find_device(device)), reporter)


def _make(
    run: Run,
    job: Job,
    features: Features,
    tail: TailFile,
    labels: torch.Tensor,
    end: _End,
    identity: dict[str, Any],
) -> None:
    """Tunes one tail and saves it; its heads and checkpoints are removed when the tail is whole."""
    checkpoints = tail.file.with_suffix(
        ""
    )  # where its own heads are kept, and no other's are found
    job = replace(job, options=replace(job.options, seed=tail.seed, out=checkpoints))
    features = replace(features, train=replace(features.train, labels=labels))
    boundary, recipe = run.results["boundary"], run.recipe
    if job.options.strategy == "scratch":
        start = random_start(job, features)
    else:
        # Heads are fitted, and their epochs chosen, on the labels of the tail: true labels choose nothing.
        alone = replace(features, validation=features.train)
        start = headed(job, alone, fit_base(job, alone), job.options.head)[0]
    train, _ = loop_parts(
        job, features, start, boundary, recipe
    )  # the run's seed: its cached views
    with job.reporter.task(f"{tail.kind} {tail.number + 1}") as progress:
        weights = rerun(
            start,
            boundary,
            train,
            recipe=replace(recipe, seed=tail.seed),
            epoch=end.epoch,
            share=end.share,
            precision=job.options.precision,
            checkpoints=checkpoints,
            on_step=progress,
        )
    write_tensors(tail.file, weights, identity)
    shutil.rmtree(checkpoints, ignore_errors=True)
