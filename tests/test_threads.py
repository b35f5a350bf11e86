"""Many threads and one classifier: one answer each, and nothing of it changed."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import transferscope as ts
from conftest import SPEC, TinyNet, same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.errors import InputError
from transferscope.features.exemplars import channel_responses

THREADS, TIMES = 8, 200


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("threads") / "one.png"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    return file


@pytest.fixture
def eager_switching():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(work, times: int) -> list[object]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda _: work(), range(times)))


@pytest.mark.parametrize("training", [True, False])
def test_predictions_from_many_threads_are_one_answer(picture, training, eager_switching):
    classifier = tiny_classifier()
    alone = [guess.probability for guess in ts.predict(classifier, [picture])[0].top]
    classifier.train(training)
    before = state_of(classifier)

    def ask() -> tuple[float, ...]:
        return tuple(guess.probability for guess in ts.predict(classifier, [picture])[0].top)

    answers = set(in_threads(ask, THREADS * TIMES))
    assert len(answers) == 1
    np.testing.assert_allclose(answers.pop(), alone, atol=1e-6)
    assert same_state(before, state_of(classifier))


def test_features_and_answers_in_many_threads_are_each_threads_own(eager_switching):
    classifier = tiny_classifier().train()
    before = state_of(classifier)
    pictures = torch.rand(THREADS, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with classifier.inference():
        wanted = [classifier.pooled_features(one) for one in pictures]

    def look(number: int) -> bool:
        with classifier.inference():
            return torch.equal(classifier.pooled_features(pictures[number]), wanted[number])

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(look, list(range(THREADS)) * 25))
    assert same_state(before, state_of(classifier))


def test_answers_while_another_thread_trains_do_not_stop_its_training():
    classifier = tiny_classifier().train()
    with classifier.inference():
        classifier(torch.rand(1, 3, 32, 32))
        assert all(module.training for module in classifier.network.modules())
        assert all(parameter.requires_grad for parameter in classifier.parameters())
    mean = classifier.network.stages[0].bn1.running_mean.clone()
    classifier(torch.rand(2, 3, 32, 32))  # outside, train mode is what it was
    assert not torch.equal(mean, classifier.network.stages[0].bn1.running_mean)


def test_no_verb_on_a_network_in_train_mode_changes_it(picture):
    classifier = tiny_classifier().train()
    before = state_of(classifier)
    layers = ("stages.1",)
    trained = channel_responses(classifier, [picture], layers)["stages.1"]
    assert same_state(before, state_of(classifier))
    assert torch.equal(
        trained, channel_responses(tiny_classifier().eval(), [picture], layers)["stages.1"]
    )
    ts.render(classifier, ts.channel("stages.1", 0), steps=2)
    assert same_state(before, state_of(classifier))


def test_a_forward_that_a_copy_cannot_reach_is_refused_in_train_mode():
    network = TinyNet()
    inner = network.stem
    network.stem.forward = lambda x, own=inner: nn.Conv2d.forward(own, x)
    own = network.head
    network.head.forward = (lambda held: lambda x: nn.Linear.forward(held, x))(own)
    with pytest.raises(InputError, match=r"'head' was replaced.*\.eval\(\) first"):
        still(network.train())
    assert still(network.eval()) is network
    assert Classifier(network, SPEC, list("abcd")).head == "head"
