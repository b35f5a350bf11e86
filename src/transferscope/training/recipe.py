"""What fine-tuning depends on besides its data and its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from transferscope.training.options import ONLY_DECLARED, declared, option, refusing

BatchNormMode = Literal["frozen", "train"]
_PANEL = "Recipe (partial's defaults)"


@refusing
@dataclass(frozen=True, config=ONLY_DECLARED)
class Recipe:
    """Everything that fine-tuning depends on besides data and start; a run stores it.

    Raises:
        InputError: a name that is no field, or a value out of its range.

    Reference: Howard & Ruder 2018 (`layer_decay`, `gradual`); Wortsman et al. 2022 (`wise_ft`).
    """

    epochs: Annotated[int, option("Of fine-tuning, at most.", _PANEL, ge=1)] = 12
    learning_rate: Annotated[
        float,
        option(
            "Peak learning rate; auto: a range test.",
            _PANEL,
            name="lr",
            metavar="X|auto",
            gt=0,
            le=1,
        ),
    ] = 3e-4
    batch_size: Annotated[int, option("Pictures a step.", _PANEL, ge=1)] = 32
    accumulate: Annotated[
        int,
        option("Work a batch through in so many parts, to save memory.", _PANEL, ge=1),
    ] = 1
    optimizer: Annotated[
        Literal["adamw", "sgd"], option("AdamW, or SGD with momentum.", _PANEL)
    ] = "adamw"
    weight_decay: Annotated[float, option("Of matrices and kernels.", _PANEL, ge=0, lt=1)] = 0.05
    label_smoothing: Annotated[float, option("In training only.", _PANEL, ge=0, lt=1)] = 0.1
    warmup: Annotated[
        float,
        Field(
            description="Share of all steps with a linearly rising rate; a cosine to zero follows.",
            ge=0,
            lt=1,
        ),
    ] = 0.1
    clip: Annotated[float, Field(description="Largest norm of the whole gradient.", gt=0)] = 1.0
    head_rate: Annotated[
        float,
        Field(
            description="The head's share of the rate: it starts from its optimum.", gt=0, le=100
        ),
    ] = 0.1
    layer_decay: Annotated[
        float,
        option("Each stage's share of the rate of the stage behind it.", _PANEL, gt=0, le=1),
    ] = 1.0
    gradual: Annotated[
        bool, option("Unfreeze the last stage first, then one an epoch.", _PANEL)
    ] = False
    balance: Annotated[
        Literal["none", "weights", "sampling"], option("For classes of unequal size.", _PANEL)
    ] = "none"
    ema: Annotated[
        float,
        option("Decay of averaged weights, such as 0.99; 0: none.", _PANEL, ge=0, lt=1),
    ] = 0.0
    wise_ft: Annotated[
        bool,
        Field(
            description="Mix the tuned weights with the start's, in the share with the lowest validation "
            "loss; not done where BatchNorm is trained."
        ),
    ] = True
    patience: Annotated[
        int,
        option("Stop after so many epochs without progress; 0: never.", _PANEL, ge=0),
    ] = 5
    batch_norm: Annotated[
        BatchNormMode,
        Field(
            description="Whether tuned BatchNorm layers keep their statistics; frozen ones always do."
        ),
    ] = "frozen"
    augment: Annotated[
        Literal["none", "light", "strong"],
        option(
            "What fine-tuning sees of the training pictures; 'inspect --out' shows it.",
            _PANEL,
        ),
    ] = "light"
    flip: Annotated[
        bool,
        option(
            "Mirror in augmentation.", _PANEL, off="Never mirror: for characters, roads, X-rays."
        ),
    ] = True
    views: Annotated[
        int,
        option(
            "Augmented views that are cached and cycled, an epoch each.",
            _PANEL,
            name="cache-views",
            metavar="K",
            ge=1,
        ),
    ] = 4
    seed: Annotated[int, Field(description="Of permutations, dropout and augmentation.", ge=0)] = 0

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
