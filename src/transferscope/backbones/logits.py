"""Where in a network's output its logits are: found, or refused, when the network is first taken in."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import nn

from transferscope.copies import still
from transferscope.errors import InputError

Place: TypeAlias = tuple[str | int, ...]
"""Keys, attributes or positions that lead from an output to a tensor in it; empty: it is the tensor."""

_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}
"""Modules that only run another one, by class name, with the attribute that holds it."""


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, out of `torch.compile`, `DataParallel` and `DistributedDataParallel`.

    Raises:
        InputError: a TorchScript module, whose layers can be neither read nor replaced.
    """
    while (inner := _WRAPPERS.get(type(network).__name__)) and isinstance(
        getattr(network, inner, None), nn.Module
    ):
        network = getattr(network, inner)
    if isinstance(network, torch.jit.ScriptModule):
        raise InputError(
            "the network is a TorchScript module, whose layers can be neither read nor replaced; give the "
            "network that it was made from, as Python code"
        )
    return network


def with_logits(network: nn.Module, example: torch.Tensor, classes: int) -> nn.Module:
    """A network whose output is its logits: the network itself where it is, otherwise one on its layers.

    Args:
        network: unchanged; the result has its children, its tensors and its layers' names.
        example: one normalised picture (1, C, H, W).
        classes: K. Of an output of several tensors, the one called `logits` or the only one of shape (1, K)
            is meant, auxiliary ones left aside.

    Raises:
        InputError: the network does not run on the example, none of its outputs can be the logits or more
            than one, or they are probabilities.
    """
    output, name = _run(network, example), type(network).__name__
    if isinstance(output, torch.Tensor):
        place: Place = ()
        if output.ndim != 2 or len(output) != 1:
            raise InputError(
                f"the output of this {name} has the shape {tuple(output.shape)} for one picture; it must "
                "be (1, classes): give a network that pools and flattens what it returns"
            )
        if output.shape[1] != classes:
            raise InputError(
                f"the network has {output.shape[1]} outputs and {classes} class names were given; "
                "give one name an output"
            )
    else:
        place = _place_of(output, classes, name)
        network = _picking(network, place)
        output = _run(network, example)
    _refuse_probabilities(network, example, output)
    return network


# ---------------------------------------------------------------------------- where they are


def _run(network: nn.Module, example: torch.Tensor) -> Any:
    try:
        with torch.no_grad():
            return still(network)(example)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AssertionError,
        AttributeError,
    ) as error:
        if isinstance(error, InputError):
            raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"this {type(network).__name__} does not run on one picture {tuple(example.shape)}: {first}; "
            "give the InputSpec of the pictures that it takes, or correct its forward"
        ) from error


def _place_of(output: Any, classes: int, name: str) -> Place:
    """Where the logits are in an output that is not one tensor."""
    tensors = dict(_tensors(output))
    fitting = {p: t for p, t in tensors.items() if tuple(t.shape) == (1, classes)}
    named = [place for place in fitting if place[-1] == "logits"]
    if len(named) == 1:
        return named[0]
    main = {p: t for p, t in fitting.items() if not any(_auxiliary(step) for step in p)}
    if len({id(tensor) for tensor in main.values()}) == 1:
        return next(iter(main))
    kind = type(output).__name__
    if not main:
        shapes = ", ".join(f"{_spelled(p)} {tuple(t.shape)}" for p, t in list(tensors.items())[:5])
        raise InputError(
            f"this {name} returns a {kind} without a tensor of shape (1, {classes}), which the logits of "
            f"{classes} classes would be (it has {shapes or 'no tensor'}); give a network that returns its "
            "logits"
        )
    raise InputError(
        f"this {name} returns a {kind} with {len(main)} tensors that could be its logits "
        f"({', '.join(map(_spelled, main))}); give a network that returns one, or call that one 'logits'"
    )


def _tensors(output: Any, place: Place = ()) -> Iterator[tuple[Place, torch.Tensor]]:
    """Every tensor of an output with its place; by name where it has one."""
    if isinstance(output, torch.Tensor):
        yield place, output
        return
    parts: list[tuple[str | int, Any]] = []
    if isinstance(output, Mapping):
        parts = [(key, value) for key, value in output.items() if isinstance(key, str | int)]
    elif hasattr(output, "_fields"):  # a named tuple
        parts = list(zip(output._fields, output, strict=True))
    elif isinstance(output, tuple | list):
        parts = list(enumerate(output))
    elif is_dataclass(output):
        parts = [(field.name, getattr(output, field.name)) for field in fields(output)]
    elif hasattr(output, "__dict__"):
        parts = list(vars(output).items())
    if len(place) < 3:
        for step, value in parts:
            yield from _tensors(value, (*place, step))


def _auxiliary(step: str | int) -> bool:
    return isinstance(step, str) and step.lower().startswith("aux")


def _spelled(place: Place) -> str:
    return "".join(f"[{step!r}]" for step in place)


def _taken(output: Any, place: Place) -> torch.Tensor:
    """The tensor of an output at a place; an output that is a tensor already is what it is."""
    for step in place:
        if isinstance(output, torch.Tensor):
            break
        by_key = isinstance(output, Mapping) or isinstance(step, int)
        output = output[step] if by_key else getattr(output, str(step))
    result: torch.Tensor = output
    return result


def _picking(network: nn.Module, place: Place) -> nn.Module:
    """A root of its own over the network's children, tensors and hooks, that returns one of its outputs."""
    root = copy.copy(network)
    for name, value in vars(root).items():
        if isinstance(value, dict) and name.startswith("_"):  # a layer replaced here stays there
            vars(root)[name] = copy.copy(value)
    kind: Any = type(network)
    root.__class__ = _picking_class(kind)
    root._place_of_logits = place  # type: ignore[assignment]
    return root


@cache
def _picking_class(kind: Any) -> type[nn.Module]:
    class Picking(kind):  # type: ignore[misc]
        def __call__(self, *given: Any, **named: Any) -> torch.Tensor:
            return _taken(super().__call__(*given, **named), self._place_of_logits)

    Picking.__name__ = Picking.__qualname__ = kind.__name__
    return Picking


# ---------------------------------------------------------------------------- what they are


def _refuse_probabilities(network: nn.Module, example: torch.Tensor, output: torch.Tensor) -> None:
    """Refuses a network that ends in a softmax or a sigmoid: a second softmax would flatten its answers."""
    remedy = (
        "but a classifier here takes logits and makes probabilities itself; give the network without its "
        "last softmax or sigmoid"
    )
    if bool((output < 0).any() or (output > 1).any()):
        return
    others = [_run(network, picture) for picture in (-example, 3 * example)]
    sums = torch.cat([output, *others]).float().sum(1)
    if output.shape[1] > 1 and bool((sums - 1).abs().max() < 1e-4):
        raise InputError(
            f"the outputs of this {type(network).__name__} are not negative and add up to 1, so they are "
            f"probabilities, {remedy}"
        )
    with torch.enable_grad():
        traced = still(network)(example.clone().requires_grad_() * 1)
    if type(traced.grad_fn).__name__ == "SigmoidBackward0":
        raise InputError(f"this {type(network).__name__} ends in a sigmoid, {remedy}")
