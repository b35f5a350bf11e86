"""The atlas: a folder of static pages that opens by double click, without a server or the net.

    index.html            how good it is and what changed, in words, figures and pairs of renders
    layers/LAYER.html     every channel of a layer that was compared
    units/LAYER-N.html    one channel: both networks' renders, exemplars and all figures
    evaluation.html       how good the classifier is, how far to trust it, where it errs
    card.html             the model card, as it is written for the Hub
    data.html             what the pictures are, if they were inspected
    method.html           what "changed", the noise floor, chance and the intervals mean
    images/ assets/       WebP pictures; the style sheet and the script

Without a comparison there are no layers and units. Links are relative, text is UTF-8 in any script,
and every name is escaped where it enters a page.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from PIL import Image, ImageOps

from transferscope.comparison import (
    NETWORKS,
    ChannelComparison,
    Comparison,
    Exemplar,
    LayerComparison,
)
from transferscope.errors import InputError, PictureError
from transferscope.images import read_picture
from transferscope.report import figures, training_figures
from transferscope.report.evaluation_page import evaluation_page
from transferscope.report.inspection import inspection_page
from transferscope.report.model_card import ModelCard, card_sections, opening
from transferscope.report.pages import PagePicture, Pages, percent, save_picture
from transferscope.storage import replaced_folder, sha256_bytes

if TYPE_CHECKING:
    import os

    from transferscope.data.inspection import Inspection
    from transferscope.evaluation import ErrorStudy, Evaluation, PairedDifference, Predictions
    from transferscope.visualize.records import Render

RenderKey = tuple[str, str, int, str, int]
"""(network, layer, channel, sign, seed)."""

THUMBNAIL = 160
"""Side of an exemplar's picture in pixels."""

_SHORTLIST = 6  # channels shown as most and as least changed

STATUS_WORDS = {
    "optimized": "The channel was driven to or beyond the best real picture.",
    "zero_gradient": "The channel stayed blocked: its ReLU was shut for every start tried, so the "
    "picture shows nothing.",
    "dead_on_data": "The channel stayed blocked, and no real picture excites it either.",
    "below_exemplar": "The render excites the channel less than the best real picture does: trust "
    "the real pictures more.",
    "non_finite": "The optimization left the numbers, so the picture shows nothing.",
}
"""What each render status means, for a reader."""


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


def write_atlas(
    content: AtlasContent, out: str | os.PathLike[str], *, pictures: bool = True
) -> Path:
    """Writes the atlas as the folder `out`, whole or not at all.

    The same content gives the same bytes.

    Args:
        content: what to show.
        out: a new folder, an empty one, or an earlier atlas, which is replaced.
        pictures: False leaves out the data folder's own pictures (exemplars, errors, samples) and
            their names, so that the atlas can be given to people who must not see them. Renders stay.

    Returns:
        The path of index.html.

    Raises:
        OutputError: `out` holds files that are not ours, or cannot be written.
        InputError: two channels of the comparison have the same layer, index and sign.
    """
    out = Path(out)
    with replaced_folder(out) as folder:
        _Site(content, folder, pictures=pictures).write()
    return out / "index.html"


# ---------------------------------------------------------------------------- what the pages show


@dataclass(frozen=True)
class _Unit:
    """A compared channel with its page and pictures."""

    record: ChannelComparison
    label: str
    page: str
    layer_page: str
    seeds: tuple[tuple[int, dict[str, PagePicture]], ...]
    exemplars: dict[str, tuple[tuple[Exemplar, PagePicture], ...]]


@dataclass(frozen=True)
class _Layer:
    """A compared layer with its page and channels."""

    record: LayerComparison
    page: str
    units: tuple[_Unit, ...]
    statuses: tuple[tuple[str, int], ...]
    figure: Markup | None

    @property
    def changed(self) -> int:
        return sum(unit.record.changed for unit in self.units)


