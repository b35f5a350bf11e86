"""An automatic interpretability score: right where the truth is known, chance where there is none."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from conftest import same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.comparison import interpretability
from transferscope.comparison.interpretability import (
    EXTREME,
    JUDGES,
    Interpretability,
    choose_judge,
    drawing_scores,
    exemplar_scores,
    judge_features,
    share_interval,
)
from transferscope.errors import InputError

PICTURES, CHANNELS, WIDTH = 240, 40, 30


def pictures(*, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses, the judge's features, and each channel's direction among them (C, D).

    A channel answers to its direction, and to something that the judge does not see.
    """
    rng = np.random.default_rng(seed)
    features = np.abs(rng.normal(size=(PICTURES, WIDTH)))
    directions = rng.normal(size=(CHANNELS, WIDTH))
    seen = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ directions.T
    seen = (seen - seen.mean(0)) / seen.std(0)
    return seen + noise * rng.normal(size=seen.shape), features, directions


def values(found: tuple[Interpretability, ...]) -> np.ndarray:
    return np.array([one.score for one in found], float)


def test_the_score_is_the_share_of_right_choices_between_held_out_pictures():
    responses, features, _ = pictures(noise=1.5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = exemplar_scores(responses, features * 7)
    order = np.random.default_rng(0).permutation(PICTURES)
    halves = (order[:120].tolist(), order[120:].tolist())
    for channel in (0, 7):
        shares = []
        for shown, held in (halves, halves[::-1]):
            most = sorted(shown, key=lambda n: responses[n, channel])
            asked = sorted(held, key=lambda n: responses[n, channel])

            def nearer(n, most=most):
                return np.mean([unit[n] @ unit[k] for k in most[-9:]]) - np.mean(
                    [unit[n] @ unit[k] for k in most[:9]]
                )

            right = [nearer(a) > nearer(b) for a in asked[-33:-9] for b in asked[9:33]]
            shares.append(np.mean(right))
        assert found[channel].score == pytest.approx(np.mean(shares))
        assert found[channel].queries == 48
        assert 0 < found[channel].low < found[channel].score < found[channel].high < 1


def test_a_channel_that_the_judge_sees_all_of_is_told_without_error():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, (PICTURES, 5))
    responses = kind + 0.1 * rng.random((PICTURES, 5))
    features = np.concatenate([kind, 1 - kind], axis=1) + 0.01 * rng.random((PICTURES, 10))
    for channel in range(5):
        alone = features[:, [channel, channel + 5]]
        own = responses[:, [channel]]
        for found in (
            exemplar_scores(own, alone)[0],
            drawing_scores(own, alone, [np.array([[1.0, 0.0]])])[0],
        ):
            assert found.score == found.high == 1
            assert 0.88 < found.low < 1


def test_shuffled_responses_score_chance_within_the_interval():
    covered, scores = [], []
    for seed in range(10):
        responses, features, directions = pictures(noise=0.3, seed=seed)
        assert values(exemplar_scores(responses, features)).mean() > 0.8
        shuffled = np.random.default_rng(seed).permuted(responses, axis=0)
        for found in (
            exemplar_scores(shuffled, features),
            drawing_scores(shuffled, features, list(directions[:, None])),
        ):
            covered += [one.low <= 0.5 <= one.high for one in found]
            scores.append(values(found).mean())
    assert np.mean(scores) == pytest.approx(0.5, abs=0.01)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_the_interval_holds_chance_where_pictures_come_in_kinds():
    """Both ways to use the halves would agree by chance if pictures that are shown were asked about too."""
    rng = np.random.default_rng(0)
    kinds = np.abs(rng.normal(size=(5, WIDTH)))[rng.integers(0, 5, PICTURES)]
    features = kinds + 0.2 * rng.normal(size=kinds.shape)
    found = exemplar_scores(rng.normal(size=(PICTURES, 4000)), features)
    assert values(found).mean() == pytest.approx(0.5, abs=0.01)
    assert 0.935 <= np.mean([one.low <= 0.5 <= one.high for one in found]) <= 0.975


