"""A photograph explained in channels: which ones decide between two classes, and what one answers to in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, WeightsError
from transferscope.explain.records import AccentuatedChannel, DecidingChannels
from transferscope.explain.scores import default_layer
from transferscope.explain.unit_effects import UnitEffect, channel_maps, deciding_channels
from transferscope.features.exemplar_crops import (
    ExemplarCrop,
    Sign,
    Unit,
    exemplar_crops,
    top_pictures,
)
from transferscope.features.exemplars import channel_responses
from transferscope.images import as_float
from transferscope.machine import cache_dir
from transferscope.report.figures.units import (
    AccentuatedRow,
    UnitRow,
    write_accentuation_figure,
    write_units_figure,
)
from transferscope.visualize.accentuation import accentuate
from transferscope.visualize.units import Sweep, WorkUnit
from transferscope.workflows.comparisons import render_keys
from transferscope.workflows.explained_networks import RANDOM, Networks
from transferscope.workflows.run import files_of

EXEMPLARS = 3
"""Pictures that excite a channel most which are shown, of each network."""

_POOL = 200  # held-out pictures among which they are sought


@dataclass(frozen=True)
class UnitQuestion:
    """Which channels are looked at.

    Attributes:
        count: how many that decide; 0: none.
        layer: whose channels; None: the deepest one that a comparison of the run has drawings of, otherwise the
            one that Grad-CAM takes.
        accentuate: (layer, channel) that is accentuated in the picture; None: none.
        seed: of movements and of the pictures among which exemplars are sought.
    """

    count: int = 6
    layer: str | None = None
    accentuate: tuple[str, int] | None = None
    seed: int = 0


class UnitExplanations:
    """Explains pictures in channels; what does not depend on the picture is computed once.

    Args:
        networks: those of other layers than the one asked about are left out, and so is a random head.
        asked: which channels.

    Raises:
        UnknownName, InputError: a layer or channel that the network does not have.
    """

    def __init__(self, networks: Networks, asked: UnitQuestion):
        self.networks, self.asked = networks, asked
        own = networks.own
        if asked.accentuate is not None:
            layer, channel = asked.accentuate
            channel_maps(own, torch.zeros(1, *own.input.shape), layer, [channel])
        self.layer = asked.layer or self._drawn_layer() or default_layer(own)
        wanted = self._width(own)
        self.of = {
            name: one
            for name, one in networks.by_name.items()
            if name != RANDOM and (one is own or self._width(one) == wanted)
        }

    def explain(self, path: str, classes: tuple[int, int | None], folder: Path) -> dict[str, Any]:
        """Draws what was asked for into a folder.

        Args:
            path: of the picture.
            classes: index of the target, and of the class it is held against; None: the next best.
            folder: for the figures.

        Returns:
            `units` and `accentuated`: the records' fields, or None for what was not asked for.
        """
        units = accentuated = None
        if self.asked.count:
            units = self._decide(path, classes, folder).to_dict()
        if self.asked.accentuate is not None:
            accentuated = self._accentuate(path, *self.asked.accentuate, folder).to_dict()
        return {"units": units, "accentuated": accentuated}

    # ------------------------------------------------------------------ channels that decide

    def _decide(self, path: str, classes: tuple[int, int | None], folder: Path) -> DecidingChannels:
        own = self.networks.own
        target, versus = classes
        logits = {name: self._logits(one, path) for name, one in self.of.items()}
        if versus is None:
            others = logits[self.networks.name].clone()
            others[target] = -torch.inf
            versus = int(others.argmax())
        effects: dict[str, tuple[UnitEffect, ...]] = {}
        chosen: list[int] | None = None
        for name in sorted(self.of, key=lambda name: name != self.networks.name):
            one = self.of[name]
            first, second = (one.classes.index(own.classes[i]) for i in (target, versus))
            effects[name] = deciding_channels(
                one,
                self._pixels(one, path),
                first,
                second,
                self.layer,
                count=self.asked.count,
                channels=chosen,
            )
            chosen = [effect.channel for effect in effects[name]]
        effects = {name: effects[name] for name in self.of}
        told = DecidingChannels(
            picture=path,
            target=own.classes[target],
            against=own.classes[versus],
            layer=self.layer,
            score={
                name: float(
                    values[self.of[name].classes.index(own.classes[target])]
                    - values[self.of[name].classes.index(own.classes[versus])]
                )
                for name, values in logits.items()
            },
            effects=effects,
            figure="units.png",
        )
        write_units_figure(folder / told.figure, told, self._rows(path, told))
        return told

    def _rows(self, path: str, told: DecidingChannels) -> list[UnitRow]:
        """One a channel; its direction is that in which it answers in the network asked about."""
        chosen = told.effects[self.networks.name]
        signs: list[Sign] = ["minus" if one.activation < 0 else "plus" for one in chosen]
        units = [
            Unit(self.layer, one.channel, sign) for one, sign in zip(chosen, signs, strict=True)
        ]
        pixels = {name: self._pixels(one, path) for name, one in self.of.items()}
        maps = {
            name: channel_maps(one, pixels[name][None], self.layer, [u.channel for u in units])[0]
            for name, one in self.of.items()
        }
        exemplars = {name: self._exemplars(name, units) for name in self.of}
        return [
            UnitRow(
                channel=unit.channel,
                sign=unit.sign,
                effects={name: of[place] for name, of in told.effects.items()},
                pictures={name: _uint8(values) for name, values in pixels.items()},
                maps={
                    name: values[place] * (1 if unit.sign == "plus" else -1)
                    for name, values in maps.items()
                },
                drawings={name: self._drawing(name, unit) for name in self.of},
                exemplars={
                    name: tuple(
                        (_uint8(self._pixels(self.of[name], crop.path)), crop.outline)
                        for crop in found[unit]
                    )
                    for name, found in exemplars.items()
                },
            )
            for place, unit in enumerate(units)
        ]

    @cached_property
    def _held_out(self) -> list[Path]:
        """Validation pictures of the run; none where there is no run, or they are not at hand."""
        run = self.networks.run
        if run is None or not run.split.part("validation"):
            return []
        files, _ = files_of(run, "validation", None)
        if len(files) <= _POOL:
            return files
        drawn = np.random.default_rng(self.asked.seed).choice(len(files), _POOL, replace=False)
        return [files[place] for place in sorted(drawn.tolist())]

    @cached_property
    def _responses(self) -> Mapping[str, NDArray[np.float32]]:
        return {
            name: channel_responses(one, self._held_out, [self.layer])[self.layer].numpy()
            for name, one in self.of.items()
        }

    def _exemplars(
        self, name: str, units: Sequence[Unit]
    ) -> Mapping[Unit, tuple[ExemplarCrop, ...]]:
        if not self._held_out:
            return dict.fromkeys(units, ())
        wanted = {
            unit: top_pictures(self._responses[name], unit.channel, sign=unit.sign, count=EXEMPLARS)
            for unit in units
        }
        return exemplar_crops(self.of[name], self._held_out, wanted)

    # ------------------------------------------------------------------ drawings

    @cached_property
    def _sweep(self) -> Sweep:
        run = self.networks.run
        return Sweep(cache_dir() / "sweep", kept=None if run is None else run.path / "sweep")

    @cached_property
    def _keys(self) -> list[dict[str, Any]]:
        """Of the run's comparison; none where it has none."""
        run = self.networks.run
        return [] if run is None else render_keys(run.path / "comparison")

    def _drawn_layer(self) -> str | None:
        own = self.networks.own
        drawn = {row["layer"] for row in self._keys}
        order = [one.name for one in layers_of(own.network, own.example()) if one.name in drawn]
        return order[-1] if order else None

    @cached_property
    def _work_units(self) -> dict[tuple[str, str], WorkUnit]:
        """What `visualize` would call a channel's drawing, by network and direction."""
        signs: tuple[Sign, Sign] = ("plus", "minus")
        return {
            (name, sign): WorkUnit.of(one, self.layer, (), seed=0, sign=sign)
            for name, one in self.of.items()
            for sign in signs
        }

    def _drawing(self, name: str, unit: Unit) -> NDArray[np.uint8] | None:
        """A channel's drawing where the run's sweep or the cache has one."""
        wanted = {"network": name, "layer": unit.layer, "channel": unit.channel, "sign": unit.sign}
        keys = [row["key"] for row in self._keys if wanted.items() <= row.items()]
        for key in [*keys, self._work_units[name, unit.sign].key(unit.channel)]:
            with suppress(WeightsError):
                if self._sweep.path(key).is_file():
                    picture: NDArray[np.uint8] = self._sweep.load_key(key).picture
                    return picture
        return None

    # ------------------------------------------------------------------ accentuation

    def _accentuate(self, path: str, layer: str, channel: int, folder: Path) -> AccentuatedChannel:
        own = self.networks.own
        direction: Sign | None = None
        rows: dict[str, AccentuatedRow] = {}
        for name in sorted(self.of, key=lambda name: name != self.networks.name):
            one = self.of[name]
            pixels = self._pixels(one, path)
            found = accentuate(one, pixels, layer, channel, sign=direction, seed=self.asked.seed)
            direction = found.sign if one is own else direction
            answer = channel_maps(one, pixels[None], layer, [channel])[0, 0]
            rows[name] = AccentuatedRow(found, answer if found.sign == "plus" else -answer)
        rows = {name: rows[name] for name in self.of}
        told = AccentuatedChannel(
            picture=path,
            layer=layer,
            channel=channel,
            sign={name: row.found.sign for name, row in rows.items()},
            before={name: row.found.before for name, row in rows.items()},
            after={name: row.found.after for name, row in rows.items()},
            figure="accentuated.png",
        )
        write_accentuation_figure(folder / told.figure, told, rows)
        return told

    # ------------------------------------------------------------------ small things

    def _width(self, classifier: Classifier) -> int | None:
        """Channels of the layer; None: there is no such layer."""
        found = layers_of(classifier.network, classifier.example())
        return next((one.channels for one in found if one.name == self.layer), None)

    def _pixels(self, classifier: Classifier, path: str) -> torch.Tensor:
        return as_float(classifier.input.load(path))

    def _logits(self, classifier: Classifier, path: str) -> torch.Tensor:
        with classifier.inference():
            pixels = self._pixels(classifier, path)[None].to(classifier.device)
            found: torch.Tensor = classifier(pixels)[0].float().cpu()
        return found


def channel_of(text: str) -> tuple[str, int]:
    """LAYER:CHANNEL as its two parts.

    Raises:
        InputError: it is not of that form.
    """
    layer, colon, number = text.rpartition(":")
    if not (layer and colon and number.isdecimal()):
        raise InputError(f"--accentuate is {text!r}; give LAYER:CHANNEL, such as blocks.6:37")
    return layer, int(number)


def _uint8(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """(C, H, W) in [0, 1] as (H, W, C)."""
    found: NDArray[np.uint8] = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
    return found
