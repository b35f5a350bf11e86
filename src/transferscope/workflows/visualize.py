"""`visualize` and `ideal`: channels and classes drawn into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from transferscope.activations import find_layer
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.data.exclusions import say
from transferscope.data.scan import refuse_unreadable, scan
from transferscope.errors import InputError, UnknownName
from transferscope.features.exemplars import channel_responses, drawn_sample
from transferscope.files import replaced_folder, sha256_file, sha256_json
from transferscope.images import as_float, to_picture
from transferscope.machine import cache_dir
from transferscope.report.sheets.renders import Tile, write_sheets
from transferscope.visualize.plan import Plan, most_informative_first
from transferscope.visualize.recipe import make_recipe
from transferscope.visualize.records import Sign
from transferscope.visualize.render import ObjectiveKind
from transferscope.visualize.units import Exemplar, Exemplars, Sweep, WorkUnit
from transferscope.workflows.reporter import SILENT, Outlook, Reporter


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """What `visualize` draws.

    Attributes:
        layer: dotted name; None with the objective "logit".
        channels: indexes; of classes with the objective "logit".
        signs: directions.
        seed: of starts and movements.
        steps: most optimization steps; None: the recipe's.
        size: side in pixels; None: the network's input size.
        objective: what is driven: a channel's mean, its middle neuron, or a class's logit.
        data: real pictures, sorted into classes or not; the best of at most 1,000 of them gives
            `exemplar_max`, what the drawing is held against, and where it begins again if need be.
        called: what the network is called on the sheets; None: its backbone's name.
    """

    layer: str | None = None
    channels: Sequence[int]
    signs: Sequence[Sign] = ("plus",)
    seed: int = 0
    steps: int | None = None
    size: int | None = None
    objective: ObjectiveKind = "channel"
    data: str | Path | None = None
    called: str | None = None


def visualize(
    classifier: Classifier,
    wanted: Drawings,
    *,
    out: str | Path,
    sweep: str | Path | None = None,
    reporter: Reporter = SILENT,
) -> list[dict[str, Any]]:
    """Draws channels of a layer into a folder: a PNG each, and sheets of 64 with their best real pictures.

    Every channel that is finished is kept (see `sweep`): a call that was interrupted, or that asks for more
    channels, draws only what is missing, and what another run with the same weights up to the layer has
    drawn is not drawn again.

    Args:
        classifier: whose network is drawn; unchanged.
        wanted: what of it.
        out: a new folder, or one that this function wrote.
        sweep: folder of finished channels; None: the shared cache.
        reporter: hears of the progress.

    Returns:
        One mapping a channel and sign: layer, channel, sign, seed, activation, exemplar_max, status,
        steps, from_exemplar, file; with the objective "logit" class too.

    Raises:
        UnknownName: no such layer.
        InputError: a channel that the layer does not have, or options that contradict each other.
        OutputError: `out` is not ours to replace, or cannot be written; finished channels are kept.
    """
    work = _Work.of(classifier, wanted, reporter)
    store = _store(sweep)
    rows: list[dict[str, Any]] = []
    with replaced_folder(out) as folder:
        units = work.in_order()
        lacks = sum(len(store.missing(unit)) for unit in units)
        outlook = Outlook(lacks, "drawings", reporter)
        with reporter.task(f"drawing {work.name}") as progress:
            heard = outlook.through(progress, lacks)
            store.run(classifier, units, exemplars=work.exemplars, on_progress=heard)
        tiles = _tiles(store, work, folder, Path(out), rows)
        unit = "class" if wanted.objective == "logit" else "channel"
        write_sheets(folder, tiles, title=f"{work.name}, seed {wanted.seed}", unit=unit)
    return rows


def plan_visualize(
    classifier: Classifier,
    wanted: Drawings,
    *,
    sweep: str | Path | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """What `visualize` with the same arguments will take, measured on a few of its pictures."""
    work = _Work.of(classifier, wanted, reporter)
    with reporter.task("drawing a few, to measure"):
        return Plan.of(_store(sweep), classifier, work.in_order(), exemplars=work.exemplars)


def _store(sweep: str | Path | None) -> Sweep:
    return Sweep(sweep if sweep is not None else cache_dir() / "sweep")


@dataclass(frozen=True, eq=False)
class _RealPictures:
    """Files, and how each excites the channels: (files, channels)."""

    classifier: Classifier
    files: list[Path]
    responses: torch.Tensor

    @cached_property
    def key(self) -> str:
        return sha256_json([sha256_file(file) for file in self.files])

    def best(self, channel: int, sign: Sign) -> tuple[int, float]:
        """The best file's place, and its value times the sign."""
        signed = self.responses[:, channel] * (1 if sign == "plus" else -1)
        place = int(signed.argmax())
        return place, float(signed[place])

    def selectivity(self) -> list[float]:
        """How far the best picture stands out for each channel, in its standard deviations."""
        few = len(self.responses) < 2
        spread = 1.0 if few else self.responses.std(0).clamp_min(1e-12)
        best: torch.Tensor = self.responses.amax(0)
        return [float(value) for value in (best - self.responses.mean(0)) / spread]

    def exemplars(self, channels: tuple[int, ...], sign: Sign) -> dict[int, Exemplar]:
        """The best pictures of some channels, read now."""
        best = {channel: self.best(channel, sign) for channel in channels}
        return {k: Exemplar(value, self.picture(place)) for k, (place, value) in best.items()}

    def picture(self, place: int) -> torch.Tensor:
        """(C, H, W) in [0, 1], as the network sees it."""
        return as_float(self.classifier.input.load(self.files[place]))


