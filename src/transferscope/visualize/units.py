"""Rendering as units of work; what is finished is a file a channel, which is the truth.

A file's name is the hash of everything that its picture depends on: the weights up to the layer, not those
behind it, so that networks that are alike up to there share their drawings. Killed and run again, or asked
for more, a sweep draws only what has no finished file. No more than one unit's pictures are in memory, so
memory does not grow with the number of channels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from transferscope.acceleration.memory import release_memory
from transferscope.acceleration.precision import fast_bf16
from transferscope.activations import modules_up_to, state_up_to
from transferscope.backbones.classifier import Classifier
from transferscope.errors import OutputError, WeightsError
from transferscope.files import (
    hash_tensors,
    read_tensors,
    same_file,
    sha256_json,
    write_tensors,
)
from transferscope.visualize.engine import Engine, Progress
from transferscope.visualize.objectives.algebra import LOGITS
from transferscope.visualize.recipe import RenderRecipe
from transferscope.visualize.records import FIGURES, Drawn, Render, Sign
from transferscope.visualize.render import ObjectiveKind, job_of, judge

UNIT = 16
"""Channels of a unit, drawn together: what a kill can lose, some ten seconds' work."""


class Exemplar(NamedTuple):
    """The best real picture for a channel, (C, H, W) in [0, 1], and what the objective has for it."""

    value: float
    picture: torch.Tensor


Exemplars = Callable[[tuple[int, ...], Sign], Mapping[int, Exemplar]]
"""(channels, sign) -> the best real pictures of these channels, read when they are needed."""


@dataclass(frozen=True)
class WorkUnit:
    """Some channels of one layer of one network, in one direction, from one seed.

    Attributes:
        weights: hash of what the layer's output is computed from: weights, buffers and kinds of the modules
            up to it.
        input: `InputSpec.to_dict()`, as JSON.
        layer: dotted name.
        channels: indexes.
        sign: direction.
        seed: of starts and movements.
        recipe: how they are drawn.
        objective: "channel", "neuron" or "logit".
        exemplars: hash of the real pictures that drawings may begin again from; empty: none.
    """

    weights: str
    input: str
    layer: str
    channels: tuple[int, ...]
    sign: Sign
    seed: int
    recipe: RenderRecipe
    objective: ObjectiveKind = "channel"
    exemplars: str = ""

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        layer: str,
        channels: Sequence[int],
        *,
        seed: int,
        sign: Sign = "plus",
        recipe: RenderRecipe | None = None,
        objective: ObjectiveKind = "channel",
        exemplars: str = "",
    ) -> WorkUnit:
        """The unit for a classifier's network; the default recipe if none is given."""
        recipe = recipe or RenderRecipe()
        if recipe.precision == "auto":
            recipe = replace(recipe, precision="bf16" if fast_bf16(classifier.device) else "fp32")
        weights = _hash_up_to(classifier, layer)
        spec = json.dumps(classifier.input.to_dict())
        chosen = tuple(channels)
        return cls(weights, spec, layer, chosen, sign, seed, recipe, objective, exemplars)

    def divided(self, size: int = UNIT) -> list[WorkUnit]:
        """The same work as units of at most `size` channels, in order."""
        return [
            replace(self, channels=self.channels[begin : begin + size])
            for begin in range(0, len(self.channels), size)
        ]

    def key(self, channel: int) -> str:
        """Hex digest of all that this channel's picture depends on, the recipe's version included."""
        fields = {**asdict(self), "channels": channel, "recipe": self.recipe.to_dict()}
        return sha256_json(fields)

    @property
    def keys(self) -> dict[int, str]:
        """The channels with their keys, in order."""
        return {channel: self.key(channel) for channel in self.channels}


