"""Attribution: which places of a picture an answer comes from, by a registry of methods.

The score is a class's logit, not its probability, or the difference of two. Every method works on private
copies of the network, and leaves no trace in the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, UnknownName
from transferscope.explain.class_activation import grad_cam, layer_cam
from transferscope.explain.gradients import (
    gradient,
    gradient_x_input,
    guided_backprop,
    integrated_gradients,
    smooth_grad,
)
from transferscope.explain.maps import Maps
from transferscope.explain.occlusion import occlusion
from transferscope.explain.scores import (
    Scores,
    Target,
    Targets,
    default_layer,
    refuse_layer,
    resolve,
)
from transferscope.images import as_float, refuse_range
from transferscope.notebook import panel
from transferscope.wording import short, signed

PictureLike: TypeAlias = str | Path | Image.Image | torch.Tensor
"""A file, a picture of PIL, or float (C, H, W) in [0, 1] of the classifier's input size."""

Values: TypeAlias = NDArray[np.float32]

BATCH = 16
"""Pictures, noisy versions or steps a pass: more is no faster on CPUs."""


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        name: what the user types.
        title: the method's name in a sentence.
        function: (scores, pictures (N, C, H, W), targets, batch_size=, ...) -> `Maps`.
        says: what a value of its map is. `support`: how much of the score the place brings, or costs where
            it is negative. `sensitivity`: a gradient, whose sign says which way the place would have to
            change, so that its magnitude is what counts.
        signed: whether its map has negative values.
        layer: whether it needs a layer with places.
        changes_relu: whether it changes gradients through ReLUs, and so needs them.
        seeded: whether it takes a seed.
        options: its own keyword arguments with their defaults.
        quick: what `check_methods` gives instead of some of them.
    """

    name: str
    title: str
    function: Callable[..., Maps]
    says: Literal["support", "sensitivity"]
    signed: bool
    layer: bool = False
    changes_relu: bool = False
    seeded: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        scores: Scores,
        pictures: torch.Tensor,
        targets: Targets,
        *,
        batch_size: int = BATCH,
        seed: int = 0,
        **options: Any,
    ) -> Maps:
        """Maps of pictures (N, C, H, W) in [0, 1], on the classifier's device."""
        if self.seeded:
            options["seed"] = seed
        return self.function(scores, pictures, targets, batch_size=batch_size, **options)

    def support(self, maps: Values) -> Values:
        """What speaks for the target, not negative: the positive part, of sensitivities the magnitude."""
        found: Values = np.abs(maps) if self.says == "sensitivity" else np.maximum(maps, 0)
        return found


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("grad_cam", "Grad-CAM", grad_cam, "support", signed=False, layer=True),
        Method("layer_cam", "LayerCAM", layer_cam, "support", signed=False, layer=True),
        Method("gradient", "gradient", gradient, "sensitivity", signed=True),
        Method("gradient_x_input", "gradient × input", gradient_x_input, "support", signed=True),
        Method(
            *("smooth_grad", "SmoothGrad", smooth_grad, "sensitivity"),
            signed=True,
            seeded=True,
            options={"samples": 50, "noise": 0.15},
            quick={"samples": 25},
        ),
        Method(
            *("integrated_gradients", "integrated gradients", integrated_gradients, "support"),
            signed=True,
            options={"steps": 50, "most_steps": 400},
            quick={"steps": 25, "most_steps": 25},
        ),
        Method(
            *("guided_backprop", "guided backprop", guided_backprop, "sensitivity"),
            signed=True,
            changes_relu=True,
        ),
        Method(
            *("occlusion", "occlusion", occlusion, "support"),
            signed=True,
            options={"window": 1 / 7, "stride": 0.5},
            quick={"stride": 1.0},
        ),
    )
}
"""Every method by name; a new one is a function and a line here."""