@dataclass(frozen=True, eq=False)
class _Work:
    """What one call draws."""

    classifier: Classifier
    name: str
    units: list[WorkUnit]
    real: _RealPictures | None

    @classmethod
    def of(cls, classifier: Classifier, wanted: Drawings, reporter: Reporter) -> _Work:
        objective, seed = wanted.objective, wanted.seed
        where = _target(classifier, wanted.layer, objective)
        recipe = make_recipe(wanted.steps, wanted.size)
        if wanted.data is not None and objective == "neuron":
            raise InputError(
                "--data holds drawings against what whole maps have for real pictures, which says nothing "
                "of a single --objective neuron; leave --data out, or draw channels"
            )
        real = None
        if wanted.data is not None:
            real = _real_pictures(classifier, where, wanted.data, seed, reporter)
        unit = WorkUnit.of(
            classifier,
            where,
            wanted.channels,
            seed=seed,
            recipe=recipe,
            objective=objective,
            exemplars=real.key if real else "",
        )
        units = [part for sign in wanted.signs for part in replace(unit, sign=sign).divided()]
        names = {"channel": where, "neuron": f"{where}, middle neuron", "logit": "classes"}
        called = wanted.called or classifier.backbone
        return cls(classifier, f"{called} {names[objective]}", units, real)

    @property
    def exemplars(self) -> Exemplars | None:
        """The best real pictures, if there are any."""
        return self.real.exemplars if self.real else None

    def in_order(self) -> list[WorkUnit]:
        """The units, those first that show most."""
        interest = {unit.layer: self.real.selectivity() for unit in self.units[:1] if self.real}
        return most_informative_first(self.units, interest)


def _target(classifier: Classifier, layer: str | None, objective: ObjectiveKind) -> str:
    """The layer that is drawn; for logits the head."""
    if objective == "logit":
        if layer not in (None, classifier.head):
            raise InputError(
                f"--objective logit draws classes, and --layer is {layer!r}; leave --layer out"
            )
        return classifier.head
    if layer is None:
        raise InputError(
            f"--objective {objective} needs --layer; 'transferscope layers' lists them"
        )
    find_layer(classifier.network, layer)
    return layer


def _real_pictures(
    classifier: Classifier, layer: str, data: str | Path, seed: int, reporter: Reporter
) -> _RealPictures:
    """Files of a folder, at most `EXEMPLAR_POOL`, and how they excite a layer."""
    with reporter.task("reading pictures") as progress:
        channels = classifier.input.channels
        found = scan(data, channels=channels, layout="classes", lenient=True, on_progress=progress)
    say(found.excluded, reporter.say)
    refuse_unreadable(found)
    files = [found.file(picture) for picture in found.pictures]
    files = [files[index] for index in drawn_sample(len(files), seed)]
    with reporter.task("real pictures through the network") as progress:
        responses = channel_responses(classifier, files, [layer], on_progress=progress)
    return _RealPictures(classifier, files, responses[layer])


def _tiles(
    store: Sweep, work: _Work, folder: Path, out: Path, rows: list[dict[str, Any]]
) -> Iterator[Tile]:
    """Writes a PNG and notes a row for every drawing, and hands it on to the sheets."""
    for unit in work.units:
        best = {c: work.real.best(c, unit.sign) for c in unit.channels} if work.real else {}
        values = {channel: value for channel, (_, value) in best.items()}
        for render in store.load(unit, exemplar_max=values):
            file = f"{unit.layer}-{render.channel}-{render.sign}-{render.seed}.png"
            to_picture(render.picture).save(folder / file)
            row = {name: getattr(render, name) for name in _COLUMNS} | {"file": str(out / file)}
            if render.status == "non_finite":
                row["activation"] = None
            called = str(render.channel)
            if unit.objective == "logit":
                called = row["class"] = work.classifier.classes[render.channel]
            rows.append(row)
            shown = None
            if work.real:
                shown = to_picture(work.real.picture(best[render.channel][0]))
            yield Tile(render, shown, called)


_COLUMNS = (
    *("layer", "channel", "sign", "seed", "activation"),
    *("exemplar_max", "status", "steps", "from_exemplar"),
)


def parse_channels(text: str, classifier: Classifier, layer: str | None) -> tuple[int, ...]:
    """`0,5,8-15` or `all` as indexes of a layer's channels, each once, in the order given.

    For the head, whose channels are the classes, names of classes will do too: `tabby,zebra,0-9`.

    Raises:
        UnknownName: no such layer, or for the head no such class.
        InputError: not of that form, or a channel that the layer does not have.
    """
    if layer is None:
        raise InputError("no layer is named; give --layer ('transferscope layers' lists them)")
    find_layer(classifier.network, layer)
    described = {one.name: one for one in layers_of(classifier.network, classifier.example())}
    total = described[layer].channels if layer in described else 0
    if text == "all":
        return tuple(range(total))
    classes = classifier.classes if layer == classifier.head else ()
    chosen: list[int] = []
    for part in map(str.strip, [text] if text in classes else text.split(",")):
        if part in classes and not part.isdigit():
            chosen.append(classes.index(part))
            continue
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            if classes:
                remedy = "write names, or places like 0,5,8-15, or all"
                raise UnknownName("class", part, classes, where="this network", remedy=remedy)
            raise InputError(f"--channels is {text!r}; write them like 0,5,8-15, or all")
        if dash and int(last) < int(first):
            raise InputError(f"--channels has the range {part!r}; write the smaller one first")
        if int(last or first) >= total:
            raise InputError(
                f"--channels is {text!r}, and layer {layer!r} has {total} channels, 0 to {total - 1}"
            )
        chosen += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(chosen))