def test_pictures_in_the_order_of_their_kinds_do_not_help_a_silent_channel():
    """Among equal responses the order of the files, and so their class, must not choose the queries."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(4), PICTURES // 4)
    features = np.eye(4)[kind] + 0.05 * rng.random((PICTURES, 4))
    silent = np.zeros((PICTURES, CHANNELS))
    for channel in range(CHANNELS):  # half of them excite it, of every kind
        silent[rng.choice(PICTURES, PICTURES // 2, replace=False), channel] = 1
    silent *= rng.random(silent.shape)
    assert values(exemplar_scores(silent, features)).mean() == pytest.approx(0.5, abs=0.05)
    rarely = silent * (rng.random(silent.shape) < 0.2)  # too few to ask a fifth of a half about
    for nothing in (np.ones((PICTURES, 1)), rarely):
        for found in exemplar_scores(nothing, features):
            assert found.score is found.low is found.high is None


def test_drawings_of_another_channel_explain_less_than_its_own():
    responses, features, directions = pictures(noise=0.3)
    plus = [one[None] + 0.1 * np.ones((3, WIDTH)) for one in directions]
    minus = [-one[None] for one in directions]
    own = values(drawing_scores(responses, features, plus))
    both = values(drawing_scores(responses, features, plus, minus))
    other = values(drawing_scores(responses, features, plus[1:] + plus[:1]))
    opposite = values(drawing_scores(responses, features, minus))
    assert own.mean() > 0.9
    assert both.mean() >= own.mean()
    assert other.mean() == pytest.approx(0.5, abs=0.1)
    assert (other < own).mean() > 0.9
    assert opposite.mean() < 0.1


def test_a_channel_without_drawings_has_no_score_and_takes_none_from_others():
    responses, features, directions = pictures(noise=0.3)
    plus = list(directions[:, None])
    whole = drawing_scores(responses, features, plus)
    plus[3] = np.zeros((0, WIDTH))
    found = drawing_scores(responses, features, plus)
    assert found[3].score is found[3].low is None
    assert found[:3] + found[4:] == whole[:3] + whole[4:]
    minus = [np.zeros((0, WIDTH))] * CHANNELS
    assert drawing_scores(responses, features, plus, minus) == found
    assert json.loads(json.dumps(found[3].to_dict(), allow_nan=False))["score"] is None
    assert Interpretability.from_dict(json.loads(json.dumps(found[0].to_dict()))) == found[0]


def test_channels_are_scored_alike_alone_and_together():
    responses, features, directions = pictures(noise=1.0)
    whole = exemplar_scores(responses, features, seed=3)
    assert whole[5] == exemplar_scores(responses[:, [5]], features, seed=3)[0]
    drawn = drawing_scores(responses, features, list(directions[:, None]), seed=3)
    assert drawn[5] == drawing_scores(responses[:, [5]], features, [directions[[5]]], seed=3)[0]
    assert whole != exemplar_scores(responses, features, seed=4)
    turned = exemplar_scores(-responses, features, seed=3)
    assert values(turned) == pytest.approx(values(whole), abs=1e-9)


@pytest.mark.parametrize("true", [0.5, 0.75, 0.95])
def test_the_interval_holds_the_true_share(true):
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    shift = norm.ppf(true) * np.sqrt(2)
    high, low = rng.normal(shift, 1, (2000, 40, 1)), rng.normal(size=(2000, 1, 40))
    shares = (high > low).mean((1, 2))
    below, above = share_interval(shares, 40)
    assert 0.935 <= ((below <= true) & (true <= above)).mean() <= 0.98
    assert (below < shares).all()
    assert (above >= shares).all()


def test_few_or_other_pictures_are_refused():
    responses, features, directions = pictures(noise=1)
    with pytest.raises(InputError, match="19 pictures"):
        exemplar_scores(responses[:19], features[:19])
    assert exemplar_scores(responses[:20], features[:20])[0].queries == 2 * round(10 * EXTREME)
    with pytest.raises(InputError, match="features of 239"):
        exemplar_scores(responses, features[1:])
    with pytest.raises(InputError, match="39 channels"):
        drawing_scores(responses, features, list(directions[1:, None]))


# ---------------------------------------------------------------------------- the judge


def test_the_judge_is_of_another_architecture_where_one_is_installed(
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[str] = []

    def load(name: str) -> Classifier:
        asked.append(name)
        return tiny_classifier(1)

    monkeypatch.setattr(interpretability, "load_backbone", load)
    base = tiny_classifier()
    before = state_of(base.network)
    here = set(JUDGES)
    monkeypatch.setattr(
        interpretability,
        "embedded_weights",
        lambda entry: entry.name if entry.name in here else None,
    )
    for own, judge in (
        ("efficientnet_lite0", "efficientnet_lite1"),
        ("efficientnet_lite1", "efficientnet_lite2"),
        ("timm/tf_efficientnet_lite1", "efficientnet_lite2"),
        ("custom", "efficientnet_lite1"),
    ):
        base.backbone = own
        found = choose_judge(base)
        assert found.independent
        assert asked[-1] == judge
        assert f"The judge is {judge}" in found.sentence
        assert ("same family" in found.sentence) == (own != "custom")
    here -= {"efficientnet_lite1", "efficientnet_lite2"}
    base.backbone = "custom"
    assert "The judge is efficientnet_lite0" in choose_judge(base).sentence
    base.backbone = "efficientnet_lite0"
    found = choose_judge(base)
    assert found.classifier is base
    assert not found.independent
    assert "the base network itself (efficientnet_lite0)" in found.sentence
    assert "scores flatter it" in found.sentence
    assert "transferscope[lite]" in found.sentence
    assert same_state(before, state_of(base.network))


def test_the_judges_features_have_length_one(tiny: Classifier):
    drawn = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    found = judge_features(tiny, drawn, batch_size=2)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    pairs = itertools.combinations(range(5), 2)
    assert all(found[a] @ found[b] < 1 for a, b in pairs)
