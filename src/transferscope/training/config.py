"""The options of `tune`, declared once: for Python, the command line, run.json and a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import TypeAdapter, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from transferscope.errors import InputError
from transferscope.training.options import ONLY_DECLARED, declared, option, refusing, setting
from transferscope.training.recipe import Recipe, choose_recipe

Strategy = Literal["auto", "probe", "partial", "full", "scratch"]
HeadName = Literal["linear", "mlp"]
_PICTURES, _STRATEGY = "Split", "Strategy"


@refusing
@dataclass(frozen=True, kw_only=True, config=ONLY_DECLARED)
class Config:
    """What a tuning was asked for, resolved; stored in run.json."""

    VERB: ClassVar[str] = "tune"
    """In errors, fields are called by the options of this verb."""

    data: str = setting(..., "Folder of class folders, or a table of files; a dataset's folder.")
    dataset: str | None = option(
        None, "A well-known set by name, such as caltech101, under --root."
    )
    backbone: str = option("efficientnet_lite0", "See 'transferscope backbones'.")
    weights: str | None = option(None, "A local .safetensors or .pth.", metavar="FILE")
    size: int | None = option(
        None,
        "Side of the square that the network sees; default: its own, or what is better far from home.",
        metavar="PIXELS",
        ge=32,
        le=2048,
    )
    strategy: Strategy = option(
        "auto",
        "auto: what 'advise' recommends or the probe, the better on validation. scratch: the control.",
        _STRATEGY,
    )
    unfreeze: int | None = option(
        None, "Stages that 'partial' tunes, from the end; default 3, or what is advised.", _STRATEGY
    )
    boundary: str | None = option(
        None, "Instead of --unfreeze: the last layer that stays frozen.", _STRATEGY, metavar="LAYER"
    )
    head: HeadName = option("linear", "mlp: 256 hidden units, ReLU, dropout 0.4.", _STRATEGY)
    find_rate: bool = setting(False, "The learning rate comes from a range test.", derived=True)
    recipe: Recipe = setting(Recipe(), "What fine-tuning depends on.")
    ratio: tuple[int, int, int] = option(
        (70, 15, 15), "train/validation/test, where the layout has none."
    )
    group: str | None = option(
        None,
        "What must stay in one split: a table's column, a pattern searched in the paths, such as "
        "'(patient[0-9]+)', or lookalikes.",
        metavar="COLUMN|PATTERN|lookalikes",
    )
    layout: Literal["auto", "splits", "classes"] = option(
        "auto",
        "How folders called train, test and the like are read; auto: where it is certain.",
        _PICTURES,
    )
    split_from: str | None = option(None, "Take the split of this run.", _PICTURES, metavar="RUN")
    dedupe: bool = option(
        False, "Leave copies of training pictures out of other splits.", _PICTURES
    )
    search: int = option(
        0,
        "Try N settings of head, depth, rate and augmentation first.",
        _STRATEGY,
        metavar="N",
        ge=0,
    )
    minutes: float | None = option(
        None,
        "Time for all of the tuning: fine-tuning gets as many epochs as fit, by the measured speed.",
        metavar="N",
        gt=0,
    )
    keep_every: int = option(
        0, "Keep every K-th epoch's weights in RUN/timeline.", metavar="K", ge=0
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "auto: bf16 where the hardware is fast at it; fp16 on CUDA only."
    )
    seed: int = option(0, "Of everything random.", ge=0, le=2**32 - 1)
    confusable: tuple[tuple[str, str], ...] = setting(
        (), "Pairs of look-alike classes, reported apart at evaluation."
    )

    @property
    def advised(self) -> bool:
        """Whether measurements decide the strategy: `auto`, unless the depth is given."""
        return self.strategy == "auto" and self.unfreeze is None and self.boundary is None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields: those that run.json stores."""
        values = asdict(self)
        return {field.name: values[field.name] for field in fields(Config)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; fields that another version had are dropped.

        Raises:
            KeyError, InputError: fields without a default are not there, or have other values.
        """
        known = {name: value for name, value in values.items() if name in declared(cls)}
        return cls(**{**known, "recipe": Recipe.from_dict(values["recipe"])})

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of these options: types, choices, limits, defaults and help."""
        return TypeAdapter(cls).json_schema()


@refusing
@dataclass(frozen=True, kw_only=True, config=ONLY_DECLARED)
class TuneOptions(Config):
    """All options of one call of `tune`: what is stored, and what belongs to the call alone."""

    out: Path = option(..., "A new folder for the run.")
    download: bool = option(False, "Permit fetching weights and --dataset.")
    loggers: tuple[str, ...] = option(
        (), "tensorboard or mlflow; may be given twice.", name="logger", metavar="NAME"
    )
    device: str | None = option(None, "cpu, cuda, cuda:N or mps; default: the best here.")
    resume: bool = option(False, "Continue an interrupted run.")
    given: tuple[str, ...] = setting((), "Fields of the recipe set by name.", derived=True)

    @field_validator("data", "split_from", "weights", mode="before")
    @classmethod
    def _absolute(cls, value: Any, info: ValidationInfo) -> Any:
        """A path that means the same from anywhere; a weights file keeps the name of its link."""
        if not isinstance(value, str | Path):
            return value
        if info.field_name == "weights" and str(value) == "random":
            return "random"
        path = Path(value)
        return str(path.absolute() if info.field_name == "weights" else path.resolve())

    def __post_init__(self) -> None:
        if self.strategy in ("full", "scratch"):
            for name in ("unfreeze", "boundary"):
                if (value := getattr(self, name)) is not None:
                    raise InputError(
                        f"--{name} {value} is given with --strategy {self.strategy}, which trains every "
                        "layer; use --strategy partial, or leave it out"
                    )
        if self.boundary is not None and self.unfreeze is not None:
            raise InputError(
                f"--boundary {self.boundary!r} and --unfreeze {self.unfreeze} are both given; give one"
            )
        if self.minutes is not None and self.search:
            raise InputError(
                f"--minutes {self.minutes:g} and --search {self.search} are both given; a search's trials are "
                "not bounded: give one"
            )
        if self.search and self.strategy not in ("auto", "partial"):
            raise InputError(
                f"--search is {self.search} and the strategy {self.strategy}; a search runs from the "
                "boundary cache: use --strategy partial or auto"
            )

    @property
    def unused(self) -> str:
        """What was given and means nothing to a linear probe, by name."""
        if self.strategy != "probe" or self.head != "linear":
            return ""
        names = [name for name in self.given if name not in ("balance", "flip")]
        names += [name for name in ("unfreeze", "boundary") if getattr(self, name) is not None]
        return ", ".join(name.replace("_", " ") for name in names)


def tune_options(recipe: Mapping[str, Any] | None = None, **options: Any) -> TuneOptions:
    """Arguments of `tune` by name, checked and resolved.

    Args:
        recipe: `Recipe` fields by name.
        options: of `TuneOptions` and of `Recipe`, each by its name; `lr` is `learning_rate`. None of a
            field of the recipe stands for the strategy's default.

    Raises:
        InputError: a name that is no option, a value that cannot be used, or one given twice.
    """
    if "lr" in options:
        options["learning_rate"] = options.pop("lr")
    given = {name: value for name, value in (recipe or {}).items() if value is not None}
    recipe_fields = declared(Recipe).keys() - declared(TuneOptions).keys()
    for name in [name for name in options if name in recipe_fields]:
        if (value := options.pop(name)) is None:
            continue
        if name in given:
            argument = "lr" if name == "learning_rate" else name
            raise InputError(
                f"recipe has {name} = {given[name]!r}, and {argument} = {value!r} is given beside it; give one"
            )
        given[name] = value
    if "seed" in given:
        raise InputError(
            f"recipe has seed = {given['seed']!r}; give it as seed, which the split has too"
        )
    find_rate = given.get("learning_rate") == "auto"
    if find_rate:
        del given["learning_rate"]
    seed = {"seed": options["seed"]} if "seed" in options else {}
    chosen = choose_recipe(str(options.get("strategy")), {**given, **seed})
    return TuneOptions(
        **{**options, "find_rate": find_rate, "given": tuple(given), "recipe": chosen}
    )
