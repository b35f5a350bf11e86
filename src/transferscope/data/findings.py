"""What to mend or to know of a set before it is trained on, read off its `Inspection`: a sentence each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from transferscope.data.class_names import warnings_of
from transferscope.data.cues import Family, cue_words
from transferscope.data.duplicates import Copies, NearPair
from transferscope.data.exclusions import is_loss
from transferscope.data.inspection import REASONS, Inspection, across_classes, across_splits
from transferscope.wording import counted, listed

NETWORK_SIDE = 224
"""Side in pixels of what most backbones see; the page says which pictures are below it."""

_IMBALANCE = 10.0
_FEW = 10  # training pictures below which a class has few
_LONG = 3.0  # aspect ratio
_SMALL_SHARE = 0.05
_TELLING = 0.5  # Cramér's V from which a file's kind gives its class away
_TRANSPARENT = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
_PICTURES_ARE = ("picture is", "pictures are")
_CLASSES_HAVE = ("class has", "classes have")

Gravity = Literal["stop", "fix", "know"]


@dataclass(frozen=True)
class Finding:
    """Something to do, or to know, before training.

    Attributes:
        gravity: stop: training is refused, or its figures would not be true; fix: worth an hour;
            know: no more than that.
        sentence: what was found.
        remedy: what to do about it; may be empty.
        section: of the page, that shows it; or None.
    """

    gravity: Gravity
    sentence: str
    remedy: str
    section: str | None = None


def opening(inspection: Inspection) -> str:
    """What the set is, in one sentence with its numbers."""
    scan = inspection.scan
    parts = [f"{counted(len(scan.pictures), 'picture')}"]
    if scan.classes:
        parts[0] += f" of {counted(len(scan.classes), 'class', 'classes')}"
    if scan.excluded:
        parts.append(f"{counted(len(scan.excluded), 'file')} left out")
    if inspection.duplicates:
        surplus = sum(len(one.paths) - 1 for one in inspection.duplicates)
        parts.append(counted(surplus, "copy", "copies"))
    if inspection.near_duplicates:
        conflicts = sum(map(across_classes, inspection.near_duplicates))
        pairs = counted(len(inspection.near_duplicates), "near duplicate")
        parts.append(pairs + (f", {conflicts:,} of them across classes" if conflicts else ""))
    return "; ".join(parts) + "."


def findings(inspection: Inspection, *, names: bool = True) -> list[Finding]:
    """What to mend or to know before training, the gravest first; without `names`, no file's name."""
    found = [
        Finding("stop", f"Training is refused: {one[0].upper()}{one[1:].rstrip('.')}.", "")
        for one in inspection.problems
    ]
    if found and not names:
        found = [Finding("stop", "Training is refused.", "'transferscope inspect' tells why.")]
    found += [
        *_copies(inspection),
        *_leakage(inspection),
        *_left_out(inspection),
        *_name_findings(inspection),
        *_class_findings(inspection),
        *_giveaways(inspection),
        *_cue_findings(inspection),
        *_tone_findings(inspection),
        *_shape_findings(inspection),
        *_file_findings(inspection),
    ]
    return sorted(found, key=lambda one: get_args(Gravity).index(one.gravity))


def _copies(inspection: Inspection) -> Iterator[Finding]:
    """Copies and near duplicates across splits, which are leaks, and across classes."""
    same, near = inspection.duplicates, inspection.near_duplicates
    if copies := sum(map(across_splits, same)):
        yield Finding(
            "stop",
            f"{counted(copies, *_PICTURES_ARE)} in more than one split, byte for byte.",
            "Accuracy on the copies is memory, not skill. 'tune --dedupe' leaves copies of training "
            "pictures out of the other splits.",
            "copies",
        )
    if pairs := sum(map(across_splits, near)):
        yield Finding(
            "fix",
            f"{counted(pairs, 'near duplicate')} across splits.",
            "Look at the pairs. Where they are one scene or one object, keep them together with "
            "'--group', or remove one of each; until then test accuracy flatters.",
            "near-duplicates",
        )
    if copies := sum(map(across_classes, same)):
        yield Finding(
            "fix",
            f"{counted(copies, *_PICTURES_ARE)} filed under more than one class.",
            "One of the labels is wrong, or the picture shows both: decide, and remove the other.",
            "copies",
        )
    if pairs := sum(map(across_classes, near)):
        yield Finding(
            "fix",
            f"{counted(pairs, 'near duplicate')} across classes: probably wrong labels.",
            "Look at each pair and correct the label that is wrong.",
            "near-duplicates",
        )


