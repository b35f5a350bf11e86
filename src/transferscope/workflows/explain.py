"""`explain`: where in photographs an answer comes from, before and after transfer, and what to believe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.backbones.classifier import Classifier
from transferscope.errors import DataError, InputError, PictureError, UnknownName
from transferscope.explain.attribution import (
    METHODS,
    Attribution,
    attribute,
    exact_logits,
    find_method,
)
from transferscope.explain.records import (
    Explanation,
    MapChange,
    NetworkMap,
    Verdicts,
    inside_share,
    resized,
)
from transferscope.explain.scores import Target, class_index, resolve
from transferscope.files import (
    refuse_foreign,
    refuse_read_only,
    replaced_folder,
    sha256_file,
    sha256_json,
    write_json,
    write_tensors,
)
from transferscope.images import as_float, read_picture
from transferscope.report.figures.explanations import MapRow, write_explanation_figure
from transferscope.workflows.explained_networks import RANDOM, Networks
from transferscope.workflows.explanations import HOME, RECORD
from transferscope.workflows.predict import named_files
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.unit_explanations import UnitExplanations, UnitQuestion
from transferscope.workflows.verdicts import (
    VERDICTS,
    check_pictures,
    check_run,
    kept_verdicts,
    methods_to_draw,
    verdict_words,
)

CONTRAST = "contrast"
"""In place of a class: what was expected against what is answered."""

_CHUNK = 8  # pictures whose maps are in memory: what an interruption can lose


@dataclass(frozen=True, eq=False)
class Explained:
    """What `explain` made.

    Attributes:
        folder: that all of it is in, a folder a picture.
        explanations: a record a picture and method; files are relative to `folder`.
        failures: (path, reason) of pictures that could not be explained.
        verdicts: of the methods on this network; None: it was not checked.
        units: what `UnitQuestion` asked for, a mapping a picture.
    """

    folder: Path
    explanations: tuple[Explanation, ...]
    failures: tuple[tuple[str, str], ...]
    verdicts: Verdicts | None
    units: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return {
            "folder": str(self.folder),
            "explanations": [one.to_dict() for one in self.explanations],
            "failures": [{"path": path, "error": reason} for path, reason in self.failures],
            "verdicts": None if self.verdicts is None else self.verdicts.to_dict(),
            "units": list(self.units),
        }


@dataclass(frozen=True)
class MapQuestion:
    """What is asked of every picture.

    Attributes:
        methods: names in `METHODS`; empty: one that deserves belief.
        target: a class's name or index, "predicted", "expected", or `CONTRAST`.
        versus: a class whose logit is subtracted, or "runner-up"; None: none.
        layer: whose map Grad-CAM and LayerCAM take; None: see `attribute`.
        seed: of random weights and noise.
    """

    methods: tuple[str, ...] = ()
    target: Target = "predicted"
    versus: Target | None = None
    layer: str | None = None
    seed: int = 0

    def refused(self, classifier: Classifier) -> MapQuestion:
        """The same with `CONTRAST` as its two classes, after its names were looked up.

        Raises:
            UnknownName: no such method or class.
            InputError: `CONTRAST` with another class beside it.
        """
        for name in self.methods:
            find_method(name)
        asked = self
        if self.target == CONTRAST and CONTRAST not in classifier.classes:
            if self.versus is not None:
                raise InputError(
                    f"--class is {CONTRAST}, the expected class against the predicted one, and --versus is "
                    f"{self.versus!r}; give one of them"
                )
            asked = replace(self, target="expected", versus="predicted")
        target, versus = (_as_class(classifier, one) for one in (asked.target, asked.versus))
        assert target is not None
        return replace(asked, target=target, versus=versus)


def explain(
    model: Run | Classifier | str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    question: MapQuestion | None = None,
    against: str | Path | None = "base",
    random_head: bool = False,
    masks: Sequence[str | Path] = (),
    check: bool = False,
    units: UnitQuestion | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
) -> Explained:
    """Maps of what an answer comes from, drawn and kept, a folder a picture.

    Args:
        model: a run, a classifier, or what `open_model` takes; unchanged.
        images: files, folders, patterns; none only with `check` and a run.
        out: a new folder, or one that this function wrote; None: explanations/ of the run.
        question: which class and methods.
        against: "base": of a run, its untuned network with the linear probe; another run or model; None: none.
        random_head: also the untuned network with a head of random weights, as a control.
        masks: a file a picture, white where the object is, of the picture's size; or none.
        check: first finds which methods deserve belief: on a run's held-out pictures, otherwise on `images`.
        units: channels that are looked at too.
        device: None: the best here.
        reporter: hears of the progress.

    Returns:
        What was made. An interruption keeps the pictures that are finished.

    Raises:
        UnknownName: no such class, method or layer.
        InputError: a method that does not suit the network, or nothing to explain.
        OutputError: `out` is not ours to replace, or cannot be written.
        DataError: not one picture could be explained.
    """
    asked = question or MapQuestion()
    networks = Networks.open(
        model, against, random_head=random_head, seed=asked.seed, device=device
    )
    asked = asked.refused(networks.own)
    files = named_files(images)[0] if images else []
    _refuse(networks, files, masks, out, check)
    with _home(out, networks.run) as home:
        verdicts = _verdicts(networks, files, home, check, asked.seed, reporter)
        if not files:
            return Explained(_final(out, home), (), (), verdicts)
        chosen = replace(asked, methods=methods_to_draw(asked.methods, verdicts))
        by_units = UnitExplanations(networks, units) if units is not None else None
        work = _Work(networks, chosen, verdicts, by_units)
        with reporter.task("explaining") as progress:
            for begin in range(0, len(files), _CHUNK):
                part = slice(begin, begin + _CHUNK)
                work.explain(files[part], masks[part], home)
                progress(min(begin + _CHUNK, len(files)), len(files))
    if not work.explanations:
        raise DataError(
            f"not one of {len(files)} pictures could be explained; the first, {work.failures[0][0]!r}: "
            f"{work.failures[0][1]}"
        )
    return Explained(
        _final(out, home),
        tuple(work.explanations),
        tuple(work.failures),
        verdicts,
        tuple(work.units),
    )


def _as_class(classifier: Classifier, given: Target | None) -> Target | None:
    """A class by its index where it is one, or a word that means one.

    Raises:
        UnknownName: neither.
    """
    if given is None or given in ("predicted", "expected", "runner-up"):
        return given
    number = isinstance(given, str) and given not in classifier.classes and given.isdecimal()
    return class_index(classifier, int(given) if number else given)


def _refuse(
    networks: Networks,
    files: Sequence[str],
    masks: Sequence[str | Path],
    out: str | Path | None,
    check: bool,
) -> None:
    if out is None and networks.run is None:
        raise InputError("--out is missing; give a folder for what is drawn (a run has its own)")
    if not files and not (check and networks.run is not None):
        raise InputError(
            "no picture was given; name files, folders or patterns"
            + (": without a run, the checks are made on them" if check else "")
        )
    if masks and len(masks) != len(files):
        raise InputError(
            f"{len(masks)} masks were given for {len(files)} pictures; give one each, in their order"
        )
    if out is not None:
        refuse_foreign(Path(out))
        refuse_read_only(Path(out).parent)


@contextmanager
def _home(out: str | Path | None, run: Run | None) -> Iterator[Path]:
    """Where the pictures' folders are written; what is finished is kept when the work is interrupted."""
    if out is None:
        assert run is not None
        home = run.path / HOME
        refuse_read_only(home)
        yield home
        return
    stopped: KeyboardInterrupt | None = None
    with replaced_folder(out) as folder:
        try:
            yield folder
        except KeyboardInterrupt as error:
            if not any(folder.iterdir()):
                raise
            stopped = error
    if stopped is not None:
        raise stopped


