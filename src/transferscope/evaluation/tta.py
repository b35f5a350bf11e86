"""Test-time augmentation: the mean answer over several views of each picture, its gain and its cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from transferscope.acceleration.precision import Precision
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.evaluation.paired import paired_difference
from transferscope.evaluation.predictions import Predictions, predict_files
from transferscope.records import Record

_SEED = 0


@dataclass(frozen=True)
class ViewsGain(Record):
    """What averaging the probabilities over several views changes.

    Attributes:
        views: of each picture; the first is the plain one.
        flip: whether the second is its mirror image, and others may be mirrored.
        top1: with all views.
        nll: with all views, mean negative log-likelihood in nats.
        gain: top1 with all views minus that with the plain one.
        interval: 95% of the gain, bootstrap over pictures.
        cost: time with all views divided by that with the plain one.
    """

    views: int
    flip: bool
    top1: float
    nll: float
    gain: float
    interval: tuple[float, float]
    cost: float


def views_gain(
    classifier: Classifier,
    predictions: Predictions,
    files: Sequence[Path],
    hashes: Sequence[str],
    *,
    views: int,
    flip: bool = True,
    seconds: float,
    precision: Precision = "fp32",
    on_progress: Callable[[int, int], None] | None = None,
) -> ViewsGain:
    """The gain of `views` views over the plain predictions.

    View 1 is the plain picture; view 2, with `flip`, its mirror image; the others are crops as light
    augmentation draws them in training, each a function of the picture's hash and the view's number.

    Args:
        classifier: unchanged.
        predictions: of the plain pictures, of which `files` are the files and `hashes` the sha256.
        views: at least 2.
        flip: False where left and right mean something.
        seconds: that the plain predictions took.
        precision: of the forward pass.
        on_progress: called with (done, total) pictures of all further views.

    Raises:
        InputError: fewer than two views.
    """
    refuse_views(views)
    began = time.perf_counter()
    total = predictions.probabilities.double()
    for view in range(2, views + 1):
        load = _view_loader(classifier, files, hashes, view, flip)

        def progressed(now: int, of: int, before: int = view - 2) -> None:
            if on_progress:
                on_progress(before * of + now, (views - 1) * of)

        logits = predict_files(
            classifier, files, precision=precision, load=load, on_progress=progressed
        )
        total += torch.softmax(logits.double() / predictions.temperature, dim=-1)
    averaged = with_probabilities(predictions, total / views)
    difference = paired_difference(averaged, predictions)
    return ViewsGain(
        views=views,
        flip=flip,
        top1=difference.top1,
        nll=float(averaged.losses.mean()),
        gain=difference.difference,
        interval=difference.interval,
        cost=1 + (time.perf_counter() - began) / max(seconds, 1e-9),
    )


def refuse_views(views: int) -> None:
    """Refuses a number of views that is no average.

    Raises:
        InputError: fewer than two.
    """
    if views < 2:
        raise InputError(
            f"--tta is {views}; it must be at least 2, the plain picture and another view of it"
        )


def with_probabilities(predictions: Predictions, probabilities: torch.Tensor) -> Predictions:
    """The same pictures with these probabilities (N, K): their logarithms stand as logits."""
    logits = probabilities.clamp_min(1e-30).log() * predictions.temperature
    return replace(predictions, logits=logits.float())


def _view_loader(
    classifier: Classifier, files: Sequence[Path], hashes: Sequence[str], view: int, flip: bool
) -> Callable[[int], torch.Tensor]:
    spec = classifier.input
    if view == 2 and flip:
        return lambda index: spec.load(files[index]).flip(-1)
    from transferscope.data.augmentation import augmentation  # loads torchvision

    crops = augmentation("light", flip=flip)
    return lambda index: crops.load(
        files[index], spec, seed=_SEED, view=view, identity=hashes[index]
    )
