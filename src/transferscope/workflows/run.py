"""`Run`: the folder that one tuning leaves behind, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from transferscope.backbones import (
    DEFAULT_BACKBONE,
    Classifier,
    Precision,
    find_device,
    load_backbone,
)
from transferscope.data import Picture, Split, read_split
from transferscope.errors import DataError, InputError, RunError
from transferscope.evaluation import Evaluation
from transferscope.exports import load_hub
from transferscope.exports.hub import CONFIG as HUB_CONFIG
from transferscope.storage import read_csv, read_json, read_tensors, sha256_file
from transferscope.training import EpochRow, HeadName, Recipe

SCHEMA = 1
"""Version of run.json; a run of another schema is refused with both versions named."""

Strategy = Literal["auto", "probe", "partial", "full", "scratch"]
DEFAULT_UNFREEZE = 3


class Reporter(Protocol):
    """How long work tells of itself; the command line draws bars with it."""

    def task(self, name: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A piece of work; the block is given a function to call with (done, total)."""

    def say(self, text: str) -> None:
        """One line of news."""

    def epoch(self, row: EpochRow) -> None:
        """A finished epoch of fine-tuning."""


class Silent:
    """A `Reporter` that says nothing."""

    @contextmanager
    def task(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Yields a function that does nothing."""
        yield lambda done, total: None

    def say(self, text: str) -> None:
        """Says nothing."""

    def epoch(self, row: EpochRow) -> None:
        """Says nothing."""


SILENT = Silent()


# ---------------------------------------------------------------------------- the run folder


@dataclass(frozen=True)
class Config:
    """What a tuning was asked for, resolved; stored in run.json.

    `data` is the folder or manifest, or with `dataset` the folder that holds that set's files.
    `boundary` is a layer's name where that is given in place of a number of stages to `unfreeze`.
    """

    data: str
    dataset: str | None = None
    group: str | None = None
    split_from: str | None = None
    dedupe: bool = False
    backbone: str = DEFAULT_BACKBONE
    weights: str | None = None
    strategy: Strategy = "auto"
    unfreeze: int | None = None
    boundary: str | None = None
    head: HeadName = "linear"
    find_rate: bool = False
    search: int = 0
    keep_every: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    ratio: tuple[int, int, int] = (70, 15, 15)
    seed: int = 0
    precision: Precision = "auto"
    confusable: tuple[tuple[str, str], ...] = ()

    @property
    def advised(self) -> bool:
        """Whether measurements decide the strategy: `auto`, unless the depth is given."""
        return self.strategy == "auto" and self.unfreeze is None and self.boundary is None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The inverse of `to_dict`; unknown fields of a newer version are dropped."""
        known = {f.name for f in fields(cls)} - {"recipe", "ratio", "confusable"}
        first, second, third = values["ratio"]
        return cls(
            **{name: values[name] for name in known if name in values},
            recipe=_recipe(values["recipe"]),
            ratio=(first, second, third),
            confusable=tuple((a, b) for a, b in values["confusable"]),
        )


def _recipe(values: Mapping[str, Any]) -> Recipe:
    """A stored recipe; fields that another version had are dropped."""
    known = {f.name for f in fields(Recipe)}
    return Recipe(**{name: value for name, value in values.items() if name in known})


class Run:
    """The folder that one tuning leaves behind; reads its parts when they are asked for.

    Args:
        path: the folder.

    Raises:
        RunError: not a finished run, or one of another schema.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunError(
                f"{str(path)!r} is not a folder; give the --out of a 'transferscope tune'"
            )
        if not (self.path / "run.json").is_file():
            started = (self.path / "started.json").is_file()
            raise RunError(
                f"{str(path)!r} is a run that was not finished; 'transferscope tune' with the same "
                "options and --resume finishes it"
                if started
                else f"{str(path)!r} has no run.json; give the --out of a 'transferscope tune'"
            )
        record = read_json(self.path / "run.json")
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != SCHEMA:
            raise RunError(
                f"{str(path)!r} has schema {schema!r} and this version reads {SCHEMA}; use the version it "
                "was made with, or tune again"
            )
        self.record: dict[str, Any] = record
        try:
            self.config = Config.from_dict(record["config"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"run.json of {str(path)!r} is incomplete ({error!r}); restore it, or tune again"
            ) from error

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def results(self) -> dict[str, Any]:
        """What tuning reported: strategy, seconds, cached, validation, before, history of choices."""
        results: dict[str, Any] = self.record["results"]
        return results

    @cached_property
    def classifier(self) -> Classifier:
        """The tuned network with its best weights."""
        return Classifier.load(self.path / "classifier.safetensors", backbone=self.config.backbone)

    @cached_property
    def base(self) -> Classifier:
        """The same backbone untuned, with the linear probe for a head: the fair *before*."""
        source = load_backbone(self.config.backbone, weights=self.config.weights)
        if source.body_hash() != self.record["body_hash"]:
            raise RunError(
                f"the weights of {self.config.backbone} are not those that {str(self.path)!r} was "
                "tuned from; install the version in its run.json, or give the same --weights again"
            )
        tensors, metadata = read_tensors(self.path / "base_head.safetensors")
        base = source.with_head(tensors["weight"], tensors["bias"], metadata["classes"])
        base.temperature = metadata["temperature"]
        return base

    @property
    def root(self) -> Path:
        """The folder that the paths of the pictures start from."""
        return Path(self.record.get("root", self.config.data))

    @property
    def recipe(self) -> Recipe:
        """The recipe that was used: with what a strategy, a search or a rate test has changed in it."""
        return _recipe(self.results.get("recipe", self.record["config"]["recipe"]))

    @property
    def timeline(self) -> dict[int, Path]:
        """The classifiers' files that `keep_every` has left, by epoch."""
        files = sorted((self.path / "timeline").glob("epoch-*.safetensors"))
        return {int(file.stem.removeprefix("epoch-")): file for file in files}

    @cached_property
    def split(self) -> Split:
        """Every picture with its part, as split.csv says."""
        return read_split(
            self.path / "split.csv",
            self.root,
            classes=self.record["classes"],
            ratio=self.config.ratio,
            seed=self.config.seed,
        )

    @property
    def history(self) -> list[dict[str, str]]:
        """The rows of history.csv."""
        return read_csv(self.path / "history.csv")

    def evaluate(self, split: str = "test", **options: Any) -> Evaluation:
        """See `evaluate_run`, whose options it takes."""
        from transferscope.workflows.judging import evaluate_run

        return evaluate_run(self, split=split, **options)


def open_model(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    download: bool = False,
    device: str | None = None,
) -> Classifier:
    """The classifier of a run folder, of an export for the Hub, of a file, or a backbone's own classes.

    Args:
        model: which.
        weights: for a backbone by name, see `load_backbone`.
        download: permits fetching its weights.
        device: None: the best here.

    Raises:
        TransferscopeError: neither a folder of a run nor the name of a backbone, or weights for what
            has its own.
    """
    if not str(model):
        raise InputError("MODEL is empty; give a run folder or the name of a backbone")
    path = Path(model)
    if weights is not None and (path.exists() or str(model).startswith("hf-hub:")):
        raise InputError(
            f"--weights is {str(weights)!r}, and {str(model)!r} has its own; leave --weights out, or give "
            "the name of a backbone"
        )
    if (path / HUB_CONFIG).is_file() or str(model).startswith("hf-hub:"):
        classifier = load_hub(model)
    elif path.is_dir():
        classifier = Run(path).classifier
    elif path.suffix == ".safetensors" and path.is_file():
        classifier = Classifier.load(path)
    elif path.exists() or _like_a_path(str(model)):
        what = "is neither a run folder nor a classifier" if path.exists() else "is not there"
        raise RunError(
            f"{str(model)!r} {what}; give the --out of a 'transferscope tune', a folder of an export for the "
            "Hub, or the name of a backbone"
        )
    else:
        classifier = load_backbone(str(model), weights=weights, download=download)
    return classifier.to(find_device(device)).eval()


def _like_a_path(model: str) -> bool:
    """Whether a name that is no file is meant as one: not timm/NAME or torchvision/NAME."""
    library, _, _ = model.rpartition("/")
    return Path(model).is_absolute() or library not in ("", "timm", "torchvision")


def files_of(
    run: Run, split: str, data: str | Path | None
) -> tuple[list[Path], tuple[Picture, ...]]:
    """A split's files, each checked to be the one whose hash stands in split.csv."""
    pictures = run.split.part(split)
    if not pictures:
        raise DataError(
            f"the run has no pictures in a split {split!r}; use train, validation or test"
        )
    root = run.root
    if data is not None:
        root = Path(data) if Path(data).is_dir() else Path(data).parent
    files = [root / picture.path for picture in pictures]
    for file, picture in zip(files, pictures, strict=True):
        if not file.is_file():
            raise DataError(
                f"{str(file)!r} of the {split} split is gone; say where the folder is now with --data"
            )
        if sha256_file(file) != picture.sha256:
            raise DataError(
                f"{str(file)!r} is no longer the picture that was split (its hash differs); restore it, "
                "or tune again"
            )
    return files, pictures


def refuse_inside(out: Path, data: str | Path) -> None:
    """Refuses to write into a set of pictures.

    Raises:
        InputError: `out` lies in the folder `data`, or is it.
    """
    if out.resolve().is_relative_to(Path(data).resolve()):
        raise InputError(
            f"--out {str(out)!r} lies inside the data folder, where it would be taken for a class; give a "
            "folder beside it"
        )


def labels_of(pictures: Sequence[Picture]) -> torch.Tensor:
    """int64 (N,), in the order of the pictures."""
    return torch.tensor([picture.label for picture in pictures], dtype=torch.int64)
