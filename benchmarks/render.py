"""Rendering against lucent: time to its activation, and seconds a picture and step.

    python benchmarks/render.py --peer-python peer-lucent/bin/python [--work DIR] [--channels 16]

Both sides draw the same channels, in turns: a few of lucent's, then all of ours once. One function, the
peer's `measure`, gives the activation for both: the picture at 224 px, fp32, averaged over 32 fixed draws
of lucent's own transforms; and the share of power at high frequencies. Ours is run whole with several
budgets of steps, since its rate falls at the end of each; freed memory is reused, as the command line
does. ResNet-50 has random weights: speed only.
What is finished is kept in --work and not drawn again. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope.acceleration.memory import reuse_memory

reuse_memory()  # as `visualize` does, before it loads what draws

from transferscope.backbones.classifier import Classifier  # noqa: E402
from transferscope.backbones.weights import load_backbone  # noqa: E402
from transferscope.images import InputSpec  # noqa: E402
from transferscope.machine import cpu_flags  # noqa: E402
from transferscope.visualize.engine import Engine  # noqa: E402
from transferscope.visualize.recipe import RenderRecipe  # noqa: E402
from transferscope.visualize.render import job_of  # noqa: E402

PEER = Path(__file__).parent / "peers" / "lucent_render.py"
LAYERS = ("blocks.4.2", "blocks.5.3")
CHOSEN_ON = {3, 5, 7, 17, 29, 41, 77, 100}
"""Channels of both layers that the recipe was chosen on; none of them is drawn here."""

STEPS = 512  # lucent's default
KEEP = 32  # steps between its snapshots
BUDGETS = (88, 120)  # the last is the default
TURNS = 4


def peer(python: str, *arguments: object) -> str:
    command = [python, str(PEER), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def draw(engine: Engine, layer: str, channels: list[int]) -> tuple[np.ndarray, float, int]:
    """uint8 (N, H, W, 3), seconds, and steps in all."""
    jobs = [job_of("channel", layer, channel, "plus", 0) for channel in channels]
    began = time.perf_counter()
    drawn = engine.draw(jobs)
    seconds = time.perf_counter() - began
    return drawn.pictures.permute(0, 2, 3, 1).numpy(), seconds, int(drawn.steps.sum())


def compared(layer: str, count: int, python: str, work: Path) -> dict[str, Any]:
    """Both sides on one layer of the embedded network."""
    classifier = load_backbone("efficientnet_lite0")
    total = 112 if layer == "blocks.4.2" else 192
    free = sorted(set(range(total)) - CHOSEN_ON)
    chosen = np.random.default_rng(8).choice(free, count, replace=False)
    channels = sorted(int(c) for c in chosen)
    began = time.perf_counter()
    engines = {steps: Engine(classifier, (layer,), RenderRecipe(steps=steps)) for steps in BUDGETS}
    setup = (time.perf_counter() - began) / len(BUDGETS)
    seconds: dict[int, list[float]] = {steps: [] for steps in BUDGETS}
    ours: dict[int, np.ndarray] = {}
    for turn in range(TURNS):
        part = channels[turn::TURNS]
        theirs = work / f"lucent-{layer}-{turn}-{count}.npz"
        if not theirs.exists():
            peer(
                *(python, "render", "--network", "lite0", "--layer", layer),
                *("--channels", ",".join(map(str, part)), "--steps", STEPS, "--keep", KEEP),
                *("--out", theirs),
            )
        for steps, engine in engines.items():
            ours[steps], took, _ = draw(engine, layer, channels)
            seconds[steps].append((took + setup) / count)
    files = [work / f"lucent-{layer}-{turn}-{count}.npz" for turn in range(TURNS)]
    for steps, pictures in ours.items():
        files.append(work / f"ours-{layer}-{steps}.npz")
        np.savez(files[-1], pictures=pictures, channels=channels)
    told = json.loads(
        peer(python, "measure", "--network", "lite0", "--layer", layer, *files).splitlines()[-1]
    )
    return {"layer": layer, "channels": channels} | _summed(told, files, channels, seconds)


def _summed(
    told: list[dict[str, list[float]]],
    files: list[Path],
    channels: list[int],
    seconds: dict[int, list[float]],
) -> dict[str, Any]:
    curves: dict[int, list[tuple[int, float, float, float]]] = {}
    for file, one in zip(files[:TURNS], told[:TURNS], strict=True):
        held = np.load(file)
        for channel, step, when, value, fine in zip(
            held["channels"].tolist(),
            held["steps"].tolist(),
            held["seconds"].tolist(),
            one["activation"],
            one["high_frequency"],
            strict=True,
        ):
            curves.setdefault(channel, []).append((step, when, value, fine))
    final = {channel: curve[-1] for channel, curve in curves.items()}
    early = {
        channel: next(when for _, when, value, _ in curve if value >= 0.95 * curve[-1][2])
        for channel, curve in curves.items()
    }
    lucent_seconds = statistics.mean(final[c][1] for c in channels)
    lucent_early = statistics.mean(early[c] for c in channels)
    mean_at = {
        step: statistics.mean(curves[c][n][2] for c in channels)
        for n, (step, *_) in enumerate(curves[channels[0]])
    }
    target = mean_at[STEPS]
    mean_early = next(
        statistics.mean(curves[c][n][1] for c in channels)
        for n, value in enumerate(mean_at.values())
        if value >= 0.95 * target
    )
    rows = []
    for steps, one in zip(BUDGETS, told[TURNS:], strict=True):
        ratios = [value / final[c][2] for c, value in zip(channels, one["activation"], strict=True)]
        rows.append(
            {
                "steps": steps,
                "seconds_a_picture": round(statistics.median(seconds[steps]), 3),
                "mean_activation": round(statistics.mean(one["activation"]), 2),
                "mean_ratio": round(statistics.mean(ratios), 3),
                "channels_that_reach_lucents": sum(ratio >= 1 for ratio in ratios),
                "high_frequency": round(statistics.mean(one["high_frequency"]), 4),
            }
        )
    enough = next((row for row in rows if row["mean_activation"] >= target), None)
    each = []
    for place, channel in enumerate(channels):
        reached = (
            statistics.median(seconds[steps])
            for steps, one in zip(BUDGETS, told[TURNS:], strict=True)
            if one["activation"][place] >= final[channel][2]
        )
        each.append(next(reached, None))
    known = [one for one in each if one is not None]
    return {
        "lucent": {
            "seconds_a_picture": round(lucent_seconds, 2),
            "seconds_to_95_percent": round(mean_early, 2),
            "seconds_to_95_percent_each": round(lucent_early, 2),
            "mean_activation": round(target, 2),
            "high_frequency": round(statistics.mean(final[c][3] for c in channels), 4),
        },
        "ours": rows,
        "times_faster_to_lucents_activation": enough
        and round(lucent_seconds / enough["seconds_a_picture"], 1),
        "times_faster_than_its_first_95_percent": enough
        and round(mean_early / enough["seconds_a_picture"], 1),
        "each_channel": {
            "reached": len(known),
            "times_faster": round(lucent_seconds / statistics.mean(known), 1) if known else None,
            "times_faster_than_95_percent": round(lucent_early / statistics.mean(known), 1)
            if known
            else None,
        },
    }


def resnet(python: str, work: Path, count: int = 16, steps: int = BUDGETS[-1]) -> dict[str, Any]:
    """Seconds a picture and step on ResNet-50's layer3.5 at 224 px, random weights.

    Ours hold all that belongs to a picture: its start, and the figures measured in fp32 at the end.
    """
    from torchvision.models import resnet50

    torch.manual_seed(0)
    spec = InputSpec(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    classifier = Classifier(resnet50(weights=None).eval(), spec, [str(n) for n in range(1000)])
    recipe = replace(RenderRecipe(steps=steps), settled=0.0)
    engine = Engine(classifier, ("layer3.5",), recipe)
    ours, theirs, peaks = [], [], []
    for turn in range(TURNS + 1):
        out = work / f"resnet-{turn}.npz"
        peer(
            *(python, "render", "--network", "resnet50", "--layer", "layer3.5", "--channels", turn),
            *("--steps", steps, "--keep", steps // 2, "--out", out),
        )
        clock = np.load(out)["seconds"]
        theirs.append((clock[1] - clock[0]) / (steps // 2))  # without building the network
        _, seconds, taken = draw(engine, "layer3.5", list(range(count)))
        ours.append(seconds / taken)
        peaks.append({kind: matmul_speed(kind) for kind in (torch.bfloat16, torch.float32)})
    flops = 2 * 2 * layer_macs(classifier, "layer3.5")  # forward, and the gradient of the pictures
    mine, lucents = statistics.median(ours[1:]), statistics.median(theirs[1:])
    peak = statistics.median(one[torch.bfloat16] for one in peaks)
    return {
        "layer": "layer3.5",
        "ours_ms_a_picture_and_step": round(mine * 1000, 1),
        "lucent_ms_a_picture_and_step": round(lucents * 1000, 1),
        "times_faster": round(lucents / mine, 1),
        "gflop_a_picture_and_step": round(flops / 1e9, 1),
        "bf16_matmul_gflop_s": round(peak),
        "fp32_matmul_gflop_s": round(statistics.median(one[torch.float32] for one in peaks)),
        "share_of_bf16_peak": round(flops / mine / 1e9 / peak, 3),
        "times_faster_at_the_whole_peak": round(lucents / (flops / 1e9 / peak), 1),
    }


def matmul_speed(dtype: torch.dtype, side: int = 2048, times: int = 4) -> float:
    """GFLOP/s of square matrix products: what the machine can do at most."""
    left, right = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    left @ right
    began = time.perf_counter()
    for _ in range(times):
        left @ right
    return times * 2 * side**3 / (time.perf_counter() - began) / 1e9


def layer_macs(classifier: Classifier, layer: str) -> int:
    """Multiply-accumulates of the convolutions that run until a layer is done, one picture."""
    from torch import nn

    from transferscope.activations import TruncatedForward, hooked

    total = 0

    def count(module: nn.Conv2d, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    convolutions = [m for m in classifier.network.modules() if isinstance(m, nn.Conv2d)]
    forward = TruncatedForward(classifier.network, [layer], classifier.example())
    with torch.no_grad(), hooked([(m, count, False) for m in convolutions]):
        forward(classifier.example())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="of an environment that has lucent")
    parser.add_argument("--work", type=Path, default=Path("render-benchmark"))
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--only", choices=(*LAYERS, "resnet50"))
    args = parser.parse_args()
    if args.channels < TURNS:
        parser.error(f"--channels is {args.channels}; give at least {TURNS}, one for each turn")
    args.work.mkdir(parents=True, exist_ok=True)
    flags = cpu_flags()
    told: dict[str, Any] = {
        "cpu": sorted(flags & {"avx512_bf16", "amx_bf16", "avx512f"}),
        "threads": torch.get_num_threads(),
    }
    for layer in LAYERS:
        if args.only in (None, layer):
            told[layer] = compared(layer, args.channels, args.peer_python, args.work)
            print(json.dumps(told[layer]), file=sys.stderr, flush=True)
    if args.only in (None, "resnet50"):
        told["resnet50"] = resnet(args.peer_python, args.work)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
