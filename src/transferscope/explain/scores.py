"""What attributions are of: a class's logit, or the difference of two, on private copies of the network."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import nn

from transferscope.acceleration.network import FastNetwork
from transferscope.acceleration.precision import autocast
from transferscope.activations import TruncatedForward, find_layer
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.copies import still
from transferscope.errors import InputError, UnknownName
from transferscope.features.receptive_field import as_maps

Target: TypeAlias = str | int
"""A class's name or index; "predicted", "expected" (the label given) or "runner-up"."""

_PREDICTED, _EXPECTED, _RUNNER_UP = "predicted", "expected", "runner-up"
_WORDS = (_PREDICTED, _EXPECTED, _RUNNER_UP)

_LOGITS = "logits"


@dataclass(frozen=True, eq=False)
class Targets:
    """The class each of N pictures is explained for.

    Attributes:
        index: int64 (N,).
        against: int64 (N,), of the class whose logit is subtracted; None: none is.
    """

    index: torch.Tensor
    against: torch.Tensor | None = None

    def __getitem__(self, rows: slice | torch.Tensor) -> Targets:
        return Targets(self.index[rows], None if self.against is None else self.against[rows])

    def repeated(self, times: int) -> Targets:
        """For pictures that are repeated as wholes: all of them, and all of them again."""
        against = None if self.against is None else self.against.repeat(times)
        return Targets(self.index.repeat(times), against)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """(N,) from logits (N, K): the target's, less the other's if there is one."""
        found = logits.gather(1, self.index[:, None])[:, 0]
        if self.against is not None:
            found = found - logits.gather(1, self.against[:, None])[:, 0]
        return found


