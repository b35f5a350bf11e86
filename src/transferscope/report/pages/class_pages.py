"""The atlas's pages of classes: how well each is told, what it is taken for, which units serve it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image

from transferscope.report.pages.channels import channel_addresses
from transferscope.report.pages.pictures import saliency_pairs
from transferscope.report.pages.registry import Section, page
from transferscope.wording import percent, signed, span

if TYPE_CHECKING:
    from transferscope.comparison.records import Comparison
    from transferscope.evaluation.metrics import Evaluation
    from transferscope.evaluation.predictions import Predictions
    from transferscope.report.pages.content import AtlasContent, KeptIdeal
    from transferscope.report.pages.site import PagePicture, Site

_ERRORS, _UNITS = 12, 12


@dataclass(frozen=True)
class ServingUnit:
    """A unit without whose tuning the network believes less in a class."""

    layer: str
    channel: int
    address: str
    logit: str
    interval: str


@dataclass(frozen=True)
class ClassError:
    """A picture of a class that was taken for another one, or of another one that was taken for it."""

    path: str
    other: str
    sure: str


@dataclass(frozen=True)
class ClassPage:
    """What is known of a class."""

    name: str
    file: str
    training: int
    held_out: int
    before: str
    after: str
    interval: str
    taken_for: tuple[tuple[str, int], ...]
    missed: tuple[ClassError, ...]
    mistaken: tuple[ClassError, ...]
    units: tuple[ServingUnit, ...]
    serving: int


@page("classes", title="Classes", order=25)
def classes_page(content: AtlasContent, site: Site) -> Section | None:
    """A table of classes; below it a page a class."""
    if content.evaluation is None and content.predictions is None:
        return None
    serving = _serving(content.comparison)
    every = tuple(
        _class(place, content, serving.get(place, ()), shown=site.pictures)
        for place in range(len(content.classes))
    )
    pages = {
        one.file: (
            "class",
            {
                "told": one,
                "previous": every[place - 1] if place else None,
                "next": every[place + 1] if place + 1 < len(every) else None,
                "patched": bool(content.comparison and content.comparison.patching),
                "ideals": _ideals(place, content, site),
                "pairs": saliency_pairs(one.name, content, site),
            },
        )
        for place, one in enumerate(every)
    }
    values = {"classes": every, "has_units": bool(serving), "with_base": content.evaluation_base}
    return Section(values, pages, [(one.name, one.file) for one in every])


def _ideals(
    place: int, content: AtlasContent, site: Site
) -> list[tuple[str, KeptIdeal, PagePicture]]:
    """What the class wants to see in each network, where the run has kept it."""
    name = content.classes[place]
    found = []
    for network, one in sorted(content.ideals.get(name, {}).items()):
        words = f"What {name} wants to see, {network} network"
        file = f"images/ideals/{place}-{network}.webp"
        with suppress(OSError):
            found.append((network, one, site.once(file, words, partial(_drawn, one), quality=90)))
    return found


def _drawn(one: KeptIdeal) -> Image.Image:
    with Image.open(one.file) as picture:
        return picture.convert("RGB")


def _serving(comparison: Comparison | None) -> Mapping[int, Sequence[ServingUnit]]:
    """By class, the units whose setting back lowers its logit beyond chance, the largest fall first."""
    found: dict[int, list[tuple[float, ServingUnit]]] = {}
    patched = comparison.patching.channels if comparison and comparison.patching else ()
    addresses = channel_addresses(comparison) if comparison else {}
    for one in patched:
        known = one.classes
        for place in known.serves if known else ():
            assert known is not None
            fall, low, high = known.logit[place], known.low[place], known.high[place]
            if fall is None or low is None or high is None:
                continue
            address = addresses.get((one.layer, one.channel), "")
            words = (signed(fall), f"{signed(low)} to {signed(high)}")
            unit = ServingUnit(one.layer, one.channel, address, *words)
            found.setdefault(place, []).append((fall, unit))
    return {
        place: tuple(unit for _, unit in sorted(several, key=lambda item: item[0]))
        for place, several in found.items()
    }


def _class(
    place: int, content: AtlasContent, serving: Sequence[ServingUnit], *, shown: bool
) -> ClassPage:
    name = content.classes[place]
    after = _share(content.evaluation, name)
    known = content.evaluation.per_class.get(name) if content.evaluation else None
    predictions = content.predictions if content.predictions and content.predictions.paths else None
    return ClassPage(
        name=name,
        file=f"classes/{place}.html",
        training=content.counts.get("train", {}).get(name, 0),
        held_out=known.n if known else 0,
        before=_share(content.evaluation_base, name),
        after=after,
        interval=span(*known.interval, 0) if known else "–",
        taken_for=_taken_for(place, predictions),
        missed=_errors(place, predictions, own=True) if shown else (),
        mistaken=_errors(place, predictions, own=False) if shown else (),
        units=tuple(serving[:_UNITS]),
        serving=len(serving),
    )


def _share(evaluation: Evaluation | None, name: str) -> str:
    known = evaluation.per_class.get(name) if evaluation else None
    return percent(known.accuracy) if known else "–"


def _taken_for(place: int, predictions: Predictions | None) -> tuple[tuple[str, int], ...]:
    """Other classes that its pictures were taken for, with how many were, the most first."""
    if predictions is None or place >= len(predictions.classes):
        return ()
    own = predictions.predicted[predictions.labels == place].tolist()
    counts = Counter(said for said in own if said != place)
    return tuple((predictions.classes[said], count) for said, count in counts.most_common())


def _errors(place: int, predictions: Predictions | None, *, own: bool) -> tuple[ClassError, ...]:
    """The surest errors on its own pictures, or on others' that were taken for it."""
    if predictions is None or place >= len(predictions.classes):
        return ()
    asked, other = predictions.labels, predictions.predicted
    if not own:
        asked, other = other, asked
    rows = ((asked == place) & (other != place)).nonzero().flatten()
    sure = predictions.probabilities[rows, predictions.predicted[rows]]
    best = rows[sure.argsort(descending=True, stable=True)][:_ERRORS].tolist()
    return tuple(
        ClassError(
            predictions.paths[row],
            predictions.classes[int(other[row])],
            percent(float(predictions.probabilities[row, predictions.predicted[row]]), 0),
        )
        for row in best
    )
