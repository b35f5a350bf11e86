"""`shortcuts`: cues that a tuned network follows in place of the object."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from torch import nn

from transferscope.activations import capture, layers
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.data.cue_accuracy import CueFinding, cue_findings
from transferscope.data.cues import CueCollector, CueTable, cue_words, cues_of
from transferscope.data.loading import in_order
from transferscope.data.scan import MEASURED_SIDE, Picture
from transferscope.errors import InputError, OutputError, RunError
from transferscope.explain.shortcut_records import Candidate, Shortcuts
from transferscope.explain.transplants import Part, answers, border_part, patch_part, quick, shift
from transferscope.features.extraction import POOLED, extract
from transferscope.files import (
    hash_tensors,
    is_writable,
    read_json,
    read_tensors,
    sha256_bytes,
    write_json,
    write_tensors,
)
from transferscope.images import as_float, read_with_facts
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, files_of, labels_of

FOLDER, RECORD, TENSORS = "shortcuts", "shortcuts.json", "directions.safetensors"

SPLIT = "validation"
"""Whose pictures are asked: they carry what the set carries, and no weight was fitted to them."""

GIVEN, TAKEN = 40, 24
"""Pictures, at most, that a cue is given to, and that it is taken from."""

LEAST_TOLD = 0.55
"""Balanced accuracy, by its interval's lower end, from which a cue of a class is moved."""

MOST_CANDIDATES = 60
"""Cues that are moved, at most: those that tell their class best."""

EXEMPLARS = 12
"""Training pictures shown of a direction."""

_KINDS = ("patch", "border", "colour")
_VERSION = 2


@dataclass(frozen=True, eq=False)
class Found:
    """What was found, and what a correction needs.

    Attributes:
        result: to be shown.
        directions: (M, D), of all candidates in their order: the mean change of the pooled features.
        mean: (D,), mean pooled features of the pictures that other cues were given to.
    """

    result: Shortcuts
    directions: torch.Tensor
    mean: torch.Tensor


def shortcuts(
    run: Run,
    *,
    data: str | Path | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Shortcuts:
    """Which cues the tuned network follows in place of the object.

    Cues that tell a class by themselves (fixed patches, the border, colours; `inspect`) are moved between
    held-out pictures, and the predictions must follow them. With the same weights and pictures the result is
    read, not measured again.

    Args:
        run: a finished one, with a linear head.
        data: where the run's pictures are, if they are no longer where they were.
        seed: of the pictures drawn.
        reporter: hears of the progress.

    Raises:
        InputError: a head that is not linear.
        DataError: the pictures are gone, or were changed.
        OutputError: the run folder cannot be written.
    """
    return found_shortcuts(run, data=data, seed=seed, reporter=reporter).result


def found_shortcuts(
    run: Run, *, data: str | Path | None = None, seed: int = 0, reporter: Reporter = SILENT
) -> Found:
    """`shortcuts` with the directions; for its arguments and errors see there."""
    folder = run.path / FOLDER
    if not is_writable(folder):
        raise OutputError(f"{str(folder)!r} cannot be written; make it writable, or copy the run")
    if not isinstance(run.classifier.head_layer, nn.Linear):
        raise InputError(
            "the head is an MLP, in which a cue has no single direction; tune with '--head linear'"
        )
    key = _key(run, seed)
    kept = _kept(folder, key)
    if kept is None:
        kept = _measured(run, data, seed, reporter)
        tensors = {"directions": kept.directions, "mean": kept.mean}
        write_tensors(folder / TENSORS, tensors, {"key": key})
        write_json(folder / RECORD, {"key": key, "result": kept.result.to_dict()})
    else:
        reporter.say(f"read from {str(folder / RECORD)!r}: the same weights and pictures")
    return kept


def kept_shortcuts(run: Path) -> Shortcuts | None:
    """What was found of a run last; None where there is nothing that can be read."""
    with suppress(RunError, KeyError, TypeError):
        if (run / FOLDER / RECORD).is_file():
            return Shortcuts.from_dict(read_json(run / FOLDER / RECORD)["result"])
    return None


def keep_result(run: Run, result: Shortcuts) -> None:
    """Writes a result that has been added to in place of the one before."""
    file = run.path / FOLDER / RECORD
    write_json(file, read_json(file) | {"result": result.to_dict()})


def _key(run: Run, seed: int) -> str:
    weights = hash_tensors(dict(run.classifier.network.state_dict()))
    shown = "".join(f"{one.sha256} {one.label}\n" for one in run.split.scan.pictures)
    return sha256_bytes(f"{_VERSION} {weights} {seed}\n{shown}".encode())


def _kept(folder: Path, key: str) -> Found | None:
    with suppress(RunError, KeyError, TypeError):
        if (folder / RECORD).is_file() and (folder / TENSORS).is_file():
            kept = read_json(folder / RECORD)
            tensors, metadata = read_tensors(folder / TENSORS)
            if kept["key"] == metadata["key"] == key:
                result = Shortcuts.from_dict(kept["result"])
                return Found(result, tensors["directions"], tensors["mean"])
    return None


# ---------------------------------------------------------------------------- which cues


@dataclass(frozen=True, eq=False)
class Pictures:
    """A split's pictures.

    Attributes:
        files, listed: N.
        labels: int64 (N,).
    """

    files: list[Path]
    listed: tuple[Picture, ...]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, run: Run, split: str, data: str | Path | None) -> Pictures:
        """Those of a run."""
        files, listed = files_of(run, split, data)
        return cls(files, listed, labels_of(listed).numpy())

    def loaded(self, classifier: Classifier, places: Sequence[int]) -> torch.Tensor:
        """Some of them as the classifier sees them, float (n, C, H, W)."""
        load = classifier.input.load
        found = list(in_order(load, [self.files[place] for place in places]))
        return as_float(torch.stack(found))


