"""The network together with everything that its answers depend on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferscope.activations import capture_inputs
from transferscope.backbones.architecture import architecture_hash
from transferscope.backbones.catalogue import build_architecture
from transferscope.backbones.heads import (
    Head,
    describe_head,
    find_head,
    head_at,
    head_fault,
    put_head,
    refuse_headless,
)
from transferscope.backbones.logits import unwrapped, with_logits
from transferscope.copies import copied, still
from transferscope.errors import InputError, WeightsError
from transferscope.files import hash_tensors, read_tensors, write_tensors
from transferscope.images import InputSpec

FORMAT = "transferscope-classifier-1"

_INFERENCE = threading.local()
"""For each thread, by a classifier's id, the network in eval mode that answers within `inference`."""

_NEEDED = ("backbone", "head", "classes", "input", "temperature")
"""What a classifier file's metadata must hold; `head_module` is there unless the head is linear."""


class Classifier(nn.Module):
    """A network, its input, its classes and its temperature.

    Layer names are those of `network`, without a prefix. `forward` takes pictures in [0, 1] and
    normalises them itself, so prediction cannot normalise differently from training.

    Args:
        network: any module that maps (N, C, H, W), normalised, to logits (N, K), alone or among other
            outputs where it is clear which are meant (see `with_logits`).
        input: what it wants to see.
        classes: K unique names, in the order of the logits, in any script.
        temperature: logits are divided by it before the softmax.
        backbone: catalogue name, from which `load` builds the architecture again; "custom" for a
            network of the user's own.
        head: dotted name of the linear layer that makes the logits, or of the `MLPHead` in its place; found
            by forward passes if not given.

    Raises:
        InputError: classes that are doubled, or not as many as there are logits; weights that are
            not float32; outputs that are no logits, or several that could be.
    """

    def __init__(
        self,
        network: nn.Module,
        input: InputSpec,
        classes: Sequence[str],
        *,
        temperature: float = 1.0,
        backbone: str = "custom",
        head: str | None = None,
    ):
        super().__init__()
        _refuse_doubled(classes)
        if temperature <= 0:
            raise InputError(f"temperature is {temperature}; it must be positive")
        network = unwrapped(network)
        refuse_headless(network)
        _refuse_other_precisions(network)
        self.network = network
        self.input = input
        self.classes = tuple(classes)
        self.temperature = float(temperature)
        self.backbone = backbone
        self.network = with_logits(network, self.example(), len(self.classes))
        self.head = head if head is not None else find_head(self.network, self.example())
        self._head_checked = False
        self.weights_note = ""
        _ = self.head_layer

    def with_network(self, network: nn.Module) -> Classifier:
        """The same classifier around another network of the same layers, such as a faster copy."""
        other = copy.copy(self)
        other._modules = {**self._modules, "network": network}
        return other

    def check_head(self) -> None:
        """Makes sure that the head's outputs are the network's: what is fitted in its place is then the answer.

        By a forward pass with another head in its place, on a private copy; once a classifier.

        Raises:
            InputError: the network has several heads, or does something to the head's outputs.
        """
        if not self._head_checked:
            fault = head_fault(self.network, self.head, self.example(), self.backbone)
            if fault:
                raise InputError(fault)
            self._head_checked = True

    @property
    def head_layer(self) -> Head:
        """The last linear layer, or the `MLPHead` in its place: pooled features (N, D) to logits."""
        return head_at(self.network, self.head)

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.network.parameters()).device

    def example(self) -> torch.Tensor:
        """One fixed, normalised picture of seeded noise, (1, C, H, W), for shape-finding passes."""
        noise = torch.rand(1, *self.input.shape, generator=torch.Generator().manual_seed(0))
        device = next(self.network.parameters()).device
        return self.input.normalise(noise.to(device))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) of pictures (N, C, H, W), float in [0, 1]."""
        if not pictures.is_floating_point() or pictures.ndim != 4:
            raise InputError(
                f"pictures are {pictures.dtype} {tuple(pictures.shape)}; they must be floating-point "
                "(N, C, H, W) in [0, 1]"
            )
        logits: torch.Tensor = self._running(self.input.normalise(pictures))
        return logits

    @property
    def _running(self) -> nn.Module:
        """The network that answers in this thread: within `inference`, one in eval mode."""
        running: dict[int, nn.Module] = getattr(_INFERENCE, "running", {})
        network: nn.Module = running.get(id(self), self.network)
        return network

    def probabilities(self, pictures: torch.Tensor) -> torch.Tensor:
        """Softmax of logits / temperature, (N, K), of pictures (N, C, H, W) in [0, 1]."""
        return torch.softmax(self(pictures) / self.temperature, dim=-1)

    def logits_and_features(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, K), and what the head made them of, (N, D), by one forward pass of pictures in [0, 1]."""
        with capture_inputs(self._running, self.head) as caught:
            logits = self(pictures)
        return logits, caught[-1].flatten(1)

    def pooled_features(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the head sees, (N, D), of pictures (N, C, H, W) in [0, 1]."""
        return self.logits_and_features(pictures)[1]

    def body_hash(self) -> str:
        """Digest of every weight and buffer but the head's: what cached features depend on."""
        prefix = f"{self.head}."
        state = self.network.state_dict()
        return hash_tensors({k: v for k, v in state.items() if not k.startswith(prefix)})

    def architecture_hash(self) -> str:
        """Digest of what the network does with its weights, but for its head: see `architecture_hash`."""
        return architecture_hash(self.network, without=self.head)

    def with_head(
        self, weight: torch.Tensor, bias: torch.Tensor, classes: Sequence[str]
    ) -> Classifier:
        """A copy with another linear head, weight (K, D) and bias (K,), for other classes.

        Raises:
            InputError: see `with_head_module`.
        """
        head = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        return self.with_head_module(head, classes)

    def with_head_module(self, head: Head, classes: Sequence[str]) -> Classifier:
        """A copy with a copy of this head, linear or MLP, in the mode of the head before it.

        Raises:
            InputError: a head for other features, not one class name an output, or a network to which its
                head's outputs are not the answer (see `check_head`).
        """
        self.check_head()
        _refuse_doubled(classes)
        if head.out_features != len(classes):
            raise InputError(
                f"the network has {head.out_features} outputs and {len(classes)} class names were given; "
                "give one name an output"
            )
        old = self.head_layer
        if head.in_features != old.in_features:
            raise InputError(
                f"the head takes {head.in_features} features and this {self.backbone} gives "
                f"{old.in_features}; fit it on this network's pooled features"
            )
        network = copied(self.network)
        new = copy.deepcopy(head).to(self.device).train(old.training)
        network.set_submodule(self.head, new)
        other = self.with_network(network)
        other.classes, other.temperature = tuple(classes), 1.0
        return other

    @contextmanager
    def inference(self) -> Iterator[Classifier]:
        """This classifier answers in eval mode and without gradients, in this thread, within the block.

        Its modules' modes and its weights' flags are not touched, so that any number of threads may do so
        at once, also while another trains it.
        """
        if not hasattr(_INFERENCE, "running"):
            _INFERENCE.running = {}
        running: dict[int, nn.Module] = _INFERENCE.running
        before = running.get(id(self))
        running[id(self)] = before if before is not None else still(self.network)
        try:
            with torch.inference_mode():
                yield self
        finally:
            if before is None:
                del running[id(self)]

    # ------------------------------------------------------------------ files

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file: all weights and buffers, and in its metadata the rest."""
        metadata: dict[str, Any] = {
            "format": FORMAT,
            "backbone": self.backbone,
            "head": self.head,
            "classes": list(self.classes),
            "input": self.input.to_dict(),
            "temperature": self.temperature,
        }
        if (described := describe_head(self.head_layer)) is not None:
            metadata["head_module"] = described
        write_tensors(path, self.network.state_dict(), metadata)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        network: nn.Module | None = None,
        backbone: str | None = None,
        classes: Sequence[str] | None = None,
    ) -> Classifier:
        """The classifier that `save` wrote.

        Args:
            path: the file.
            network: for a network of the user's own, an instance of its architecture (unchanged; a
                copy is filled, with a head of the file's kind and size).
            backbone: if given, the file must be of this architecture.
            classes: if given, the file must have these classes in this order.

        Raises:
            WeightsError: damaged, not a classifier's file, or of another architecture or class list
                than asked for; both are named.
        """
        state, metadata = read_tensors(path)
        if metadata.get("format") != FORMAT:
            raise WeightsError(
                f"{str(path)!r} is not a classifier file of this version (format "
                f"{metadata.get('format')!r} instead of {FORMAT!r}); bare weights enter through --weights"
            )
        absent = [key for key in _NEEDED if key not in metadata]
        if absent:
            raise WeightsError(
                f"{str(path)!r} is damaged: its metadata has no {absent[0]!r}; restore it from a copy"
            )
        found, names = metadata["backbone"], tuple(metadata["classes"])
        if backbone is not None and backbone != found:
            raise WeightsError(
                f"{str(path)!r} is a {found}, not a {backbone}; load it as what it is"
            )
        if classes is not None and tuple(classes) != names:
            raise WeightsError(
                f"{str(path)!r} has the classes {_shortened(names)}, not {_shortened(tuple(classes))}; "
                "the list and its order must be the same"
            )
        described = metadata.get("head_module")
        if network is not None:
            network = copied(unwrapped(network))
            put_head(network, metadata["head"], described, len(names))
        elif found == "custom":
            raise WeightsError(
                f"{str(path)!r} holds a network of your own; pass an instance of it: "
                "Classifier.load(path, network=...)"
            )
        else:
            network = build_architecture(found, len(names), metadata["head"], described=described)
        wanted = network.state_dict()
        wrong = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
        wrong += [k for k in state if k not in wanted]
        if wrong:
            raise WeightsError(
                f"{str(path)!r} (a {found}) does not fit the architecture {type(network).__name__}: "
                f"{len(wrong)} entries differ, first {wrong[0]!r}"
            )
        network.load_state_dict(state)
        network.eval()
        return cls(
            network,
            InputSpec.from_dict(metadata["input"]),
            names,
            temperature=metadata["temperature"],
            backbone=found,
            head=metadata["head"],
        )


def _refuse_other_precisions(network: nn.Module) -> None:
    """Pictures are float32; lower precision is a matter of autocast."""
    for name, weights in network.named_parameters():
        if weights.is_floating_point() and weights.dtype != torch.float32:
            raise InputError(
                f"the network's {name!r} is {weights.dtype}, and it must be torch.float32; give "
                "network.float()"
            )


def _refuse_doubled(classes: Sequence[str]) -> None:
    if len(set(classes)) != len(classes):
        doubled = sorted({name for name in classes if list(classes).count(name) > 1})
        raise InputError(f"classes must be unique; given twice: {', '.join(doubled[:5])}")


def _shortened(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"[{shown}, ... {len(names)} in all]" if len(names) > 4 else f"[{shown}]"