class _Site:
    """Pages and pictures under one folder; each picture is written once."""

    def __init__(self, content: AtlasContent, folder: Path, *, pictures: bool):
        self.content = content
        self.folder = folder
        self.pictures = pictures
        self.thumbnails: dict[str, PagePicture] = {}
        self.site = Pages(folder)

    def write(self) -> None:
        channels = () if self.content.comparison is None else ("images/renders", "layers", "units")
        for name in ("images/pictures", *channels):
            (self.folder / name).mkdir(parents=True)
        self.site.write_assets()
        layers = self._layers()
        units = [unit for layer in layers for unit in layer.units]
        evaluated = self.content.evaluation is not None or bool(self.content.strips)
        inspection, card = self.content.inspection, self.content.card
        explained = not (self.content.evaluation is None and self.content.comparison is None)
        shared = {
            "title": self.content.title,
            "content": self.content,
            "comparison": self.content.comparison,
            "layers": layers,
            "networks": NETWORKS,
            "status_words": STATUS_WORDS,
            "has_evaluation": evaluated,
            "own_pictures": self.pictures,
            "has_method": explained,
            "navigation": [
                ("index.html", "Overview"),
                *([("data.html", "Data")] if inspection is not None else []),
                *([("evaluation.html", "Evaluation")] if evaluated else []),
                *([("card.html", "Model card")] if card is not None else []),
                *([("method.html", "Method")] if explained else []),
            ],
        }
        self.site.write_page("index.html", "index", shared | self._overview(units))
        if explained:
            self.site.write_page("method.html", "method", shared)
        if evaluated:
            values = evaluation_page(
                self.content, thumbnail=self._thumbnail, pictures=self.pictures
            )
            self.site.write_page("evaluation.html", "evaluation", shared | values)
        if card is not None:
            told = {"card_opening": opening(card), "card_sections": card_sections(card)}
            self.site.write_page("card.html", "card", shared | told)
        if inspection is not None:
            values = inspection_page(
                inspection, self.folder, pictures=self.pictures, preview=self.content.preview
            )
            self.site.write_page("data.html", "inspection", shared | values)
        for layer in layers:
            self.site.write_page(layer.page, "layer", shared | {"layer": layer})
            for unit in layer.units:
                place = self.order[unit.page]
                self.site.write_page(
                    unit.page,
                    "unit",
                    shared
                    | {
                        "layer": layer,
                        "unit": unit,
                        "previous": units[place - 1] if place else None,
                        "next": units[place + 1] if place + 1 < len(units) else None,
                    },
                )

    # ------------------------------------------------------------------ layers and channels

    @property
    def compared(self) -> Comparison:
        """The comparison, where a channel of it is being shown."""
        assert self.content.comparison is not None
        return self.content.comparison

    def _layers(self) -> tuple[_Layer, ...]:
        slugs: dict[str, str] = {}
        layers = []
        self.order: dict[str, int] = {}
        comparison = self.content.comparison
        for record in comparison.layers if comparison is not None else ():
            slug = _slug(record.layer, taken=slugs)
            two_signs = len({channel.sign for channel in record.channels}) > 1
            units = []
            for channel in record.channels:
                unit = self._unit(channel, slug, two_signs=two_signs)
                if unit.page in self.order:
                    raise InputError(
                        f"channel {channel.channel} ({channel.sign}) of layer {channel.layer!r} was "
                        "compared twice; give each channel and sign once"
                    )
                self.order[unit.page] = len(self.order)
                units.append(unit)
            counts = Counter(
                unit.record.statuses[network]
                for unit in units
                for network in NETWORKS
                if network in unit.record.statuses
            )
            figure = None
            tested = any(math.isfinite(channel.statistic) for channel in record.channels)
            if tested and not record.identical and any(map(math.isfinite, record.null)):
                figure = Markup(figures.channel_null_figure(record))
            layers.append(
                _Layer(
                    record=record,
                    page=f"layers/{slug}.html",
                    units=tuple(units),
                    statuses=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
                    figure=figure,
                )
            )
        return tuple(layers)

    def _unit(self, channel: ChannelComparison, slug: str, *, two_signs: bool) -> _Unit:
        stem = f"{slug}-{channel.channel}" + ("-minus" if channel.sign == "minus" else "")
        mark = {"plus": " +", "minus": " −"}.get(channel.sign, "")
        label = f"{channel.channel}{mark if two_signs or channel.sign == 'minus' else ''}"
        seeds, renders = [], self.content.renders
        for seed in self.compared.seeds:
            if channel.identical:  # one network's picture is the other's too
                drawn = next(
                    (n for n in NETWORKS if self._key(channel, n, seed) in renders), "base"
                )
                shown = dict.fromkeys(NETWORKS, self._render(channel, drawn, seed, stem))
            else:
                shown = {name: self._render(channel, name, seed, stem) for name in NETWORKS}
            seeds.append((seed, shown))
        return _Unit(
            record=channel,
            label=label,
            page=f"units/{stem}.html",
            layer_page=f"layers/{slug}.html",
            seeds=tuple(seeds),
            exemplars={
                network: tuple(
                    (exemplar, self._thumbnail(exemplar.path))
                    for exemplar in channel.exemplars.get(network, ())
                )
                for network in NETWORKS
            },
        )

    @staticmethod
    def _key(channel: ChannelComparison, network: str, seed: int) -> RenderKey:
        return (network, channel.layer, channel.channel, channel.sign, seed)

    def _render(
        self, channel: ChannelComparison, network: str, seed: int, stem: str
    ) -> PagePicture:
        render = self.content.renders.get(self._key(channel, network, seed))
        side = self.compared.size
        if render is None:
            return PagePicture(None, f"no render of seed {seed}", side, side)
        file = f"images/renders/{stem}-{network}-{seed}.webp"
        save_picture(Image.fromarray(render.picture), self.folder / file, quality=90)
        words = f"channel {channel.channel} of {channel.layer}, {network} network, seed {seed}"
        return PagePicture(file, words, *render.picture.shape[1::-1])

    def _thumbnail(self, path: str) -> PagePicture:
        """A centre crop of one of the data folder's pictures."""
        if path not in self.thumbnails:
            self.thumbnails[path] = self._make_thumbnail(path)
        return self.thumbnails[path]

    def _make_thumbnail(self, path: str) -> PagePicture:
        if not self.pictures:
            return PagePicture(None, "picture left out", THUMBNAIL, THUMBNAIL)
        try:
            picture = read_picture(self.content.data_root / path, least_side=2 * THUMBNAIL)
        except PictureError:
            return PagePicture(None, "picture not found", THUMBNAIL, THUMBNAIL)
        name = sha256_bytes(path.encode("utf-8", "surrogateescape"))[:20]
        file = f"images/pictures/{name}.webp"
        small = ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        save_picture(small, self.folder / file, quality=82)
        return PagePicture(file, path, THUMBNAIL, THUMBNAIL)

    # ------------------------------------------------------------------ front page and evaluation

    def _overview(self, units: list[_Unit]) -> dict[str, Any]:
        ranked = sorted(
            (
                unit
                for unit in units
                if not unit.record.identical and math.isfinite(unit.record.statistic)
            ),
            key=lambda unit: (-unit.record.statistic, unit.page),
        )
        shown = min(_SHORTLIST, len(ranked) // 2) or len(ranked)
        comparison = self.content.comparison
        return {
            "sentences": headline(self.content),
            "accuracies": self._accuracies(),
            "most": ranked[:shown],
            "least": ranked[shown:][::-1][:shown],
            "box_plot": (
                Markup(figures.layer_box_plot(comparison))
                if comparison is not None and comparison.layers
                else None
            ),
            "history": (
                Markup(training_figures.history_figure(self.content.history))
                if self.content.history
                else None
            ),
        }

    def _accuracies(self) -> dict[str, Any]:
        """Rows of (split, network, top-1, interval or None) and where their scale begins."""
        content = self.content
        rows: list[tuple[str, str, float, tuple[float, float] | None]] = []
        for network, value in zip(
            NETWORKS, (content.validation_before, content.validation_after), strict=True
        ):
            if value is not None:
                rows.append(("validation", network, value, None))
        for network, record in zip(
            NETWORKS, (content.evaluation_base, content.evaluation), strict=True
        ):
            if record is not None:
                rows.append((record.split, network, record.top1, record.top1_interval))
        lowest = min([value for _, _, value, _ in rows] + [i[0] for *_, i in rows if i] + [1.0])
        return {"rows": rows, "start": min(0.9, max(0.0, math.floor(lowest * 10 - 0.5) / 10))}


# ---------------------------------------------------------------------------- words


def headline(content: AtlasContent) -> list[str]:
    """How good it is and what changed, as sentences with figures."""
    sentences = _accuracy_told(content)
    if content.comparison is not None:
        sentences += _change_told(content.comparison)
        return sentences or ["No layer was compared."]
    return sentences or ["Nothing was evaluated or compared yet."]


def _accuracy_told(content: AtlasContent) -> list[str]:
    after, before = content.evaluation, content.evaluation_base
    if after is not None and before is not None:
        moved = _moved(f"the {after.n:,} {after.split} pictures", before.top1, after.top1)
        return [moved + _gain_told(after.gain) + "."]
    if after is not None:
        return [f"{percent(after.top1)} of the {after.n:,} {after.split} pictures are recognised."]
    if content.validation_before is not None and content.validation_after is not None:
        moved = _moved(
            "the validation pictures", content.validation_before, content.validation_after
        )
        return [moved + "."]
    return []


def _gain_told(gain: PairedDifference | None) -> str:
    if gain is None:
        return ""
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in gain.interval)
    return f" (paired 95% interval of the gain: {low} to {high} points)"


