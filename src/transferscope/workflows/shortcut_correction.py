"""`shortcuts --correct`: a run that no longer follows the cues that raised an alarm."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, OutputError
from transferscope.evaluation.calibration import fit_temperature
from transferscope.evaluation.intervals import wilson_interval
from transferscope.evaluation.predictions import Predictions
from transferscope.explain.shortcut_records import By, Candidate, Correction, Shortcuts, Standing
from transferscope.explain.transplants import answers, quick, reweighted_head, without_directions
from transferscope.features.extraction import POOLED, extract
from transferscope.files import read_json, write_json
from transferscope.training.fit import calibrated_loss, loss_and_top1
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, refuse_inside
from transferscope.workflows.shortcut_retuning import retuned
from transferscope.workflows.shortcuts import (
    Pictures,
    found_shortcuts,
    given,
    keep_result,
    part_of,
    spread,
)

JUDGED = 96
"""Test pictures, at most, of each group whose cue is changed."""

FITTED = 192
"""Training pictures, at most, that an alarm's cue is given to or taken from, where the head is fitted anew."""

PULL = 1e-3
"""Of a head that is fitted anew, towards what it was."""

_KEPT = ("split.csv", "history.csv", "history.svg", "base_head.safetensors")

Head = tuple[torch.Tensor, torch.Tensor]


