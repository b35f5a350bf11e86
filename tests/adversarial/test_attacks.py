"""Attacks against slow references, within their budgets, on the grid; the network is left as it was."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import SPEC, same_state, smooth_pictures, state_of, tiny_classifier
from transferscope.adversarial.attacked import Attacked, leads
from transferscope.adversarial.attacks import (
    ATTACKS,
    amplification,
    difference_picture,
    perturb,
)
from transferscope.adversarial.budgets import Budget, epsilon_said, lengths, read_epsilon
from transferscope.adversarial.deepfool import minimal_changes
from transferscope.adversarial.projected_gradient import (
    MARGIN,
    Goal,
    generator_of,
    pgd,
)
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, UnknownName
from transferscope.images import InputSpec, as_float


@pytest.fixture
def tiny() -> Classifier:
    """Untrained, its logits hardly differ: none of its answers is sure enough to be changed with a margin."""
    classifier = tiny_classifier()
    with torch.no_grad():
        classifier.network.head.weight.mul_(20)
    return classifier


CASES = [(name, norm) for name, entry in ATTACKS.items() for norm in entry.norms]


def pictures(n: int = 4) -> torch.Tensor:
    """uint8 (n, 3, 32, 32)."""
    return (smooth_pictures(n, 3, 32, 32) * 255).round().to(torch.uint8)


def linear(classes: int = 3, side: int = 8) -> Classifier:
    """Of which everything is known: logits are a matrix times the pixels."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, classes))
    nn.init.normal_(network[1].weight, 0, 1.0)
    spec = InputSpec((side, side), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 1.0)
    return Classifier(network.eval(), spec, [f"c{i}" for i in range(classes)])


# ---------------------------------------------------------------------------- gradients and steps


def test_gradients_are_those_of_the_network(tiny: Classifier):
    x = as_float(pictures())
    cotangent = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    attacked = Attacked(tiny, "fp32")
    leaf = x.clone().requires_grad_()
    (tiny(leaf) * cotangent).sum().backward()
    assert torch.allclose(attacked.gradient(x, cotangent), leaf.grad, atol=1e-5, rtol=1e-3)
    with torch.no_grad():
        assert torch.equal(attacked.exact(x), tiny(x))
        assert torch.allclose(attacked.exact(pictures()), tiny(x), atol=1e-6)


def test_logits_behind_the_head_are_attacked_not_the_head():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Flatten(), nn.Linear(3 * 64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x)) * torch.tensor([1.0, -2.0, 3.0])

    torch.manual_seed(0)
    spec = InputSpec((8, 8), 3, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
    scaled = Classifier(Scaled().eval(), spec, ["a", "b", "c"], head="head")
    x = as_float(pictures()[:, :, :8, :8])
    assert torch.allclose(Attacked(scaled, "fp32").logits(x), scaled(x), atol=1e-5)


@pytest.mark.parametrize("margin", [True, False])
@pytest.mark.parametrize("targeted", [True, False])
def test_what_is_climbed_is_the_gradient_of_its_formula(margin: bool, targeted: bool):
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).double()
    labels = torch.tensor([0, 5, 2, 2, 4])
    leaf = logits.clone().requires_grad_()
    value = torch.zeros((), dtype=torch.float64)
    for row, label in enumerate(labels.tolist()):
        others = torch.stack([leaf[row, k] for k in range(6) if k != label])
        against = others.max() if margin else others.exp().sum().log()
        value = value + (leaf[row, label] - against)
    value.backward()
    wanted = leaf.grad if targeted else -leaf.grad
    found = Goal(labels, targeted).cotangent(logits, margin=margin)
    assert torch.allclose(found, wanted, atol=1e-12)


def test_what_is_climbed_has_the_direction_of_cross_entropy_and_does_not_vanish():
    """Of a network that is sure, cross-entropy has no gradient left in fp32; this has."""
    sure = torch.tensor([[200.0, 0.0, 1.0]])
    leaf = sure.clone().requires_grad_()
    nn.functional.cross_entropy(leaf, torch.tensor([0])).backward()
    assert not leaf.grad.any()
    found = Goal(torch.tensor([0]), targeted=False).cotangent(sure, margin=False)
    assert found[0, 0] == -1
    mild = torch.tensor([[1.0, 0.5, 0.2]], requires_grad=True)
    nn.functional.cross_entropy(mild, torch.tensor([0])).backward()
    found = Goal(torch.tensor([0]), targeted=False).cotangent(mild.detach(), margin=False)
    assert torch.nn.functional.cosine_similarity(found, mild.grad) == pytest.approx(1, abs=1e-6)