def _change_told(comparison: Comparison) -> list[str]:
    sentences = []
    layers = comparison.layers
    frozen = [layer for layer in layers if layer.identical]
    drawn = [layer for layer in layers if not layer.identical and layer.channels]
    channels = [channel for layer in drawn for channel in layer.channels]
    if channels:
        changed = sum(channel.changed for channel in channels)
        sentences.append(
            f"{changed or 'None'} of the {len(channels)} channels compared changed more than drawing "
            "the same channel twice changes it, at a false discovery rate of "
            f"{percent(comparison.fdr, 0)}."
        )
        most = max(
            drawn, key=lambda layer: sum(c.changed for c in layer.channels) / len(layer.channels)
        )
        share = sum(channel.changed for channel in most.channels)
        if share and len(drawn) > 1:
            sentences.append(
                f"The change is widest in {most.layer}: {share} of {len(most.channels)} channels."
            )
    if frozen:
        names = [layer.layer for layer in frozen]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        if len(names) > 4:
            listed = f"{len(names)} layers, up to {names[-1]},"
        verb = "was" if len(names) == 1 else "were"
        sentences.append(f"{listed} {verb} frozen: bit-identical in both networks.")
    return sentences


def _moved(pictures: str, before: float, after: float) -> str:
    start, end = percent(before), percent(after)
    if start == end:
        return f"Tuning left accuracy on {pictures} at {end}"
    verb = "lifted" if after > before else "lowered"
    return f"Tuning {verb} accuracy on {pictures} from {start} to {end}"


def _slug(layer: str, *, taken: dict[str, str]) -> str:
    """A file name for a layer, different from those taken on every file system."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", layer).strip("-")[:80] or "layer"
    slug, number = plain, 1
    while slug.lower() in taken:
        number += 1
        slug = f"{plain}_{number}"
    taken[slug.lower()] = layer
    return slug