class Scores:
    """Scores of targets and their gradients, from a classifier that is neither changed nor hooked.

    Args:
        classifier: unchanged, in any mode; the answers are those of eval mode.
        layer: dotted name whose activations `with_activations` returns.
    """

    def __init__(self, classifier: Classifier, layer: str | None = None):
        self.classifier, self.layer = classifier, layer
        self.exact = _Whole(still(classifier.network))

    @cached_property
    def _fast(self) -> FastNetwork:
        names = [_LOGITS] if self.layer is None else [f"network.{self.layer}", _LOGITS]
        return FastNetwork(self.exact, names, self.classifier.example(), "fp32")

    def logits(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, K) of pictures (N, C, H, W) in [0, 1], by a fast copy; gradients reach the pictures."""
        return self._fast(self.classifier.input.normalise(pictures))[_LOGITS]

    def of(
        self, pictures: torch.Tensor, index: torch.Tensor, against: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores (N,) of targets, by the fast copy."""
        return Targets(index, against).scores(self.logits(pictures))

    def exact_logits(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, K) by the network itself, in whose graph every operation is torch's own."""
        with autocast(pictures.device, "fp32"):
            found: torch.Tensor = self.exact(self.classifier.input.normalise(pictures))
        return found

    def with_activations(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's output, channels first, and logits, which have a gradient with respect to it."""
        assert self.layer is not None
        found = self._fast(self.classifier.input.normalise(pictures))
        return found[f"network.{self.layer}"], found[_LOGITS]


class _Whole(nn.Module):
    """A network whose logits are the output of a layer, too."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.logits = network, nn.Identity()
        self.training = self.logits.training = False

    def forward(self, normalised: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.logits(self.network(normalised))
        return result


@contextmanager
def recorded() -> Iterator[None]:
    """Gradients are recorded within the block, in this thread, whatever the caller's mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


# ---------------------------------------------------------------------------- targets


def resolve(
    classifier: Classifier,
    logits: torch.Tensor,
    target: Target | Sequence[Target],
    against: Target | Sequence[Target] | None,
    labels: Sequence[Target] | None,
) -> Targets:
    """The classes meant.

    Args:
        classifier: for its classes.
        logits: (N, K) of the pictures.
        target: one for all pictures, or N. "predicted" is the class of the largest logit, "expected" the
            picture's label, "runner-up" the class of the largest logit but for the other one's.
        against: likewise, of the class whose logit is subtracted; None: none is.
        labels: N, for "expected".

    Raises:
        UnknownName: no such class.
        InputError: not one a picture; "expected" without labels; a class against itself.
    """
    if "runner-up" in _each(target, len(logits)):
        raise InputError(
            "the target is 'runner-up', which is meant for against=; give a class, 'predicted' or 'expected'"
        )
    index = _indices(classifier, logits, target, labels, None)
    if against is None:
        return Targets(index)
    other = _indices(classifier, logits, against, labels, index)
    same = (index == other).nonzero().flatten().tolist()
    if same:
        name = classifier.classes[int(index[same[0]])]
        raise InputError(
            f"picture {same[0]} is to be explained for {name!r} against {name!r}, whose difference is 0 "
            "everywhere; give another class, or against='runner-up' for the next best"
        )
    return Targets(index, other)


def _each(given: Target | Sequence[Target], count: int) -> list[Target]:
    alone = isinstance(given, str) or not hasattr(given, "__len__")
    return [given] * count if alone else list(given)  # type: ignore[list-item, arg-type]


def _indices(
    classifier: Classifier,
    logits: torch.Tensor,
    given: Target | Sequence[Target],
    labels: Sequence[Target] | None,
    taken: torch.Tensor | None,
) -> torch.Tensor:
    count = len(logits)
    wanted = _each(given, count)
    if len(wanted) != count:
        raise InputError(
            f"{len(wanted)} targets were given for {count} pictures; give one, or one each"
        )
    if labels is not None and len(labels) != count:
        raise InputError(f"{len(labels)} labels were given for {count} pictures; give one each")
    for word in _WORDS:
        if word in wanted and word in classifier.classes:
            raise InputError(
                f"{word!r} is a class here and a way of choosing one; give the class's index"
            )
    predicted = logits.argmax(1).tolist()
    found = []
    for row, one in enumerate(wanted):
        if one == _EXPECTED:
            if labels is None:
                raise InputError(
                    "the target is 'expected' and there are no labels; give labels=, one each"
                )
            one = labels[row]
        if one == _PREDICTED:
            found.append(predicted[row])
        elif one == _RUNNER_UP:
            assert taken is not None
            others = logits[row].clone()
            others[taken[row]] = -torch.inf
            found.append(int(others.argmax()))
        else:
            found.append(class_index(classifier, one))
    return torch.tensor(found, device=logits.device)


def class_index(classifier: Classifier, named: Target) -> int:
    """The index of a class given by name or index.

    Raises:
        UnknownName: no such class.
    """
    classes = classifier.classes
    if not isinstance(named, str):
        index = operator.index(named)  # NumPy's and torch's numbers too
        if not 0 <= index < len(classes):
            raise UnknownName(
                "class", str(index), [], where=f"these {len(classes)}", remedy="count from 0"
            )
        return index
    if named not in classes:
        raise UnknownName(
            "class", named, classes, where=f"these {len(classes)}", remedy="give its name or index"
        )
    return classes.index(named)


# ---------------------------------------------------------------------------- the layer of a map


def default_layer(classifier: Classifier) -> str:
    """The deepest stage whose map the answer is made of.

    In a transformer that answers from its class token, the last block's patches play no part in the answer,
    and the block before it is taken.

    Raises:
        InputError: no stage has places that the answer depends on.
    """
    whole, head = _Whole(still(classifier.network)), classifier.head
    for name in reversed(stages_of(classifier)):
        if name != head and _fault(classifier, whole, name) is None:
            return name
    raise InputError(
        f"no stage of this {classifier.backbone} has a map that its answer depends on; give layer=, one that "
        "'transferscope layers MODEL' lists with height and width or tokens"
    )


def refuse_layer(classifier: Classifier, layer: str) -> None:
    """Refuses a layer that has no map, or one that the answer does not depend on.

    Raises:
        UnknownName: no such layer.
        InputError: why, and which to take.
    """
    find_layer(classifier.network, layer)
    fault = _fault(classifier, _Whole(still(classifier.network)), layer)
    if fault:
        raise InputError(f"layer {layer!r} {fault}; choose the end of a stage, or leave it out")


def _fault(classifier: Classifier, whole: nn.Module, layer: str) -> str | None:
    """What keeps a layer from having a map, to follow its name; None if nothing does."""
    name, example = f"network.{layer}", classifier.example()
    with recorded(), autocast(example.device, "fp32"):
        try:
            forward = TruncatedForward(whole, [name, _LOGITS], example, channels_first=True)
            found = forward(example.clone().requires_grad_())
        except InputError as error:
            return f"has no map: {error}"
        except KeyError:  # it runs after the logits
            return "is behind the logits"
        activation, logits = found[name], found[_LOGITS]
        if activation.ndim not in (3, 4):
            return f"has an output of shape {tuple(activation.shape[1:])}, which has no places"
        signs = torch.ones_like(logits)
        signs[:, 1::2] = -1  # the sum of all logits may be constant
        (gradient,) = torch.autograd.grad((logits * signs).sum(), activation, allow_unused=True)
    try:
        maps = as_maps(activation, classifier.input.size)
    except InputError as error:
        return f"has no map: {error}"
    if maps.shape[2] * maps.shape[3] == 1:
        return "has one place"
    if gradient is None or not bool(as_maps(gradient, classifier.input.size).any()):
        return "has a map that the answer does not depend on"
    return None