def correct_shortcuts(
    run: Run,
    out: str | Path,
    *,
    by: By = "direction",
    data: str | Path | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Shortcuts:
    """Writes a run that does not follow the cues that raise an alarm.

    Args:
        run: a finished one with a linear head.
        out: a new folder for the corrected run.
        by: `direction`: the cues' directions are projected out of the head, without training. `last-layer`:
            the head is fitted anew on training pictures, also with the cues given to other classes and
            taken from their own, every group weighing as much as another. `retune`: the whole is tuned
            again by the run's own settings, on pictures whose cues are exchanged at random.
        data: where the run's pictures are, if they are no longer where they were.
        seed: of the pictures drawn.
        reporter: hears of the progress.

    Returns:
        What `shortcuts` finds of `run`, with `corrected`.

    Raises:
        InputError: nothing raises an alarm, `out` lies in the pictures' folder, or the head is not linear.
        OutputError: `out` exists.

    Reference: Neuhaus et al. 2023 (SpuFix) for correction without training; Kirichenko et al. 2022 (DFR) and
    Qiu et al. 2023 (AFR) for the last layer.
    """
    out = Path(out)
    refuse_inside(out, run.root)
    if out.exists():
        raise OutputError(f"{str(out)!r} exists; give --out a new folder")
    found = found_shortcuts(run, data=data, seed=seed, reporter=reporter)
    alarms = found.result.alarms
    if not alarms:
        raise InputError(
            f"nothing raises an alarm in {str(run.path)!r}, so there is nothing to correct; "
            f"'transferscope shortcuts {shlex.quote(str(run.path))}' shows what was asked"
        )
    classifier = run.classifier
    sets = {name: Pictures.of(run, name, data) for name in ("train", "validation", "test")}
    judged = _groups(classifier, alarms, sets, seed, reporter)
    before = _head_of(classifier)
    standings = _standings(judged, before)
    if by == "retune":
        corrected = retuned(run, alarms, sets, out, seed=seed, reporter=reporter).classifier
        again = _groups(corrected, alarms, sets, seed, reporter)
        correction = _correction(out, by, standings, _standings(again, _head_of(corrected)))
        _note(run, out / "run.json", read_json(out / "run.json"), correction)
    else:
        after = (
            without_directions(*before, found.directions[: len(alarms)], found.mean)
            if by == "direction"
            else _fitted(classifier, alarms, sets["train"], before, seed, reporter)
        )
        correction = _correction(out, by, standings, _standings(judged, after))
        _write(run, out, after, sets["validation"], correction)
    result = replace(found.result, corrected=correction)
    keep_result(run, result)
    return result


def _correction(
    out: Path, by: By, before: dict[str, Standing], after: dict[str, Standing]
) -> Correction:
    return Correction(
        run=str(out),
        by=by,
        before=before,
        after=after,
        worst_before=min(before, key=lambda name: before[name].accuracy),
        worst_after=min(after, key=lambda name: after[name].accuracy),
    )


def _standings(groups: Mapping[str, _Group], head: Head) -> dict[str, Standing]:
    return {name: _standing(one, head) for name, one in groups.items()}


def _note(run: Run, file: Path, record: dict[str, Any], correction: Correction) -> None:
    """Writes run.json with what was corrected, and from which run."""
    record["results"] |= {"corrected": {"from": str(run.path.resolve()), **correction.to_dict()}}
    write_json(file, record)


def _head_of(classifier: Classifier) -> Head:
    head = classifier.head_layer
    assert isinstance(head, nn.Linear)  # found_shortcuts has refused others
    weight = head.weight.detach().float().cpu()
    bias = torch.zeros(len(weight)) if head.bias is None else head.bias.detach().float().cpu()
    return weight, bias


@dataclass(frozen=True, eq=False)
class _Group:
    """Pooled features (N, D) and labels int64 (N,) of some pictures."""

    features: torch.Tensor
    labels: np.ndarray


def _pooled(classifier: Classifier, pictures: Pictures) -> torch.Tensor:
    hashes = [one.sha256 for one in pictures.listed]
    return extract(classifier, pictures.files, hashes).targets[POOLED]


def _standing(group: _Group, head: Head) -> Standing:
    said = (group.features @ head[0].T + head[1]).argmax(1).numpy()
    right, n = int((said == group.labels).sum()), len(said)
    return Standing(n, right / n, *wilson_interval(right, n))


def _moved(
    classifier: Classifier,
    one: Candidate,
    donors: Pictures,
    pictures: Pictures,
    most: int,
    rng: np.random.Generator,
) -> tuple[_Group, _Group]:
    """Other classes' pictures with the cue, and the class's pictures without it."""
    label, network = classifier.classes.index(one.label), quick(classifier)
    part = part_of(classifier, one.kind, one.places)
    found = []
    for own in (False, True):
        places = spread(pictures, label, own, most, rng)
        moved = given(classifier, label, part, donors, pictures, places, rng)
        features = answers(network, moved.control if own else moved.cue)[1]
        found.append(_Group(features, pictures.labels[places]))
    return found[0], found[1]


def _groups(
    classifier: Classifier,
    alarms: tuple[Candidate, ...],
    sets: Mapping[str, Pictures],
    seed: int,
    reporter: Reporter,
) -> dict[str, _Group]:
    """All test pictures, and for each alarm those whose cue was changed."""
    test = sets["test"]
    found = {"test": _Group(_pooled(classifier, test), test.labels)}
    with reporter.task("pictures with their cues changed") as progress:
        for done, one in enumerate(alarms, start=1):
            rng = np.random.default_rng((seed, done))
            others, own = _moved(classifier, one, sets["train"], test, JUDGED, rng)
            found[f"other classes with {one.cue} of {one.label}"] = others
            found[f"{one.label} without {one.cue}"] = own
            progress(done, len(alarms))
    return found


def _fitted(
    classifier: Classifier,
    alarms: tuple[Candidate, ...],
    train: Pictures,
    start: Head,
    seed: int,
    reporter: Reporter,
) -> Head:
    """The head fitted anew on the training pictures and on those whose cues were changed."""
    groups = [_Group(_pooled(classifier, train), train.labels)]
    with reporter.task("training pictures with their cues changed") as progress:
        for done, one in enumerate(alarms, start=1):
            rng = np.random.default_rng((seed, done, 1))
            groups += _moved(classifier, one, train, train, FITTED, rng)
            progress(done, len(alarms))
    weights = np.concatenate([np.full(len(one.labels), 1 / len(one.labels)) for one in groups])
    return reweighted_head(
        torch.cat([one.features for one in groups]),
        np.concatenate([one.labels for one in groups]),
        weights,
        start,
        strength=PULL,
    )


def _write(run: Run, out: Path, head: Head, validation: Pictures, correction: Correction) -> None:
    """The corrected run's folder, run.json last."""
    classifier = run.classifier.with_head(*head, run.classifier.classes)
    logits = _pooled(run.classifier, validation) @ head[0].T + head[1]
    labels = torch.from_numpy(validation.labels)
    classifier.temperature = fit_temperature(logits, labels)
    loss, top1 = loss_and_top1(logits, labels)
    out.mkdir(parents=True)
    for name in _KEPT:
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, out / name)
    names = tuple(one.path for one in validation.listed)
    Predictions(names, labels, logits, classifier.classes, classifier.temperature).save(
        out / "evaluation" / "validation"
    )
    classifier.save(out / "classifier.safetensors")
    record: dict[str, Any] = read_json(run.path / "run.json")
    measured = {"top1": top1, "loss": loss, "calibrated_loss": calibrated_loss(logits, labels)}
    record["results"] |= {
        "temperature": classifier.temperature,
        "validation": {**measured, "n": len(labels)},
    }
    for name in (
        "root_from_run",
        "weights_from_run",
    ):  # they are true of the run's own folder alone
        record.pop(name, None)
    _note(run, out / "run.json", record, correction)