def test_leads():
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, 4.0, 9.0]])
    assert leads(logits, torch.tensor([0, 1])).tolist() == [0.5, -5.0]


def test_fgsm_is_one_step_along_the_sign(tiny: Classifier):
    x = pictures()
    labels = tiny(as_float(x)).argmax(1)
    leaf = as_float(x).requires_grad_()
    nn.functional.cross_entropy(tiny(leaf), labels).backward()
    wanted = (x.float() + 3 * leaf.grad.sign()).clamp(0, 255)
    made = perturb(tiny, x, budget=Budget("linf", 3 / 255), method="fgsm")
    found = np.stack([one.adversarial for one in made]).transpose(0, 3, 1, 2)
    apart = found != wanted.numpy().astype(np.uint8)
    moved = [len(one.curve) == 2 for one in made]
    assert all(moved)
    assert apart.mean() < 0.002, "but for gradients of nearly 0, whose sign is rounding's"


def test_pgd_reaches_the_optimum_of_a_linear_network():
    """Where the answer is a matrix times the pixels, the best corner of the ball is known."""
    network = linear(2)
    x = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
    label = network(as_float(x)).argmax(1)
    weight = network.network[1].weight.detach() / torch.tensor(network.input.std).repeat_interleave(
        64
    )
    slope = (weight[1 - label] - weight[label])[0]
    goal = Goal(label, targeted=False, aim=1e9)
    attacked, start = Attacked(network, "fp32"), as_float(x)
    before = float(goal.lead(attacked.exact(start)))
    for norm, epsilon, gain in (
        ("linf", 4 / 255, float(slope.abs().sum()) * 4 / 255),
        ("l2", 0.2, float(slope.norm()) * 0.2),
    ):
        found = pgd(attacked, start, goal, Budget(norm, epsilon, grid=False), steps=30)
        assert float(found.leads) == pytest.approx(before + gain, rel=1e-3)
    found = pgd(attacked, start, goal, Budget("linf", 4 / 255), steps=30)
    assert float(found.leads) == pytest.approx(
        before + float(slope.abs().sum()) * 4 / 255, rel=1e-3
    )


def test_deepfool_finds_the_nearest_plane_of_a_linear_network():
    network = linear(5)
    x = as_float(
        torch.randint(90, 160, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    )
    logits = network(x).detach()
    labels = logits.argmax(1)
    weight = network.network[1].weight.detach() / torch.tensor(network.input.std).repeat_interleave(
        64
    )
    change, _ = minimal_changes(Attacked(network, "fp32"), x, Goal(labels, targeted=False))
    for row, label in enumerate(labels.tolist()):
        distance = min(
            float(logits[row, label] - logits[row, k]) / float((weight[label] - weight[k]).norm())
            for k in range(5)
            if k != label
        )
        assert float(lengths(change)[row]) == pytest.approx(1.02 * distance, rel=1e-3)
    assert bool((network(x + change).argmax(1) != labels).all())
    wrong, _ = minimal_changes(Attacked(network, "fp32"), x, Goal((labels + 1) % 5, targeted=False))
    assert not wrong.any(), "a picture that is wrong already needs nothing"


# ---------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 3.4 / 255), ("l2", 0.31)])
def test_everything_on_the_way_is_within_the_budget(norm: str, epsilon: float):
    originals = as_float(pictures())
    budget = Budget(norm, epsilon)
    generator = torch.Generator().manual_seed(1)
    wild = originals + 0.5 * torch.randn(originals.shape, generator=generator)
    near = budget.project(wild, originals)
    grid = budget.on_grid(near, originals)
    for made in (near, grid, budget.start(originals, [generator_of(o, 0, 1) for o in originals])):
        assert float(budget.size(made - originals).max()) <= epsilon + 1e-6
        assert float(made.min()) >= 0
        assert float(made.max()) <= 1
    assert torch.equal((grid * 255).round() / 255, grid)
    assert float(budget.size(grid - originals).min()) > 0.9 * min(
        epsilon, 3 / 255 if norm == "linf" else 1
    )


def test_a_spread_change_survives_the_grid():
    """Rounded to the nearest level it would be nothing at all: that is what undid DeepFool."""
    originals = as_float(pictures(1))
    spread = torch.full_like(originals, 0.3 / 255)
    spread[0, 0] *= 1.2
    assert torch.equal(((originals + spread) * 255).round() / 255, originals)
    kept = Budget("l2", 20 / 255).on_grid(originals + spread, originals) - originals
    assert int((kept != 0).sum()) == 400
    assert not kept[0, 1:].any(), "the largest changes are kept"


def test_random_starts_belong_to_the_picture(tiny: Classifier):
    x = as_float(pictures())
    assert torch.equal(
        torch.rand(3, generator=generator_of(x[2], 5, 1)),
        torch.rand(3, generator=generator_of(x[2].clone(), 5, 1)),
    )
    draws = {
        float(torch.rand((), generator=generator_of(x[row], seed, number)))
        for row, seed, number in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    }
    assert len(draws) == 4


@pytest.mark.parametrize(
    ("text", "value"), [("2/255", 2 / 255), ("0.01", 0.01), ("1e-2", 0.01), (" 4 / 255", 4 / 255)]
)
def test_epsilons_are_read(text: str, value: float):
    assert read_epsilon(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "two", "1/0", "/255", "1/2/3"])