def _final(out: str | Path | None, home: Path) -> Path:
    return home if out is None else Path(out)


def _verdicts(
    networks: Networks,
    files: Sequence[str],
    home: Path,
    check: bool,
    seed: int,
    reporter: Reporter,
) -> Verdicts | None:
    """New ones where that is asked for, otherwise those that are kept of this network."""
    run = networks.run
    place = run.path / HOME if run is not None else home
    if not check:
        return kept_verdicts(place, networks.own)
    if run is not None and not files:
        found = check_run(run, networks.own, seed=seed, reporter=reporter)
    elif run is not None:
        try:
            found = check_pictures(networks.own, files, seed=seed, reporter=reporter)
        except InputError:
            found = check_run(run, networks.own, seed=seed, reporter=reporter)
    else:
        found = check_pictures(networks.own, files, seed=seed, reporter=reporter)
    write_json(place / VERDICTS, found.to_dict())
    return found


@dataclass(frozen=True, eq=False)
class _Subject:
    """A picture that is explained; `index` and `versus` are classes of the own network."""

    path: str
    sha256: str
    index: int
    versus: int | None
    mask: NDArray[np.bool_] | None


class _Work:
    """Explains pictures, a few at a time, and remembers what it wrote."""

    def __init__(
        self,
        networks: Networks,
        asked: MapQuestion,
        verdicts: Verdicts | None,
        by_units: UnitExplanations | None,
    ):
        self.networks, self.asked, self.verdicts = networks, asked, verdicts
        self.by_units = by_units
        self.labels = networks.labels()
        self.explanations: list[Explanation] = []
        self.failures: list[tuple[str, str]] = []
        self.units: list[dict[str, Any]] = []

    def explain(self, files: Sequence[str], masks: Sequence[str | Path], home: Path) -> None:
        """Explains pictures by all methods, and writes a folder each."""
        subjects = []
        for place, file in enumerate(files):
            try:
                subjects.append(self._subject(file, masks[place] if masks else None))
            except UnknownName:
                raise
            except (PictureError, InputError, OSError) as error:
                reason = error.reason if isinstance(error, PictureError) else str(error)
                self.failures.append((file, reason))
        if not subjects:
            return
        pixels = {
            name: torch.stack([as_float(one.input.load(subject.path)) for subject in subjects])
            for name, one in self.networks.by_name.items()
        }
        found = {
            (method, name): self._maps(method, name, pixels[name], subjects)
            for method in self.asked.methods
            for name in self.networks.by_name
        }
        for row, subject in enumerate(subjects):
            with replaced_folder(home / self._folder(subject)) as folder:
                inside = {name: values[row] for name, values in pixels.items()}
                records = [
                    self._written(folder, subject, method, inside, row, found)
                    for method in self.asked.methods
                ]
                kept: dict[str, Any] = {"explanations": [one.to_dict() for one in records]}
                if self.by_units is not None:
                    classes = subject.index, subject.versus
                    found_units = self.by_units.explain(subject.path, classes, folder)
                    kept |= found_units
                    self.units.append({"folder": self._folder(subject), **found_units})
                write_json(folder / RECORD, kept)
            self.explanations += [
                replace(
                    one,
                    figure=f"{self._folder(subject)}/{one.figure}",
                    maps=f"{self._folder(subject)}/{one.maps}",
                )
                for one in records
            ]

    def _subject(self, file: str, mask: str | Path | None) -> _Subject:
        own = self.networks.own
        pixels = as_float(own.input.load(file))[None].to(own.device)
        digest = sha256_file(file)
        folder = Path(file).resolve().parent.name
        label = self.labels.get(digest, folder if folder in own.classes else None)
        logits = exact_logits(own, pixels, 1)
        asked = (self.asked.target, self.asked.versus)
        targets = resolve(own, logits, *asked, None if label is None else [label])
        versus = None if targets.against is None else int(targets.against[0])
        return _Subject(file, digest, int(targets.index[0]), versus, self._mask(file, mask))

    def _mask(self, file: str, mask: str | Path | None) -> NDArray[np.bool_] | None:
        """The object's pixels as the own network sees them.

        Raises:
            InputError: of another size than the picture, or empty.
        """
        if mask is None:
            return None
        white, picture = read_picture(mask, channels=1), read_picture(file)
        if white.size != picture.size:
            raise InputError(
                f"the mask {str(mask)!r} is {white.width} x {white.height} and the picture {picture.width} x "
                f"{picture.height}; give one of the picture's size"
            )
        found: NDArray[np.bool_] = np.asarray(self.networks.own.input.fit(white)) > 127
        if not found.any():
            raise InputError(
                f"the mask {str(mask)!r} is black where the network looks; it must be white on the object"
            )
        return found

    def _maps(
        self, method: str, name: str, pixels: torch.Tensor, subjects: Sequence[_Subject]
    ) -> tuple[Attribution, ...]:
        own, other = self.networks.own, self.networks.by_name[name]
        index = [class_index(other, own.classes[one.index]) for one in subjects]
        versus = [
            class_index(other, own.classes[one.versus])
            for one in subjects
            if one.versus is not None
        ]
        found = attribute(
            other,
            pixels,
            method=method,
            target=index,
            against=versus or None,
            layer=self.asked.layer if METHODS[method].layer else None,
            seed=self.asked.seed,
        )
        assert isinstance(found, tuple)
        return found

    def _written(
        self,
        folder: Path,
        subject: _Subject,
        method: str,
        pixels: dict[str, torch.Tensor],
        row: int,
        found: dict[tuple[str, str], tuple[Attribution, ...]],
    ) -> Explanation:
        """Figure, maps and record of one picture and method."""
        own = self.networks.own
        maps = {name: found[method, name][row] for name in self.networks.by_name}
        told = tuple(self._told(name, pixels[name], one, subject) for name, one in maps.items())
        passed, verdict = verdict_words(self.verdicts, method)
        several = [one.map for one in maps.values()]
        record = Explanation(
            picture=subject.path,
            sha256=subject.sha256,
            method=method,
            target=own.classes[subject.index],
            against=None if subject.versus is None else own.classes[subject.versus],
            networks=told,
            change=MapChange.of(*several[-2:]) if len(several) > 1 else None,
            object_share=None if subject.mask is None else float(subject.mask.mean()),
            passed=passed,
            verdict=verdict,
            identical=self.networks.identical,
            figure=f"{method}.png",
            maps=f"{method}.safetensors",
        )
        write_tensors(
            folder / record.maps,
            {name: torch.from_numpy(one.map) for name, one in maps.items()},
            {"explanation": record.to_dict()},
        )
        rows = [
            MapRow(_uint8(pixels[name]), one.map, one.support, figures, control=name == RANDOM)
            for (name, one), figures in zip(maps.items(), told, strict=True)
        ]
        write_explanation_figure(folder / record.figure, record, rows)
        return record

    def _told(
        self, name: str, pixels: torch.Tensor, found: Attribution, subject: _Subject
    ) -> NetworkMap:
        classifier = self.networks.by_name[name]
        with classifier.inference():
            chances = classifier.probabilities(pixels[None].to(classifier.device))[0]
        inside = None
        if subject.mask is not None:
            inside = inside_share(resized(found.support, subject.mask.shape), subject.mask)
        return NetworkMap(
            network=name,
            logit=found.logit,
            probability=float(chances[class_index(classifier, found.target)]),
            predicted=classifier.classes[int(chances.argmax())],
            layer=found.layer,
            delta=found.delta,
            converged=found.converged,
            inside=inside,
        )

    def _folder(self, subject: _Subject) -> str:
        """Its name: the picture's, and a digest of the picture, the classes and the networks."""
        classes = [subject.index, subject.versus, *self.networks.by_name]
        stem = re.sub(r"[^\w.-]+", "-", Path(subject.path).stem).strip("-.")[:60]
        stem = stem.encode("utf-8", "ignore").decode("utf-8")
        return f"{stem or 'picture'}-{sha256_json([subject.sha256, classes])[:8]}"


def _uint8(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """(C, H, W) in [0, 1] as (H, W, C)."""
    found: NDArray[np.uint8] = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
    return found
