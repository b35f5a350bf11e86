"""A comparison's drawings: channels of the shortlist in both networks, beside the pictures that excite them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from transferscope.backbones.classifier import Classifier
from transferscope.comparison.records import NETWORKS, ChannelDrawings, Exemplar
from transferscope.visualize.ray_sweep import run_on_ray
from transferscope.visualize.recipe import RenderRecipe, make_recipe
from transferscope.visualize.records import Render
from transferscope.visualize.units import Sweep, WorkUnit
from transferscope.workflows.reporter import Outlook, Reporter

EXEMPLARS = 9
"""Real pictures kept for each channel and network."""

ENGINES: Mapping[str, Callable[..., None]] = {"local": Sweep.run, "ray": run_on_ray}
"""Who draws: (sweep, classifier, units, on_progress=...)."""

_TOP = 20


@dataclass(frozen=True, eq=False)
class Shortlist:
    """What is drawn.

    Attributes:
        networks: base and tuned.
        chosen: layer -> channel -> why.
        seeds: that each channel is drawn from in each network.
        paths: of N real pictures, the held-out ones first.
        files: where they are.
        responses: network -> layer -> (N, channels).
        sweep: where drawings lie.
        steps: most optimization steps of a drawing; None: the recipe's.
    """

    networks: Mapping[str, Classifier]
    chosen: Mapping[str, Mapping[int, str]]
    seeds: tuple[int, ...]
    paths: tuple[str, ...]
    files: tuple[Path, ...]
    responses: Mapping[str, Mapping[str, torch.Tensor]]
    sweep: Sweep
    steps: int | None = None

    def units(self) -> list[tuple[str, WorkUnit]]:
        """(network, unit) in order: by layer, network and seed.

        The recipe is that of `visualize`, and so are the keys: what it has drawn is not drawn again.
        """
        found, recipe = [], make_recipe(self.steps)
        for layer, channels in self.chosen.items():
            for network, classifier in self.networks.items():
                first = WorkUnit.of(classifier, layer, list(channels), seed=0, recipe=recipe)
                found += [
                    (network, part)
                    for seed in self.seeds
                    for part in replace(first, seed=seed).divided()
                ]
        return [(network, unit) for network, unit in found if unit.channels]

    @property
    def recipe(self) -> RenderRecipe | None:
        """Of all drawings, with the precision that is used; None where nothing is drawn."""
        units = self.units()
        return units[0][1].recipe if units else None

    def draw(
        self,
        reporter: Reporter,
        *,
        share: tuple[int, int] = (1, 1),
        run: Callable[..., None] = Sweep.run,
    ) -> None:
        """Draws what is not there yet; an estimate is said first.

        Args:
            reporter: hears of the progress.
            share: (I, N): every N-th unit from the I-th on, so that N machines with one cache share the work.
            run: of `ENGINES`.
        """
        groups: dict[tuple[str, str], list[WorkUnit]] = {}
        for network, unit in self.units()[share[0] - 1 :: share[1]]:
            groups.setdefault((network, unit.layer), []).append(unit)
        lacking = {
            key: sum(len(self.sweep.missing(unit)) for unit in units)
            for key, units in groups.items()
        }
        outlook = Outlook(sum(lacking.values()), "drawings", reporter)
        for (network, layer), units in groups.items():
            with reporter.task(f"drawing {layer}, {network}") as progress:
                heard = outlook.through(progress, lacking[network, layer])
                run(self.sweep, self.networks[network], units, on_progress=heard)

    def keys(self) -> list[dict[str, Any]]:
        """Rows that say under which key each drawing lies in the sweep."""
        return [
            {
                "network": network,
                "layer": unit.layer,
                "channel": channel,
                "sign": unit.sign,
                "seed": unit.seed,
                "key": key,
            }
            for network, unit in self.units()
            for channel, key in unit.keys.items()
        ]

    def renders(self) -> Iterator[tuple[str, int, dict[str, list[Render]]]]:
        """(layer, channel, its drawings by network in the order of the seeds), a channel at a time."""
        for layer, channels in self.chosen.items():
            keys = self._keys_of(layer)
            for channel in channels:
                drawn = {}
                for network in NETWORKS:
                    best = float(self.responses[network][layer][:, channel].amax())
                    drawn[network] = [
                        self.sweep.load_key(key, best) for key in keys[network, channel]
                    ]
                yield layer, channel, drawn

    def _keys_of(self, layer: str) -> dict[tuple[str, int], list[str]]:
        found: dict[tuple[str, int], list[str]] = {}
        for row in self.keys():
            if row["layer"] == layer:
                found.setdefault((row["network"], row["channel"]), []).append(row["key"])
        return found

    def record(
        self, layer: str, channel: int, drawn: Mapping[str, Sequence[Render]]
    ) -> ChannelDrawings:
        """What is kept of one channel, but for its tests and scores."""
        values = {n: self.responses[n][layer][:, channel] for n in NETWORKS}
        order = {n: values[n].argsort(descending=True, stable=True) for n in NETWORKS}
        top = min(_TOP, len(self.paths))
        best = {n: set(order[n][:top].tolist()) for n in NETWORKS}
        return ChannelDrawings(
            layer=layer,
            channel=channel,
            sign=drawn["base"][0].sign,
            reason=self.chosen[layer][channel],
            seeds=self.seeds,
            statuses={n: tuple(one.status for one in drawn[n]) for n in NETWORKS},
            activation={n: drawn[n][0].activation for n in NETWORKS},
            exemplar_max={n: drawn[n][0].exemplar_max for n in NETWORKS},
            exemplars={
                n: tuple(
                    Exemplar(self.paths[i], float(values[n][i]))
                    for i in order[n][:EXEMPLARS].tolist()
                )
                for n in NETWORKS
            },
            shared_top20=len(best["base"] & best["tuned"]) / top,
        )
