"""The record that an atlas is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from transferscope.adversarial.robustness import Robustness
    from transferscope.comparison.records import Comparison
    from transferscope.data.inspection import Inspection
    from transferscope.evaluation.detection import Detection
    from transferscope.evaluation.metrics import Evaluation
    from transferscope.evaluation.mistakes import ErrorStudy
    from transferscope.evaluation.predictions import Predictions
    from transferscope.explain.records import (
        AccentuatedChannel,
        DecidingChannels,
        Explanation,
        Verdicts,
    )
    from transferscope.explain.shortcut_records import Shortcuts
    from transferscope.images import InputSpec
    from transferscope.report.model_card import ModelCard
    from transferscope.visualize.records import Render


@dataclass(frozen=True)
class OtherSet:
    """Another set of pictures that the classifier was evaluated on.

    Attributes:
        name: of its folder.
        root: that its pictures' paths are relative to.
        evaluation: of the tuned classifier.
        study: of its errors, or None.
    """

    name: str
    root: Path
    evaluation: Evaluation
    study: ErrorStudy | None


@dataclass(frozen=True)
class KeptExplanation:
    """What was kept of one picture.

    Attributes:
        folder: that the figures are in.
        maps: a record a method.
        units: the channels that decide, if that was asked for.
        accentuated: a channel accentuated in it, likewise.
    """

    folder: Path
    maps: tuple[Explanation, ...]
    units: DecidingChannels | None = None
    accentuated: AccentuatedChannel | None = None


RenderKey = tuple[str, str, int, str, int]
"""(network, layer, channel, sign, seed)."""


@dataclass(frozen=True)
class AtlasContent:
    """All that an atlas shows.

    Attributes:
        title: of the front page.
        facts: provenance, label to value: backbone, strategy, seed, versions, date.
        classes: names of the classes.
        counts: split to class to number of pictures.
        validation_before: top-1 on the validation pictures of a probe on the untuned backbone.
        validation_after: the same of the tuned classifier.
        evaluation: of the tuned classifier, or None if it was not evaluated.
        evaluation_base: of the probe on the untuned backbone, on the same pictures.
        predictions: that `evaluation` came from; without them there is no confusion matrix and no
            gallery of errors.
        history: rows of history.csv; may be empty.
        comparison: base against tuned, or None: the atlas then shows no channels.
        renders: by (network, layer, channel, sign, seed). A missing one shows as a tile that says
            so; of an identical layer one network's is enough.
        data_root: folder that exemplars' and predictions' paths are relative to. A picture that is
            no longer there shows as a tile that says so.
        strips: for strips of several characters: `n`, `right` and `share`, or None.
        inspection: of the pictures, for a page of their own, or None.
        preview: for that page, an augmentation's name to a sheet of what training saw of one picture.
        study: of the pictures that `predictions` are of; None: it is made from these, and says nothing of
            the training pictures' labels.
        card: for a page of its own, or None.
        others: further sets that the classifier was evaluated on.
        robustness: what base and tuned stood, for a page of its own, or None.
        strangers: how well pictures of none of the classes are told, for a page of its own, or None.
        explanations: of pictures, that were kept.
        verdicts: which attribution methods deserve belief on the tuned network, or None.
        view: how the tuned network is given pictures: exemplars are shown as it sees them.
        shortcuts: cues that the predictions follow, for a page of its own, or None.
    """

    title: str
    facts: Mapping[str, str]
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    validation_before: float | None
    validation_after: float | None
    evaluation: Evaluation | None
    evaluation_base: Evaluation | None
    predictions: Predictions | None
    history: list[dict[str, str]]
    comparison: Comparison | None
    renders: Mapping[RenderKey, Render]
    data_root: Path
    strips: Mapping[str, object] | None = None
    inspection: Inspection | None = None
    preview: Mapping[str, Image.Image] | None = None
    study: ErrorStudy | None = None
    card: ModelCard | None = None
    others: tuple[OtherSet, ...] = ()
    robustness: Robustness | None = None
    strangers: Detection | None = None
    explanations: tuple[KeptExplanation, ...] = ()
    verdicts: Verdicts | None = None
    view: InputSpec | None = None
    shortcuts: Shortcuts | None = None