@dataclass(frozen=True, eq=False)
class Suspect:
    """A cue to be moved, of the class with this index."""

    label: int
    finding: CueFinding
    part: Part
    places: tuple[tuple[int, int], ...]


def _table(sets: Sequence[Pictures], reporter: Reporter) -> CueTable:
    """Cues of some splits' pictures."""
    cues = CueCollector()
    pairs = [
        (one, file) for part in sets for one, file in zip(part.listed, part.files, strict=True)
    ]

    def measure(pair: tuple[Picture, Path]) -> None:
        if cues.wants(pair[0].sha256):
            read = read_with_facts(pair[1], least_side=MEASURED_SIDE)
            cues.add(pair[0].path, pair[0].sha256, cues_of(pair[1], *read))

    with reporter.task("cues of the pictures") as progress:
        for done, _ in enumerate(in_order(measure, pairs), start=1):
            progress(done, len(pairs))
    return cues.table()


def suspects(run: Run, sets: Sequence[Pictures], reporter: Reporter) -> list[Suspect]:
    """Of every class the patch, the border and the colours, where they tell it beyond chance."""
    table = _table(sets, reporter)
    label_of = {one.path: one.label for part in sets for one in part.listed}
    labels = np.array([label_of[path] for path in table.paths], dtype=np.int64)
    classes = run.classifier.classes
    found = [one for one in cue_findings(table, labels, classes) if one.label is not None]
    best: dict[tuple[str, str], CueFinding] = {}
    for one in found:
        if (
            one.family in _KINDS
            and one.q <= 0.05
            and one.low >= LEAST_TOLD
            and one.label is not None
        ):
            best.setdefault((one.label, one.family), one)
    chosen = sorted(best.values(), key=lambda one: -one.low)[:MOST_CANDIDATES]
    return [_suspect(one, found, run.classifier) for one in chosen]


def _suspect(one: CueFinding, found: Sequence[CueFinding], classifier: Classifier) -> Suspect:
    label = classifier.classes.index(str(one.label))
    if one.family != "patch":
        return Suspect(label, one, part_of(classifier, one.family, ()), ())
    middle = (one.low + 0.5) / 2
    row, column = _place(one)
    places = tuple(
        sorted(
            place
            for other in found
            if other.family == "patch" and other.label == one.label and other.low >= middle
            for place in [_place(other)]
            if abs(place[0] - row) <= 1 and abs(place[1] - column) <= 1
        )
    )
    return Suspect(label, one, part_of(classifier, one.family, places), places)


def part_of(classifier: Classifier, kind: str, places: tuple[tuple[int, int], ...]) -> Part:
    """What is moved of pictures that this classifier sees."""
    if kind == "patch":
        return patch_part(places, classifier.input)
    return border_part(classifier.input) if kind == "border" else Part("colour", None)


def _place(one: CueFinding) -> tuple[int, int]:
    row, column = one.name.removeprefix("patch ").split("-")
    return int(row), int(column)


# ---------------------------------------------------------------------------- whether predictions follow


def _measured(run: Run, data: str | Path | None, seed: int, reporter: Reporter) -> Found:
    classifier = run.classifier
    train, held = (Pictures.of(run, split, data) for split in ("train", SPLIT))
    asked = suspects(run, (train, held), reporter)
    found: list[tuple[Candidate, torch.Tensor, torch.Tensor]] = []
    pooled = extract(classifier, train.files, [one.sha256 for one in train.listed]).targets[POOLED]
    with reporter.task("moving cues between pictures") as progress:
        network = quick(classifier)
        for done, one in enumerate(asked, start=1):
            rng = np.random.default_rng((seed, one.label))
            found.append(_asked(network, one, train, held, pooled, rng))
            progress(done, len(asked))
    if not found:
        width = pooled.shape[1]
        return Found(Shortcuts((), SPLIT), torch.zeros(0, width), torch.zeros(width))
    q = false_discovery_control([c.given.p for c, _, _ in found])
    judged = [(replace(c, q=float(value)), d, m) for (c, d, m), value in zip(found, q, strict=True)]
    judged.sort(key=lambda one: (not one[0].alarm, -one[0].effect))
    return Found(
        Shortcuts(tuple(one for one, _, _ in judged), SPLIT),
        torch.stack([direction for _, direction, _ in judged]),
        torch.stack([mean for _, _, mean in judged]).mean(0),
    )