def _leakage(inspection: Inspection) -> Iterator[Finding]:
    """Validation pictures with a lookalike in training, and those that are kept together."""
    found, kept = inspection.leakage, inspection.kept_together
    if found is not None and found.either:
        gravity: Gravity = "fix" if found.much else "know"
        yield Finding(gravity, found.sentence, found.meaning, "near-duplicates")
    if kept is not None:
        yield Finding("know", f"{kept.sentence[0].upper()}{kept.sentence[1:]}.", "", None)


def _left_out(inspection: Inspection) -> Iterator[Finding]:
    lost = [reason for _, reason in inspection.scan.excluded if is_loss(reason)]
    if lost:
        ((reason, _),) = Counter(lost).most_common(1)
        often = ", most often because" if len(lost) > 1 else ""
        yield Finding(
            "fix",
            f"{counted(len(lost), 'file is', 'files are')} left out{often}: {reason}.",
            "Nothing takes their place. Repair or remove them.",
            "left-out",
        )


def _name_findings(inspection: Inspection) -> Iterator[Finding]:
    """Names of classes that may be one name, or none."""
    scan = inspection.scan
    for sentence, remedy in warnings_of(scan.classes, scan.merged):
        yield Finding("fix", sentence, remedy, "classes")


def _class_findings(inspection: Inspection) -> Iterator[Finding]:
    sizes = {name: size for name, size in inspection.class_sizes.items() if size}
    imbalance = inspection.imbalance
    pictures = "training pictures" if "train" in inspection.splits else "pictures"
    if imbalance is not None and imbalance > _IMBALANCE:
        most, least = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
        yield Finding(
            "fix",
            f"The largest class is {imbalance:,.0f} times the smallest: {sizes[most]:,} {pictures} of "
            f"“{most}”, {sizes[least]:,} of “{least}”.",
            "Judge by the mean over classes, not by overall accuracy, and add to the small classes.",
            "classes",
        )
    if few := [name for name, size in sizes.items() if size < _FEW]:
        yield Finding(
            "fix",
            f"{counted(len(few), *_CLASSES_HAVE)} fewer than {_FEW} {pictures}: {listed(few, 4)}.",
            "Add some, or merge them into a neighbour; so few are learned by heart.",
            "classes",
        )
    counts = inspection.counts()
    for split in ("validation", "test"):
        if lacking := [name for name, parts in counts.items() if parts.get(split) == 0]:
            yield Finding(
                "fix",
                f"{counted(len(lacking), *_CLASSES_HAVE)} no {split} pictures: {listed(lacking, 4)}.",
                "How well they are recognised will not be known.",
                "classes",
            )


def _giveaways(inspection: Inspection) -> Iterator[Finding]:
    """Properties of files that tell the class before anything is looked at (Cramér's V)."""
    for words, kinds in (
        ("file format", [one.format for one in inspection.facts]),
        ("colour mode", [one.mode for one in inspection.facts]),
    ):
        strength = _association(inspection.labels, kinds)
        if strength >= _TELLING:
            yield Finding(
                "fix",
                f"The {words} gives the class away (Cramér's V {strength:.2f}, where 1 is completely).",
                "A network may learn how the files were made in place of what they show. Bring all of "
                "them to one kind in the same way.",
                "shapes",
            )


_CUE_REMEDIES: dict[Family, str] = {
    "tone": "Take or process the pictures of all classes in the same way.",
    "colour": "Bring all classes through the same camera settings and processing.",
    "border": "Crop the border off, in all classes.",
    "file": "Bring all files to one size and compression in the same way.",
    "origin": "Mix the sources within every class, and keep each source in one split with '--group'.",
    "patch": "Look there for a watermark, a logo or a date; crop or cover it in all classes.",
}


_OF_FILES = ("file", "origin")


