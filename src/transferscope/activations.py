"""Layers of a network and what flows through them; the only home of our hooks.

A layer is the dotted name of `named_modules()`. Every function here leaves the network as it found
it: no hook, mode, gradient flag or replaced `forward` outlives the call, also when it fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn

from transferscope.errors import InputError, UnknownName


Hook: TypeAlias = tuple[nn.Module, Callable[..., Any], bool]
"""(module, hook, whether it is a forward pre-hook)."""


@dataclass(frozen=True)
class Layer:
    """One module of a network as a forward pass met it.

    Attributes:
        name: dotted name of `named_modules()`.
        type: class name.
        output_shape: of one picture, without the batch axis; empty if the output is no tensor.
        parameters: number of values in this module and all below it.
        trainable: how many of them require gradients.
        calls: how often one forward pass runs it (a ReLU module may be shared).
        order: position by completion within the forward pass.
        signed: True if the output has values below zero; such a channel has two directions.
        channels_last: True if maps are (H, W, C), see `is_channels_last`.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    calls: int
    order: int
    signed: bool
    channels_last: bool = False

    @property
    def channels(self) -> int:
        """Number of channels: C of (C, H, W) or (H, W, C), D of tokens (T, D) and of a vector (D,)."""
        if not self.output_shape:
            return 0
        first = len(self.output_shape) == 3 and not self.channels_last
        return self.output_shape[0] if first else self.output_shape[-1]


# ---------------------------------------------------------------------------- state that is given back


@contextmanager
def preserved(network: nn.Module) -> Iterator[nn.Module]:
    """Gives back train/eval modes and `requires_grad` flags, whatever the block does to them.

    `.grad` is given back too, as the same object, so a backward pass inside leaves no trace.
    """
    modes = [(module, module.training) for module in network.modules()]
    flags = [(p, p.requires_grad, p.grad) for p in network.parameters()]
    try:
        yield network
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, grad in flags:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """Eval mode and no weight gradients within the block; both as before after it."""
    with preserved(network):
        yield network.eval().requires_grad_(False)


@contextmanager
def hooked(hooks: Sequence[Hook]) -> Iterator[None]:
    """Registers hooks for the block and removes them all after it."""
    with ExitStack() as stack:
        for module, hook, before in hooks:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(hook).remove)
        yield


# ---------------------------------------------------------------------------- names


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module with this dotted name.

    Raises:
        UnknownName: there is none; names the nearest.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if not name or name not in modules:
        raise UnknownName(
            "layer",
            name,
            [known for known in modules if known],
            where=f"this {type(network).__name__}",
            remedy="'transferscope layers MODEL' lists them",
        )
    return modules[name]


def layers(network: nn.Module, example: torch.Tensor) -> list[Layer]:
    """Every module that a forward pass runs, in order of completion.

    Args:
        example: (N, C, H, W), as the network wants it (normalised); one picture is enough.
    """
    names = {module: name for name, module in network.named_modules() if name}
    calls: Counter[nn.Module] = Counter()
    last: dict[nn.Module, tuple[int, tuple[int, ...], bool]] = {}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = isinstance(output, torch.Tensor)
        shape = tuple(output.shape[1:]) if tensor else ()
        last[module] = calls.total(), shape, tensor and bool((output < 0).any())
        calls[module] += 1

    with evaluating(network), hooked([(m, note, False) for m in names]), torch.no_grad():
        network(example)
    return [
        Layer(
            name=names[module],
            type=type(module).__name__,
            output_shape=shape,
            parameters=sum(p.numel() for p in module.parameters()),
            trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
            calls=calls[module],
            order=order,
            signed=signed,
            channels_last=is_channels_last(module, shape, example.shape[2:]),
        )
        for module, (order, shape, signed) in sorted(last.items(), key=lambda item: item[1][0])
    ]


