"""Where in a real picture a channel answers: the place of its maximum and the outline of its activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from torch.nn import functional

from transferscope.activations import TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.data.loading import load_batches
from transferscope.errors import InputError
from transferscope.features.receptive_field import (
    Box,
    FieldKind,
    ReceptiveField,
    as_maps,
    receptive_field,
)
from transferscope.images import as_float
from transferscope.records import Record

Sign = Literal["plus", "minus"]

Polygon = tuple[tuple[float, float], ...]
"""Points (x, y) in fractions of the network's input; the last is the first again."""

MEASURED_ON = 8
"""Pictures on which a layer's receptive field is measured: the same whichever exemplars are asked for."""

OUTLINE_GRID = 28
"""Points along a side of the upsampled map that an outline is drawn on."""

LEVEL = 0.5
"""Share of its maximum at which a map is outlined."""


class Unit(NamedTuple):
    """A direction of a channel.

    Attributes:
        layer: dotted name.
        channel: index within the layer.
        sign: `plus` for what excites it; `minus` for what makes it most negative.
    """

    layer: str
    channel: int
    sign: Sign = "plus"


@dataclass(frozen=True)
class ExemplarCrop(Record):
    """A real picture that excites a unit, and where.

    Attributes:
        path: of the picture, as given.
        activation: spatial mean of the channel, times the unit's sign.
        peak: its maximum over places, times the sign.
        box: the part of the network's input that the place of the maximum looks at.
        field: what the box is, see `ReceptiveField`.
        outline: polygons around the places where the activation is at least half of its maximum, holes
            among them (even-odd rule); none where the maximum is not above 0, or there are no places.
    """

    path: str
    activation: float
    peak: float
    box: Box
    field: FieldKind
    outline: tuple[Polygon, ...]


