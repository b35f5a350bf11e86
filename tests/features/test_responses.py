"""Responses of channels behind the boundary."""

from __future__ import annotations

import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.activations import capture
from transferscope.errors import UnknownName
from transferscope.features.responses import resumed_responses


def test_they_are_those_of_the_whole_network():
    classifier = tiny_classifier()
    pictures = torch.rand(7, 3, 32, 32)
    with capture(classifier.network, ["stages.0", "stages.1", "stages.2"]) as outputs:
        classifier(pictures)
    before = state_of(classifier)
    told: list[tuple[int, int]] = []
    found = resumed_responses(
        classifier,
        "stages.0",
        outputs["stages.0"].detach(),
        ["stages.2", "stages.1"],
        batch_size=3,
        on_progress=lambda done, total: told.append((done, total)),
    )
    for layer in ("stages.1", "stages.2"):
        torch.testing.assert_close(found[layer], outputs[layer].detach().mean((2, 3)))
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert same_state(before, state_of(classifier))
    with pytest.raises(UnknownName):
        resumed_responses(classifier, "stages.0", outputs["stages.0"], ["stages.7"])
