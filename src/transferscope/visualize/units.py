"""Rendering as units of work: one finished file each, which is the truth.

A unit's key is the hash of everything that its pictures depend on. Killed and run again, a sweep draws
only what has no finished file; files of other units are not touched. No more than one unit's pictures
are in memory, so memory does not grow with the number of channels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from transferscope.acceleration.memory import release_memory
from transferscope.acceleration.precision import fast_bf16
from transferscope.backbones.classifier import Classifier
from transferscope.errors import WeightsError
from transferscope.files import hash_tensors, read_tensors, sha256_json, write_tensors
from transferscope.visualize.engine import Engine, Progress
from transferscope.visualize.objectives.algebra import LOGITS
from transferscope.visualize.recipe import RenderRecipe
from transferscope.visualize.records import FIGURES, Drawn, Render, Sign
from transferscope.visualize.render import ObjectiveKind, job_of, judge

UNIT = 16
"""Channels of a unit: what a kill can lose, some ten seconds' work."""


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
        weights: hash of all of the network's weights and buffers.
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
        weights = hash_tensors(classifier.network.state_dict())
        spec = json.dumps(classifier.input.to_dict())
        chosen = tuple(channels)
        return cls(weights, spec, layer, chosen, sign, seed, recipe, objective, exemplars)

    def divided(self, size: int = UNIT) -> list[WorkUnit]:
        """The same work as units of at most `size` channels, in order."""
        return [
            replace(self, channels=self.channels[begin : begin + size])
            for begin in range(0, len(self.channels), size)
        ]

    @property
    def key(self) -> str:
        """Hex digest of all fields and of the recipe's version."""
        return sha256_json({**asdict(self), "recipe": self.recipe.to_dict()})


class Sweep:
    """Finished units in a folder, one safetensors file each, named by key.

    Pictures are held as lossless WebP of what was optimized, about 30 kB each at the default size.

    Args:
        folder: made when the first unit is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def path(self, unit: WorkUnit) -> Path:
        """Where the finished unit lies or will lie."""
        return self.folder / f"{unit.key}.safetensors"

    def run(
        self,
        classifier: Classifier,
        units: Sequence[WorkUnit],
        *,
        exemplars: Exemplars | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Draws the units that have no whole file yet; the others are left as they are.

        Args:
            classifier: whose network the units are of; unchanged.
            units: of any layers, drawn in the order given.
            exemplars: real pictures for units that name some; asked for a unit at a time.
            on_progress: called with (pictures done, pictures in all); finished ones count as done.

        Raises:
            OutputError: the folder cannot be written; finished units are kept.
        """
        total = sum(len(unit.channels) for unit in units)
        done = 0
        engine: tuple[tuple[Any, ...], Engine] | None = None
        for unit in units:
            if not self.finished(unit):
                wanted = (unit.layer, unit.objective, unit.recipe)
                if engine is None or engine[0] != wanted:
                    engine = None  # its networks are let go before the next are made
                    release_memory()
                    engine = (wanted, engine_of(classifier, unit))
                    release_memory()  # what it took to make it
                drawn = drawn_by(engine[1], unit, exemplars, _after(done, total, on_progress))
                self._write(unit, drawn)
                release_memory()  # what falls to pieces in a unit is whole again for the next
            done += len(unit.channels)
            if on_progress:
                on_progress(done, total)

    def load(
        self, unit: WorkUnit, *, exemplar_max: Mapping[int, float | None] | None = None
    ) -> list[Render]:
        """The renders of a finished unit, judged against the best real pictures given.

        Raises:
            WeightsError: the unit's file is missing or damaged.
        """
        tensors, metadata = read_tensors(self.path(unit))
        ends = tensors["ends"].tolist()
        blob = tensors["pictures"].numpy()
        canvases = [
            _opened(blob[begin:end].tobytes(), int(metadata["input_channels"]))
            for begin, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
        height, width = metadata["size"]
        drawn = Drawn(
            canvases=torch.stack(canvases),
            size=(int(height), int(width)),
            **{name: tensors[name] for name in FIGURES},
        )
        return judge(drawn, unit.layer, unit.channels, unit.sign, unit.seed, exemplar_max or {})

    def renders(
        self, units: Sequence[WorkUnit], *, exemplar_max: Mapping[int, float | None] | None = None
    ) -> Iterator[Render]:
        """The renders of finished units, a unit in memory at a time."""
        for unit in units:
            yield from self.load(unit, exemplar_max=exemplar_max)

    def finished(self, unit: WorkUnit) -> bool:
        """Whether the unit's file is there and whole."""
        try:
            read_tensors(self.path(unit))
        except WeightsError:
            return False
        return True

    def _write(self, unit: WorkUnit, drawn: Drawn) -> None:
        files = encoded(drawn)
        tensors = {name: getattr(drawn, name) for name in FIGURES}
        tensors["pictures"] = torch.from_numpy(np.frombuffer(b"".join(files), np.uint8).copy())
        tensors["ends"] = torch.tensor(np.cumsum([len(file) for file in files]))
        metadata = {
            **asdict(unit),
            "recipe": unit.recipe.to_dict(),
            "size": list(drawn.size),
            "input_channels": drawn.canvases.shape[1],
        }
        write_tensors(self.path(unit), tensors, metadata)


def engine_of(classifier: Classifier, unit: WorkUnit) -> Engine:
    """What draws a unit, and every other unit of its layer, objective and recipe."""
    layer = LOGITS if unit.objective == "logit" else unit.layer
    return Engine(classifier, (layer,), unit.recipe)


def drawn_by(
    engine: Engine, unit: WorkUnit, exemplars: Exemplars | None, on_progress: Progress | None
) -> Drawn:
    """A unit's pictures, by what `engine_of` gives; `on_progress` counts those of the unit."""
    real = exemplars(unit.channels, unit.sign) if exemplars and unit.exemplars else {}
    jobs = []
    for index in unit.channels:
        job = job_of(unit.objective, unit.layer, index, unit.sign, unit.seed)
        if index in real:
            job = replace(job, best=real[index].value, exemplar=real[index].picture)
        jobs.append(job)
    return engine.draw(jobs, on_progress)


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