_SHADES = {
    "support": "White: brings most of the score; black: nothing, or it costs some.",
    "sensitivity": "White: where the score changes most.",
}


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where in a picture the score of a class comes from.

    Attributes:
        method: its name in `METHODS`.
        target: the class.
        against: the class whose logit is subtracted; None: none is.
        map: float32 (H, W) of the network's input, in units of the score (gradients: a unit of brightness);
            colours are summed.
        signed: whether it has negative values by its nature.
        logit: the score: the target's logit, less that of `against`.
        delta: how much of the score's difference from the mean colour the sum of the map misses; None: the
            method promises no sum.
        converged: whether that is at most 1% of the difference; None likewise.
        steps: of the path; None: there is none.
        layer: whose map it is; None: the pixels'.
    """

    method: str
    target: str
    against: str | None
    map: Values
    signed: bool
    logit: float
    delta: float | None = None
    converged: bool | None = None
    steps: int | None = None
    layer: str | None = None

    @property
    def support(self) -> Values:
        """What speaks for the target, not negative, see `Method.support`."""
        return METHODS[self.method].support(self.map)

    def _repr_html_(self) -> str:
        versus = f" against {self.against}" if self.against else ""
        place = f" at {self.layer}" if self.layer else ""
        said = [f"Logit {signed(self.logit)}."]
        if self.delta is not None:
            said.append(
                f"The sum of the map misses {short(self.delta)} of the score's difference from the mean colour"
                + ("." if self.converged else ": it has not converged.")
            )
        said.append(_SHADES[METHODS[self.method].says])
        title = f"{METHODS[self.method].title} of {self.target}{versus}{place}"
        return panel(title, sentences=said, pictures=[(_in_grey(self.support), "its map")])


def _in_grey(support: Values) -> NDArray[np.uint8]:
    """A map that is not negative as uint8 (H, W), white where it is largest; of no numbers black."""
    finite = np.nan_to_num(support, nan=0.0, posinf=0.0, neginf=0.0)
    found: NDArray[np.uint8] = (255 * finite / (finite.max() or 1.0)).round().astype(np.uint8)
    return found


@overload
def attribute(
    classifier: Classifier,
    pictures: str | Path | Image.Image,
    *,
    method: str = ...,
    target: Target | Sequence[Target] = ...,
    against: Target | Sequence[Target] | None = ...,
    labels: Target | Sequence[Target] | None = ...,
    layer: str | None = ...,
    batch_size: int = ...,
    seed: int = ...,
    **options: Any,
) -> Attribution: ...


@overload
def attribute(
    classifier: Classifier,
    pictures: Sequence[PictureLike],
    *,
    method: str = ...,
    target: Target | Sequence[Target] = ...,
    against: Target | Sequence[Target] | None = ...,
    labels: Sequence[Target] | None = ...,
    layer: str | None = ...,
    batch_size: int = ...,
    seed: int = ...,
    **options: Any,
) -> tuple[Attribution, ...]: ...


@overload
def attribute(
    classifier: Classifier,
    pictures: torch.Tensor,
    *,
    method: str = ...,
    target: Target | Sequence[Target] = ...,
    against: Target | Sequence[Target] | None = ...,
    labels: Sequence[Target] | None = ...,
    layer: str | None = ...,
    batch_size: int = ...,
    seed: int = ...,
    **options: Any,
) -> Attribution | tuple[Attribution, ...]: ...


def attribute(
    classifier: Classifier,
    pictures: PictureLike | Sequence[PictureLike],
    *,
    method: str = "grad_cam",
    target: Target | Sequence[Target] = "predicted",
    against: Target | Sequence[Target] | None = None,
    labels: Target | Sequence[Target] | None = None,
    layer: str | None = None,
    batch_size: int = BATCH,
    seed: int = 0,
    **options: Any,
) -> Attribution | tuple[Attribution, ...]:
    """Where in pictures the score of a class comes from.

    Args:
        classifier: unchanged; in train mode the answers are those of eval mode.
        pictures: one (a file, a picture of PIL, a tensor (C, H, W)) or several (a list, a tensor
            (N, C, H, W)); tensors are float in [0, 1] and of the classifier's input size.
        method: a name in `METHODS`.
        target: a class's name or index, "predicted" or "expected"; one for all pictures, or one each.
        against: a class whose logit is subtracted, likewise, or "runner-up" for the next best. Why the
            label and not what was predicted: `target="expected", against="predicted"`.
        labels: a class each, for "expected"; of one picture, the class.
        layer: whose map Grad-CAM and LayerCAM take; None: the deepest stage whose map the answer depends on.
        batch_size: pictures, noisy versions or steps a pass.
        seed: of SmoothGrad's noise.
        **options: the method's own, see `METHODS[method].options`.

    Returns:
        A record for one picture, or one each.

    Raises:
        UnknownName: no such method, class, layer or option.
        InputError: pictures of another size or range, a layer without a map, or a method that this network
            does not suit; each says what to do.
        PictureError: a file that cannot be read.
    """
    chosen = find_method(method)
    _refuse_options(chosen, options, layer, batch_size)
    with torch.inference_mode(False):  # whatever the caller's mode
        batch, alone = load(classifier, pictures)
        if chosen.layer:
            layer = layer or default_layer(classifier)
            refuse_layer(classifier, layer)
        labels = [labels] if isinstance(labels, str | int) else labels
        logits = exact_logits(classifier, batch, batch_size)
        targets = resolve(classifier, logits, target, against, labels)
        scores = Scores(classifier, layer)
        found = chosen(scores, batch, targets, batch_size=batch_size, seed=seed, **options)
    records = _records(classifier, chosen, targets, targets.scores(logits), found, layer)
    return records[0] if alone else records


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownName: there is none.
    """
    if name not in METHODS:
        raise UnknownName(
            "method", name, METHODS, where="the registry", remedy=f"there are {', '.join(METHODS)}"
        )
    return METHODS[name]


