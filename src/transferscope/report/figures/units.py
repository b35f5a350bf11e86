"""A photograph explained in channels, as PNG: those that decide between two classes, and one accentuated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from transferscope.explain.records import AccentuatedChannel, DecidingChannels, resized
from transferscope.explain.unit_effects import UnitEffect
from transferscope.features.exemplar_crops import Polygon
from transferscope.report.figures import style
from transferscope.report.figures.explanations import (
    GREY,
    canvas,
    file_name,
    network_colour,
    outline_at,
    outlined,
    overlaid,
    painted,
    save,
)
from transferscope.visualize.accentuation import Accentuation
from transferscope.wording import short, signed

Picture = NDArray[np.uint8]

_MARGIN, _HEAD, _SIDE, _GAP, _WIDE = 22.0, 104.0, 92.0, 8.0, 26.0
_LABEL, _BARS = 64.0, 250.0


@dataclass(frozen=True, eq=False)
class UnitRow:
    """What is drawn of one channel; mappings are by network.

    Attributes:
        channel: index.
        sign: direction in which it answers.
        effects: what it contributes.
        pictures: uint8 (H, W, C), the photograph as the network sees it.
        maps: (h, w), its activation there, positive in its direction.
        drawings: uint8 (H, W, C), or None where there is none.
        exemplars: pictures that excite it most, with outlines of where.
    """

    channel: int
    sign: str
    effects: Mapping[str, UnitEffect]
    pictures: Mapping[str, Picture]
    maps: Mapping[str, NDArray[np.float32]]
    drawings: Mapping[str, Picture | None]
    exemplars: Mapping[str, tuple[tuple[Picture, tuple[Polygon, ...]], ...]]


@dataclass(frozen=True, eq=False)
class AccentuatedRow:
    """What is drawn of a channel in one network: its accentuation, and its activation in the photograph."""

    found: Accentuation
    answer: NDArray[np.float32]


def write_units_figure(path: Path, told: DecidingChannels, rows: Sequence[UnitRow]) -> None:
    """Draws a row a channel: what it contributes, where it answers, its drawings and its exemplars.

    Args:
        path: of the PNG.
        told: what stands above.
        rows: in the order of `told.effects`.

    Raises:
        OutputError: the file cannot be written.
    """
    networks = list(told.effects)
    groups = _groups(rows, networks)
    width = (
        2 * _MARGIN
        + _LABEL
        + _BARS
        + sum(_WIDE + count * (_SIDE + _GAP) - _GAP for _, count in groups)
    )
    height = _MARGIN + _HEAD + len(rows) * (_SIDE + _GAP) + 58
    texts = [told.target, told.against, file_name(told.picture), *networks]
    with canvas(width, height, texts) as (figure, axes):
        _title(axes, told, networks)
        scale = max(abs(e.ablated) for of in told.effects.values() for e in of)
        scale = max(scale, *(abs(e.estimate) for of in told.effects.values() for e in of)) or 1.0
        _heads(axes, groups, networks)
        for place, row in enumerate(rows):
            top = _MARGIN + _HEAD + place * (_SIDE + _GAP)
            sign = "−" if row.sign == "minus" else ""
            words: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "va": "center"}
            axes.text(_MARGIN, top + _SIDE / 2, f"{sign}{row.channel}", **words)
            _bars(axes, top, row, networks, scale)
            _pictures(axes, top, row, networks, groups)
        _legend(axes, height - 44, rows)
        save(figure, path, texts)


def _groups(rows: Sequence[UnitRow], networks: Sequence[str]) -> list[tuple[str, int]]:
    """What is shown beside the bars, and how many pictures wide each is."""
    groups = [("where it answers in this photograph", len(networks))]
    if any(one is not None for row in rows for one in row.drawings.values()):
        groups.append(("drawn", len(networks)))
    for name in networks:
        if most := max(len(row.exemplars[name]) for row in rows):
            groups.append((f"held-out pictures that excite {name} most", most))
    return groups


def _title(axes: Axes, told: DecidingChannels, networks: Sequence[str]) -> None:
    title = style.clipped(f"“{told.target}” rather than “{told.against}”, in channels", 90)
    axes.text(_MARGIN, _MARGIN + 8, title, fontsize=15, fontweight="bold", va="center")
    said = ", ".join(f"{name} {signed(told.score[name])}" for name in networks)
    under = f"{told.layer}  ·  logit difference: {said}  ·  {style.clipped(file_name(told.picture), 50)}"
    axes.text(_MARGIN, _MARGIN + 33, under, fontsize=style.TEXT, color=GREY, va="center")


def _heads(axes: Axes, groups: Sequence[tuple[str, int]], networks: Sequence[str]) -> None:
    y = _MARGIN + _HEAD - 34
    axes.text(_MARGIN, y, "channel", color=GREY, va="center")
    axes.text(_MARGIN + _LABEL, y, "what it contributes, logits", color=GREY, va="center")
    left = _MARGIN + _LABEL + _BARS
    for name, count in groups:
        left += _WIDE
        axes.text(left, y, name, color=GREY, va="center")
        if count == len(networks) and not name.startswith("held-out"):
            for place, network in enumerate(networks):
                at = left + place * (_SIDE + _GAP)
                words: dict[str, Any] = {
                    "color": network_colour(network),
                    "fontsize": style.TEXT,
                    "va": "center",
                }
                axes.text(at, y + 18, style.clipped(network, 14), **words)
        left += count * (_SIDE + _GAP) - _GAP


def _bars(axes: Axes, top: float, row: UnitRow, networks: Sequence[str], scale: float) -> None:
    """One bar a network, as long as what ablation costs, with a mark at the estimate."""
    left = _MARGIN + _LABEL
    middle, half = left + _BARS / 2, _BARS / 2 - 46
    step = (_SIDE - 20) / len(networks)
    axes.plot([middle, middle], [top + 4, top + _SIDE - 4], color=GREY, linewidth=0.8)
    for place, name in enumerate(networks):
        effect = row.effects[name]
        y = top + 10 + (place + 0.5) * step
        length = half * effect.ablated / scale
        corner = (min(middle, middle + length), y - 8)
        style.shade(axes, corner, (abs(length), 16), network_colour(name), 0.9)
        mark = middle + half * effect.estimate / scale
        axes.plot([mark, mark], [y - 11, y + 11], color="#111418", linewidth=1.6)
        right = effect.ablated >= 0
        far = (
            max(length, half * effect.estimate / scale, 0)
            if right
            else min(length, half * effect.estimate / scale, 0)
        )
        side: dict[str, Any] = {"ha": "left" if right else "right", "va": "center"}
        axes.text(middle + far + (6 if right else -6), y, signed(effect.ablated), **side)


def _pictures(
    axes: Axes,
    top: float,
    row: UnitRow,
    networks: Sequence[str],
    groups: Sequence[tuple[str, int]],
) -> None:
    left = _MARGIN + _LABEL + _BARS + _WIDE
    largest = max(float(one.max()) for one in row.maps.values())
    for place, name in enumerate(networks):
        at = left + place * (_SIDE + _GAP)
        answer = np.maximum(row.maps[name], 0) / (largest if largest > 0 else 1.0)
        heat = resized(np.asarray(answer, np.float32), row.pictures[name].shape[:2])
        painted(axes, at, top, _SIDE, overlaid(row.pictures[name], heat))
        outlined(axes, at, top, _SIDE, heat)
    left += len(networks) * (_SIDE + _GAP) - _GAP + _WIDE
    if any(name == "drawn" for name, _ in groups):
        for place, name in enumerate(networks):
            at, drawing = left + place * (_SIDE + _GAP), row.drawings[name]
            if drawing is not None:
                painted(axes, at, top, _SIDE, drawing)
                continue
            style.shade(axes, (at, top), (_SIDE, _SIDE), GREY, 0.1)
            words: dict[str, Any] = {"color": GREY, "ha": "center", "va": "center"}
            axes.text(at + _SIDE / 2, top + _SIDE / 2, "not drawn", **words)
        left += len(networks) * (_SIDE + _GAP) - _GAP + _WIDE
    for name in networks:
        for place, (picture, polygons) in enumerate(row.exemplars[name]):
            at = left + place * (_SIDE + _GAP)
            painted(axes, at, top, _SIDE, picture)
            outline_at(axes, at, top, _SIDE, picture.shape[:2], polygons)
        if row.exemplars[name]:
            left += len(row.exemplars[name]) * (_SIDE + _GAP) - _GAP + _WIDE


def _legend(axes: Axes, top: float, rows: Sequence[UnitRow]) -> None:
    lines = [
        "Bars: what the logit difference loses when the channel is 0 everywhere. Black marks: gradient × "
        "activation, the estimate that chose the channels.",
        "Outlined: at least half of the channel's largest activation in that picture."
        + (
            " A minus sign: the channel answers below 0 here, and is shown in that direction."
            if any(row.sign == "minus" for row in rows)
            else ""
        ),
    ]
    for place, line in enumerate(lines):
        axes.text(_MARGIN, top + place * 17, line, color=GREY, va="center")


# ---------------------------------------------------------------------------- accentuation

_LARGE, _LEFT = 224.0, 150.0


def write_accentuation_figure(
    path: Path, told: AccentuatedChannel, rows: Mapping[str, AccentuatedRow]
) -> None:
    """Draws a row a network: photograph, where the channel answers, accentuated, and what was changed.

    Args:
        path: of the PNG.
        told: what stands above and beside.
        rows: by network.

    Raises:
        OutputError: the file cannot be written.
    """
    width = 2 * _MARGIN + _LEFT + 4 * (_LARGE + _GAP) - _GAP
    height = _MARGIN + 84 + len(rows) * (_LARGE + _GAP) + 40
    texts = [file_name(told.picture), *rows]
    with canvas(width, height, texts) as (figure, axes):
        title = f"What channel {told.channel} of {told.layer} answers to here"
        axes.text(_MARGIN, _MARGIN + 8, title, fontsize=15, fontweight="bold", va="center")
        name = style.clipped(file_name(told.picture), 70)
        axes.text(_MARGIN, _MARGIN + 33, name, fontsize=style.TEXT, color=GREY, va="center")
        heads = ("the photograph", "where it answers", "accentuated", "what was changed, enlarged")
        for column, words in enumerate(heads):
            at = _MARGIN + _LEFT + column * (_LARGE + _GAP)
            axes.text(at, _MARGIN + 70, words, color=GREY, va="center")
        for place, (network, row) in enumerate(rows.items()):
            _accentuated(axes, _MARGIN + 84 + place * (_LARGE + _GAP), network, row)
        foot = (
            "The channel is driven further the way it already answers; that the layer's other channels keep "
            "their means is asked for at the same time."
        )
        axes.text(_MARGIN, height - 26, foot, color=GREY, va="center")
        save(figure, path, texts)


def _accentuated(axes: Axes, top: float, network: str, row: AccentuatedRow) -> None:
    found = row.found
    words: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "va": "center"}
    axes.text(_MARGIN, top + 12, style.clipped(network, 20), color=network_colour(network), **words)
    facts = (("mean activation", short(found.before)), ("accentuated", short(found.after)))
    for line, (label, value) in enumerate(facts):
        axes.text(_MARGIN, top + 42 + line * 34, label, color=GREY, va="center")
        axes.text(_MARGIN, top + 56 + line * 34, value, fontsize=style.TEXT, va="center")
    answer = np.maximum(row.answer, 0) / max(float(row.answer.max()), 1e-12)
    heat = resized(np.asarray(answer, np.float32), found.picture.shape[:2])
    columns = [_MARGIN + _LEFT + column * (_LARGE + _GAP) for column in range(4)]
    painted(axes, columns[0], top, _LARGE, found.picture)
    painted(axes, columns[1], top, _LARGE, overlaid(found.picture, heat))
    outlined(axes, columns[1], top, _LARGE, heat)
    painted(axes, columns[2], top, _LARGE, found.accentuated)
    painted(axes, columns[3], top, _LARGE, _changed(found))


def _changed(found: Accentuation) -> Picture:
    """The difference around grey, enlarged until 1% of its values are black or white."""
    apart = found.accentuated.astype(np.float32) - found.picture.astype(np.float32)
    largest = float(np.quantile(np.abs(apart), 0.99)) or 1.0
    shown: Picture = np.clip(127.5 + 127.5 * apart / largest, 0, 255).round().astype(np.uint8)
    return shown
