"""The atlas's pages on layers and on channels that were drawn."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup
from PIL import Image

from transferscope.comparison.change import LEARNED, MATTERS, Witnessed
from transferscope.comparison.drawings import drawing_sentence, pooled_sentence
from transferscope.comparison.layer_measures import Estimate
from transferscope.comparison.records import NETWORKS, ChannelDrawings, Comparison, LayerComparison
from transferscope.comparison.shortlist import (
    AT_RANDOM,
    LEAST_LEARNED,
    MOST_LEARNED,
    MOST_MATTERING,
)
from transferscope.errors import InputError
from transferscope.report.figures.channel import channel_figure
from transferscope.report.figures.comparison import gain_figure
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.site import PagePicture, Site
from transferscope.report.pages.unit_exemplars import (
    Near,
    ShownPart,
    near_units,
    shown_exemplars,
)
from transferscope.report.questions import (
    QUESTIONS,
    Answer,
    Answers,
    Question,
    excess_of,
    null_of,
    null_words,
    witness_words,
)
from transferscope.wording import number, percent, probability, signed, span

REASON_WORDS: Mapping[str, str] = {
    MOST_LEARNED: "its gain of class information is among the largest of its layer",
    LEAST_LEARNED: "its gain of class information is among the smallest of its layer: what is said of "
    "others can be held against it",
    MOST_MATTERING: "the loss rises with it more than with most of its layer when base's activations take "
    "its place",
    AT_RANDOM: "it was drawn by lot, whatever its figures are",
}
"""Why a channel is on the shortlist."""


_MANY = 500  # drawn channels; more are stored in less room, at a WebP quality of 70 and not 90


@dataclass(frozen=True)
class Drawn:
    """A channel's drawings from one seed, by network."""

    seed: int
    pictures: Mapping[str, PagePicture]
    statuses: Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """A witness's figures in words: value, interval, what it is held against, q."""

    label: str
    unit: str
    value: str
    interval: str
    null: str
    q: str


@dataclass(frozen=True)
class Legible:
    """A score of interpretability in words."""

    network: str
    shown: str
    score: str
    interval: str


@dataclass(frozen=True)
class Unit:
    """A channel that was drawn, with its page and pictures."""

    record: ChannelDrawings
    label: str
    page: str
    layer_page: str
    drawn: tuple[Drawn, ...]
    answers: tuple[Answer, ...]
    gain: Witnessed | None
    figures: tuple[Figure, ...]
    measures: tuple[tuple[str, str], ...]
    legible: tuple[Legible, ...]
    power: str
    serves: tuple[str, ...]
    figure: Callable[[], Markup] | None
    exemplars: tuple[ShownPart, ...]
    near: tuple[Near, ...]

    @property
    def why(self) -> str:
        """Why it was drawn."""
        return REASON_WORDS.get(self.record.reason, self.record.reason)

    @property
    def frames(self) -> bool:
        """Whether some exemplar's strongest place looks at less than the whole picture."""
        several = (shown for part in self.exemplars for shown in part.exemplars.values())
        return any(one.field is not None for shown in several for one in shown)

    @property
    def learned(self) -> Answer:
        """Its answer to that question."""
        return next(one for one in self.answers if one.question.witness == LEARNED)

    @property
    def matters(self) -> Answer:
        """The same, whether it matters."""
        return next(one for one in self.answers if one.question.witness == MATTERS)


@dataclass(frozen=True)
class Channel:
    """A row of a layer's table: what a channel gained, and its page where it was drawn.

    Attributes:
        index: within the layer.
        answers: to the four questions, by their slug.
        gain: of class information; None where it was not measured.
        track: places of value, interval and null on the layer's scale, in percent; None without a gain.
        unit: its drawings, or None.
    """

    index: int
    answers: Mapping[str, Answer]
    gain: Witnessed | None
    track: Mapping[str, float] | None
    unit: Unit | None