@dataclass(frozen=True, eq=False)
class Moved:
    """Pictures with a cue moved, and the same with another picture's, each (N, C, H, W)."""

    cue: torch.Tensor
    control: torch.Tensor


def given(
    classifier: Classifier,
    label: int,
    part: Part,
    donors: Pictures,
    pictures: Pictures,
    places: NDArray[np.int64],
    rng: np.random.Generator,
) -> Moved:
    """A part of a class's donors, and the same part of the other classes', on some pictures."""
    own = np.flatnonzero(donors.labels == label)
    others = np.flatnonzero(donors.labels != label)
    shown = pictures.loaded(classifier, places.tolist())
    from_own = donors.loaded(classifier, rng.choice(own, len(places)).tolist())
    from_others = donors.loaded(classifier, rng.choice(others, len(places)).tolist())
    return Moved(part.moved(shown, from_own), part.moved(shown, from_others))


def spread(
    pictures: Pictures, label: int, own: bool, most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places of at most so many pictures of a class, or of the others, drawn at random."""
    places = np.flatnonzero((pictures.labels == label) == own)
    return np.sort(rng.permutation(places)[:most])


def _asked(
    classifier: Classifier,
    one: Suspect,
    train: Pictures,
    held: Pictures,
    pooled: torch.Tensor,
    rng: np.random.Generator,
) -> tuple[Candidate, torch.Tensor, torch.Tensor]:
    """The candidate with q still 1, its direction, and the mean features without the cue."""

    def moved(own: bool, most: int) -> Moved:
        places = spread(held, one.label, own, most, rng)
        return given(classifier, one.label, one.part, train, held, places, rng)

    others, own = moved(False, GIVEN), moved(True, TAKEN)
    logits, features = answers(classifier, others.cue)
    plain_logits, plain = answers(classifier, others.control)
    kept_logits, kept = answers(classifier, own.cue)
    taken_logits, taken = answers(classifier, own.control)
    warm = classifier.temperature
    towards = shift(logits, plain_logits, one.label, towards=True, temperature=warm)
    away = shift(taken_logits, kept_logits, one.label, towards=False, temperature=warm)
    direction = torch.cat([features - plain, kept - taken]).mean(0)
    head = classifier.head_layer
    assert isinstance(head, nn.Linear)
    weight = head.weight.detach().float().cpu()
    speaks = (weight[one.label] - weight.mean(0)) * direction
    best = (pooled @ direction).argsort(descending=True)[:EXEMPLARS].tolist()
    layer = _last_maps(classifier)
    candidate = Candidate(
        label=classifier.classes[one.label],
        cue=cue_words(one.finding.name, one.finding.family),
        kind=one.part.kind,
        accuracy=one.finding.accuracy,
        places=one.places,
        given=towards,
        taken=away,
        q=1.0,
        layer=layer or classifier.head,
        channel=int(speaks.argmax()),
        pictures=tuple(train.listed[place].path for place in best),
        shared=float(np.mean(train.labels[best] == one.label)),
        heat=_heat(classifier, layer, train.loaded(classifier, best), direction),
    )
    return candidate, direction, plain.mean(0)


def _last_maps(classifier: Classifier) -> str | None:
    """The last layer whose channels are those that the head sees, as maps."""
    width = classifier.head_layer.in_features
    found = [
        one.name
        for one in layers(classifier.network, classifier.example())
        if len(one.output_shape) == 3
        and one.output_shape[0] == width
        and min(one.output_shape[1:]) > 1
    ]
    return found[-1] if found else None


def _heat(
    classifier: Classifier, layer: str | None, pictures: torch.Tensor, direction: torch.Tensor
) -> tuple[tuple[float, ...], ...]:
    """Mean over pictures of a layer's maps along a direction; where it is large, the cue is seen."""
    if layer is None:
        return ()
    network = still(classifier.network)
    with torch.inference_mode(), capture(network, [layer]) as caught:
        network(classifier.input.normalise(pictures.to(classifier.device)))
        maps = caught[layer].float().cpu()
    heat = torch.einsum("nchw,c->hw", maps, direction / direction.norm().clamp(min=1e-12)) / len(
        maps
    )
    return tuple(tuple(round(value, 5) for value in row) for row in heat.tolist())
