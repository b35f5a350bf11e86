"""The pictures of an atlas that have pages of their own, with what the run knows of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from transferscope.adversarial.budgets import epsilon_said
from transferscope.errors import PictureError, RunError, WeightsError
from transferscope.evaluation.answers import Guess, Prediction
from transferscope.evaluation.known_pictures import FILE, KnownPictures
from transferscope.evaluation.picture_choice import chosen_pictures
from transferscope.evaluation.predictions import Predictions
from transferscope.explain.records import Verdicts
from transferscope.files import hash_tensors, read_json, sha256_file
from transferscope.report.pages.content import (
    KeptAttack,
    KeptExplanation,
    PictureMaps,
    ShownPicture,
    ShownPictures,
)
from transferscope.wording import percent
from transferscope.workflows.attack import RECORD
from transferscope.workflows.picture_maps import Asked, kept_maps, made_maps
from transferscope.workflows.predict import predict
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import Run

ATTACKS = "attacks"
"""The folder of a run in which attacks are looked for."""

_TOP = 3  # classes that are named of every answer
_NORMS = {"linf": "of any value", "l2": "in length"}
_SAME = 0.01  # probabilities of one network on one picture differ by less


def shown_pictures(
    run: Run,
    predictions: Predictions | None,
    *,
    split: str,
    explanations: Sequence[KeptExplanation],
    verdicts: Verdicts | None,
    reporter: Reporter,
) -> ShownPictures | None:
    """Pictures of an evaluation that are shown one by one; None without predictions.

    Nothing is made but maps, within `picture_maps.SECONDS`, and a forward pass of each picture.

    Args:
        run: whose networks are unchanged.
        predictions: of the tuned network.
        split: that they are of.
        explanations: that the run has kept.
        verdicts: on methods of attribution.
        reporter: hears of the progress.
    """
    if predictions is None or not predictions.paths:
        return None
    hashes = {one.path: one.sha256 for one in run.split.part(split)}
    kept = {one.maps[0].sha256: one for one in explanations}
    attacks = _attacks(run.path / ATTACKS)
    first = [path for path, digest in hashes.items() if digest in kept or digest in attacks]
    rows = chosen_pictures(predictions, first=first)
    paths = [predictions.paths[row] for row, _ in rows]
    there = {
        path: run.root / path for path in paths if _is_there(run.root / path, hashes.get(path))
    }
    said = _said(run, there)
    own = {
        path: maps
        for path in there
        if hashes[path] in kept and (maps := kept_maps(kept[hashes[path]], verdicts))
    }
    asked = [
        Asked(path, there[path], hashes[path], predictions.classes[int(predictions.predicted[row])])
        for (row, _), path in zip(rows, paths, strict=True)
        if path in there and path not in own
    ]
    made, why = made_maps(run, asked, verdicts, reporter)
    before = _before(run, predictions)
    pictures = tuple(
        _picture(
            ShownPicture(
                path,
                predictions.classes[int(predictions.labels[row])],
                reason,
                _guesses(before, row) if before is not None else (),
                _guesses(predictions, row),
            ),
            said.get(path),
            own.get(path) or made.get(path),
            kept.get(hashes.get(path, "")),
            attacks.get(hashes.get(path, ""), ()),
        )
        for (row, reason), path in zip(rows, paths, strict=True)
    )
    return ShownPictures(pictures, len(predictions.paths), split, why)


def _picture(
    one: ShownPicture,
    said: Prediction | None,
    maps: PictureMaps | None,
    kept: KeptExplanation | None,
    attacks: Sequence[KeptAttack],
) -> ShownPicture:
    """The same with all that is known of it beside the answers."""
    best = one.after[0]
    own = tuple(
        attack
        for attack in attacks
        if attack.source == best.name and abs(attack.source_probability - best.probability) < _SAME
    )
    return replace(
        one,
        known=said.known if said else None,
        familiarity=said.familiarity if said else None,
        nearest=said.nearest if said else (),
        maps=maps,
        units=kept.units if kept else None,
        attacks=own,
    )


def _is_there(file: Path, digest: str | None) -> bool:
    """Whether a file is still the picture that was evaluated."""
    try:
        return sha256_file(file) == digest
    except OSError:
        return False


def _before(run: Run, predictions: Predictions) -> Predictions | None:
    """The answers of the untuned network with its probe to the same pictures."""
    with suppress(WeightsError, RunError):
        found = Predictions.load(run.path / "evaluation" / "base")
        if found.paths == predictions.paths and found.classes == predictions.classes:
            return found
    return None


def _guesses(predictions: Predictions, row: int) -> tuple[Guess, ...]:
    """The most probable classes, and the picture's own if it is not among them."""
    chances = torch.softmax(predictions.logits[row] / predictions.temperature, dim=-1)
    places = chances.topk(min(_TOP, len(chances))).indices.tolist()
    label = int(predictions.labels[row])
    shown = places if label in places else [*places, label]
    return tuple(Guess(predictions.classes[at], float(chances[at])) for at in shown)


def _said(run: Run, there: Mapping[str, Path]) -> dict[str, Prediction]:
    """Known or not, and the nearest training pictures, where the run has kept what that takes."""
    with suppress(WeightsError, RunError):
        known = KnownPictures.load(run.path / FILE)
        if there and known.weights == hash_tensors(run.classifier.network.state_dict()):
            answers = predict(run.classifier, list(there.values()), known=known)
            return dict(zip(there, answers, strict=True))
    return {}


def _attacks(home: Path) -> dict[str, list[KeptAttack]]:
    """By hash of the picture that was attacked; what cannot be read is passed over."""
    found: dict[str, list[KeptAttack]] = {}
    for file in sorted(home.rglob(RECORD)):
        with suppress(RunError, PictureError, OSError, KeyError, TypeError, ValueError):
            told = read_json(file)
            for name in ("original.png", "adversarial.png"):
                Image.open(file.parent / name).close()
            noise = told["noise"]
            one = KeptAttack(
                folder=file.parent,
                source=told["from"],
                source_probability=told["from_probability"],
                target=told["to"],
                probability=told["probability"],
                budget=f"{epsilon_said(told['epsilon'], told['norm'])} {_NORMS[told['norm']]}",
                method=told["method"],
                noise=f"{noise['class']} {percent(noise['probability'])}",
            )
            found.setdefault(told["picture"], []).append(one)
    return found