def exemplar_crops(
    classifier: Classifier,
    files: Sequence[Path],
    wanted: Mapping[Unit, Sequence[int]],
    *,
    names: Sequence[str] | None = None,
    fields: Mapping[str, ReceptiveField] | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[Unit, tuple[ExemplarCrop, ...]]:
    """Where in its exemplars each unit answers.

    Every picture that is an exemplar of any unit is seen once, and no map is kept: memory does not grow
    with units or pictures.

    Args:
        classifier: unchanged.
        files: N pictures.
        wanted: unit -> indexes of its exemplars among `files`, best first; see `top_pictures`.
        names: N, of the pictures in the result; None: the files' paths.
        fields: of the network's layers, see `receptive_fields`; None: they are measured on these files.
        batch_size: pictures a forward pass.
        on_progress: called with (pictures done, in all).

    Returns:
        unit -> a crop for each exemplar, in the order asked for.

    Raises:
        UnknownName: no such layer.
        InputError: no such channel or picture.
        PictureError: a file that cannot be read.
    """
    wanted = {unit: tuple(int(one) for one in places) for unit, places in wanted.items()}
    needed = sorted({place for places in wanted.values() for place in places})
    if not needed:
        return dict.fromkeys(wanted, ())
    if needed[0] < 0 or needed[-1] >= len(files):
        raise InputError(
            f"exemplars {needed[0]} to {needed[-1]} are asked for among {len(files)} pictures"
        )
    layers = list(dict.fromkeys(unit.layer for unit in wanted))
    if fields is None:
        fields = receptive_fields(classifier, layers, files)
    of_picture: dict[int, list[Unit]] = {}
    for unit, places in wanted.items():
        for place in dict.fromkeys(places):
            of_picture.setdefault(place, []).append(unit)
    forward = TruncatedForward(
        still(classifier.network), layers, classifier.example(), channels_first=True
    )
    titles = [str(file) for file in files] if names is None else names
    found: dict[tuple[Unit, int], ExemplarCrop] = {}
    done = 0
    chosen = [files[place] for place in needed]
    for batch in load_batches(chosen, classifier.input, batch_size=batch_size):
        pictures = classifier.input.normalise(as_float(batch.to(classifier.device)))
        with torch.inference_mode():
            outputs = forward(pictures)
        for row, place in enumerate(needed[done : done + len(batch)]):
            for unit in of_picture[place]:
                output = outputs[unit.layer][row : row + 1]
                crop = _crop(unit, output, fields[unit.layer], classifier.input.size, titles[place])
                found[unit, place] = crop
        done += len(batch)
        if on_progress:
            on_progress(done, len(needed))
    return {unit: tuple(found[unit, place] for place in places) for unit, places in wanted.items()}


def receptive_fields(
    classifier: Classifier, layers: Sequence[str], files: Sequence[Path]
) -> dict[str, ReceptiveField]:
    """How far each layer looks, measured on a few pictures spread over the files.

    Raises:
        UnknownName: no such layer.
        PictureError: a file that cannot be read.
    """
    files = files[:: -(-len(files) // MEASURED_ON)]
    (batch,) = load_batches(files, classifier.input, batch_size=len(files))
    return {layer: receptive_field(classifier, layer, as_float(batch)) for layer in layers}


def _crop(
    unit: Unit, output: torch.Tensor, field: ReceptiveField, size: tuple[int, int], name: str
) -> ExemplarCrop:
    channels = output.shape[-1] if output.ndim == 3 else output.shape[1]
    if not 0 <= unit.channel < channels:
        raise InputError(
            f"there is no channel {unit.channel} in {unit.layer!r}; it has 0 to {channels - 1}"
        )
    direction = 1 if unit.sign == "plus" else -1
    every = output[..., unit.channel] if output.ndim == 3 else output[:, unit.channel]
    one = as_maps(output, size)[0, unit.channel].float().cpu() * direction
    row, column = divmod(int(one.argmax()), one.shape[1])
    return ExemplarCrop(
        path=name,
        activation=float(every.float().mean()) * direction,
        peak=float(one.max()),
        box=field.box(row, column),
        field=field.kind,
        outline=outline(one.numpy()) if output.ndim > 2 else (),
    )


def outline(activation: np.ndarray, level: float = LEVEL) -> tuple[Polygon, ...]:
    """Polygons around the places of a map that reach a share of its maximum.

    The map is enlarged to the whole picture by bilinear interpolation; an area at the picture's border is
    closed along it.

    Args:
        activation: (h, w).
        level: share of the maximum.

    Returns:
        Polygons in fractions of the picture; none if the maximum is not above 0.
    """
    from contourpy import contour_generator

    peak = float(activation.max())
    if not peak > 0:
        return ()
    grid = tuple(max(OUTLINE_GRID, side) for side in activation.shape)
    scaled = torch.from_numpy(np.asarray(activation, np.float32) / peak)
    fine = functional.interpolate(scaled[None, None], grid, mode="bilinear", align_corners=False)
    values = np.pad(fine[0, 0].double().numpy(), 1, constant_values=0.0)
    x, y = (
        np.concatenate([[0.0], (np.arange(count) + 0.5) / count, [1.0]]) for count in grid[::-1]
    )
    # The border's zeros lie on the picture's edge: an area that reaches the border is closed just inside it.
    lines = cast(
        list[np.ndarray], contour_generator(x, y, values).lines(level * float(values.max()))
    )
    return tuple(tuple((x, y) for x, y in line.round(3).tolist()) for line in lines)


def top_pictures(
    responses: np.ndarray, channel: int, *, sign: Sign = "plus", count: int = 9
) -> list[int]:
    """Indexes of the pictures that excite a unit most, best first; the first of equals.

    Args:
        responses: (N, C), see `channel_responses`.
        channel: index.
        sign: direction.
        count: how many, or all if there are fewer.
    """
    values = responses[:, channel] if sign == "plus" else -responses[:, channel]
    return [int(one) for one in np.argsort(-values, kind="stable")[:count]]