def _cue_findings(inspection: Inspection) -> Iterator[Finding]:
    """Classes that something other than the object all but decides; what files alone tell is less grave, as
    every picture is brought to one size before a network sees it."""
    alarms = [one for one in inspection.cues if one.alarm]
    for name in dict.fromkeys(one.label for one in alarms):
        own = sorted(
            (one for one in alarms if one.label == name), key=lambda one: one.family in _OF_FILES
        )
        best = own[0]
        others = f" (and {counted(len(own) - 1, 'other cue')})" if len(own) > 1 else ""
        yield Finding(
            "know" if best.family in _OF_FILES else "fix",
            f"“{name}” is told from the other classes by {cue_words(best.name, best.family)} alone{others}: "
            f"balanced accuracy {100 * best.accuracy:.0f}% (95% interval {100 * best.low:.0f} to "
            f"{100 * best.high:.0f}) on held-out pictures, where guessing has 50%.",
            f"A network may learn that in place of the object. {_CUE_REMEDIES[best.family]} After tuning, "
            "'transferscope shortcuts RUN' says whether it was learned.",
            "cues",
        )


def _tone_findings(inspection: Inspection) -> Iterator[Finding]:
    reasons = Counter(one.reason for one in inspection.outliers)
    if blank := reasons.pop("blank", 0):
        yield Finding(
            "fix",
            f"{counted(blank, *_PICTURES_ARE)} blank.",
            "They teach that a class looks like nothing. Remove them.",
            "outliers",
        )
    if rest := reasons.total():
        kinds = ", ".join(f"{reasons[name]:,} {name}" for name in REASONS if reasons[name])
        yield Finding(
            "know",
            f"{counted(rest, 'picture stands', 'pictures stand')} out from the set: {kinds}.",
            "Look at them: most are fine, some are scans, icons or failed exposures.",
            "outliers",
        )


def _shape_findings(inspection: Inspection) -> Iterator[Finding]:
    if not inspection.facts:
        return
    total = len(inspection.facts)
    small = int((np.minimum(inspection.widths, inspection.heights) < NETWORK_SIDE).sum())
    if small >= _SMALL_SHARE * total:
        share = "All" if small == total else f"{math.floor(100 * small / total)}%"
        yield Finding(
            "know",
            f"{share} of the pictures are below {NETWORK_SIDE} pixels on their shorter side.",
            "They are enlarged, which adds no detail. Use larger originals if there are any.",
            "shapes",
        )
    aspects = inspection.widths / inspection.heights
    if long := int((np.maximum(aspects, 1 / aspects) > _LONG).sum()):
        yield Finding(
            "know",
            f"{counted(long, *_PICTURES_ARE)} more than {_LONG:.0f} times as long as wide.",
            "The centre crop sees less than a third of them. Crop them to what matters.",
            "shapes",
        )


def _file_findings(inspection: Inspection) -> Iterator[Finding]:
    if inside := sum(not across_splits(one) for one in inspection.duplicates):
        yield Finding(
            "know",
            f"{counted(inside, *_PICTURES_ARE)} there more than once within a split.",
            "Copies weigh double. Remove all but one.",
            "copies",
        )
    if clear := sum(count for mode, count in inspection.modes.items() if mode in _TRANSPARENT):
        yield Finding(
            "know",
            f"{counted(clear, 'picture has', 'pictures have')} a transparency channel.",
            "They are laid over white, in training and in prediction alike.",
            "shapes",
        )
    if inspection.animated:
        yield Finding(
            "know",
            f"{counted(inspection.animated, *_PICTURES_ARE)} animated.",
            "The first frame is used.",
            "shapes",
        )


def _association(labels: np.ndarray, kinds: Sequence[str]) -> float:
    """Cramér's V of classes and kinds; 0 where there is one of either."""
    from scipy.stats.contingency import association, crosstab  # loads all of scipy.stats

    known = labels >= 0
    table = crosstab(labels[known], np.asarray(kinds, dtype=str)[known]).count
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0


def urgency(found: Copies | NearPair) -> int:
    """0: across splits and classes; 1: across splits; 2: across classes; 3: neither."""
    return 2 * (not across_splits(found)) + (not across_classes(found))
