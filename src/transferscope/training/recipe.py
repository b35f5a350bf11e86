"""What fine-tuning depends on besides its data and its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from transferscope.training.options import ONLY_DECLARED, declared, option, refusing, setting

BatchNormMode = Literal["frozen", "train"]
BalanceName = Literal["none", "weights", "sampling"]


@refusing
@dataclass(frozen=True, config=ONLY_DECLARED)
class Recipe:
    """Everything that fine-tuning depends on besides data and start; a run stores it.

    Reference: Howard & Ruder 2018 (`layer_decay`, `gradual`); Wortsman et al. 2022 (`wise_ft`).
    """

    PANEL: ClassVar[str] = "Recipe (partial's defaults)"

    epochs: int = option(12, "Of fine-tuning, at most.", ge=1)
    learning_rate: float = option(
        3e-4, "Peak learning rate; auto: a range test.", name="lr", metavar="X|auto", gt=0, le=1
    )
    batch_size: int = option(32, "Pictures a step.", ge=1)
    accumulate: int = option(1, "Work a batch through in so many parts, to save memory.", ge=1)
    optimizer: Literal["adamw", "sgd"] = option("adamw", "AdamW, or SGD with momentum.")
    weight_decay: float = option(0.05, "Of matrices and kernels.", ge=0, lt=1)
    label_smoothing: float = option(0.1, "In training only.", ge=0, lt=1)
    warmup: float = setting(
        0.1, "Share of the steps with a linearly rising rate; a cosine to zero follows.", ge=0, lt=1
    )
    clip: float = setting(1.0, "Largest norm of the whole gradient.", gt=0)
    head_rate: float = setting(
        0.1, "The head's share of the rate: it starts from its optimum.", gt=0, le=100
    )
    layer_decay: float = option(
        1.0, "Each stage's share of the rate of the stage behind it.", gt=0, le=1
    )
    gradual: bool = option(False, "Unfreeze the last stage first, then one an epoch.")
    balance: BalanceName = option("none", "For classes of unequal size.")
    ema: float = option(0.0, "Decay of averaged weights, such as 0.99; 0: none.", ge=0, lt=1)
    wise_ft: bool = setting(
        True,
        "Mix the tuned weights with the start's in the share with the lowest validation loss; not done "
        "where BatchNorm is trained.",
    )
    patience: int = option(5, "Stop after so many epochs without progress; 0: never.", ge=0)
    batch_norm: BatchNormMode = setting(
        "frozen", "Whether tuned BatchNorm layers keep their statistics; frozen ones always do."
    )
    augment: Literal["none", "light", "strong"] = option(
        "light", "What fine-tuning sees of the training pictures; 'inspect --out' shows it."
    )
    flip: bool = option(
        True, "Mirror in augmentation.", off="Never mirror: for characters, roads, X-rays."
    )
    views: int = option(
        4,
        "Augmented views that are cached and cycled, an epoch each.",
        name="cache-views",
        metavar="K",
        ge=1,
    )
    seed: int = setting(0, "Of permutations, dropout and augmentation.", ge=0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """A stored recipe; fields that another version had are dropped."""
        return cls(**{name: value for name, value in values.items() if name in declared(cls)})


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