def test_no_epsilon_is_said_so(text: str):
    with pytest.raises(InputError, match="give a fraction such as 2/255"):
        read_epsilon(text)


def test_epsilons_are_said():
    assert epsilon_said(2 / 255, "linf") == "2/255"
    assert epsilon_said(0.5, "l2") == "0.5"


@pytest.mark.parametrize(
    ("norm", "epsilon", "message"),
    [
        ("linf", 0.0, r"epsilon is 0, and an attack changes something.*2/255"),
        ("l2", -1.0, "more than 0, such as 1"),
        ("linf", math.nan, "epsilon is nan"),
        ("linf", 8.0, "such as 8/255"),
        ("linf", 0.5 / 255, "no two 8-bit pictures"),
        ("l1", 0.1, "norm is 'l1'; use linf or l2"),
    ],
)
def test_budgets_out_of_range(norm: str, epsilon: float, message: str):
    with pytest.raises(InputError, match=message):
        Budget(norm, epsilon)


# ---------------------------------------------------------------------------- every attack


@pytest.mark.parametrize(("name", "norm"), CASES)
@pytest.mark.parametrize("targeted", [False, True])
def test_what_is_verified_fools_from_its_png(
    tiny: Classifier, name: str, norm: str, targeted: bool
):
    x = pictures()
    source = int(tiny(as_float(x[:1])).argmax())
    to = tiny.classes[(source + 1) % 4] if targeted else None
    epsilon = 40 / 255 if norm == "linf" else 8.0
    (made,) = perturb(tiny, x[:1], to=to, budget=Budget(norm, epsilon), method=name)
    assert made.verified or name == "fgsm"  # one step is not always enough
    data = io.BytesIO()
    Image.fromarray(made.adversarial).save(data, "PNG")
    said = tiny.probabilities(as_float(tiny.input.load(data))[None])[0].detach()
    assert made.answer == tiny.classes[int(said.argmax())]
    assert float(said[tiny.classes.index(made.target)]) == pytest.approx(made.probability, abs=1e-5)
    change = (made.adversarial.astype(float) - made.original) / 255
    size = abs(change).max() if norm == "linf" else np.sqrt((change**2).sum())
    assert made.distance == pytest.approx(size, rel=1e-6)
    assert size <= epsilon + 1e-6
    assert (made.source, made.method, made.norm) == (tiny.classes[source], name, norm)
    assert made.verified == (made.answer == made.target and made.lead >= MARGIN)
    assert to is None or made.target == to
    first, last = made.curve[0], made.curve[-1]
    assert first[0] == pytest.approx(made.source_probability, abs=1e-4)
    if made.verified and name != "deepfool":
        assert max(point[1] for point in made.curve) == pytest.approx(made.probability, abs=1e-3)
        assert last[1] > first[1]


