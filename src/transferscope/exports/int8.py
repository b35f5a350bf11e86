"""The ONNX file in int8: quantized on validation pictures, and kept only if it answers nearly as well."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.export import Dim

from transferscope.backbones.classifier import Classifier
from transferscope.errors import DataError, InputError, OutputError
from transferscope.evaluation.known_pictures import KnownPictures, kept_rows
from transferscope.evaluation.paired import paired_interval
from transferscope.evaluation.strangers import Training, Values
from transferscope.exports.description import Description
from transferscope.exports.extras import require
from transferscope.exports.familiarity import Familiarity
from transferscope.exports.onnx_file import OPSET, export_onnx, finished, load_onnx
from transferscope.exports.parity import Parity
from transferscope.exports.quantization import Model, Quantizer, sensitivities, session, with_output
from transferscope.exports.tracing import FAMILIARITY, INPUT, OUTPUTS, Exported, quiet
from transferscope.files import atomic_path
from transferscope.images import as_float
from transferscope.records import Record

ALLOWED = 0.005
"""Share of pictures, by default, by which top-1 may be lower than that of the fp32 file."""

CALIBRATION = 128
"""Pictures that a network is calibrated on, at most: more change no range by much."""

ALONE = 60
"""Fewer validation pictures than this are both calibrated and checked on."""

MOST_KNOWN = 500_000
"""Bytes of training features in the file, about: fewer than a run keeps, since the file is to be small."""

LEFT = 0.1
"""A layer with more than this share of all damage is left in fp32; never more than half of the layers are."""

_LEAST_EACH = 16  # of a class, whatever MOST_KNOWN is
_SENSED = 32  # calibration pictures on which every layer's damage is measured
_TRIES = 4  # each leaves twice as many layers in fp32 as the one before
_TIMED = 64
_ROUNDS = 5

Progress = Callable[[int, int], None]


class Labelled(NamedTuple):
    """Pictures of a split with their classes.

    Attributes:
        load: gives them in batches (n, C, H, W), uint8 or float in [0, 1], the same every time.
        labels: int64 (N,), their classes by number.
    """

    load: Callable[[], Iterable[torch.Tensor]]
    labels: torch.Tensor


@dataclass(frozen=True)
class Int8(Record):
    """How an int8 file does beside the fp32 file it was made of.

    Attributes:
        calibration: validation pictures that ranges, biases and layers were chosen on.
        n: validation pictures that the following was measured on.
        apart: whether these are others than the first.
        fp32_top1, top1: of both files.
        lost: fp32_top1 - top1.
        interval: 95% of it, paired bootstrap over pictures.
        changed: share of pictures with another class.
        familiarity: mean absolute difference of the familiarity; None: the file has no such output.
            fp32_bytes: of the fp32 file.
        speedup: pictures a second, int8 / fp32: the median of rounds in turn, the same threads.
        fp32_layers: layers that were left in fp32, by the name of their weights, beside the head.
        layers: layers with weights, the head apart.
        tries: how many choices of layers were measured until one was good enough.
    """

    calibration: int
    n: int
    apart: bool
    fp32_top1: float
    top1: float
    lost: float
    interval: tuple[float, float]
    changed: float
    familiarity: float | None
    fp32_bytes: int
    speedup: float
    fp32_layers: tuple[str, ...]
    layers: int
    tries: int


def shares(n: int) -> tuple[list[int], list[int]]:
    """Which of n validation pictures are for calibration, and which for checking.

    A third, evenly spread and at most `CALIBRATION`, is for calibration; of fewer than `ALONE`, all are for
    both.
    """
    if n < ALONE:
        return list(range(n)), list(range(n))
    count = min(CALIBRATION, n // 3)
    chosen = [index * n // count for index in range(count)]
    return chosen, sorted(set(range(n)) - set(chosen))


def check_allowed(allowed: float) -> None:
    """Refuses what is no share.

    Raises:
        InputError: not in [0, 1].
    """
    if not (math.isfinite(allowed) and 0 <= allowed <= 1):
        raise InputError(
            f"int8 may not lose {100 * allowed:g} points of top-1; give a number between 0 and 100"
        )


def export_int8(
    classifier: Classifier,
    path: str | Path,
    *,
    calibration: Labelled,
    held: Labelled,
    allowed: float = ALLOWED,
    batches: Iterable[torch.Tensor] | None = None,
    known: KnownPictures | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[Parity, Int8]:
    """Writes one ONNX file in int8, and keeps it only if it is about as often right as the fp32 file.

    The fp32 file is made and checked first (`export_onnx`); input, outputs and metadata are its own, and the
    `Description` says how the int8 file does. Ranges are those with the least squared error on calibration
    pictures, weights are rounded by output channel, and biases take up the mean of what that does. The
    layers that do most damage to the logits stay in fp32, twice as many if that is not enough.
    With `known`, fewer training features are kept, in int8, and familiarity is a share of the validation
    pictures as the int8 network sees them.

    Args:
        classifier: unchanged.
        path: the file.
        calibration: pictures that all is chosen on.
        held: pictures that it is measured on; the same object where there are too few for two parts.
        allowed: share of these by which top-1 may be lower than that of the fp32 file.
        batches, known: see `export_onnx`.
        progress: called with (done, total) layers whose damage is measured.

    Returns:
        How closely the fp32 file answers as the classifier, and how the int8 file does beside it.

    Raises:
        InputError: see `export_onnx`; or `allowed` is no share, or the network has no layer to quantize.
        DataError: no pictures.
        OutputError: top-1 is lower by more, or the file cannot be written. What was there before is
            untouched.
    """
    require("onnx", "onnx", "onnxscript", "onnxruntime")
    check_allowed(allowed)
    if not len(calibration.labels) or not len(held.labels):
        raise DataError(
            "int8 is calibrated and checked on validation pictures, and there are none; tune with a split "
            "that has some, or export without --int8"
        )
    import onnx

    with TemporaryDirectory() as folder, atomic_path(path) as temporary:
        fp32 = Path(folder) / "fp32.onnx"
        parity = export_onnx(classifier, fp32, batches=batches, known=known)
        search = _Search(onnx.load(fp32), calibration, held)
        chosen = search.best(allowed, progress)
        model, knows = chosen.model, None
        if known is not None:
            knows = search.known(chosen, known)
            _tell_strangers(model, search.quantizer.features, knows)
        description = Description.of(classifier, knows)
        temporary.write_bytes(finished(model, description))
        figures = _beside(temporary, fp32, search, chosen)
        _refuse(figures, allowed)
        description = replace(description, int8=figures.to_dict())
        temporary.write_bytes(finished(model, description))
        load_onnx(temporary)
    return parity, figures


def _refuse(figures: Int8, allowed: float) -> None:
    """Raises OutputError where more is lost than is allowed."""
    if figures.lost > allowed + 1e-9:
        low, high = figures.interval
        raise OutputError(
            f"in int8 the network is right on {figures.top1:.2%} of {figures.n} validation pictures, and in "
            f"fp32 on {figures.fp32_top1:.2%}: {100 * figures.lost:.2f} points are lost (95% interval "
            f"{100 * low:.2f} to {100 * high:.2f}) and {100 * allowed:g} allowed; nothing was kept: allow more "
            "with --int8-drop, or export without --int8"
        )


# ---------------------------------------------------------------------------- the choice of layers


class _Choice(NamedTuple):
    """A model, what it says of the checked pictures, the layers left in fp32, and how many were tried."""

    model: Model
    features: Values
    logits: Values
    left: tuple[str, ...]
    tries: int


class _Search:
    """Which layers can be int8.

    Args:
        fp32: the file's graph.
        calibration, held: see `export_int8`.
    """

    def __init__(self, fp32: Model, calibration: Labelled, held: Labelled):
        self.held, self.apart = held, held is not calibration
        self._seen = [_floats(batch) for batch in calibration.load()]
        self.calibration = sum(map(len, self._seen))
        self.quantizer = Quantizer(fp32, self._seen)

    def best(self, allowed: float, progress: Progress) -> _Choice:
        """The first choice of which no more than `allowed` is lost, else the one that loses least."""
        layers = self.quantizer.layers
        together = np.concatenate(self._seen)
        few = together[:: max(1, len(together) // _SENSED)]
        damage = sensitivities(
            self.quantizer, lambda model: self._answers(model, [few])[1], progress
        )
        order = sorted(layers, key=lambda layer: -damage[layer])
        total = sum(damage.values())
        first = min(sum(value > LEFT * total for value in damage.values()), len(layers) // 2)
        counts = [first, *(max(first, 1) * 2**more for more in range(int(first > 0), _TRIES))]
        labels = self.held.labels.numpy()
        wanted = self._on_held(self.quantizer.quantized(()))[1].argmax(1) == labels
        tried: list[tuple[float, _Choice]] = []
        for tries, count in enumerate(counts, 1):
            if tried and 2 * count > len(layers):
                break
            left = tuple(layer for layer in layers if layer in order[:count])
            model = self.quantizer.quantized([one for one in layers if one not in left])
            features, logits = self._on_held(model)
            lost = float(wanted.mean() - (logits.argmax(1) == labels).mean())
            tried.append((lost, _Choice(model, features, logits, left, tries)))
            if lost <= allowed + 1e-9:
                break
        return min(tried, key=lambda one: one[0])[1]._replace(tries=len(tried))

    def known(self, chosen: _Choice, known: KnownPictures) -> KnownPictures:
        """Fewer training pictures, and the validation pictures as the int8 network sees them."""
        features, logits = self._answers(chosen.model, self._seen)
        if self.apart:
            features = np.concatenate([features, chosen.features])
            logits = np.concatenate([logits, chosen.logits])
        width = known.features.shape[1]
        room = max(MOST_KNOWN // width, _LEAST_EACH * len(known.classes))
        rows = kept_rows(known.labels, width, room=room)
        training = known.training
        kept = Training(training.features[rows], training.labels[rows], training.energies[rows])
        return KnownPictures.of_features(
            kept, (features, logits), classes=known.classes, weights=known.weights, of=known.of
        )

    def _on_held(self, model: Model) -> tuple[Values, Values]:
        return self._answers(model, map(_floats, self.held.load()))

    def _answers(self, model: Model, batches: Iterable[Values]) -> tuple[Values, Values]:
        """Features (N, D) and logits (N, K)."""
        names = [self.quantizer.features, OUTPUTS[1]]
        run = session(with_output(model, names[0]))
        found = [run.run(names, {INPUT: batch}) for batch in batches]
        features, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return features.reshape(len(features), -1), logits


def _floats(batch: torch.Tensor) -> Values:
    pictures = batch if batch.is_floating_point() else as_float(batch)
    values: Values = pictures.numpy()
    return values


# ---------------------------------------------------------------------------- what it is worth


def _beside(file: Path, fp32: Path, search: _Search, chosen: _Choice) -> Int8:
    """Both files on the checked pictures, as they are opened by anyone."""
    sides = [load_onnx(one)[0] for one in (fp32, file)]
    answers: list[list[tuple[torch.Tensor, ...]]] = [[], []]
    timed: list[torch.Tensor] = []
    for batch in search.held.load():
        pictures = torch.from_numpy(_floats(batch))
        if len(timed) * len(pictures) < _TIMED:
            timed.append(pictures)
        for side, said in zip(sides, answers, strict=True):
            said.append(side(pictures))
    first, second = ([torch.cat(parts) for parts in zip(*said, strict=True)] for said in answers)
    labels = search.held.labels
    one, other = first[0].argmax(dim=1), second[0].argmax(dim=1)
    right, right_too = (one == labels).numpy(), (other == labels).numpy()
    familiarity = float((first[2] - second[2]).abs().mean()) if len(first) > 2 else None
    return Int8(
        calibration=search.calibration,
        n=len(labels),
        apart=search.apart,
        fp32_top1=float(right.mean()),
        top1=float(right_too.mean()),
        lost=float(right.mean() - right_too.mean()),
        interval=paired_interval(right, right_too),
        changed=float((one != other).float().mean()),
        familiarity=familiarity,
        fp32_bytes=fp32.stat().st_size,
        speedup=_speedup(sides, timed),
        fp32_layers=tuple(map(search.quantizer.name, chosen.left)),
        layers=len(search.quantizer.layers),
        tries=chosen.tries,
    )


def _speedup(sides: Sequence[Exported], batches: Sequence[torch.Tensor]) -> float:
    """Pictures a second of the second side over those of the first: the median of rounds, in turn."""

    def seconds(side: Exported) -> float:
        began = time.perf_counter()
        for pictures in batches:
            side(pictures)
        return time.perf_counter() - began

    rounds = [[seconds(side) for side in sides] for _ in range(_ROUNDS)]
    return statistics.median(slow / fast for slow, fast in rounds)


# ---------------------------------------------------------------------------- strangers


def _tell_strangers(model: Model, features: str, known: KnownPictures) -> None:
    """Adds the familiarity to a graph, in place, with the training features in int8."""
    import onnx

    module = Familiarity(known).eval()
    examples = (torch.rand(2, known.features.shape[1]), torch.rand(2, len(known.classes)))
    with torch.no_grad(), quiet():
        rows = {0: Dim("N", min=1)}
        program = torch.export.export(module, examples, dynamic_shapes=(rows, rows))
        exported: Any = torch.onnx.export(
            program,
            input_names=[features, OUTPUTS[1]],
            output_names=[FAMILIARITY],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    part = exported.model_proto
    _round_rows(part)
    part = onnx.compose.add_prefix(part, "known/", rename_inputs=False, rename_outputs=False)
    model.graph.node.extend(part.graph.node)
    model.graph.initializer.extend(part.graph.initializer)
    model.graph.output.extend(part.graph.output)


def _round_rows(model: Model) -> None:
    """Stores float16 matrices as int8 with a scale a row, in place."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        stored = constants.get(node.input[0]) if node.op_type == "Cast" else None
        if stored is None or stored.data_type != TensorProto.FLOAT16:
            continue
        values = numpy_helper.to_array(stored).astype(np.float32)
        scale = np.abs(values).max(axis=1) / 127
        steps = np.round(values / scale[:, None]).astype(np.int8)
        stored.CopyFrom(numpy_helper.from_array(steps, stored.name))
        name = f"{stored.name}.step"
        model.graph.initializer.append(numpy_helper.from_array(scale, name))
        given, made = [stored.name, name], list(node.output)
        node.CopyFrom(helper.make_node("DequantizeLinear", given, made, node.name, axis=0))