def _refuse_options(
    method: Method, options: Mapping[str, Any], layer: str | None, batch_size: int
) -> None:
    for name in options:
        if name not in method.options:
            known = ", ".join(method.options) or "none"
            raise UnknownName(
                "option", name, method.options, where=method.name, remedy=f"its own are: {known}"
            )
    if layer is not None and not method.layer:
        raise InputError(
            f"layer={layer!r} was given, and {method.name} looks at pixels; leave it out, or use grad_cam "
            "or layer_cam"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    for name, value in options.items():
        default = method.options[name]
        if isinstance(default, float) and not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; it must be a share from 0 to 1")
        if isinstance(default, int) and value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")


def load(
    classifier: Classifier, pictures: PictureLike | Sequence[PictureLike]
) -> tuple[torch.Tensor, bool]:
    """Pictures as the network is given them, float (N, C, H, W) in [0, 1], and whether one was given alone.

    Raises:
        InputError: none, or tensors of another size or range.
        PictureError: a file that cannot be read.
    """
    if isinstance(pictures, torch.Tensor) and pictures.ndim == 4:
        given: Sequence[PictureLike] = list(pictures)
        alone = False
    elif isinstance(pictures, str | Path | Image.Image | torch.Tensor):
        given, alone = [pictures], True
    else:
        given, alone = list(pictures), False
    if not given:
        raise InputError("there are no pictures; give at least one")
    found = [_loaded(classifier, one) for one in given]
    return torch.stack(found).to(classifier.device), alone


def _loaded(classifier: Classifier, picture: PictureLike) -> torch.Tensor:
    if not isinstance(picture, torch.Tensor):
        return as_float(classifier.input.load(picture))
    if tuple(picture.shape) != classifier.input.shape:
        raise InputError(
            f"a picture has the shape {tuple(picture.shape)} and this {classifier.backbone} takes "
            f"{classifier.input.shape}; give files, or classifier.input.load(...) / 255"
        )
    refuse_range(picture)
    return picture.detach().float()


def exact_logits(classifier: Classifier, pictures: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Logits (N, K) as the classifier itself gives them."""
    with classifier.inference():
        found = [classifier(part) for part in pictures.split(batch_size)]
    return torch.cat(found)


def _records(
    classifier: Classifier,
    method: Method,
    targets: Targets,
    scores: torch.Tensor,
    found: Maps,
    layer: str | None,
) -> tuple[Attribution, ...]:
    maps = found.maps.detach().float().cpu().numpy()
    names = classifier.classes
    against = None if targets.against is None else targets.against.tolist()
    return tuple(
        Attribution(
            method=method.name,
            target=names[index],
            against=None if against is None else names[against[row]],
            map=maps[row],
            signed=method.signed,
            logit=float(scores[row]),
            delta=None if found.delta is None else float(found.delta[row]),
            converged=None if found.converged is None else bool(found.converged[row]),
            steps=None if found.steps is None else int(found.steps[row]),
            layer=layer,
        )
        for row, index in enumerate(targets.index.tolist())
    )
