from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from conftest import same_state, state_of, tiny_classifier
from transferscope.backbones import load_backbone
from transferscope.errors import DataError, InputError, RunError
from transferscope.training import Recipe, fine_tune, plan_boundary
from transferscope.training.loop import _set_rate

BOUNDARY = "stages.1"


def problem(classes: int = 4, n: int = 40, seed: int = 0):
    """Activations at the boundary that a tail can learn to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, 8, 16, 16, generator=torch.Generator().manual_seed(9))
    activations = centres[labels] + 0.5 * torch.randn(n, 8, 16, 16, generator=generator)
    return activations.relu(), labels


def tuned(start=None, *, recipe=None, **options):
    return fine_tune(
        start or tiny_classifier(),
        BOUNDARY,
        problem(),
        problem(seed=1),
        recipe=recipe or Recipe(epochs=4, learning_rate=3e-3, batch_size=8),
        precision="fp32",
        **options,
    )


def test_it_learns_and_keeps_the_best_epoch():
    start = tiny_classifier()
    before = state_of(start)
    result = tuned(start)
    assert same_state(before, state_of(start))
    losses = [row.validation_loss for row in result.history]
    assert [row.epoch for row in result.history] == [0, 1, 2, 3, 4]
    assert result.best_epoch == losses.index(min(losses)) > 0
    assert [row.best for row in result.history].index(True) == result.best_epoch
    loss = nn.functional.cross_entropy(result.validation_logits, problem(seed=1)[1])
    assert float(loss) == pytest.approx(min(losses), rel=1e-5)


def test_what_is_frozen_stays_bit_identical_buffers_included():
    start = tiny_classifier()
    result = tuned(start)
    old, new = start.network.state_dict(), result.classifier.network.state_dict()
    for name in old:
        frozen = name.startswith(("stem", "stages.0", "stages.1"))
        statistics = "running_" in name or "num_batches" in name
        if frozen or statistics:
            assert torch.equal(old[name], new[name]), name
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert {"stages.2.conv1.weight", "head.weight"} <= set(changed)
    assert not any(module.training for module in result.classifier.modules())
    assert all(p.requires_grad and p.grad is None for p in result.classifier.parameters())


@pytest.mark.parametrize(
    "name", ["timm/test_efficientnet", "torchvision/resnet18", "torchvision/mobilenet_v2"]
)
def test_frozen_batchnorm_is_true_on_real_architectures(name):
    start = load_backbone(name, weights="random")
    start = start.with_head(torch.zeros(2, start.head_layer.in_features), torch.zeros(2), "ab")
    boundary = plan_boundary(start, 1)
    from transferscope.activations import TruncatedForward

    x = torch.randn(4, *start.example().shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        activation = TruncatedForward(start.network, [boundary], start.example())(x)[boundary]
    labels = torch.tensor([0, 1, 0, 1])
    recipe = Recipe(epochs=1, batch_size=2, learning_rate=1e-3)
    result = fine_tune(start, boundary, (activation, labels), (activation, labels), recipe=recipe)
    old, new = start.network.state_dict(), result.classifier.network.state_dict()
    for key in old:
        if "running_" in key or "num_batches" in key:
            assert torch.equal(old[key], new[key]), key


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    first, again = tuned(), tuned()
    assert first.classifier.body_hash() == again.classifier.body_hash()
    other = tuned(recipe=Recipe(epochs=4, learning_rate=3e-3, batch_size=8, seed=1))
    assert other.classifier.body_hash() != first.classifier.body_hash()


def test_tuning_never_ends_with_a_higher_validation_loss_than_it_began():
    wild = Recipe(epochs=2, learning_rate=0.9, batch_size=8)
    good = tuned().classifier
    result = tuned(good, recipe=wild)
    assert result.best_epoch == 0
    assert result.classifier.body_hash() == good.body_hash()


class _Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_fit_continues_to_the_same_bits(tmp_path, after):
    whole = tuned()

    def stop(row):
        if row.epoch == after:
            raise _Killed

    with pytest.raises(_Killed):
        tuned(checkpoints=tmp_path, on_epoch=stop)
    assert len(list(tmp_path.glob("epoch-*"))) == min(after, 2)
    seen = []
    resumed = tuned(checkpoints=tmp_path, on_epoch=lambda row: seen.append(row.epoch))
    assert seen == [0, 1, 2, 3, 4]
    new, old = (r.classifier.network.state_dict() for r in (resumed, whole))
    assert all(torch.equal(new[key], old[key]) for key in old)
    assert resumed.best_epoch == whole.best_epoch
    assert [r.train_loss for r in resumed.history] == [r.train_loss for r in whole.history]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    whole = tuned(checkpoints=tmp_path)
    newest = max(tmp_path.glob("epoch-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert tuned(checkpoints=tmp_path).classifier.body_hash() == whole.classifier.body_hash()


def test_checkpoints_of_other_settings_are_refused(tmp_path):
    tuned(checkpoints=tmp_path)
    with pytest.raises(RunError, match="other settings"):
        tuned(checkpoints=tmp_path, recipe=Recipe(epochs=5))


def test_a_loss_that_is_not_finite_stops_and_names_the_pictures():
    activations, labels = problem()
    activations[3] = float("nan")
    names = [f"{i}.png" for i in range(40)]
    with pytest.raises(DataError, match=r"the loss is nan at step \d+ of epoch 1.*\.png"):
        fine_tune(
            tiny_classifier(),
            BOUNDARY,
            (activations, labels),
            problem(seed=1),
            recipe=Recipe(epochs=1, batch_size=40),
            names=names,
            precision="fp32",
        )


def test_the_rate_warms_up_and_falls_to_zero_the_head_a_tenth():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [p], "scale": s} for p, s in zip(parameters, (1.0, 0.1), strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    recipe = Recipe(learning_rate=0.5, warmup=0.2)
    rates = [_set_rate(optimizer, recipe, step, 50) for step in range(50)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert rates[-1] < 0.002
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.1 * optimizer.param_groups[0]["lr"])


def test_recipes_and_boundaries_out_of_range_are_refused():
    with pytest.raises(InputError, match="learning rate is 3"):
        Recipe(learning_rate=3.0)
    with pytest.raises(InputError, match="epochs is 0"):
        Recipe(epochs=0)
    network = load_backbone("timm/test_efficientnet", weights="random")
    with pytest.raises(InputError, match="--unfreeze is 99"):
        plan_boundary(network, 99)
    with pytest.raises(InputError, match="--unfreeze is 0"):
        plan_boundary(network, 0)
