"""The record that an atlas is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from transferscope.adversarial.robustness import Robustness
    from transferscope.comparison.records import Comparison
    from transferscope.data.inspection import Inspection
    from transferscope.evaluation.answers import Guess
    from transferscope.evaluation.detection import Detection
    from transferscope.evaluation.known_pictures import Neighbour
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


@dataclass(frozen=True, eq=False)
class PictureMaps:
    """Where both networks' scores of one class come from in a picture.

    Attributes:
        method: name in `METHODS`.
        target: the class.
        against: the class whose logit is subtracted; None: none is.
        heat: by network, uint8 (H, W) of its input: what speaks for the class, on a scale of its own.
        passed: whether the method passed the checks on the tuned network; None: not settled, or not checked.
        verdict: in words.
        kept: whether `explain` has kept more of it in the run.
    """

    method: str
    target: str
    against: str | None
    heat: Mapping[str, NDArray[np.uint8]]
    passed: bool | None
    verdict: str
    kept: bool = False


@dataclass(frozen=True)
class KeptAttack:
    """A picture that was changed until the tuned network took it for something else.

    Attributes:
        folder: with original.png, adversarial.png and difference.png.
        source, source_probability: what the picture is taken for.
        target, probability: what the changed one is taken for.
        budget: the largest change allowed, in words.
        method: name of the attack.
        noise: what random noise of that size does, in words: the control.
    """

    folder: Path
    source: str
    source_probability: float
    target: str
    probability: float
    budget: str
    method: str
    noise: str


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """A picture with a page of its own, and what the run knows of it.

    Attributes:
        path: relative to the data folder.
        label: its class.
        reason: why it is shown: explained, wrong, unsure or right.
        before: of the untuned network with its probe, the most probable classes, best first, and the
            picture's own; empty where that was not kept.
        after: the same of the tuned network.
        known: whether it is like the pictures of the classes; None where that is not known.
        familiarity: share of validation pictures that are at most as familiar.
        nearest: training pictures by the tuned network's features, with paths relative to the data folder.
        maps: where both look, or None.
        units: the channels that decide, where `explain --units` was asked.
        attacks: kept in the run.
    """

    path: str
    label: str
    reason: str
    before: tuple[Guess, ...]
    after: tuple[Guess, ...]
    known: bool | None = None
    familiarity: float | None = None
    nearest: tuple[Neighbour, ...] = ()
    maps: PictureMaps | None = None
    units: DecidingChannels | None = None
    attacks: tuple[KeptAttack, ...] = ()

    @property
    def right_before(self) -> bool | None:
        """Whether the untuned network with its probe is right; None where that was not kept."""
        return self.before[0].name == self.label if self.before else None

    @property
    def right_after(self) -> bool:
        """Whether the tuned network is right."""
        return self.after[0].name == self.label


@dataclass(frozen=True)
class ShownPictures:
    """The pictures that have pages.

    Attributes:
        pictures: those chosen, in the order of their pages.
        of: pictures that were evaluated.
        split: that they are of.
        no_maps: why some have no maps, in a sentence; empty: nothing is known to hinder them.
    """

    pictures: tuple[ShownPicture, ...]
    of: int
    split: str
    no_maps: str = ""


@dataclass(frozen=True)
class KeptIdeal:
    """What a class wants to see in one network, drawn with the full recipe.

    Attributes:
        file: the picture.
        probability: of the class, in that network.
    """

    file: Path
    probability: float


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
        pictures: evaluated pictures with pages of their own, or None.
        ideals: of classes by name, by network.
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
    pictures: ShownPictures | None = None
    ideals: Mapping[str, Mapping[str, KeptIdeal]] = field(default_factory=dict)