def is_channels_last(module: nn.Module, shape: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a layer's maps are (H, W, C), as in Swin and inside ConvNeXt's blocks, not (C, H, W).

    Decided by the module's kind, else by which two axes have the proportions of the picture.

    Args:
        module, shape: the layer, and its output's for one picture; only three axes are maps.
        size: (height, width) of the network's input.
    """
    if len(shape) != 3:
        return False
    if isinstance(module, nn.Linear | nn.LayerNorm):
        return not type(module).__name__.endswith("2d")  # a LayerNorm2d keeps (C, H, W)

    def alike(height: int, width: int) -> bool:  # in proportion to the input, up to a row or column
        return abs(height * size[1] - width * size[0]) <= max(size)

    first, second, third = shape
    return alike(first, second) and not alike(second, third)


# ---------------------------------------------------------------------------- capture


@contextmanager
def capture(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Collects the outputs of layers during forward passes of the block.

    Yields:
        A dictionary that holds, after each forward pass, name -> output of that pass. A module that
        runs several times in a pass leaves its last output. Outputs are copies: an in-place
        operation that follows (ReLU, `out += identity`) does not reach them. Gradients flow.
    """
    caught: dict[str, torch.Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        caught[name] = _tensor_of(output, name).clone()

    with hooked([(find_layer(network, name), partial(keep, name), False) for name in names]):
        yield caught


class _Reached(Exception):
    """Ends a forward pass early; never leaves this module."""


class TruncatedForward:
    """A forward pass that ends as soon as all of its layers have run.

    Calling it with (N, C, H, W), as the network wants it, returns {name: output}. How often each
    layer runs is counted once, so that a shared module (one ReLU used three times in a block) is
    caught at its last run. The network is hooked only during a call.

    Args:
        network: any module; unchanged.
        names: dotted names of layers.
        example: one batch of pictures, for the counting pass.
        channels_first: maps (N, H, W, C) are returned as (N, C, H, W); otherwise as the network has them.

    Raises:
        UnknownName: no such layer.
        InputError: a layer that the forward pass does not run.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        example: torch.Tensor,
        *,
        channels_first: bool = False,
    ):
        self.network = network
        self.names = tuple(dict.fromkeys(names))
        self._modules = {name: find_layer(network, name) for name in self.names}
        self._calls: Counter[str] = Counter()
        self._moved: set[str] = set()

        def count(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
            self._calls[name] += 1
            shape = output.shape[1:] if isinstance(output, torch.Tensor) else ()
            if channels_first and is_channels_last(module, shape, example.shape[2:]):
                self._moved.add(name)

        with evaluating(network), self._hooked(count), torch.no_grad():
            network(example)
        for name in self.names:
            if not self._calls[name]:
                raise InputError(
                    f"layer {name!r} is never run by a forward pass, so it has no output; choose one "
                    "that 'transferscope layers MODEL' lists"
                )

    def _hooked(self, hook: Callable[..., None]) -> AbstractContextManager[None]:
        """`hook` on every layer, called with the layer's name first."""
        return hooked([(module, partial(hook, n), False) for n, module in self._modules.items()])

    def __call__(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by layer for pictures (N, C, H, W) as the network wants them; gradients flow."""
        left = self._calls.copy()
        caught: dict[str, torch.Tensor] = {}

        def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            left[name] -= 1
            if left[name]:
                return
            tensor = _tensor_of(output, name)
            if name in self._moved:
                tensor = tensor.movedim(-1, 1)
            last = len(caught) == len(self.names) - 1
            caught[name] = tensor if last else tensor.clone()
            if last:
                raise _Reached

        with self._hooked(keep), suppress(_Reached):
            self.network(pictures)
        return {name: caught[name] for name in self.names}


def _tensor_of(output: Any, name: str) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    raise InputError(
        f"layer {name!r} returns a {type(output).__name__}, not one tensor; choose a layer inside it"
    )


@contextmanager
def capture_inputs(network: nn.Module, name: str) -> Iterator[list[torch.Tensor]]:
    """Collects the first input of a layer, a tensor a call; for the pooled features before a head."""
    caught: list[torch.Tensor] = []
    with hooked([(find_layer(network, name), lambda _, inputs: caught.append(inputs[0]), True)]):
        yield caught


# ---------------------------------------------------------------------------- the rest of a network


class Resumed:
    """The part of a network behind a layer, as a function of that layer's output.

    Everything that runs before the layer is skipped, by any architecture's own `forward`: modules
    that finished before the layer began return an empty tensor of the shape they had in the example,
    and the layer returns the activation given. What lies behind then sees exactly what it saw.

    Args:
        network: any module; its `forward`s are replaced only during a call.
        boundary: dotted name of the layer whose output is given.
        example: one batch as the network wants it, (N, C, H, W).

    Raises:
        UnknownName: no such layer.
        InputError: something bypasses the layer (a skip connection around it), so that its output
            does not determine the network's.
    """

    def __init__(self, network: nn.Module, boundary: str, example: torch.Tensor):
        self.network = network
        self.boundary = boundary
        self._input_shape = tuple(example.shape[1:])
        self._skipped = self._modules_before(find_layer(network, boundary), example)
        with evaluating(network), torch.no_grad():
            with capture(network, [boundary]) as caught:
                whole = network(example)
            rest = self(caught[boundary])
        if whole.shape != rest.shape or not torch.allclose(whole, rest, rtol=1e-4, atol=1e-5):
            raise InputError(
                f"the output of layer {boundary!r} does not determine the network's output: "
                "something bypasses it; choose the end of a stage ('transferscope layers MODEL')"
            )

    def _modules_before(
        self, target: nn.Module, example: torch.Tensor
    ) -> dict[nn.Module, tuple[int, ...]]:
        """Outermost modules that finish before `target` starts, with their output shapes."""
        done: dict[nn.Module, tuple[int, ...]] = {}
        reached = False

        def begin(module: nn.Module, _inputs: Any) -> None:
            nonlocal reached
            reached = reached or module is target
            if reached:  # also used behind the boundary: it must stay as it is
                done.pop(module, None)

        def end(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not reached and isinstance(output, torch.Tensor):
                done[module] = tuple(output.shape[1:])

        modules = list(self.network.modules())
        hooks: list[Hook] = [(module, begin, True) for module in modules]
        hooks += [(module, end, False) for module in modules]
        with evaluating(self.network), hooked(hooks), torch.no_grad():
            self.network(example)
        inner = {child for module in done for child in module.modules() if child is not module}
        return {module: shape for module, shape in done.items() if module not in inner}

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """Logits for a batch of the boundary's activations, with gradients."""

        def empty(shape: tuple[int, ...], *_args: Any, **_options: Any) -> torch.Tensor:
            return activation.new_empty((len(activation), *shape))

        target = find_layer(self.network, self.boundary)
        with ExitStack() as stack:
            for module, shape in self._skipped.items():
                stack.enter_context(_forward_replaced(module, partial(empty, shape)))
            stack.enter_context(_forward_replaced(target, lambda *_a, **_o: activation))
            output: torch.Tensor = self.network(empty(self._input_shape))
        return output


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.forward = own


def modules_below(network: nn.Module, boundary: str, example: torch.Tensor) -> list[str]:
    """Names of modules that have finished when `boundary` has: what is frozen under a cache there."""
    target = find_layer(network, boundary)
    names = {module: name for name, module in network.named_modules() if name}
    finished: list[str] = []

    def end(module: nn.Module, _inputs: Any, _output: Any) -> None:
        finished.append(names[module])
        if module is target:
            raise _Reached

    hooks = [(module, end, False) for module in names]
    with suppress(_Reached), evaluating(network), hooked(hooks), torch.no_grad():
        network(example)
    return finished
