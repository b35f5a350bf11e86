"""Layers of a network and what flows through them; the only home of our hooks.

A layer is the dotted name of `named_modules()`. Every function here leaves the network as it found
it: no hook, mode, gradient flag or replaced `forward` outlives the call, also when it fails. But for
`preserved` and `evaluating`, modes and flags are not even changed meanwhile, and a hook hears of its own
thread alone, so that several threads may use one network.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from transferscope.copies import still
from transferscope.errors import InputError, UnknownName


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
    """Eval mode and no weight gradients within the block; both as before after it.

    For a network that no other thread uses; `still` is for those that are shared.
    """
    with preserved(network):
        yield network.eval().requires_grad_(False)


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, Callable[..., Any], bool]]) -> Iterator[None]:
    """Registers (module, hook, is_pre_hook) triples for the block and removes them all after it.

    They are called in this thread alone: another's forward passes are not theirs.
    """
    here = threading.get_ident()

    def of_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: hook(*given) if threading.get_ident() == here else None

    with ExitStack() as stack:
        for module, hook, before in hooks:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(of_this_thread(hook)).remove)
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
    running = still(network)
    names = {module: name for name, module in running.named_modules() if name}
    seen: dict[str, dict[str, Any]] = {}
    clock = 0

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal clock
        name = names[module]
        entry = seen.setdefault(name, {"calls": 0})
        entry["calls"] += 1
        entry["order"] = clock
        clock += 1
        tensor = output if isinstance(output, torch.Tensor) else None
        entry["shape"] = tuple(tensor.shape[1:]) if tensor is not None else ()
        entry["signed"] = bool((tensor < 0).any()) if tensor is not None else False

    with hooked([(m, note, False) for m in names]), torch.no_grad():
        running(example)
    by_name = dict(network.named_modules())
    found = []
    for name, entry in sorted(seen.items(), key=lambda item: item[1]["order"]):
        parameters = list(by_name[name].parameters())
        found.append(
            Layer(
                name=name,
                type=type(by_name[name]).__name__,
                output_shape=entry["shape"],
                parameters=sum(p.numel() for p in parameters),
                trainable=sum(p.numel() for p in parameters if p.requires_grad),
                calls=entry["calls"],
                order=entry["order"],
                signed=entry["signed"],
                channels_last=is_channels_last(by_name[name], entry["shape"], example.shape[2:]),
            )
        )
    return found


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

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            caught[name] = _tensor_of(output, name).clone()

        return hook

    with hooked([(find_layer(network, name), keep(name), False) for name in names]):
        yield caught


class _Reached(Exception):
    """Ends a forward pass early; never leaves this module."""


class TruncatedForward:
    """A forward pass that ends as soon as all of its layers have run.

    Calling it with (N, C, H, W), as the network wants it, returns {name: output}. How often each
    layer runs is counted once, so that a shared module (one ReLU used three times in a block) is
    caught at its last run. The network is hooked only during a call. Layers behind an output go on from a
    copy of it, so that nothing is done to it in place, and their outputs have a gradient with respect to it.

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
        running = still(network)
        counts = dict.fromkeys(self.names, 0)
        self._moved: set[str] = set()

        def count(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
                counts[name] += 1
                shape = output.shape[1:] if isinstance(output, torch.Tensor) else ()
                if channels_first and is_channels_last(module, shape, example.shape[2:]):
                    self._moved.add(name)

            return hook

        hooks = [(find_layer(running, name), count(name), False) for name in self.names]
        with hooked(hooks), torch.no_grad():
            running(example)
        for name, calls in counts.items():
            if not calls:
                raise InputError(
                    f"layer {name!r} is never run by a forward pass, so it has no output; choose one "
                    "that 'transferscope layers MODEL' lists"
                )
        self._calls = counts

    def __call__(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by layer for pictures (N, C, H, W) as the network wants them; gradients flow."""
        left = dict(self._calls)
        caught: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Callable[..., torch.Tensor | None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> torch.Tensor | None:
                left[name] -= 1
                if left[name]:
                    return None
                tensor = _tensor_of(output, name)
                moved = name in self._moved
                caught[name] = tensor.movedim(-1, 1) if moved else tensor
                if len(caught) == len(self.names):
                    raise _Reached
                return (caught[name].movedim(1, -1) if moved else tensor).clone()

            return hook

        hooks = [(module, keep(name), False) for name, module in self._modules.items()]
        with hooked(hooks), suppress(_Reached):
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

    def keep(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        caught.append(inputs[0])

    with hooked([(find_layer(network, name), keep, True)]):
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
        running = still(network)
        self._skipped = self._modules_before(running, example)
        with torch.no_grad(), capture(running, [boundary]) as caught:
            whole = running(example)
            activation = caught[boundary]
            running(-example)  # what modules keep of a picture is now another's
        with torch.no_grad():
            for seen in (math.nan, 1e3):  # whatever reads what was skipped gives something else
                rest = self._run(running, activation, seen)
                if whole.shape != rest.shape or not torch.allclose(
                    whole, rest, rtol=1e-4, atol=1e-5
                ):
                    raise InputError(
                        f"the output of layer {boundary!r} does not determine the network's output: "
                        "something bypasses it; choose the end of a stage ('transferscope layers MODEL')"
                    )

    def _modules_before(
        self, network: nn.Module, example: torch.Tensor
    ) -> dict[str, tuple[int, ...]]:
        """Outermost modules that finish before the boundary starts, with their output shapes."""
        target = find_layer(network, self.boundary)
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

        hooks: list[tuple[nn.Module, Callable[..., Any], bool]] = []
        for module in network.modules():
            hooks += [(module, begin, True), (module, end, False)]
        with hooked(hooks), torch.no_grad():
            network(example)
        inner = {child for module in done for child in module.modules() if child is not module}
        names = {module: name for name, module in network.named_modules()}
        return {names[module]: shape for module, shape in done.items() if module not in inner}

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """Logits for a batch of the boundary's activations, with gradients."""
        return self._run(self.network, activation, None)

    def _run(
        self, network: nn.Module, activation: torch.Tensor, seen: float | None
    ) -> torch.Tensor:
        """The network with `seen` in place of what is skipped; None: what happens to be in memory."""
        count = len(activation)

        def blank(*shape: int) -> torch.Tensor:
            if seen is None:
                return activation.new_empty((count, *shape))
            return activation.new_full((count, *shape), seen)

        def giving(shape: tuple[int, ...]) -> Callable[..., torch.Tensor]:
            return lambda *_args, **_options: blank(*shape)

        with ExitStack() as stack:
            for name, shape in self._skipped.items():
                skipped = network.get_submodule(name)
                stack.enter_context(_forward_replaced(skipped, giving(shape)))
            target = find_layer(network, self.boundary)
            stack.enter_context(_forward_replaced(target, lambda *_a, **_o: activation))
            output: torch.Tensor = network(blank(*self._input_shape))
        return output


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.forward = own


def modules_below(network: nn.Module, boundary: str, example: torch.Tensor) -> list[str]:
    """Names of modules that have finished when `boundary` has: what is frozen under a cache there."""
    network = still(network)
    target = find_layer(network, boundary)
    names = {module: name for name, module in network.named_modules() if name}
    finished: list[str] = []
    open_ = True

    def end(module: nn.Module, _inputs: Any, _output: Any) -> None:
        nonlocal open_
        if open_ and module in names:
            finished.append(names[module])
        if module is target:
            open_ = False

    with torch.no_grad(), hooked([(m, end, False) for m in network.modules()]):
        network(example)
    return finished


def modules_up_to(network: nn.Module, layer: str, example: torch.Tensor) -> dict[str, str]:
    """What a layer's output is computed by: names of modules, each with its kind and its settings.

    Besides those that have finished when the layer has, it has those that enclose them, the network itself
    under the name "" among them: these may use parameters of their own before the layer (a `pos_embed`).

    Raises:
        UnknownName: no such layer.
    """
    below = modules_below(network, layer, example)
    modules = dict(network.named_modules())
    found = {}
    for name, module in modules.items():
        encloses = not name or any(one.startswith(f"{name}.") for one in below)
        if name in below or (encloses and name != layer):
            settings = module.extra_repr() if name in below else ""
            found[name] = f"{type(module).__qualname__}({settings})"
    return found


def state_up_to(network: nn.Module, layer: str, example: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parameters and buffers that a layer's output depends on, by their dotted names.

    Raises:
        UnknownName: no such layer.
    """
    owners = modules_up_to(network, layer, example)
    state = network.state_dict()
    return {name: value for name, value in state.items() if name.rpartition(".")[0] in owners}
