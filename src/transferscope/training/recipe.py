"""What fine-tuning depends on besides its data and its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from transferscope.data.augmentation import AugmentationName, augmentation
from transferscope.errors import InputError

OptimizerName = Literal["adamw", "sgd"]
Balance = Literal["none", "weights", "sampling"]
BatchNormMode = Literal["frozen", "train"]


@dataclass(frozen=True)
class Recipe:
    """Everything that fine-tuning depends on besides data and start; a run stores it.

    Attributes:
        epochs: passes over the training split, at most.
        learning_rate: peak of the schedule, for the last stage of the body.
        batch_size: pictures a step of the optimizer, over all processes.
        optimizer: adamw, or sgd with Nesterov's momentum 0.9.
        weight_decay: on weight matrices and kernels, not on biases and norms.
        label_smoothing: of the training loss only.
        warmup: share of all steps with a linearly rising rate; a cosine to zero follows.
        clip: largest norm of the whole gradient.
        accumulate: parts that a batch is worked through in, one after the other, to save memory; the
            step is the same.
        head_rate: the head's learning rate as a share of the body's: it starts from its optimum.
        layer_decay: discriminative learning rates: each stage has this share of the rate of the stage
            behind it (Howard & Ruder 2018).
        gradual: gradual unfreezing: the last stage is tuned from the first epoch, and with each epoch
            one more (Howard & Ruder 2018).
        balance: of classes of unequal size: `weights` in the loss, or `sampling`, by which each class
            is drawn equally often and an epoch no longer sees each picture once.
        ema: decay of a moving average of the weights, which is then what is evaluated and kept; 0:
            the weights themselves.
        wise_ft: whether the tuned weights are mixed with those of the start, in the share that has the
            lowest validation loss: of few that are tried, all or none of the tuned ones included
            (Wortsman et al. 2022). With BatchNorm that is trained it is not done.
        patience: epochs without a lower validation loss than that of any epoch before, the start not counted,
            after which training stops; 0: never.
        batch_norm: whether BatchNorm layers that are tuned keep their statistics (frozen) or gather
            new ones (train). Below the freeze boundary they are always frozen.
        augment: what training does to its pictures: none, light or strong; see `data.augmentation`.
        flip: whether augmentation may mirror.
        views: how many augmented views of the training split are cached and cycled, an epoch each.
        seed: of the permutations, of dropout, and of what augmentation draws.
    """

    epochs: int = 12
    learning_rate: float = 3e-4
    batch_size: int = 32
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warmup: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    head_rate: float = 0.1
    layer_decay: float = 1.0
    gradual: bool = False
    balance: Balance = "none"
    ema: float = 0.0
    wise_ft: bool = True
    patience: int = 5
    batch_norm: BatchNormMode = "frozen"
    augment: AugmentationName = "light"
    flip: bool = True
    views: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, count in (
            ("epochs", self.epochs),
            ("batch size", self.batch_size),
            ("views", self.views),
            ("accumulate", self.accumulate),
        ):
            if count < 1:
                raise InputError(f"{name} is {count}; it must be at least 1")
        for name, value, low, high in (
            ("learning rate", self.learning_rate, 0.0, 1.0),
            ("head rate", self.head_rate, 0.0, 100.0),
            ("layer decay", self.layer_decay, 0.0, 1.0),
            ("clip", self.clip, 0.0, float("inf")),
        ):
            if not low < value <= high:
                raise InputError(
                    f"{name} is {value}; it must be above {low:g} and at most {high:g}"
                )
        for name, value in (
            ("label smoothing", self.label_smoothing),
            ("warm-up", self.warmup),
            ("ema", self.ema),
            ("weight decay", self.weight_decay),
        ):
            if not 0 <= value < 1:
                raise InputError(f"{name} is {value}; it must be at least 0 and below 1")
        if self.patience < 0:
            raise InputError(f"patience is {self.patience}; it must be 0 (never stop) or more")
        for name, chosen, known in (
            ("optimizer", self.optimizer, get_args(OptimizerName)),
            ("balance", self.balance, get_args(Balance)),
            ("batch_norm", self.batch_norm, get_args(BatchNormMode)),
        ):
            if chosen not in known:
                raise InputError(f"{name} is {chosen!r}; it must be one of {', '.join(known)}")
        augmentation(self.augment)  # refuses a name that there is none of


_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "partial": {},
    "full": {"learning_rate": 1e-4, "layer_decay": 0.8},
    "scratch": {
        "learning_rate": 1e-3,
        "head_rate": 1.0,
        "epochs": 30,
        "batch_norm": "train",
        "wise_ft": False,
        "patience": 0,
    },
}
"""What each strategy's recipe has that differs from `Recipe()`."""

_SGD_RATES = {"partial": 0.01, "full": 0.003, "scratch": 0.05}
"""SGD's steps follow the gradient's size, so its rates are larger; 0.003 is BiT's (Kolesnikov et al. 2020)."""


_SGD_DECAY = 1e-4
"""SGD's decay is multiplied by a larger rate and by its momentum, so it is smaller than AdamW's."""


def choose_recipe(strategy: str, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a strategy, with what is given in place of its defaults.

    Args:
        strategy: partial, full or scratch; any other has partial's recipe.
        given: `Recipe` fields by name; None stands for the default.

    Raises:
        InputError: a name that is no field, or a value out of its range.
    """
    known = {field.name for field in fields(Recipe)}
    if unknown := sorted(set(given) - known):
        raise InputError(f"a recipe has no {unknown[0]!r}; it has {', '.join(sorted(known))}")
    chosen = {name: value for name, value in given.items() if value is not None}
    defaults = dict(_DEFAULTS.get(strategy, {}))
    if chosen.get("optimizer") == "sgd":
        defaults["learning_rate"] = _SGD_RATES.get(strategy, _SGD_RATES["partial"])
        defaults["weight_decay"] = _SGD_DECAY
    return Recipe(**{**defaults, **chosen})


def adapted(recipe: Recipe, strategy: str) -> Recipe:
    """The recipe of another strategy with all that `recipe` has changed of the plain defaults."""
    plain = Recipe()
    changed = {f.name: getattr(recipe, f.name) for f in fields(Recipe)}
    return choose_recipe(strategy, {n: v for n, v in changed.items() if v != getattr(plain, n)})
