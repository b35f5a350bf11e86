"""A plain PyTorch training loop on lite0, as a user would write it; prints one JSON line.

    python benchmarks/peers/plain_loop.py --data photos/ --train head      # frozen backbone, no cache
    python benchmarks/peers/plain_loop.py --data photos/ --train whole     # everything is trained

torchvision's `ImageFolder` and v2 transforms, `DataLoader` with 2 workers, batches of 64, fp32, torch's
default threads. `head`: the backbone in eval mode under `no_grad` at each step, a linear layer on its pooled
features, Adam 1e-3, the network's own evaluation preprocessing (no augmentation: the cheapest a loop can
be). `whole`: the network in train mode with a new linear layer, AdamW 3e-4, random resized crops and
mirroring as in PyTorch's transfer learning tutorial. No validation during training, which both peers could
skip; the test split is looked at after every epoch with the clock stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from lite0 import MEAN, RESIZED, SIDE, STD, lite0
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

BICUBIC = InterpolationMode.BICUBIC
TENSOR = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))
PLAIN = v2.Compose([v2.Resize(RESIZED, BICUBIC), v2.CenterCrop(SIDE), *TENSOR])
AUGMENTED = v2.Compose(
    [v2.RandomResizedCrop(SIDE, interpolation=BICUBIC), v2.RandomHorizontalFlip(), *TENSOR]
)


class Network(nn.Module):
    """lite0 and a linear layer; with `frozen`, the body never trains."""

    def __init__(self, classes: int, *, frozen: bool):
        super().__init__()
        self.body, self.frozen = lite0(), frozen
        self.head = nn.Linear(1280, classes)

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.body(pictures)
        logits: torch.Tensor = self.head(features)
        return logits


def accuracy(network: Network, loader: DataLoader[Any]) -> float:
    network.eval()
    with torch.no_grad():
        right = [(network(pictures).argmax(1) == labels) for pictures, labels in loader]
    network.train()
    return float(torch.cat(right).float().mean())


def train(
    data: Path, *, whole: bool, epochs: int, batch_size: int, seed: int, target: float
) -> dict[str, Any]:
    """Seconds and test accuracy after every epoch, up to the one that reaches the target."""
    torch.manual_seed(seed)
    clock = Clock()
    trained = ImageFolder(data / "train", AUGMENTED if whole else PLAIN)
    loader = DataLoader(trained, batch_size, shuffle=True, num_workers=2)
    network = Network(len(trained.classes), frozen=not whole)
    optimizer = (
        torch.optim.AdamW(network.parameters(), lr=3e-4)
        if whole
        else torch.optim.Adam(network.head.parameters(), lr=1e-3)
    )
    with clock.stopped():
        test = DataLoader(ImageFolder(data / "test", PLAIN), batch_size, num_workers=2)
    seconds, accuracies = [], []
    network.train()
    for _ in range(epochs):
        for pictures, labels in loader:
            loss = functional.cross_entropy(network(pictures), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(clock.seconds())
        with clock.stopped():
            accuracies.append(accuracy(network, test))
        print(f"{seconds[-1]:.1f} s: {accuracies[-1]:.2%}", file=sys.stderr, flush=True)
        if accuracies[-1] >= target:
            break
    return {
        "pictures": len(trained),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "epoch_seconds": seconds,
        "test_top1": accuracies,
        "untimed_seconds": clock.untimed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", choices=("head", "whole"), default="head")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=1.01, help="stop once it is reached")
    given = parser.parse_args()
    result = train(
        given.data,
        whole=given.train == "whole",
        epochs=given.epochs,
        batch_size=given.batch_size,
        seed=given.seed,
        target=given.target,
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
