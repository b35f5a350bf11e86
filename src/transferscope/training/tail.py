"""The part of a network that is tuned: what lies behind the freeze boundary, or all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from transferscope.acceleration.depthwise import phased
from transferscope.acceleration.precision import Precision, autocast
from transferscope.activations import Resumed, TruncatedForward, modules_below
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.copies import copied
from transferscope.training.recipe import BatchNormMode


class Tail:
    """A private copy of a classifier of which the modules behind a boundary can be trained.

    What is frozen stays frozen in every respect: its parameters have no gradients, and its BatchNorm
    and dropout layers are in eval mode at every step, whatever the rest does.

    Args:
        start: unchanged.
        boundary: layer whose outputs are given in place of pictures; None: the whole network is
            trained, on normalised pictures.
        precision: of forward and backward; not `auto`.
        batch_norm: what BatchNorm layers behind the boundary do.

    Attributes:
        classifier: the copy.
        parameters: of the tuned modules, by name: those that a gradient reaches.
        buffers: of the tuned modules, by name; they change only where BatchNorm is trained.
    """

    def __init__(
        self,
        start: Classifier,
        boundary: str | None,
        *,
        precision: Precision = "fp32",
        batch_norm: BatchNormMode = "frozen",
    ):
        self._start, self._precision, self._batch_norm = start, precision, batch_norm
        self.boundary = boundary
        fast = precision == "bf16" and start.device.type == "cpu"
        self.classifier = start.with_network((phased if fast else copied)(start.network))
        self.classifier.to(memory_format=torch.channels_last).eval()
        network, example = self.classifier.network, self.classifier.example()
        below = set(modules_below(network, boundary, example)) if boundary else set()
        self._frozen = [m for name, m in network.named_modules() if name in below]
        self._rest = Resumed(network, boundary, example) if boundary else network
        behind = {n: p for n, p in network.named_parameters() if _owner(n) not in below}
        self.parameters = self._moved(behind)
        self.buffers = {n: b for n, b in network.named_buffers() if _owner(n) not in below}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in self.parameters)

    def _moved(self, behind: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Those that a gradient reaches, in the order of the network.

        A transformer's root owns its position embedding and class token, which play no part behind a
        boundary: what has no gradient must not be moved by weight decay either.
        """
        for parameter in behind.values():
            parameter.requires_grad_(True)
        example = self.classifier.example()
        with torch.no_grad():
            if self.boundary:
                reached = TruncatedForward(self.classifier.network, [self.boundary], example)
                example = reached(example)[self.boundary]
        with torch.enable_grad():
            logits = self._rest(example)
            gradients = torch.autograd.grad(logits.sum(), list(behind.values()), allow_unused=True)
        return {
            name: p
            for (name, p), grad in zip(behind.items(), gradients, strict=True)
            if grad is not None
        }

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 (N, K) of the boundary's activations, or of normalised pictures, (N, ...)."""
        batch = batch.to(self.classifier.device).float()
        if batch.ndim == 4:  # the layout in which convolutions are fastest
            batch = batch.contiguous(memory_format=torch.channels_last)
        with autocast(self.classifier.device, self._precision):
            logits: torch.Tensor = self._rest(batch)
        return logits.float()

    @contextmanager
    def training(self, seed: int) -> Iterator[None]:
        """Train mode for the tuned modules, with what dropout draws decided by `seed`.

        The outermost module stays in eval mode: networks with auxiliary outputs (GoogLeNet) keep to
        their one output.
        """
        device = self.classifier.device
        devices = [device] if device.type == "cuda" else []
        network = self.classifier.network
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for module in network.modules():
                frozen = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.SyncBatchNorm)
                module.training = not (frozen and self._batch_norm == "frozen")
            for module in (network, *self._frozen):
                module.training = False
            try:
                yield
            finally:
                self.classifier.eval()

    def depths(self) -> dict[str, int]:
        """How far from the output each tuned parameter is: 0 the head, 1 the last stage, 2 ..."""
        network, example = self.classifier.network, self.classifier.example()
        inside: dict[str, int] = {}
        stages = stages_of(self.classifier)
        for number, stage in enumerate(stages):
            for name in modules_below(network, stage, example):
                inside.setdefault(name, len(stages) - number)
        head = self.classifier.head

        def depth(name: str) -> int:
            if name.startswith(f"{head}."):
                return 0
            return inside.get(_owner(name), 1)

        return {name: depth(name) for name in self.parameters}

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of all that training changes, by name."""
        tensors = {**self.parameters, **self.buffers}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def placed(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """These weights on the device of those that are trained, as a file's are not."""
        return {name: tensor.to(self.classifier.device) for name, tensor in weights.items()}

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Puts what `weights` has of the tuned part's parameters and buffers in their places."""
        with torch.no_grad():
            for name, tensor in {**self.parameters, **self.buffers}.items():
                tensor.copy_(weights[name])

    def mixed(self, weights: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
        """These weights in this share, the rest being the start's; counters are not mixed."""
        start = self._start.network.state_dict()
        return {
            name: start[name].lerp(tensor, share) if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        }

    def tuned(self, weights: Mapping[str, torch.Tensor]) -> Classifier:
        """A classifier with these weights behind the boundary, in eval mode, nothing frozen."""
        classifier = self._start.with_network(copied(self._start.network)).eval()
        state = classifier.network.state_dict()
        with torch.no_grad():
            for name, tensor in weights.items():
                state[name].copy_(tensor)
        for parameter in classifier.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        return classifier


def _owner(name: str) -> str:
    """The module that a parameter or buffer of this name belongs to."""
    return name.rpartition(".")[0]
