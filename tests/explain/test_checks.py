"""The checks: each against a slow reference or a map that must fail it, and a cue that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import transferscope as ts
from conftest import SPEC, same_state, smooth_pictures, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.explain.attribution import METHODS, Method
from transferscope.explain.checks import MethodVerdict, check_methods
from transferscope.explain.controls import EDGES, edge_maps, random_orders
from transferscope.explain.insertion import STEPS, baseline, cells, insertion_less_deletion
from transferscope.explain.maps import Maps
from transferscope.explain.mosaic import mosaics, quarter_of, shares
from transferscope.explain.randomisation import EVERYTHING, cascade, randomised
from transferscope.explain.scores import Scores
from transferscope.explain.similarity import rank_correlation, ssim

SIDE, COLOURS = 8, torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 0]])


def cue_pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Grey textures in which a small square's colour alone decides the class; where each square begins."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 6, 6, generator=generator)
    pictures = nn.functional.interpolate(coarse, (32, 32), mode="bilinear").repeat(1, 3, 1, 1) * 0.7
    labels = torch.arange(count) % 4
    places = torch.randint(0, 32 - SIDE, (count, 2), generator=generator)
    for picture, label, (top, left) in zip(pictures, labels, places.tolist(), strict=True):
        picture[:, top : top + SIDE, left : left + SIDE] = COLOURS[label][:, None, None]
    return pictures, labels, places


class CueNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.second = nn.Sequential(
            nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.third = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.third(self.second(self.first(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def cue() -> Classifier:
    """A network that has learned the cue."""
    torch.manual_seed(0)
    network = CueNet()
    pictures, labels, _ = cue_pictures(256, 1)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(120):
        rows = torch.arange(64) + 64 * (step % 4)
        loss = nn.functional.cross_entropy(network(SPEC.normalise(pictures[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    classifier = Classifier(network.eval(), SPEC, ["red", "green", "blue", "yellow"])
    pictures, labels, _ = cue_pictures(64, 2)
    assert (classifier(pictures).argmax(1) == labels).float().mean() > 0.95
    return classifier


@pytest.fixture(scope="module")
def verdicts(cue) -> dict[str, MethodVerdict]:
    pictures, labels, _ = cue_pictures(16, 3)
    methods = [*METHODS, EDGES]
    found = check_methods(cue, pictures, labels.tolist(), methods=methods)
    assert [one.method for one in found] == [*METHODS, "edges"]
    return {one.method: one for one in found}


def pointing(classifier: Classifier, method: str) -> float:
    """The share of pictures in which the largest support is on the square, or a pixel beside it."""
    pictures, labels, places = cue_pictures(100, 4)
    options = {"most_steps": 50} if method == "integrated_gradients" else {}
    found = ts.attribute(classifier, pictures, method=method, target=labels.tolist(), **options)
    hits = 0
    for one, (top, left) in zip(found, places.tolist(), strict=True):
        row, column = np.unravel_index(one.support.argmax(), one.map.shape)
        hits += top - 1 <= row <= top + SIDE and left - 1 <= column <= left + SIDE
    return hits / len(found)


# ---------------------------------------------------------------------------- a cue that is known


def test_methods_that_pass_point_at_the_planted_cue(cue, verdicts):
    passed = [name for name, one in verdicts.items() if one.passed]
    assert len(passed) >= 3
    for name in passed:
        assert pointing(cue, name) >= 0.95, name


def test_a_map_that_ignores_the_network_fails_by_name(verdicts):
    verdict = verdicts["edges"]
    results = {check.name: check.passed for check in verdict.checks}
    assert verdict.passed is False
    assert results["randomisation"] is False
    assert results["class_sensitivity"] is False
    assert results["beats_edges"] is False
    assert all(one.rank_correlation == pytest.approx(1) for one in verdict.randomisation)
    assert verdict.said.startswith("edges of the picture fails: its maps stay as they are")


def test_noise_as_a_map_fails(cue):
    def noise(_scores, pictures, _targets, *, batch_size, seed):
        return Maps(
            torch.rand(pictures.shape[0], 32, 32, generator=torch.Generator().manual_seed(seed))
        )

    method = Method("noise", "noise", noise, "support", signed=False, seeded=True)
    pictures, labels, _ = cue_pictures(24, 3)
    (verdict,) = check_methods(cue, pictures, labels.tolist(), methods=[method])
    results = {check.name: check for check in verdict.checks}
    assert verdict.passed is False
    assert results["beats_random"].passed is not True
    assert results["mosaic"].passed is not True
    assert results["mosaic"].figure == pytest.approx(0.25, abs=0.01)


def test_a_network_that_learned_nothing_lets_no_method_pass(cue):
    (random,) = [randomised(cue, cascade(cue), seed=1)]
    pictures, _, _ = cue_pictures(32, 3)
    answers = random(pictures).argmax(1).tolist()  # what it says is what it is held to
    found = check_methods(random, pictures, answers, methods=["grad_cam", "occlusion", "gradient"])
    assert not any(one.passed for one in found)


def test_verdicts_are_repeatable_saved_and_leave_the_network_alone(cue, tmp_path):
    pictures, labels, _ = cue_pictures(12, 3)
    cue.train()
    before, random_state = state_of(cue), torch.get_rng_state()
    done = []
    methods = ["grad_cam", "smooth_grad"]
    first = check_methods(
        cue, pictures, labels.tolist(), methods=methods, on_progress=lambda *now: done.append(now)
    )
    assert same_state(before, state_of(cue))
    assert torch.equal(random_state, torch.get_rng_state())
    cue.eval()
    assert done == [(1, 2), (2, 2)]
    names = [cue.classes[one] for one in labels]
    assert check_methods(cue, pictures, names, methods=methods) == first
    assert tuple(MethodVerdict.from_dict(one.to_dict()) for one in first) == first


def test_methods_a_network_does_not_suit_are_refused_by_name(cue):
    network = CueNet()
    network.first[2] = network.third[2] = nn.SiLU()
    network.second[2] = nn.GELU()
    network.load_state_dict(cue.network.state_dict())
    classifier = Classifier(network.eval(), SPEC, cue.classes)
    pictures, _, _ = cue_pictures(16, 3)
    answers = classifier(pictures).argmax(1).tolist()
    (verdict,) = check_methods(classifier, pictures, answers, methods=["guided_backprop"])
    assert verdict.passed is False
    assert verdict.refused
    assert "guided backprop cannot be used: guided backprop is a rule for ReLUs" in verdict.said


def test_too_few_recognised_pictures_are_refused_and_few_classes_leave_the_mosaic_out(cue):
    pictures, labels, _ = cue_pictures(40, 3)
    with pytest.raises(InputError, match="0 of 40 pictures are recognised"):
        check_methods(cue, pictures, ((labels + 1) % 4).tolist())
    with pytest.raises(InputError, match="3 labels were given for 40"):
        check_methods(cue, pictures, [0, 1, 2])
    rows = labels < 2
    (verdict,) = check_methods(cue, pictures[rows], labels[rows].tolist(), methods=["occlusion"])
    (game,) = (check for check in verdict.checks if check.name == "mosaic")
    assert (game.figure, game.passed) == (None, None)
    assert verdict.passed is not True
    assert "four classes" in verdict.said


# ---------------------------------------------------------------------------- slow references


def test_rank_correlation_and_ssim_are_those_of_scipy_and_scikit_image():
    from scipy.stats import spearmanr
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    first = rng.normal(size=(40, 40)).astype(np.float32)
    second = (first + rng.normal(size=(40, 40))).astype(np.float32)
    assert rank_correlation(first, second) == pytest.approx(
        spearmanr(first.ravel(), second.ravel()).statistic
    )
    wanted = structural_similarity(
        *(np.abs(one) / np.abs(one).max() for one in (first, second)),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1].mean()
    assert ssim(first, second) == pytest.approx(wanted, abs=1e-3)
    assert ssim(first, -first) == pytest.approx(1)
    nothing = np.zeros_like(first)
    assert rank_correlation(first, nothing) == 0.0
    assert ssim(nothing, first) == 0.0
    assert ssim(nothing, nothing) == 1.0


def test_insertion_less_deletion_is_its_areas(cue):
    pictures, labels, _ = cue_pictures(3, 5)
    order = np.random.default_rng(0).random((3, 14 * 14)).astype(np.float32)
    blur = baseline(Scores(cue), pictures, labels, batch_size=8)
    found = insertion_less_deletion(Scores(cue), pictures, labels, order, blur, batch_size=8)
    for row in range(3):
        ranked = np.argsort(-order[row])
        areas = []
        for start, end in ((blur[row], pictures[row]), (pictures[row], blur[row])):
            curve = []
            for step in range(STEPS + 1):
                mixed = start.clone()
                changed = set(ranked[: int(np.ceil(196 * step / STEPS))].tolist())
                for y in range(32):
                    for x in range(32):
                        if (y * 14 // 32) * 14 + x * 14 // 32 in changed:
                            mixed[:, y, x] = end[:, y, x]
                probability = cue.probabilities(mixed[None])[0, labels[row]].detach()
                curve.append(float(probability))
            areas.append(np.trapezoid(curve, dx=1 / STEPS))
        assert found[row] == pytest.approx(areas[0] - areas[1], abs=1e-5)


def test_an_order_that_knows_the_cue_wins_and_its_reverse_loses(cue):
    pictures, labels, places = cue_pictures(8, 6)
    known = np.zeros((8, 32, 32), np.float32)
    for one, (top, left) in zip(known, places.tolist(), strict=True):
        one[top : top + SIDE, left : left + SIDE] = 1
    scores = Scores(cue)
    base = baseline(scores, pictures, labels, batch_size=8)
    with torch.no_grad():
        sure, unsure = (
            cue.probabilities(some).gather(1, labels[:, None]).mean() for some in (pictures, base)
        )
    assert unsure <= sure / 2
    best = insertion_less_deletion(scores, pictures, labels, cells(known), base, batch_size=8)
    worst = insertion_less_deletion(scores, pictures, labels, -cells(known), base, batch_size=8)
    assert best.mean() > 0.3
    for seed in range(5):
        random = random_orders(8, 196, seed)
        between = insertion_less_deletion(scores, pictures, labels, random, base, batch_size=8)
        assert (best > between).all()
        assert (worst < between).all()


def test_a_mosaic_holds_its_picture_in_its_quarter_and_three_other_classes():
    pictures = torch.full((12, 3, 9, 10), 0.0)
    labels = torch.arange(12) % 6
    for picture, label in zip(pictures, labels, strict=True):
        picture += label / 10
    game = mosaics(pictures, labels, seed=0)
    assert sorted(game.quarter.tolist()) == sorted([0, 1, 2, 3] * 3)
    for row in range(12):
        seen = [
            round(float(game.pictures[row, 0][quarter_of(place, 9, 10)].mean()) * 10)
            for place in range(4)
        ]
        assert len(set(seen)) == 4
        assert seen[game.quarter[row]] == int(labels[row]) == int(game.index[row])
    assert mosaics(pictures, labels % 3, seed=0) is None
    support = np.zeros((2, 9, 10), np.float32)
    support[0, :4, :5] = 1
    np.testing.assert_allclose(shares(support, np.array([0, 0])), [1, 0.25])
    assert shares(support[:1], np.array([3]))[0] == 0


def test_weights_are_redrawn_from_the_top_down_on_a_private_copy():
    classifier = tiny_classifier()
    before = state_of(classifier)
    groups = cascade(classifier)
    assert groups == ("head", "stages.2", "stages.1", "stages.0", "stem", EVERYTHING)
    own = classifier.network.state_dict()
    for depth in range(1, len(groups) + 1):
        drawn = randomised(classifier, groups[:depth], seed=3)
        for name, values in drawn.network.state_dict().items():
            inside = depth == len(groups) or name.startswith(tuple(f"{g}." for g in groups[:depth]))
            if values.is_floating_point() and name.endswith(("weight", "running_mean")):
                assert torch.equal(values, own[name]) != inside, name
    assert same_state(before, state_of(classifier))
    again = randomised(classifier, groups[:2], seed=3).network.state_dict()
    torch.testing.assert_close(again["head.weight"], drawn.network.state_dict()["head.weight"])


def test_edges_are_sobels():
    from skimage.filters import sobel

    pictures = smooth_pictures(2, 3, 20, 24)
    for found, picture in zip(edge_maps(pictures), pictures, strict=True):
        wanted = sobel(picture.mean(0).numpy(), mode="nearest")
        np.testing.assert_allclose(found * 2**-0.5, wanted, atol=2e-2, rtol=0.5)
        assert np.corrcoef(found.numpy().ravel(), wanted.ravel())[0, 1] > 0.999
