"""The classifier as one graph from [0, 1] pictures to probabilities, which both file formats are made of."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from transferscope.acceleration.folding import folded
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, WeightsError
from transferscope.exports.extras import first_line
from transferscope.exports.parity import Parity, Probabilities, check_parity, noise
from transferscope.images import InputSpec

INPUT = "pictures"
OUTPUTS = ("probabilities", "logits")


class Answers(nn.Module):
    """All that a classifier does to its pictures: normalisation, network, temperature, softmax."""

    def __init__(self, network: nn.Module, input: InputSpec, temperature: float):
        super().__init__()
        self.network = network
        self.input = input
        self.temperature = temperature

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities and logits, (N, K) each, of pictures (N, C, H, W) in [0, 1]."""
        logits = self.network(self.input.normalise(pictures))
        return torch.softmax(logits / self.temperature, dim=-1), logits


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


def first_output(module: nn.Module) -> Probabilities:
    """The probabilities of a module that gives `OUTPUTS`."""

    def answer(pictures: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            probabilities: torch.Tensor = module(pictures)[0].clone()
        return probabilities

    return answer


def confirm(
    private: Classifier, exported: Probabilities, batches: Iterable[torch.Tensor] | None
) -> Parity:
    """`check_parity` with the `private_copy` that was exported; without batches, on seeded noise."""
    batches = noise(private.input) if batches is None else batches
    return check_parity(probabilities_of(private), exported, batches)


def traced(classifier: Classifier) -> ExportedProgram:
    """A `private_copy` as a graph with a batch of any size, BatchNorm folded into its convolutions.

    Nothing of this machine, such as the paths of source files, stays in the graph.

    Raises:
        InputError: the network does what cannot be written as one graph.
    """
    network = folded(classifier.network, classifier.example())
    network = network.to(memory_format=torch.contiguous_format)
    answers = Answers(network, classifier.input, classifier.temperature).eval()
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