@dataclass(frozen=True)
class Layer:
    """A compared layer with its page, all its channels, and those that were drawn."""

    record: LayerComparison
    page: str
    units: tuple[Unit, ...]
    channels: tuple[Channel, ...]
    counts: tuple[tuple[Question, tuple[int, int] | None], ...]
    statuses: tuple[tuple[str, int], ...]
    measures: tuple[tuple[str, str, str], ...]
    together: str
    figure: Markup | None


def compared_layers(content: AtlasContent, site: Site) -> tuple[Layer, ...]:
    """The layers with their channels; writes the channels' pictures.

    Raises:
        InputError: two drawings of the comparison have the same layer, channel and sign.
    """
    comparison = content.comparison
    if comparison is None:
        return ()
    answers = Answers.of(comparison)
    slugs = _slugs(comparison)
    return tuple(
        _layer(record, answers, content, site, slugs[record.layer]) for record in comparison.layers
    )


def channel_addresses(comparison: Comparison) -> dict[tuple[str, int], str]:
    """Where each channel is shown: its page if it was drawn, else its row in the layer's table."""
    slugs = _slugs(comparison)
    found = {
        (row.layer, row.channel): f"layers/{slugs[row.layer]}.html#channel-{row.channel}"
        for row in comparison.of_witness(LEARNED)
    }
    for one in comparison.drawings:
        found[one.layer, one.channel] = f"units/{_stem(one, slugs[one.layer])}.html"
    return found


def _slugs(comparison: Comparison) -> dict[str, str]:
    taken: set[str] = set()
    return {layer.layer: _slug(layer.layer, taken=taken) for layer in comparison.layers}


def _stem(one: ChannelDrawings, slug: str) -> str:
    return f"{slug}-{one.channel}" + ("-minus" if one.sign == "minus" else "")


