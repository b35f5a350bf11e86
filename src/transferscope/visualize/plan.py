"""What a sweep will take, and the order of its units."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transferscope.backbones.classifier import Classifier
from transferscope.machine import peak_memory
from transferscope.visualize.units import Exemplars, Sweep, WorkUnit, drawn_by, encoded, engine_of


@dataclass(frozen=True)
class Plan:
    """What a sweep will take, measured on a few of its own pictures.

    Attributes:
        pictures: of all units.
        left: those that have no finished file yet, whoever drew them.
        seconds: that the rest is expected to take.
        disk_mb: that its files are expected to take, in MB.
        memory_mb: the process's peak so far, in MB: the sweep needs no more.
        measured: what was measured, in words.
        order: (layer, sign, seed, channels) of the units, first to last.
    """

    pictures: int
    left: int
    seconds: float
    disk_mb: float
    memory_mb: float
    measured: str
    order: tuple[tuple[str, str, int, tuple[int, ...]], ...]

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        classifier: Classifier,
        units: Sequence[WorkUnit],
        *,
        exemplars: Exemplars | None = None,
        trial: int = 8,
    ) -> Plan:
        """What running the units will take, measured by drawing a few pictures of every layer in earnest.

        Args as for `Sweep.run`; `trial` pictures a layer are drawn and thrown away.
        """
        left = [replace(unit, channels=sweep.missing(unit)) for unit in units]
        left = [unit for unit in left if unit.channels]
        seconds, size, tried = 0.0, 0.0, 0
        for layer in dict.fromkeys(unit.layer for unit in left):
            of_layer = [unit for unit in left if unit.layer == layer]
            sample = replace(of_layer[0], channels=of_layer[0].channels[:trial])
            engine = engine_of(classifier, sample)
            began = time.perf_counter()
            (drawn,) = drawn_by(engine, [sample], exemplars, None)
            count = sum(len(unit.channels) for unit in of_layer)
            share = count / len(sample.channels)
            seconds += (time.perf_counter() - began) * share
            size += sum(map(len, encoded(drawn))) * share
            tried += len(sample.channels)
        order = tuple((unit.layer, unit.sign, unit.seed, unit.channels) for unit in left)
        return cls(
            pictures=sum(len(unit.channels) for unit in units),
            left=sum(len(unit.channels) for unit in left),
            seconds=round(seconds, 3),
            disk_mb=round(size / 1e6, 3),
            memory_mb=round(peak_memory() / 1e6),
            measured=f"{tried} of these pictures, drawn now",
            order=order,
        )

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {
            **asdict(self),
            "order": [
                {"layer": layer, "sign": sign, "seed": seed, "channels": list(channels)}
                for layer, sign, seed, channels in self.order
            ],
        }


def most_informative_first(
    units: Sequence[WorkUnit], interest: Mapping[str, Sequence[float]] | None = None
) -> list[WorkUnit]:
    """Units in the order in which a sweep that is ended early shows most.

    First one seed and direction of everything, then the others. Within them, where `interest` is known,
    its largest sums first, whichever the layer; else a unit of every layer in turn, deepest first (the
    order given is taken to be that of the forward pass).

    Args:
        units: of any layers, seeds and signs.
        interest: for layers, a number a channel, comparable between layers.
    """
    depth = {layer: n for n, layer in enumerate(dict.fromkeys(unit.layer for unit in units))}
    seeds = sorted({unit.seed for unit in units})
    turns: dict[tuple[str, int, str], int] = {}
    ranked: list[tuple[Any, ...]] = []
    for unit in units:
        series = (unit.layer, unit.seed, unit.sign)
        turns[series] = turns.get(series, -1) + 1
        values = (interest or {}).get(unit.layer)
        worth = sum(values[c] for c in unit.channels) / len(unit.channels) if values else 0.0
        again = (seeds.index(unit.seed), unit.sign == "minus")
        ranked.append((again, -worth, turns[series], -depth[unit.layer], len(ranked), unit))
    return [unit for *_, unit in sorted(ranked, key=lambda entry: entry[:-1])]
