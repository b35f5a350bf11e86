"""How drawings end: channels of the last three stages, base and tuned, both signs of signed layers.

    python benchmarks/statuses.py --run runs/photos --data photos/ [--channels 512] [--work DIR]

Draws channels at random from every block's output (linear, so both directions) and from the ReLU6 layers
inside the blocks of EfficientNet-Lite0's last three stages, and counts the statuses. The best of 500
of the run's training pictures is what a drawing is held against. A layer that is finished is kept in
--work and not drawn again. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope.acceleration.memory import reuse_memory
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.features.exemplars import channel_responses
from transferscope.files import read_json, sha256_json, write_json
from transferscope.images import as_float
from transferscope.machine import cpu_flags
from transferscope.visualize.engine import Engine
from transferscope.visualize.recipe import RECIPE_VERSION, RenderRecipe
from transferscope.visualize.records import Sign
from transferscope.visualize.render import job_of, judge
from transferscope.workflows.run import Run, files_of

STAGES = ("blocks.4.", "blocks.5.", "blocks.6.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="of efficientnet_lite0")
    parser.add_argument("--data", type=Path, help="the run's pictures, if they have moved")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--steps", type=int, default=RenderRecipe().steps)
    parser.add_argument("--work", type=Path, default=Path("statuses-benchmark"))
    args = parser.parse_args()
    reuse_memory()  # as the command line does

    run = Run(args.run)
    networks = {"base": run.base, "tuned": run.classifier}
    described = {
        layer.name: layer
        for layer in layers_of(run.base.network, run.base.example())
        if layer.name.startswith(STAGES)
        and (layer.name.count(".") == 2 or layer.type == "BatchNormAct2d")
        and layer.name.split(".")[-1] not in ("bn3",)
    }
    # Where a block ends in a linear convolution its last BatchNorm is the block without its shortcut.
    described = {
        name: layer for name, layer in described.items() if name.count(".") == 2 or not layer.signed
    }
    pool = [(name, index) for name, layer in described.items() for index in range(layer.channels)]
    rng = np.random.default_rng(0)
    chosen = [pool[n] for n in sorted(rng.choice(len(pool), args.channels, replace=False))]
    by_layer: dict[str, list[int]] = {}
    for name, index in chosen:
        by_layer.setdefault(name, []).append(index)
    files, _ = files_of(run, "train", args.data)
    take = sorted(rng.choice(len(files), min(len(files), args.pictures), replace=False))
    files = [files[n] for n in take]

    args.work.mkdir(parents=True, exist_ok=True)
    began, rows = time.perf_counter(), []
    for network, classifier in networks.items():
        responses = channel_responses(classifier, files, list(by_layer))
        for layer, indexes in by_layer.items():
            signs: tuple[Sign, ...] = ("plus", "minus") if described[layer].signed else ("plus",)
            named = sha256_json(
                [classifier.body_hash(), layer, indexes, args.steps, RECIPE_VERSION]
            )
            kept = args.work / f"statuses-{network}-{layer}-{named[:12]}.json"
            if not kept.exists():
                drawn = draw(classifier, layer, indexes, signs, responses[layer], files, args.steps)
                write_json(kept, drawn)
            rows += [{"network": network, **row} for row in read_json(kept)]
            print(network, layer, len(rows), file=sys.stderr, flush=True)
    counts = {name: Counter(r["status"] for r in rows if r["network"] == name) for name in networks}
    good = sum(one["optimized"] + one["dead_on_data"] for one in counts.values())
    print(
        json.dumps(
            {
                "cpu": sorted(cpu_flags() & {"avx512_bf16", "amx_bf16", "avx512f"}),
                "channels": args.channels,
                "layers": len(by_layer),
                "drawings": len(rows),
                "steps": args.steps,
                "statuses": counts,
                "optimized_or_dead_on_data": round(good / len(rows), 4),
                "begun_from_a_real_picture": sum(row["from_exemplar"] for row in rows),
                "others": [r for r in rows if r["status"] not in ("optimized", "dead_on_data")],
                "seconds": round(time.perf_counter() - began),
            }
        )
    )


def draw(
    classifier: Classifier,
    layer: str,
    indexes: list[int],
    signs: Sequence[Sign],
    responses: torch.Tensor,
    files: list[Path],
    steps: int,
) -> list[dict[str, Any]]:
    """One row a channel and sign."""
    engine = Engine(classifier, (layer,), RenderRecipe(steps=steps))
    rows = []
    for sign in signs:
        values = responses * (1 if sign == "plus" else -1)
        best = {index: float(values[:, index].max()) for index in indexes}
        jobs = [
            job_of(
                "channel", layer, index, sign, 0, best[index],
                as_float(classifier.input.load(files[int(values[:, index].argmax())])),
            )
            for index in indexes
        ]  # fmt: skip
        rows += [
            {
                "layer": layer, "channel": render.channel, "sign": sign, "status": render.status,
                "best": render.exemplar_max,
                "activation": None if render.status == "non_finite" else render.activation,
                "from_exemplar": render.from_exemplar,
            }
            for render in judge(engine.draw(jobs), layer, indexes, sign, 0, best)
        ]  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