def channel_pages(layers: Sequence[Layer]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Of each layer and each drawn channel: file to (template, values)."""
    units = [(layer, unit) for layer in layers for unit in layer.units]
    pages: dict[str, tuple[str, Mapping[str, Any]]] = {
        layer.page: ("layer", {"layer": layer, "layers": layers}) for layer in layers
    }
    neighbours = [None, *(unit for _, unit in units), None]
    drawn = {(unit.record.layer, unit.record.channel): unit.page for _, unit in units}
    for (layer, unit), previous, following in zip(units, neighbours, neighbours[2:], strict=False):
        values = {"layer": layer, "unit": unit, "previous": previous, "next": following}
        values["drawn_pages"] = drawn
        pages[unit.page] = ("unit", values)
    return pages


def search_entries(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """Layers, drawn channels, and the others in their layer's table: (words, address)."""
    found = []
    for layer in layers:
        name = layer.record.layer
        found.append((name, layer.page))
        found += [(f"{name} {unit.label}", unit.page) for unit in layer.units]
        found += [
            (f"{name} {one.index}", f"{layer.page}#channel-{one.index}")
            for one in sorted(layer.channels, key=lambda one: one.index)
            if one.unit is None
        ]
    return found


# ---------------------------------------------------------------------------- a layer


def _layer(
    record: LayerComparison, answers: Answers, content: AtlasContent, site: Site, slug: str
) -> Layer:
    comparison, name = answers.comparison, record.layer
    drawings = [one for one in comparison.drawings if one.layer == name]
    marked = {one.sign for one in drawings} - {"plus"}
    units: dict[str, Unit] = {}
    for one in drawings:
        stem = _stem(one, slug)
        if stem in units:
            raise InputError(
                f"channel {one.channel} ({one.sign}) of layer {name!r} was drawn twice; give each channel "
                "and sign once"
            )
        units[stem] = _unit(one, stem, answers, content, site, slug, marked=bool(marked))
    counts = Counter(status for one in drawings for n in NETWORKS for status in one.statuses[n])
    asked = any(row.layer == name for row in comparison.of_witness(LEARNED))
    return Layer(
        record=record,
        page=f"layers/{slug}.html",
        units=tuple(units.values()),
        channels=_channels(record, answers, tuple(units.values())) if asked else (),
        counts=tuple((question, answers.count(question, name)) for question in QUESTIONS),
        statuses=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        measures=_layer_measures(record, comparison),
        together=pooled_sentence(record.drawings) if record.drawings else "",
        figure=Markup(gain_figure(comparison, name)) if asked else None,
    )


def _layer_measures(
    record: LayerComparison, comparison: Comparison
) -> tuple[tuple[str, str, str], ...]:
    """Of all its channels together: (what, figure, what it is held against)."""
    found = []
    known = record.measures
    if known is not None:
        controls = ", ".join(signed(gain) for gain in known.control_gains)
        first, second = comparison.pair
        found = [
            ("CKA, 1: alike", number(known.cka.value), _ends(known.cka)),
            (
                "Procrustes distance, 0: alike",
                number(known.procrustes.value),
                f"unrelated {number(known.unrelated)}",
            ),
            (
                f"Separation of the classes, {first}",
                number(known.separation_base.value),
                _ends(known.separation_base),
            ),
            (
                f"The same, {second}",
                number(known.separation_tuned.value),
                _ends(known.separation_tuned),
            ),
            (
                "Gain of separation",
                signed(known.separation_gain.value),
                f"controls {controls}" if controls else _ends(known.separation_gain),
            ),
        ]
    if record.weights is not None:
        found.append(("Weights, relative change", number(record.weights.whole), ""))
    return tuple(found)


def _ends(known: Estimate) -> str:
    """A 95% interval."""
    return f"{number(known.low)} to {number(known.high)}"


def _channels(
    record: LayerComparison, answers: Answers, units: Sequence[Unit]
) -> tuple[Channel, ...]:
    """All channels of a layer, the most learned first."""
    drawn = {unit.record.channel: unit for unit in units}
    rows = {
        channel: answers.rows[record.layer, channel].get(LEARNED)
        for layer, channel in answers.rows
        if layer == record.layer
    }
    tracks = _tracks([row for row in rows.values() if row is not None])

    def of(channel: int, row: Witnessed | None) -> Channel:
        said = answers.channel(record.layer, channel)
        by_slug = {one.question.slug: one for one in said}
        return Channel(channel, by_slug, row, tracks.get(channel), drawn.get(channel))

    def rank(item: tuple[int, Witnessed | None]) -> tuple[float, int]:
        channel, row = item
        excess = excess_of(row)
        return (math.inf if excess is None else -excess, channel)

    return tuple(of(channel, row) for channel, row in sorted(rows.items(), key=rank))


def _tracks(rows: Sequence[Witnessed]) -> dict[int, dict[str, float]]:
    """Where a layer's gains, their intervals and nulls lie on one scale, in percent, by channel."""
    known = [row for row in rows if math.isfinite(row.value + row.low + row.high)]
    ends = [end for row in known for end in (row.low, row.high, null_of(row))]
    low = min([*ends, 0.0])
    wide = max([*ends, 0.0]) - low or 1.0

    def at(value: float) -> float:
        return round(100 * (value - low) / wide, 1)

    return {
        row.channel: {
            "value": at(row.value),
            "low": at(row.low),
            "wide": round(at(row.high) - at(row.low), 1),
            "null": at(null_of(row)),
            "zero": at(0.0),
        }
        for row in known
    }


# ---------------------------------------------------------------------------- a channel that was drawn


def _unit(
    one: ChannelDrawings,
    stem: str,
    answers: Answers,
    content: AtlasContent,
    site: Site,
    slug: str,
    *,
    marked: bool,
) -> Unit:
    rows = answers.rows.get((one.layer, one.channel), {})
    tested = any(witness_words(name).tested for name in rows)
    mark = {"plus": " +", "minus": " −"}.get(one.sign, "") if marked else ""
    return Unit(
        record=one,
        label=f"{one.channel}{mark}",
        page=f"units/{stem}.html",
        layer_page=f"layers/{slug}.html",
        drawn=tuple(
            Drawn(
                seed,
                {
                    network: _picture(one, network, seed, stem, content, site)
                    for network in NETWORKS
                },
                {network: one.statuses[network][place] for network in NETWORKS},
            )
            for place, seed in enumerate(one.seeds)
        ),
        answers=answers.channel(one.layer, one.channel),
        gain=rows.get(LEARNED),
        figures=tuple(_figure(row, answers.comparison) for row in rows.values()),
        measures=_measures(one, answers.comparison),
        legible=_legible(one),
        power=drawing_sentence(one.test, fdr=answers.comparison.fdr) if one.test else "",
        serves=_serves(answers, one, content.classes),
        figure=partial(_channel_figure, answers, one.layer, one.channel) if tested else None,
        exemplars=shown_exemplars(one, site),
        near=near_units(one, dict(zip(NETWORKS, answers.comparison.pair, strict=True))),
    )


def _channel_figure(answers: Answers, layer: str, channel: int) -> Markup:
    """Drawn when its page is written: thousands of figures need not be in memory at once."""
    return Markup(channel_figure(answers, layer, channel))


def _figure(row: Witnessed, comparison: Comparison) -> Figure:
    words = witness_words(row.witness)
    low, high = words.say(row.low), words.say(row.high)
    interval = f"{low} to {high}" if words.tested and "–" not in (low, high) else "–"
    if words.tested and row.low == row.high:
        interval = "estimate"
    null = f"{null_words(comparison, row.witness)} {words.say(null_of(row))}"
    return Figure(
        label=words.label,
        unit=words.unit,
        value=words.say(row.value),
        interval=interval,
        null=null if words.tested else "–",
        q=probability(row.q) if words.tested else "–",
    )


def _measures(one: ChannelDrawings, comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """What is measured of the drawings and exemplars beside the witnesses."""
    called = dict(zip(NETWORKS, comparison.pair, strict=True))
    chance = next((x.chance for x in comparison.layers if x.layer == one.layer), None)
    found: list[tuple[str, float | None]] = []
    if one.test is not None:
        found = [
            (f"Drawings alike, {called['base']} and {called['tuned']}", one.test.similarity),
            *(
                (f"The same, {called[n]} from another seed", one.test.rerender.get(n))
                for n in NETWORKS
            ),
            ("The same, unrelated channels (chance)", chance),
            ("Distance in texture, of that of unrelated channels", one.test.gram),
        ]
    known = [(label, number(value)) for label, value in found if value is not None]
    known.append(("Of the 20 best pictures, shared", percent(one.shared_top20, 0)))
    if one.neighbours is not None:
        own = f"Correlation with its own responses in {called['base']}"
        known.append((own, number(one.neighbours.own)))
    return tuple(known)


def _serves(answers: Answers, one: ChannelDrawings, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that the network believes in less without what the channel became."""
    effect = answers.effects.get((one.layer, one.channel))
    if effect is None or effect.classes is None:
        return ()
    return tuple(classes[place] for place in effect.classes.serves)


def _legible(one: ChannelDrawings) -> tuple[Legible, ...]:
    """How well a judge tells what excites the channel, by what is shown for it."""
    found = []
    for network, scores in one.interpretability.items():
        for score in scores:
            interval = "–"
            if score.low is not None and score.high is not None:
                interval = span(score.low, score.high, 0)
            found.append(Legible(network, score.shown, percent(score.score, 0), interval))
    return tuple(found)


def _picture(
    one: ChannelDrawings, network: str, seed: int, stem: str, content: AtlasContent, site: Site
) -> PagePicture:
    """One drawing."""
    assert content.comparison is not None
    render = content.renders.get((network, one.layer, one.channel, one.sign, seed))
    if render is None:
        side = content.comparison.size
        return PagePicture(None, f"no drawing of seed {seed}", side, side)
    words = f"channel {one.channel} of {one.layer}, {network} network, seed {seed}"
    file = f"images/renders/{stem}-{network}-{seed}.webp"
    many = len(content.comparison.drawings) > _MANY
    quality = 70 if many else 90
    return site.save(Image.fromarray(render.picture), file, words, quality=quality)


def _slug(layer: str, *, taken: set[str]) -> str:
    """A file name for a layer, different from those taken on every file system."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", layer).strip("-")[:80] or "layer"
    slug, number = plain, 1
    while slug.lower() in taken:
        number += 1
        slug = f"{plain}_{number}"
    taken.add(slug.lower())
    return slug
