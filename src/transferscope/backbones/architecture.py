"""What a network does with its weights, as one digest: its modules, their settings and their code."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from torch import nn

from transferscope.files import sha256_json

_OF_THE_HEAD = ("num_classes", "training")
"""Settings of modules that say nothing of their features."""


def architecture_hash(network: nn.Module, *, without: str) -> str:
    """Digest of what a network's modules are: classes, settings, code of their own, hooks, in their order.

    Two networks may hold equal tensors and compute other features of a picture (a ResNet and one with
    blurred strides): their digests differ.

    Args:
        network: unchanged.
        without: dotted name of the head, which plays no part.
    """
    described = [
        [name, *_described(module)]
        for name, module in network.named_modules(remove_duplicate=False)
        if name != without and not name.startswith(f"{without}.")
    ]
    return sha256_json(described)


def _described(module: nn.Module) -> Iterator[Any]:
    kind, own = type(module), vars(module)
    yield f"{kind.__module__}.{kind.__qualname__}"
    yield {
        name: _value(value)
        for name, value in sorted(own.items())
        if not name.startswith("_") and name not in _OF_THE_HEAD
    }
    if not kind.__module__.startswith("torch.nn."):
        yield _code(kind.forward)
    for hooks in (own["_forward_pre_hooks"], own["_forward_hooks"]):
        yield [_value(hook) for hook in hooks.values()]


def _value(value: Any) -> Any:
    """A setting as JSON: what it is where that is plain, otherwise its kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return str(value)
    if isinstance(value, tuple | list):
        return [_value(one) for one in value]
    if callable(value):
        named = getattr(value, "__qualname__", type(value).__qualname__)
        return [f"{getattr(value, '__module__', '')}.{named}", _code(value)]
    return type(value).__qualname__


def _code(function: Any) -> list[Any]:
    """What a function of Python does, independent of where it is stored."""
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    return _of_code(code) if isinstance(code, types.CodeType) else []


def _of_code(code: types.CodeType) -> list[Any]:
    constants = [
        _of_code(one) if isinstance(one, types.CodeType) else repr(one)
        for one in code.co_consts
        if not isinstance(one, frozenset)  # whose order changes from process to process
    ]
    return [code.co_code.hex(), list(code.co_names), constants]
