"""Rendering as units of work: one finished file each, which is the truth.

A unit's key is the hash of everything that its pictures depend on. Killed and run again, a sweep draws
only what has no finished file; files of other units are not touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from transferscope.backbones import Classifier, fast_bf16
from transferscope.errors import WeightsError
from transferscope.storage import hash_tensors, read_tensors, sha256_json, write_tensors
from transferscope.visualize.engine import Drawn, Engine, Progress
from transferscope.visualize.loop import channel_job, judge
from transferscope.visualize.recipe import RenderRecipe
from transferscope.visualize.records import Render, Sign


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
    """

    weights: str
    input: str
    layer: str
    channels: tuple[int, ...]
    sign: Sign
    seed: int
    recipe: RenderRecipe

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
    ) -> WorkUnit:
        """The unit for a classifier's network; the default recipe if none is given."""
        recipe = recipe or RenderRecipe()
        if recipe.precision == "auto":
            recipe = replace(recipe, precision="bf16" if fast_bf16(classifier.device) else "fp32")
        weights = hash_tensors(classifier.network.state_dict())
        spec = json.dumps(classifier.input.to_dict())
        return cls(weights, spec, layer, tuple(channels), sign, seed, recipe)

    @property
    def key(self) -> str:
        """Hex digest of all fields and of the recipe's version."""
        return sha256_json({**asdict(self), "recipe": self.recipe.to_dict()})


class Sweep:
    """Finished units in a folder, one safetensors file each, named by key.

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
        on_progress: Progress | None = None,
    ) -> None:
        """Draws the units that have no whole file yet; the others are left as they are.

        Args:
            classifier: whose network the units are of; unchanged.
            units: of any layers.
            on_progress: called with (pictures done, pictures in all); finished ones count as done.

        Raises:
            OutputError: the folder cannot be written; finished units are kept.
        """
        total = sum(len(unit.channels) for unit in units)
        done = 0
        engine: tuple[tuple[str, RenderRecipe], Engine] | None = None
        for unit in units:
            if not self._finished(unit):
                wanted = (unit.layer, unit.recipe)
                if engine is None or engine[0] != wanted:
                    made = Engine(classifier, (unit.layer,), unit.recipe)
                    engine = (wanted, made)
                self._draw(engine[1], unit)
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
        tensors, _ = read_tensors(self.path(unit))
        drawn = Drawn(**{name: tensors[name] for name in Drawn.__dataclass_fields__})
        best = exemplar_max or {}
        return judge(drawn, unit.layer, unit.channels, unit.sign, unit.seed, best)

    def _finished(self, unit: WorkUnit) -> bool:
        if not self.path(unit).is_file():
            return False
        try:
            read_tensors(self.path(unit))
        except WeightsError:
            return False
        return True

    def _draw(self, engine: Engine, unit: WorkUnit) -> None:
        jobs = [channel_job(unit.layer, index, unit.sign, unit.seed) for index in unit.channels]
        drawn = engine.draw(jobs)
        tensors = {name: getattr(drawn, name) for name in Drawn.__dataclass_fields__}
        metadata = {**asdict(unit), "recipe": unit.recipe.to_dict()}
        write_tensors(self.path(unit), tensors, metadata)
