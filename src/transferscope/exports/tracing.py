"""The classifier as one graph from [0, 1] pictures to probabilities, which both file formats are made of."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from transferscope.acceleration.folding import folded
from transferscope.activations import capture_inputs
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, WeightsError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.exports.extras import first_line
from transferscope.exports.familiarity import Familiarity
from transferscope.exports.parity import Parity, Probabilities, check_parity, noise

INPUT = "pictures"
OUTPUTS = ("probabilities", "logits")
FAMILIARITY = "familiarity"
"""The third output, of a classifier that comes with what strangers are told by."""

Outputs = tuple[torch.Tensor, ...]
Exported: TypeAlias = Callable[[torch.Tensor], Outputs]
"""Pictures float32 (N, C, H, W) in [0, 1] to probabilities and logits, (N, K) each, and familiarity (N,)."""


class Answers(nn.Module):
    """All that is done to pictures: normalisation, network, temperature, softmax; familiarity if it is known.

    Args:
        classifier: whose network, input, temperature and head they are.
        network: another one of the same layers, such as a folded copy; None: the classifier's own.
        known: what strangers are told by.
    """

    def __init__(
        self,
        classifier: Classifier,
        network: nn.Module | None = None,
        known: KnownPictures | None = None,
    ):
        super().__init__()
        self.network = classifier.network if network is None else network
        self.input = classifier.input
        self.temperature = classifier.temperature
        self.head = classifier.head
        self.familiarity = None if known is None else Familiarity(known)

    def forward(self, pictures: torch.Tensor) -> Outputs:
        """Probabilities and logits, (N, K) each, of pictures (N, C, H, W) in [0, 1]; and familiarity (N,)."""
        normalised = self.input.normalise(pictures)
        if self.familiarity is None:
            logits = self.network(normalised)
            return torch.softmax(logits / self.temperature, dim=-1), logits
        with capture_inputs(self.network, self.head) as caught:
            logits = self.network(normalised)
        familiar = self.familiarity(caught[-1].flatten(1), logits)
        return torch.softmax(logits / self.temperature, dim=-1), logits, familiar


def private_copy(classifier: Classifier) -> Classifier:
    """A copy on the CPU, in fp32 and eval mode, that nothing else uses.

    Raises:
        WeightsError: weights that are not numbers.
    """
    for name, value in classifier.network.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(
                f"the weights {name!r} hold NaN or infinity, so there is nothing to export; restore "
                "them, or tune the network again"
            )
    return copy.deepcopy(classifier).cpu().float().eval().requires_grad_(False)


def probabilities_of(classifier: Classifier) -> Probabilities:
    """The answers of a `private_copy`, to compare an export with."""

    def answer(pictures: torch.Tensor) -> torch.Tensor:
        with classifier.inference():
            return classifier.probabilities(pictures).clone()

    return answer


def answers_of(module: nn.Module) -> Exported:
    """What a module gives, without gradients."""

    def answer(pictures: torch.Tensor) -> Outputs:
        with torch.inference_mode():
            return tuple(one.clone() for one in module(pictures))

    return answer


def confirm(
    private: Classifier,
    exported: Exported,
    batches: Iterable[torch.Tensor] | None,
    known: KnownPictures | None = None,
) -> Parity:
    """`check_parity` with the `private_copy` that was exported; without batches, on seeded noise."""
    batches = noise(private.input) if batches is None else batches

    def difference(pictures: torch.Tensor) -> float:
        assert known is not None
        with private.inference():
            logits, features = private.logits_and_features(pictures)
        low, high = known.familiarity_range(features.numpy(), logits.numpy())
        got = exported(pictures)[len(OUTPUTS)].numpy()
        return float(np.max([low - got, got - high, np.zeros_like(got)]))

    return check_parity(
        probabilities_of(private),
        lambda pictures: exported(pictures)[0],
        batches,
        familiarity=None if known is None else difference,
    )


def traced(classifier: Classifier, known: KnownPictures | None = None) -> ExportedProgram:
    """A `private_copy` as a graph with a batch of any size, BatchNorm folded into its convolutions.

    Nothing of this machine, such as the paths of source files, stays in the graph.

    Raises:
        InputError: the network does what cannot be written as one graph.
    """
    network = folded(classifier.network, classifier.example())
    network = network.to(memory_format=torch.contiguous_format)
    answers = Answers(classifier, network, known).eval()
    (example,) = noise(classifier.input, n=2)
    with torch.no_grad(), untraceable(classifier):
        program = torch.export.export(
            answers, (example,), dynamic_shapes={INPUT: {0: Dim("N", min=1)}}
        )
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


@contextmanager
def untraceable(classifier: Classifier) -> Iterator[None]:
    """Quiet; and says in one sentence that a network cannot become a graph, whatever is raised."""
    try:
        with quiet():
            yield
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise InputError(
            f"this {type(classifier.network).__name__} ({classifier.backbone}) cannot be exported as one "
            f"graph for batches of any size: {first_line(error)}; --format hub needs no graph"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, exporters neither warn nor log below an error."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