class Sweep:
    """Finished channels in a folder, one safetensors file each, named by key.

    Pictures are held as lossless WebP of what was optimized, about 30 kB each at the default size.

    Args:
        folder: shared by whatever draws; made when the first picture is written.
        kept: a folder of one's own in which every picture that `run` is asked for is found afterwards too
            (under another name of the same file where the file system can), so that it can be moved.
    """

    def __init__(self, folder: str | Path, *, kept: str | Path | None = None):
        self.folder = Path(folder)
        self.kept = Path(kept) if kept is not None else None

    def path(self, key: str) -> Path:
        """Where a channel's file lies, or will lie in the shared folder."""
        if self.kept is not None and (file := self.kept / f"{key}.safetensors").is_file():
            return file
        return self.folder / f"{key}.safetensors"

    def run(
        self,
        classifier: Classifier,
        units: Sequence[WorkUnit],
        *,
        exemplars: Exemplars | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Draws the channels that have no whole file yet; the others are left as they are.

        Args:
            classifier: whose network the units are of; unchanged.
            units: of any layers, drawn in the order given.
            exemplars: real pictures for units that name some; asked for a unit at a time.
            on_progress: called with (pictures done, pictures in all); finished ones count as done.

        Raises:
            OutputError: neither folder can be written; finished channels are kept.
        """
        total = sum(len(unit.channels) for unit in units)
        for asked in units:
            self._keep(asked.key(channel) for channel in asked.channels)
        left = [replace(unit, channels=self.missing(unit)) for unit in units]
        done = total - sum(len(unit.channels) for unit in left)
        if on_progress and done:
            on_progress(done, total)
        engine: tuple[tuple[Any, ...], Engine] | None = None
        for group in _together(left):
            wanted = _drawn_alike(group[0])
            if engine is None or engine[0] != wanted:
                engine = None  # its networks are let go before the next are made
                release_memory()
                engine = (wanted, engine_of(classifier, group[0]))
                release_memory()  # what it took to make it
            drawn = drawn_by(engine[1], group, exemplars, _after(done, total, on_progress))
            for unit, own in zip(group, drawn, strict=True):
                self._write(unit, own)
                done += len(unit.channels)
            release_memory()  # what falls to pieces in a group is whole again for the next
            if on_progress:
                on_progress(done, total)

    def load(
        self, unit: WorkUnit, *, exemplar_max: Mapping[int, float | None] | None = None
    ) -> list[Render]:
        """The renders of a finished unit, judged against the best real pictures given.

        Raises:
            WeightsError: a channel's file is missing or damaged.
        """
        best = exemplar_max or {}
        keys = unit.keys
        return [self.load_key(keys[channel], best.get(channel)) for channel in unit.channels]

    def load_key(self, key: str, exemplar_max: float | None = None) -> Render:
        """One finished channel, judged against the best real picture's value.

        Raises:
            WeightsError: the file is missing or damaged.
        """
        tensors, metadata = read_tensors(self.path(key))
        canvas = _opened(tensors["picture"].numpy().tobytes(), int(metadata["input_channels"]))
        height, width = metadata["size"]
        drawn = Drawn(
            canvases=canvas[None],
            size=(int(height), int(width)),
            **{name: tensors[name] for name in FIGURES},
        )
        channel = int(metadata["channel"])
        named = (metadata["layer"], (channel,), metadata["sign"], int(metadata["seed"]))
        return judge(drawn, *named, {channel: exemplar_max})[0]

    def renders(
        self, units: Sequence[WorkUnit], *, exemplar_max: Mapping[int, float | None] | None = None
    ) -> Iterator[Render]:
        """The renders of finished units, a unit in memory at a time."""
        for unit in units:
            yield from self.load(unit, exemplar_max=exemplar_max)

    def missing(self, unit: WorkUnit) -> tuple[int, ...]:
        """Channels of a unit that have no whole file."""
        return tuple(channel for channel, key in unit.keys.items() if not self._whole(key))

    def _whole(self, key: str) -> bool:
        if not self.path(key).is_file():
            return False
        try:
            read_tensors(self.path(key))
        except WeightsError:
            return False
        return True

    def _write(self, unit: WorkUnit, drawn: Drawn) -> None:
        shared = asdict(unit) | {"recipe": unit.recipe.to_dict(), "size": list(drawn.size)}
        del shared["channels"]
        for row, (file, (channel, key)) in enumerate(
            zip(encoded(drawn), unit.keys.items(), strict=True)
        ):
            tensors = {name: getattr(drawn, name)[row : row + 1] for name in FIGURES}
            tensors["picture"] = torch.from_numpy(np.frombuffer(file, np.uint8).copy())
            metadata = shared | {"channel": channel, "input_channels": drawn.canvases.shape[1]}
            self._write_key(key, tensors, metadata)

    def _write_key(
        self, key: str, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]
    ) -> None:
        """Into the shared folder, and into one's own; where the shared one cannot be written, there alone."""
        name = f"{key}.safetensors"
        if self.kept is None:
            write_tensors(self.folder / name, tensors, metadata)
            return
        write_tensors(self.kept / name, tensors, metadata)
        with suppress(OutputError):
            same_file(self.kept / name, self.folder / name)

    def _keep(self, keys: Iterable[str]) -> None:
        """Puts finished files of the shared folder into one's own too."""
        if self.kept is None:
            return
        for key in keys:
            name = f"{key}.safetensors"
            if not (self.kept / name).is_file() and (self.folder / name).is_file():
                same_file(self.folder / name, self.kept / name)


def _hash_up_to(classifier: Classifier, layer: str) -> str:
    """Hex digest of what a layer's output is computed from, whatever comes behind it."""
    network, example = classifier.network, classifier.example()
    built = modules_up_to(network, layer, example)
    state = hash_tensors(state_up_to(network, layer, example))
    return sha256_json([classifier.backbone, built, state])


def engine_of(classifier: Classifier, unit: WorkUnit) -> Engine:
    """What draws a unit, and every other unit of its layer, objective and recipe."""
    layer = LOGITS if unit.objective == "logit" else unit.layer
    return Engine(classifier, (layer,), unit.recipe)


def drawn_by(
    engine: Engine,
    units: Sequence[WorkUnit],
    exemplars: Exemplars | None,
    on_progress: Progress | None,
) -> list[Drawn]:
    """Each unit's pictures, drawn together by what `engine_of` gives; `on_progress` counts all of them."""
    jobs = []
    for unit in units:
        real = exemplars(unit.channels, unit.sign) if exemplars and unit.exemplars else {}
        for index in unit.channels:
            job = job_of(unit.objective, unit.layer, index, unit.sign, unit.seed)
            if index in real:
                job = replace(job, best=real[index].value, exemplar=real[index].picture)
            jobs.append(job)
    drawn, begin, found = engine.draw(jobs, on_progress), 0, []
    for unit in units:
        own = slice(begin, begin + len(unit.channels))
        figures = {name: getattr(drawn, name)[own] for name in FIGURES}
        found.append(replace(drawn, canvases=drawn.canvases[own], **figures))
        begin = own.stop
    return found


def _drawn_alike(unit: WorkUnit) -> tuple[Any, ...]:
    """What units have in common that one engine draws."""
    return (unit.layer, unit.objective, unit.recipe)


def _together(units: Iterable[WorkUnit]) -> Iterator[list[WorkUnit]]:
    """Units in order, as groups of up to `UNIT` pictures that one engine draws: few alone take longer."""
    group: list[WorkUnit] = []
    for unit in units:
        if not unit.channels:
            continue
        size = sum(len(one.channels) for one in (*group, unit))
        if group and (size > UNIT or _drawn_alike(unit) != _drawn_alike(group[0])):
            yield group
            group = []
        group.append(unit)
    if group:
        yield group


def _after(done: int, total: int, on_progress: Progress | None) -> Progress | None:
    if on_progress is None:
        return None
    # The last of a unit counts when its file is written.
    return lambda drawn, of: on_progress(done + min(drawn, of - 1), total)


def encoded(drawn: Drawn) -> list[bytes]:
    """Lossless WebP files of the canvases."""
    files = []
    for canvas in drawn.canvases:
        array = canvas.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
        held = io.BytesIO()
        Image.fromarray(array).save(held, "WEBP", lossless=True, quality=50, method=2)
        files.append(held.getvalue())
    return files


def _opened(file: bytes, channels: int) -> torch.Tensor:
    """uint8 (C, h, w) of such a file."""
    with Image.open(io.BytesIO(file)) as picture:
        array = np.array(picture.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1)[:channels].contiguous()
