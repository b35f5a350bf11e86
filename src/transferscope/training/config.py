"""The options of `tune`, declared once: for Python, the command line, run.json and a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from transferscope.errors import InputError
from transferscope.training.options import ONLY_DECLARED, declared, json_schema, option, refusing
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

    data: Annotated[
        str,
        Field(
            description="Folder of class folders, or a table of files; with a dataset, its folder."
        ),
    ]
    dataset: Annotated[
        str | None, option("A well-known set by name, such as caltech101, under --root.")
    ] = None
    backbone: Annotated[str, option("See 'transferscope backbones'.")] = "efficientnet_lite0"
    weights: Annotated[str | None, option("A local .safetensors or .pth.", metavar="FILE")] = None
    strategy: Annotated[
        Strategy,
        option(
            "auto: what 'advise' recommends or the probe, the better on validation. scratch: the control.",
            _STRATEGY,
        ),
    ] = "auto"
    unfreeze: Annotated[
        int | None,
        option(
            "Stages that 'partial' tunes, from the end; default 3, or what is advised.", _STRATEGY
        ),
    ] = None
    boundary: Annotated[
        str | None,
        option(
            "Instead of --unfreeze: the last layer that stays frozen.", _STRATEGY, metavar="LAYER"
        ),
    ] = None
    head: Annotated[HeadName, option("mlp: 256 hidden units, ReLU, dropout 0.4.", _STRATEGY)] = (
        "linear"
    )
    find_rate: Annotated[
        bool,
        Field(
            description="The learning rate comes from a range test.",
            json_schema_extra={"derived": True},
        ),
    ] = False
    recipe: Recipe = Field(default_factory=lambda: Recipe())
    ratio: Annotated[
        tuple[int, int, int], option("train/validation/test, where the layout has none.")
    ] = (70, 15, 15)
    group: Annotated[
        str | None,
        option(
            "What must stay in one split: a table's column, or a pattern searched in the paths, such as "
            "'(patient[0-9]+)'.",
            metavar="COLUMN|PATTERN",
        ),
    ] = None
    split_from: Annotated[
        str | None, option("Take the split of this run.", _PICTURES, metavar="RUN")
    ] = None
    dedupe: Annotated[
        bool, option("Leave copies of training pictures out of other splits.", _PICTURES)
    ] = False
    search: Annotated[
        int,
        option(
            "Try N settings of head, depth, rate and augmentation first.",
            _STRATEGY,
            metavar="N",
            ge=0,
        ),
    ] = 0
    keep_every: Annotated[
        int, option("Keep every K-th epoch's weights in RUN/timeline.", metavar="K", ge=0)
    ] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        option("auto: bf16 where the hardware is fast at it; fp16 on CUDA only."),
    ] = "auto"
    seed: Annotated[int, option("Of everything random.", ge=0)] = 0
    confusable: Annotated[
        tuple[tuple[str, str], ...],
        Field(description="Pairs of look-alike classes, reported apart at evaluation."),
    ] = ()

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
        return json_schema(cls)


@refusing
@dataclass(frozen=True, kw_only=True, config=ONLY_DECLARED)
class TuneOptions(Config):
    """All options of one call of `tune`: what is stored, and what belongs to the call alone."""

    out: Annotated[Path, option("A new folder for the run.")]
    download: Annotated[bool, option("Permit fetching weights and --dataset.")] = False
    loggers: Annotated[
        tuple[str, ...],
        option("tensorboard or mlflow; may be given twice.", name="logger", metavar="NAME"),
    ] = ()
    device: Annotated[str | None, option("cpu, cuda, cuda:N or mps; default: the best here.")] = (
        None
    )
    resume: Annotated[bool, option("Continue an interrupted run.")] = False
    given: Annotated[
        tuple[str, ...],
        Field(
            description="Fields of the recipe that were set by name.",
            json_schema_extra={"derived": True},
        ),
    ] = ()

    @field_validator("data", "split_from", "weights", mode="before")
    @classmethod
    def _absolute(cls, value: Any, info: ValidationInfo) -> Any:
        """A path that means the same from anywhere; a weights file keeps the name of its link."""
        if not isinstance(value, str | Path) or value == "random":
            return value
        return str(
            Path(value).absolute() if info.field_name == "weights" else Path(value).resolve()
        )

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
    recipe_fields = declared(Recipe).keys() - declared(TuneOptions).keys()
    named = {name: options.pop(name) for name in [*options] if name in recipe_fields}
    given = {name: value for name, value in (recipe or {}).items() if value is not None}
    for name, value in named.items():
        if value is None:
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
