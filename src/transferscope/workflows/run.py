"""`Run`: the folder that one tuning leaves behind, and how it is opened."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from transferscope.acceleration.precision import Precision
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.data.manifest import MANIFESTS, manifest_layout
from transferscope.data.scan import Picture
from transferscope.data.split import Split, read_split
from transferscope.errors import DataError, InputError, RunError
from transferscope.evaluation.metrics import Evaluation
from transferscope.files import read_csv, read_json, read_tensors, sha256_file, sha256_json
from transferscope.notebook import panel
from transferscope.training.config import Config
from transferscope.training.recipe import Recipe

SCHEMA = 1
"""Version of run.json; a run of another schema is refused with both versions named."""

CANDIDATE_COLUMNS = ("strategy", "-validation top-1", "-loss", "-calibrated", "")

_LOOKED_FOR = 20
"""Pictures that are looked for, to see where a set is now."""


class Run:
    """The folder that one tuning leaves behind; reads its parts when they are asked for.

    Args:
        path: the folder.
        data: where its pictures are now, a folder or the table that lists them; None: where they were,
            or as far from the run folder as they were, so that both may be moved together.

    Raises:
        RunError: not a finished run, or one of another schema.
    """

    evaluator: ClassVar[Callable[..., Evaluation]]
    """`evaluate_run`, set where it is defined: above this module, as it works on runs."""

    def __init__(self, path: str | Path, *, data: str | Path | None = None):
        self.path, self._data = Path(path), data
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

    def _repr_html_(self) -> str:
        results = self.results
        pictures = ", ".join(f"{n:,} {name}" for name, n in results["pictures"].items())
        facts = (
            f"{self.config.backbone}, {len(self.record['classes'])} classes, pictures: {pictures}."
        )
        choice = results.get("choice", {}).get("sentence")
        said = [facts, *([f"{choice[0].upper()}{choice[1:]}"] if choice else [])]
        return panel(
            f"Run {self.path}",
            sentences=said,
            columns=CANDIDATE_COLUMNS,
            rows=self.candidate_rows(),
        )

    def candidate_rows(self) -> list[tuple[str, ...]]:
        """What was tuned and what was kept, under `CANDIDATE_COLUMNS`: accuracy and losses on validation."""
        return [
            (
                name,
                f"{score['top1']:.1%}",
                f"{score['loss']:.3f}",
                f"{score.get('calibrated_loss', score['loss']):.3f}",
                "kept" if name == self.results["strategy"] else "",
            )
            for name, score in self.results["candidates"].items()
        ]

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
        height, width = self.record["input"]["size"]
        source = load_backbone(self.config.backbone, weights=self.weights(), size=(height, width))
        if source.body_hash() != self.record["body_hash"]:
            raise RunError(
                f"the weights of {self.config.backbone} are not those that {str(self.path)!r} was "
                "tuned from; install the version in its run.json, or give the same --weights again"
            )
        tensors, metadata = read_tensors(self.path / "base_head.safetensors")
        base = source.with_head(tensors["weight"], tensors["bias"], metadata["classes"])
        base.temperature = metadata["temperature"]
        return base

    def weights(self) -> str | None:
        """The file that `--weights` named, where it is now."""
        given = self.config.weights
        if given is None or given == "random" or Path(given).is_file():
            return given
        beside = self.record.get("weights_from_run")
        places = [self.path / beside] if beside else []
        places += [self.path.parent / Path(given).name, self.path / Path(given).name]
        for place in places:
            if place.is_file():
                return str(place)
        raise RunError(
            f"the weights {given!r} that {str(self.path)!r} was tuned from are gone, and the untuned network "
            f"is made of them; put the file back, or as {str(places[-1])!r} into the run folder"
        )

    @property
    def root(self) -> Path:
        """The folder that the paths of the pictures start from.

        Raises:
            DataError: `data` was given, and the run's pictures are not in it.
        """
        if self._data is not None:
            return folder_in(self._data, self._listed)
        stored = Path(self.record.get("root", self.config.data))
        beside = self.record.get("root_from_run")
        if beside is None or _present(stored, self._listed):
            return stored
        moved = Path(os.path.normpath(self.path / beside))
        return moved if _present(moved, self._listed) else stored

    def at(self, data: str | Path | None) -> Run:
        """This run with its pictures in another place; itself for None.

        Raises:
            DataError: the run's pictures are not there.
        """
        if data is None:
            return self
        moved = Run(self.path, data=data)
        moved.root  # noqa: B018 - refuses a folder of other pictures before any work
        return moved

    @cached_property
    def _listed(self) -> list[str]:
        """Paths of some pictures, evenly spread; none where split.csv cannot be read."""
        try:
            rows = read_csv(self.path / "split.csv")
            return [row["path"] for row in rows[:: max(1, len(rows) // _LOOKED_FOR)]]
        except (RunError, KeyError):
            return []

    @property
    def precision(self) -> Precision:
        """Of the features: what `auto` meant on the machine that tuned, so that it means it anywhere."""
        stored: Precision = self.record.get("precision", self.config.precision)
        return stored

    @cached_property
    def untuned(self) -> bool:
        """Whether the body is bit by bit the pretrained one: a probe was kept, and nothing to compare."""
        return bool(self.classifier.body_hash() == self.record["body_hash"])

    @property
    def networks_hash(self) -> str:
        """Digest of both networks' files, by which what was made with them is known to be of this run."""
        own = (
            sha256_file(self.path / f"{name}.safetensors") for name in ("classifier", "base_head")
        )
        return sha256_json([self.record["body_hash"], *own])

    @property
    def recipe(self) -> Recipe:
        """The recipe that was used: with what a strategy, a search or a rate test has changed in it."""
        return Recipe.from_dict(self.results.get("recipe", self.record["config"]["recipe"]))

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
        if not hasattr(Run, "evaluator"):
            importlib.import_module("transferscope.workflows.evaluate")  # where it is set
        return Run.evaluator(self, split=split, **options)


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
        root = folder_in(data, [picture.path for picture in pictures])
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


def folder_in(data: str | Path, paths: Sequence[str]) -> Path:
    """The folder in `data`, a folder or a table of pictures, that paths of a run start from.

    Raises:
        DataError: none of them is there.
    """
    places = [folder for folder in _folders(Path(data)) if _present(folder, paths)]
    if not places:
        raise DataError(
            f"{str(data)!r} has none of the run's pictures, such as {paths[0] if paths else '?'!r}; give "
            "the folder that the run was tuned on, or the table, where it is now"
        )
    return max(places, key=lambda folder: _present(folder, paths))


def _folders(data: Path) -> list[Path]:
    """Where the paths of a set may start from: its folder; for a table, where its rows lead, and its own."""
    if data.is_dir():
        return [data]
    folders = []
    if data.suffix.lower() in MANIFESTS and data.is_file():
        with suppress(
            DataError, InputError
        ):  # a table that is no longer one: its folder may still do
            folders.append(manifest_layout(data).root)
    return [*folders, data.parent]


def _present(folder: Path, paths: Sequence[str]) -> int:
    """How many files are in a folder."""
    return sum((folder / path).is_file() for path in paths)


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