@pytest.mark.parametrize(("name", "norm"), CASES)
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(
    tiny: Classifier, name: str, norm: str, training: bool, monkeypatch
):
    tiny.train(training)
    for parameter in tiny.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(tiny.parameters()).requires_grad_(False)
    before = state_of(tiny.network)
    budget = Budget(norm, 8 / 255 if norm == "linf" else 1.0)
    perturb(tiny, pictures(2), budget=budget, method=name, steps=2)
    assert same_state(before, state_of(tiny.network))

    calls = 0
    real = Attacked.logits

    def breaks(self: Attacked, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("half-way")
        return real(self, x)

    monkeypatch.setattr(Attacked, "logits", breaks)
    with pytest.raises(RuntimeError, match="half-way"):
        perturb(tiny, pictures(4), budget=budget, method=name, steps=5)
    assert same_state(before, state_of(tiny.network))


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_alone_and_among_others(tiny: Classifier, name: str, norm: str):
    x = pictures(3)
    budget = Budget(norm, 8 / 255 if norm == "linf" else 1.0)
    together = perturb(tiny, x, budget=budget, method=name, steps=6)
    for row, one in enumerate(together):
        (alone,) = perturb(tiny, x[row : row + 1], budget=budget, method=name, steps=6)
        apart = alone.adversarial != one.adversarial
        assert apart.mean() < 0.02
        assert alone.verified == one.verified


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("l2", 2.0)])
def test_noise_of_that_size_is_the_control(norm: str, epsilon: float):
    """Within the budget in which PGD fools every picture, noise moves only the few that stand at a border."""
    made = perturb(linear(4, 32), pictures(12), budget=Budget(norm, epsilon), steps=10)
    assert all(one.verified for one in made)
    assert sum(one.noise_answer != one.source for one in made) <= 3
    assert sum(one.noise_answer == one.target for one in made) <= 3


def test_options_out_of_range(tiny: Classifier):
    x = pictures(1)
    source = tiny.classes[int(tiny(as_float(x)).argmax())]
    with pytest.raises(UnknownName, match=r"no class 'clas 2'.*did you mean 'class 2'"):
        perturb(tiny, x, to="clas 2")
    with pytest.raises(InputError, match=f"taken for '{source}' already"):
        perturb(tiny, x, to=source)
    with pytest.raises(UnknownName, match=r"no attack 'pdg'.*did you mean 'pgd'"):
        perturb(tiny, x, method="pdg")
    with pytest.raises(InputError, match="DeepFool works in l2"):
        perturb(tiny, x, method="deepfool", budget=Budget("linf", 2 / 255))
    with pytest.raises(InputError, match="steps is 0"):
        perturb(tiny, x, steps=0)
    with pytest.raises(InputError, match="off the grid"):
        perturb(tiny, x, budget=Budget("linf", 2 / 255, grid=False))
    with pytest.raises(InputError, match=r"as InputSpec\.load gives them"):
        perturb(tiny, as_float(x))


def test_progress_ends_complete(tiny: Classifier):
    for name, entry in ATTACKS.items():
        told: list[tuple[int, int]] = []
        budget = Budget(entry.norms[0], 2 / 255 if entry.norms[0] == "linf" else 0.3)
        perturb(
            tiny,
            pictures(3),
            method=name,
            budget=budget,
            steps=3,
            on_progress=lambda done, total, told=told: told.append((done, total)),
        )
        assert told[-1][0] == told[-1][1]
        assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_grey_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 3)
    )
    grey = Classifier(network.eval(), InputSpec((16, 16), 1, (0.5,), (0.5,)), ["a", "b", "c"])
    x = (smooth_pictures(1, 1, 16, 16) * 255).round().to(torch.uint8)
    (made,) = perturb(grey, x, budget=Budget("linf", 30 / 255))
    assert made.adversarial.shape == (16, 16, 1)
    assert made.verified
    shown = difference_picture(made, amplification(made))
    assert shown.shape == (16, 16, 1)


def test_the_difference_is_centred_on_grey(tiny: Classifier):
    (made,) = perturb(tiny, pictures(1), budget=Budget("linf", 6 / 255))
    factor = amplification(made)
    change = made.adversarial.astype(int) - made.original
    assert factor * abs(change).max() <= 120
    assert (difference_picture(made, factor).astype(int) == 128 + factor * change).all()
    assert SPEC.size == made.original.shape[:2]


def test_two_starts_are_two_attacks_of_equal_seeds(tiny: Classifier):
    x = as_float(pictures(2))
    labels = tiny(x).argmax(1)
    goal = Goal(labels, targeted=False, aim=1e9)
    attacked = Attacked(tiny, "fp32")
    budget = Budget("linf", 4 / 255)
    once = pgd(attacked, x, goal, budget, steps=4)
    again = pgd(attacked, x, goal, budget, steps=4, restarts=3, seed=1)
    same = pgd(attacked, x, goal, budget, steps=4, restarts=3, seed=1)
    assert torch.equal(again.pictures, same.pictures)
    assert bool((again.leads >= once.leads - 1e-5).all())
