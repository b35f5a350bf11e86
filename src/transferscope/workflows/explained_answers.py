"""What the best guesses of a prediction come from, as pictures for its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transferscope.backbones.classifier import Classifier
from transferscope.errors import PictureError
from transferscope.evaluation.answers import Prediction
from transferscope.explain.attribution import METHODS, attribute
from transferscope.report.figures.explanations import is_grainy, overlaid, shared_heat
from transferscope.workflows.explanations import HOME
from transferscope.workflows.verdicts import kept_verdicts, methods_to_draw

_CHUNK = 8


def overlays_of(
    model: str | Path,
    classifier: Classifier,
    answers: Sequence[Prediction],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, NDArray[np.uint8]], str]:
    """Each picture in colour where its best guess comes from, each on a scale of its own.

    Args:
        model: a run's folder may have verdicts, by which the method is chosen; otherwise Grad-CAM.
        classifier: unchanged.
        answers: with guesses; a file that is gone by now is passed over.
        on_progress: called with (pictures done, all).

    Returns:
        path -> uint8 (H, W, 3) as the network sees it; and a sentence on the method.

    Raises:
        InputError: the network has no layer with places, or no method passed its checks.
    """
    verdicts = kept_verdicts(Path(model) / HOME, classifier)
    (method,) = methods_to_draw((), verdicts)
    found: dict[str, NDArray[np.uint8]] = {}
    for begin in range(0, len(answers), _CHUNK):
        pixels, targets, paths = [], [], []
        for answer in answers[begin : begin + _CHUNK]:
            try:
                pixels.append(classifier.input.load(answer.path).float() / 255)
            except PictureError:
                continue
            targets.append(classifier.classes.index(answer.top[0].name))
            paths.append(answer.path)
        if pixels:
            maps = attribute(classifier, pixels, method=method, target=targets)
            for path, picture, one in zip(paths, pixels, maps, strict=True):
                (heat,) = shared_heat([one.support], grainy=is_grainy(method))
                shown = (picture * 255).round().byte().permute(1, 2, 0).numpy()
                found[path] = overlaid(shown, heat)
        if on_progress:
            on_progress(min(begin + _CHUNK, len(answers)), len(answers))
    if verdicts is None:
        checked = "not checked on this network"
    else:
        passed = (verdict := verdicts.of(method)) is not None and verdict.passed
        checked = "it passed the checks on this network" if passed else "the checks are open"
    return (
        found,
        f"In colour: what the best guess comes from, by {METHODS[method].title} ({checked}).",
    )
