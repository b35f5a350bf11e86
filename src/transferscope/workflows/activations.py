"""`activation_sheets` and `activations_of`: what a network's layers make of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from transferscope.activations import find_layer, hooked
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.copies import still
from transferscope.errors import InputError
from transferscope.files import refuse_foreign, replaced_folder, write_tensors
from transferscope.images import as_float, to_picture
from transferscope.report.pages.activations import write_sheets_page
from transferscope.report.sheets.activations import LayerMaps, LayerSheet, Scale, write_sheet
from transferscope.wording import counted
from transferscope.workflows.reporter import SILENT, Reporter

_PREFIX = 16
"""Most tokens (class, registers) that may stand before those of the picture."""


def activation_sheets(
    classifier: Classifier,
    image: str | Path | Image.Image,
    *,
    out: str | Path,
    layers: Sequence[str] | None = None,
    scale: Scale = "layer",
    save_arrays: bool = False,
    called: str | None = None,
    reporter: Reporter = SILENT,
) -> list[LayerSheet]:
    """Draws what layers make of a picture: a sheet of all channels a layer, first to last.

    One forward pass draws each layer as it runs, so that one layer's maps are held at a time. A module
    that runs several times in a pass is drawn as its last run leaves it.

    Args:
        classifier: whose network is looked into; unchanged.
        image: a file or a picture; it is resized and cropped as for every prediction.
        out: a new folder, or one that this function wrote: index.html and the sheets, numbered.
        layers: dotted names; None: every convolution, and where there is none but a patch embedding
            the ends of the stages too (a vision transformer's blocks).
        scale: `layer`: one colour scale for all channels of a layer; `channel`: each its own.
        save_arrays: also writes maps.safetensors, a float32 tensor a layer; holds all of them.
        called: what the network is called on the page; None: its backbone's name.
        reporter: hears of the progress, and of convolutions that are left out.

    Returns:
        A record a layer, in the order of the forward pass, whose pages are paths.

    Raises:
        PictureError: the file cannot be read.
        UnknownName: no such layer.
        InputError: a layer whose output is not maps, tokens on a grid or a vector of one picture.
        OutputError: `out` is not ours to replace.
    """
    refuse_foreign(Path(out))
    network = called or classifier.backbone
    looked = _Look(classifier, image, layers)
    sheets: list[LayerSheet] = []
    arrays: dict[str, torch.Tensor] = {}
    with replaced_folder(out) as folder, reporter.task("drawing layers") as progress:

        def draw(maps: LayerMaps) -> None:
            sheets.append(write_sheet(folder, len(sheets) + 1, maps, looked.picture, scale=scale))
            progress(len(sheets), len(looked.names))
            if save_arrays:
                arrays[maps.layer] = torch.tensor(maps.values)

        looked.each(draw, reporter.say)
        title = "A picture" if isinstance(image, Image.Image) else Path(image).name
        write_sheets_page(folder, sheets, title=title, network=network, picture=looked.picture)
        if save_arrays:
            write_tensors(folder / "maps.safetensors", arrays, {"network": network})
    return [
        replace(one, pages=tuple(str(Path(out) / file) for file in one.pages)) for one in sheets
    ]


def activations_of(
    classifier: Classifier, image: str | Path | Image.Image, layers: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """The maps that `activation_sheets` draws, as float32 arrays (C, h, w), or (D,) of a vector.

    All are held at once; in the order of the forward pass.

    Raises:
        PictureError: the file cannot be read.
        UnknownName: no such layer.
        InputError: see `activation_sheets`.
    """
    found: dict[str, np.ndarray] = {}

    def keep(maps: LayerMaps) -> None:
        found[maps.layer] = maps.values.copy()

    _Look(classifier, image, layers).each(keep, SILENT.say)
    return found


class _Look:
    """One picture, the layers that are looked at, and how their outputs become maps.

    Attributes:
        picture: as the network sees it.
        names: of the layers.
    """

    def __init__(
        self, classifier: Classifier, image: str | Path | Image.Image, layers: Sequence[str] | None
    ):
        self._classifier = classifier
        self._network = still(classifier.network)
        self._modules = dict(self._network.named_modules())
        pixels = classifier.input.load(image)
        self.picture = to_picture(pixels)
        self._input = classifier.input.normalise(as_float(pixels)[None].to(classifier.device))
        self._found = {one.name: one for one in layers_of(classifier.network, self._input)}
        convolutions = [name for name in self._found if isinstance(self._modules[name], nn.Conv2d)]
        self._chosen_by_user = layers is not None
        self.names = self._default(convolutions) if layers is None else self._checked(layers)
        shapes = [self._found[name].output_shape for name in convolutions]
        self._grids = [(shape[1], shape[2]) for shape in shapes if len(shape) == 3]

    def _checked(self, layers: Sequence[str]) -> tuple[str, ...]:
        for name in layers:
            find_layer(self._classifier.network, name)
            if name not in self._found:
                raise InputError(
                    f"layer {name!r} is never run by a forward pass, so it has no output; choose one "
                    "that 'transferscope layers MODEL' lists"
                )
        return tuple(dict.fromkeys(layers))

    def _default(self, convolutions: Sequence[str]) -> tuple[str, ...]:
        """Every convolution; of a network with a patch embedding at most, the ends of its stages too."""
        if len(convolutions) > 1:
            return tuple(convolutions)
        inside = tuple(f"{name}." for name in convolutions)
        ends = stages_of(self._classifier)
        return (
            *convolutions,
            *(end for end in ends if not any(i.startswith(f"{end}.") for i in inside)),
        )

    def each(self, take: Callable[[LayerMaps], None], say: Callable[[str], None]) -> None:
        """Gives each layer's maps to `take` as the forward pass makes them; valid for that call only.

        A layer that nobody asked for by name and that has no maps is left out, and told to `say`.
        """
        runs = {name: self._found[name].calls for name in self.names}

        def hook(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            runs[name] -= 1
            if runs[name]:
                return
            try:
                maps = self._maps(name, output)
            except InputError as error:
                if self._chosen_by_user:
                    raise
                say(f"left out: {error}")
            else:
                take(maps)

        hooks = [(self._modules[name], partial(hook, name), False) for name in self.names]
        with torch.inference_mode(), hooked(hooks):
            self._network(self._input)

    def _maps(self, name: str, output: Any) -> LayerMaps:
        if not isinstance(output, torch.Tensor):
            raise InputError(
                f"layer {name!r} returns a {type(output).__name__}, not one tensor; choose a layer "
                "inside it, or the one after it"
            )
        if output.ndim < 2 or len(output) != 1:
            raise InputError(
                f"layer {name!r} returns {tuple(output.shape)} for one picture, whose first axis is not "
                "the picture's (windows of it?); choose the layer around it"
            )
        values = output[0].detach().float().cpu().numpy()
        arranged = _arranged(values, self._grids, self._found[name].channels_last)
        if arranged is None:
            raise InputError(
                f"layer {name!r} returns {values.shape} for one picture, which is no vector, no tokens on "
                "the picture's grid and no maps; choose another layer"
            )
        names = self._classifier.classes if name == self._classifier.head else ()
        return LayerMaps(name, type(self._modules[name]).__name__, values.shape, *arranged, names)


def _arranged(
    values: np.ndarray, grids: Sequence[tuple[int, int]], channels_last: bool
) -> tuple[np.ndarray, str] | None:
    """One picture's output as (C, h, w) or (D,) and how that was done; None if it cannot be.

    Args:
        values: without the axis of pictures.
        grids: (rows, columns) of the convolutions' outputs, on one of which tokens lie.
        channels_last: whether maps are (h, w, C).
    """
    if values.ndim == 1:
        return values, ""
    if values.ndim == 2:
        return _tokens_on_grid(values, grids)
    if values.ndim != 3:
        return None
    note = "channels are its last axis" if channels_last else ""
    maps = values.transpose(2, 0, 1) if channels_last else values
    return (maps[:, 0, 0], "one value a channel") if maps[0].size == 1 else (maps, note)


def _tokens_on_grid(
    values: np.ndarray, grids: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, str] | None:
    """Tokens (T, D) as maps (D, h, w), without those that stand before the picture's own."""
    count = len(values)
    if count == 1:
        return values[0], "one token"
    sizes = {rows * columns: (rows, columns) for rows, columns in reversed(grids)}
    fitting = [size for size in sizes if 0 <= count - size <= min(_PREFIX, size)]
    if not fitting:
        return None
    before = count - max(fitting)
    maps = values[before:].T.reshape(-1, *sizes[max(fitting)])
    other = f", {counted(before, 'other token')} left out" if before else ""
    return maps, f"tokens on their grid{other}"
