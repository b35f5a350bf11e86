"""Which attribution methods deserve belief on a network: checked on its pictures, kept, and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from transferscope.backbones.classifier import Classifier
from transferscope.data.loading import load_batches
from transferscope.errors import InputError, RunError
from transferscope.evaluation.predictions import predict_files
from transferscope.explain.attribution import METHODS
from transferscope.explain.checks import LEAST, check_methods
from transferscope.explain.records import Verdicts
from transferscope.files import hash_tensors, read_json
from transferscope.images import as_float
from transferscope.wording import counted
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, files_of, labels_of

VERDICTS = "verdicts.json"

ENOUGH = 24
"""Recognised pictures that the checks are made on."""

PREFERRED = (
    "grad_cam",
    "layer_cam",
    "integrated_gradients",
    "occlusion",
    "gradient_x_input",
    "smooth_grad",
    "gradient",
    "guided_backprop",
)
"""Methods in the order in which one is taken where none is named: coarse and readable ones first."""


def check_run(
    run: Run,
    classifier: Classifier,
    *,
    methods: Sequence[str] = tuple(METHODS),
    most: int = ENOUGH,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Verdicts:
    """Checks methods on recognised pictures that the run was not fitted on.

    Args:
        run: whose validation pictures are taken and, where too few are recognised, its test pictures.
        classifier: its network, on a device.
        methods: names in `METHODS`; fewer are quicker.
        most: pictures; of fewer than `ENOUGH` the checks settle less.
        seed: of the draw, which is even over classes, and of the checks.
        reporter: hears of the progress.

    Raises:
        InputError: fewer than eight are recognised.
        DataError: a picture is gone, or another one now.
    """
    files: list[Path] = []
    labels: list[str] = []
    parts = []
    for split in ("validation", "test"):
        if len(files) >= most or not run.split.part(split):
            continue
        names, pictures = files_of(run, split, None)
        given = [classifier.classes[label] for label in labels_of(pictures).tolist()]
        right = _recognised(classifier, names, given, most - len(files), seed)
        files += [names[place] for place in right]
        labels += [given[place] for place in right]
        parts.append(f"{len(right)} of its {split} pictures")
    source = f"{' and '.join(parts)}, even over classes"
    return _checked(classifier, files, labels, methods, source, seed, reporter)


def check_pictures(
    classifier: Classifier,
    files: Sequence[str | Path],
    *,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Verdicts:
    """Checks every method on given pictures.

    A picture in a folder called like a class is taken for one of it; otherwise its class is the one that the
    network answers, and the maps of that answer are checked.

    Raises:
        InputError: fewer than eight are recognised.
        PictureError: a file that cannot be read.
    """
    logits = predict_files(classifier, [Path(file) for file in files])
    answers = [classifier.classes[int(place)] for place in logits.argmax(1)]
    folders = [Path(file).resolve().parent.name for file in files]
    known = [name in classifier.classes for name in folders]
    labels = [f if k else a for f, k, a in zip(folders, known, answers, strict=True)]
    named = f"labelled by their folders ({sum(known)}) or by the network's own answer"
    source = f"{counted(len(files), 'picture')} given, {named}"
    paths = [Path(file) for file in files]
    return _checked(classifier, paths, labels, tuple(METHODS), source, seed, reporter)


def _checked(
    classifier: Classifier,
    files: Sequence[Path],
    labels: Sequence[str],
    methods: Sequence[str],
    source: str,
    seed: int,
    reporter: Reporter,
) -> Verdicts:
    if len(files) < LEAST:
        raise InputError(
            f"{counted(len(files), 'recognised picture')} cannot tell which methods deserve belief; the checks "
            f"need at least {LEAST}, better {ENOUGH}: give more pictures that the network recognises"
        )
    (batch,) = load_batches(files, classifier.input, batch_size=len(files))
    with reporter.task("checking methods") as progress:
        found = check_methods(
            classifier, as_float(batch), labels, methods=methods, seed=seed, on_progress=progress
        )
    return Verdicts(network_hash(classifier), found[0].n, source, seed, found)


def _recognised(
    classifier: Classifier, files: Sequence[Path], labels: Sequence[str], count: int, seed: int
) -> list[int]:
    """Places of recognised pictures, taken from the classes in turn, each class in a seeded order."""
    logits = predict_files(classifier, list(files))
    right = [
        place
        for place, answer in enumerate(logits.argmax(1).tolist())
        if classifier.classes[answer] == labels[place]
    ]
    shuffled = np.random.default_rng(seed).permutation(right).tolist()
    by_class: dict[str, list[int]] = {name: [] for name in classifier.classes}
    for place in shuffled:
        by_class[labels[place]].append(place)
    chosen: list[int] = []
    turn = 0
    while len(chosen) < min(count, len(right)):
        chosen += [places[turn] for places in by_class.values() if len(places) > turn]
        turn += 1
    return chosen[:count]


def network_hash(classifier: Classifier) -> str:
    """Digest of every weight, by which verdicts are known to be of this network."""
    return hash_tensors(classifier.network.state_dict())


def kept_verdicts(folder: Path, classifier: Classifier) -> Verdicts | None:
    """What was kept in a folder of this network; None: nothing, or of another network or version."""
    if not (folder / VERDICTS).is_file():
        return None
    try:
        found = Verdicts.from_dict(read_json(folder / VERDICTS))
    except RunError:
        return None
    return found if found.network == network_hash(classifier) else None


def methods_to_draw(asked: Sequence[str], verdicts: Verdicts | None) -> tuple[str, ...]:
    """The methods asked for; where none is, one that deserves belief.

    Raises:
        InputError: none is asked for, and none passed or was left open by the checks.
    """
    if asked:
        return tuple(dict.fromkeys(asked))
    if verdicts is None:
        return PREFERRED[:1]
    by: Mapping[str, bool | None] = {one.method: one.passed for one in verdicts.methods}
    for wanted in (True, None):
        for name in PREFERRED:
            if name in by and by[name] is wanted:
                return (name,)
    raise InputError(
        "no method passed the checks on this network, so none is drawn by itself; name one with --method "
        f"to see its map all the same, marked ({', '.join(METHODS)})"
    )


def verdict_words(verdicts: Verdicts | None, method: str) -> tuple[bool | None, str]:
    """Whether a method passed, and what stands under its maps."""
    found = verdicts.of(method) if verdicts is not None else None
    if found is None:
        return None, "Not checked on this network: 'transferscope explain MODEL --check' does."
    if found.refused is not None:
        return False, f"failed the check: {found.refused}"
    reasons = {
        outcome: "; ".join(one.said for one in found.checks if one.passed is outcome)
        for outcome in (False, None)
    }
    if found.passed is False:
        return False, f"failed the check: {reasons[False]}"
    if found.passed is None:
        return None, f"Not settled by {found.n} pictures: {reasons[None]}"
    return True, f"Passed every check on {found.n} pictures of this network."
