from __future__ import annotations

import os
import signal
import subprocess
import threading
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import SPEC, narrow, same_state, state_of, tiny_classifier
from forks import python
from transferscope.activations import Resumed, TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.data.augmentation import augmentation
from transferscope.errors import DataError, InputError, RunError
from transferscope.files import sha256_file
from transferscope.training.batches import FileBatches, Part, frozen_front
from transferscope.training.checkpoints import Progress
from transferscope.training.fit import Fit, calibrated_loss
from transferscope.training.loop import SHARES, fine_tune, plan_boundary
from transferscope.training.lr_finder import SAFETY, find_rate
from transferscope.training.optimization import make_optimizer, order_of, scheduled_rate, set_rate
from transferscope.training.recipe import Recipe, choose_recipe
from transferscope.training.search import RATES, Settings, Trial, best_trial, draw_settings
from transferscope.training.tail import Tail

FOLDERS = [str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parent)]
"""Where processes that are started here find the tests' own modules."""

BOUNDARY = "stages.1"
PLAIN = Recipe(
    epochs=4, learning_rate=3e-3, batch_size=8, augment="none", patience=0, wise_ft=False
)


def problem(classes: int = 4, n: int = 40, seed: int = 0) -> Part:
    """Activations at the boundary that a tail can learn to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, 8, 16, 16, generator=torch.Generator().manual_seed(9))
    activations = centres[labels] + 0.5 * torch.randn(n, 8, 16, 16, generator=generator)
    return Part.of_tensor(activations.relu(), labels, [f"{i}.png" for i in range(n)])


def mislabelled() -> Part:
    """From which nothing can be learned but to be wrong."""
    part = problem()
    return replace(part, labels=(part.labels + 1) % 4)


def without_dropout():
    start = tiny_classifier()
    start.network.dropout.p = 0.0
    return start


def tuned(start=None, *, recipe=PLAIN, train=None, **options):
    return fine_tune(
        start or tiny_classifier(),
        BOUNDARY,
        train or problem(),
        problem(seed=1),
        recipe=recipe,
        precision="fp32",
        **options,
    )


def bits(result) -> str:
    """Everything about a fit but how long it took."""
    rows = [{**asdict(row), "seconds": 0} for row in result.history]
    state = {k: v.tolist() for k, v in result.classifier.network.state_dict().items()}
    return repr((rows, state))


# ---------------------------------------------------------------------------- learning and freezing


def test_it_learns_and_keeps_the_best_epoch():
    start = tiny_classifier()
    before = state_of(start)
    result = tuned(start)
    assert same_state(before, state_of(start))
    losses = [row.calibrated_loss for row in result.history]
    assert [row.epoch for row in result.history] == [0, 1, 2, 3, 4]
    assert result.best_epoch == losses.index(min(losses)) > 0
    assert [row.best for row in result.history].index(True) == result.best_epoch
    labels = problem(seed=1).labels
    assert calibrated_loss(result.validation_logits, labels) == pytest.approx(min(losses), rel=1e-5)
    best = result.history[result.best_epoch]
    loss = nn.functional.cross_entropy(result.validation_logits, labels)
    assert float(loss) == pytest.approx(best.validation_loss, rel=1e-5)
    assert best.calibrated_loss <= best.validation_loss + 1e-6


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


FAMILIES = {
    "timm/test_efficientnet": None,
    "resnet18": None,
    "mobilenet_v2": None,
    "densenet121": None,
    "vgg11_bn": "features.21",
    "vit": None,
    "swin": None,
    "convnext": None,
}


def transformer(name: str) -> nn.Module:
    """timm's network of that family, small enough for pictures of 32 pixels."""
    from timm.models.convnext import ConvNeXt
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    if name == "vit":
        return VisionTransformer(
            img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=3, num_classes=10
        )
    if name == "swin":
        return SwinTransformer(
            img_size=32,
            patch_size=2,
            embed_dim=12,
            depths=(1, 1, 2),
            num_heads=(1, 2, 4),
            window_size=4,
            num_classes=10,
        )
    return ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), num_classes=10)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("batch_norm", "precision"), [("frozen", "fp32"), ("frozen", "bf16"), ("train", "fp32")]
)
def test_freezing_is_true_on_real_architectures(name, batch_norm, precision):
    if "/" in name:
        loaded = load_backbone(name, weights="random")
        small = Classifier(loaded.network, SPEC, loaded.classes, backbone=loaded.backbone)
    else:
        transformers = name in ("vit", "swin", "convnext")
        network = transformer(name) if transformers else narrow(name)
        small = Classifier(network.eval(), SPEC, list("abcdefghij"))
    start = small.with_head(torch.zeros(2, small.head_layer.in_features), torch.zeros(2), "ab")
    boundary = FAMILIES[name] or plan_boundary(start, 1)
    pictures = torch.rand(4, *start.input.shape, generator=torch.Generator().manual_seed(0))
    pictures = start.input.normalise(pictures)
    with torch.no_grad():
        front = TruncatedForward(start.network, [boundary], start.example())
        activations = front(pictures)[boundary]
    part = Part.of_tensor(activations, torch.tensor([0, 1, 0, 1]))
    recipe = replace(PLAIN, epochs=1, batch_size=2, batch_norm=batch_norm)
    tail = Tail(start, boundary, precision=precision, batch_norm=batch_norm)
    with tail.training(0):  # no frozen BatchNorm is ever in train mode, and the others are as asked
        for key, module in tail.classifier.network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                behind = f"{key}.weight" in tail.parameters
                assert module.training == (behind and batch_norm == "train"), key
    old = start.network.state_dict()
    kept: dict[int, object] = {}
    fine_tune(
        start,
        boundary,
        part,
        part,
        recipe=recipe,
        precision=precision,
        keep_every=1,
        on_keep=lambda epoch, classifier: kept.update({epoch: classifier}),
    )
    new = kept[1].network.state_dict()
    behind = {*tail.parameters, *tail.buffers}
    assert 0 < len(behind) < len(old)
    for key in old:
        statistics = "running_" in key or "num_batches" in key
        if key not in behind or (statistics and batch_norm == "frozen"):
            assert torch.equal(old[key], new[key]), key
    moved = [key for key in behind if not torch.equal(old[key], new[key])]
    assert f"{start.head}.weight" in moved
    norms = [key for key in behind if "running_mean" in key]
    if batch_norm == "train" and norms:
        assert any(not torch.equal(old[key], new[key]) for key in norms)


@pytest.mark.parametrize("name", ["vit", "swin", "convnext"])
def test_what_no_gradient_reaches_is_not_moved_by_weight_decay(name):
    """The root's position embedding plays no part behind a boundary; the saved network is the validated one."""
    start = Classifier(transformer(name).eval(), SPEC, list("abcdefghij"))
    boundary = plan_boundary(start, 1)
    tail = Tail(start, boundary)
    assert not {"pos_embed", "cls_token"} & set(tail.parameters)
    assert f"{start.head}.weight" in tail.parameters
    recipe = replace(PLAIN, epochs=2, batch_size=2, weight_decay=0.5, learning_rate=0.1)
    with torch.no_grad():
        pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        activations = TruncatedForward(start.network, [boundary], start.example())(pictures)[
            boundary
        ]
    labels = torch.tensor([0, 1, 0, 1])
    part = Part.of_tensor(activations, labels)
    result = fine_tune(start, boundary, part, part, recipe=recipe, precision="fp32")
    old, new = start.network.state_dict(), result.classifier.network.state_dict()
    for key in ("pos_embed", "cls_token"):
        assert key not in old or torch.equal(old[key], new[key]), key
    with torch.no_grad():
        answers = result.classifier.network(pictures)
    torch.testing.assert_close(answers, result.validation_logits, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_is_put_where_the_network_is(monkeypatch):
    """As on a GPU: a file's tensors are on the CPU, and those that are trained are not."""
    recipe = replace(PLAIN, ema=0.9)
    fit = Fit(tiny_classifier(), BOUNDARY, problem(), recipe=recipe, precision="fp32")
    saved = fit.saved(Progress(), fit.tail.weights())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fit.tail.classifier.network._apply(lambda t: mode.from_tensor(t.detach()).to("cuda"))
        for name, parameter in fit.tail.classifier.network.named_parameters():
            if name in fit.tail.parameters:
                fit.tail.parameters[name] = parameter
        monkeypatch.setattr(type(fit.tail), "load", lambda *_: None)
        monkeypatch.setattr("transferscope.training.fit.load_state", lambda *_: None)
        fit.restore(saved)
        best = fit.tail.placed(saved.kinds["best"])
    assert {tensor.device.type for tensor in fit._average.weights.values()} == {"cuda"}
    assert {tensor.device.type for tensor in best.values()} == {"cuda"}


def test_the_whole_network_is_tuned_without_a_boundary(tmp_path):
    start = tiny_classifier()
    part = picture_part(tmp_path, start, seed=0)
    recipe = replace(PLAIN, epochs=2, batch_norm="train", learning_rate=1e-3)
    result = fine_tune(start, None, part, part, recipe=recipe, precision="fp32")
    old, new = start.network.state_dict(), result.classifier.network.state_dict()
    assert result.best_epoch > 0
    assert not torch.equal(old["stem.weight"], new["stem.weight"])
    assert result.history[2].train_loss < result.history[1].train_loss


# ---------------------------------------------------------------------------- batches from files


def picture_part(folder: Path, classifier, *, seed: int, augment="none", front=None) -> Part:
    rng = np.random.default_rng(seed)
    files = []
    for number in range(12):
        tint = np.array([200, 40, 40]) if number % 4 < 2 else np.array([30, 60, 220])
        pixels = (tint + rng.integers(0, 50, (40, 40, 3))).clip(0, 255).astype(np.uint8)
        files.append(folder / f"{seed}-{number}.png")
        Image.fromarray(pixels).save(files[-1])
    hashes = [sha256_file(file) for file in files]
    batches = FileBatches(classifier, files, hashes, augmentation(augment), 0, front)
    return Part(batches, torch.arange(12) % 4, [file.name for file in files])


def test_files_decoded_in_the_loop_give_what_the_cache_gives(tmp_path):
    from transferscope.features.extraction import boundary_rows

    start = without_dropout()
    front = frozen_front(start, BOUNDARY, "fp32")
    part = picture_part(tmp_path, start, seed=0, front=front)
    hashes = [sha256_file(file) for file in part.batches.files]
    rows = boundary_rows(start, part.batches.files, hashes, BOUNDARY, precision="fp32")
    chunks = torch.arange(12).split(5)
    for given, chunk in zip(part.batches.of(0, chunks), chunks, strict=True):
        assert torch.allclose(given, rows[chunk].float(), rtol=2e-3, atol=2e-3)
    cached = Part.of_tensor(rows[torch.arange(12)], part.labels)
    recipe = replace(PLAIN, epochs=1)
    one = fine_tune(start, BOUNDARY, part, part, recipe=recipe, precision="fp32")
    other = fine_tune(start, BOUNDARY, cached, cached, recipe=recipe, precision="fp32")
    assert torch.allclose(one.validation_logits, other.validation_logits, atol=5e-3)


def test_augmentation_is_a_function_of_epoch_and_picture_not_of_the_batch(tmp_path):
    part = picture_part(tmp_path, tiny_classifier(), seed=0, augment="light")

    def seen(epoch, chunks):
        return torch.cat(list(part.batches.of(epoch, chunks)))

    together = seen(1, [torch.arange(12)])
    order = torch.tensor([7, 3, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10])
    alone = seen(1, order.split(1))
    assert torch.equal(together[order], alone)
    assert not torch.equal(together, seen(2, [torch.arange(12)]))
    plain = seen(0, [torch.arange(12)])
    assert torch.equal(
        plain[0], SPEC.normalise(SPEC.load(part.batches.files[0]).float().div(255)[None])[0]
    )


# ---------------------------------------------------------------------------- repeatable, resumable


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    first, again = tuned(), tuned()
    assert bits(first) == bits(again)
    other = tuned(recipe=replace(PLAIN, seed=1))
    assert other.classifier.body_hash() != first.classifier.body_hash()


class Watched:
    """Batches that remember which pictures were asked for, by epoch."""

    def __init__(self, part: Part):
        self.part = part
        self.orders: dict[int, list[int]] = {}

    def of(self, epoch, chunks):
        self.orders[epoch] = torch.cat(list(chunks)).tolist()
        return self.part.batches.of(epoch, chunks)


def test_every_epoch_has_an_order_of_its_own_the_same_in_every_run():
    orders = []
    for seed in (0, 0, 1):
        part = problem()
        watched = Watched(part)
        tuned(train=replace(part, batches=watched), recipe=replace(PLAIN, seed=seed))
        orders.append(watched.orders)
    first, again, other = orders
    assert first == again
    assert set(first) == {1, 2, 3, 4}
    assert all(sorted(order) == list(range(40)) for order in first.values())
    assert len({tuple(order) for order in [*first.values(), *other.values()]}) == 8


def test_no_global_random_state_is_touched():
    start = tiny_classifier()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tuned(start, recipe=replace(PLAIN, epochs=1, augment="strong"))
    assert torch.equal(torch.rand(3), expected)


def test_tuning_never_ends_with_a_higher_validation_loss_than_it_began():
    good = tuned().classifier
    result = tuned(good, train=mislabelled(), recipe=replace(PLAIN, epochs=2))
    assert result.best_epoch == 0
    assert result.classifier.body_hash() == good.body_hash()


class _Killed(Exception):
    pass


RICH = replace(PLAIN, ema=0.9, augment="strong", balance="weights", batch_norm="train")


@pytest.mark.parametrize("recipe", [PLAIN, RICH, replace(PLAIN, optimizer="sgd", gradual=True)])
@pytest.mark.parametrize("after", [1, 3])
def test_a_fit_killed_after_an_epoch_continues_to_the_same_bits(tmp_path, after, recipe):
    whole = tuned(recipe=recipe)

    def stop(row):
        if row.epoch == after:
            raise _Killed

    with pytest.raises(_Killed):
        tuned(checkpoints=tmp_path, on_epoch=stop, recipe=recipe)
    assert len(list(tmp_path.glob("step-*"))) == 2
    seen = []
    resumed = tuned(
        checkpoints=tmp_path, on_epoch=lambda row: seen.append(row.epoch), recipe=recipe
    )
    assert seen == [0, 1, 2, 3, 4]
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize("at", [1, 7, 10, 20])
def test_ctrl_c_finishes_the_step_saves_and_continues_to_the_same_bits(tmp_path, at):
    whole, before = tuned(recipe=RICH), signal.getsignal(signal.SIGINT)

    def press(done, total):
        if done == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tuned(checkpoints=tmp_path, on_step=press, recipe=RICH)
    newest = max(tmp_path.glob("step-*")).name
    assert newest == f"step-{min(at + 1, 20):09d}.safetensors"
    assert signal.getsignal(signal.SIGINT) is before
    assert bits(tuned(checkpoints=tmp_path, recipe=RICH)) == bits(whole)


def test_a_second_ctrl_c_interrupts_at_once():
    from transferscope.training.loop import _interrupts

    def press_twice():
        with _interrupts() as wished:
            os.kill(os.getpid(), signal.SIGINT)
            assert wished()
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second one was ignored")

    with pytest.raises(KeyboardInterrupt):
        press_twice()


def test_it_runs_outside_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(tuned(recipe=replace(PLAIN, epochs=1))))
    thread.start()
    thread.join()
    assert bits(results[0]) == bits(tuned(recipe=replace(PLAIN, epochs=1)))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    whole = tuned(checkpoints=tmp_path)
    newest = max(tmp_path.glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert bits(tuned(checkpoints=tmp_path)) == bits(whole)


def test_checkpoints_of_other_settings_or_another_start_are_refused(tmp_path):
    tuned(checkpoints=tmp_path)
    with pytest.raises(RunError, match="other settings"):
        tuned(checkpoints=tmp_path, recipe=replace(PLAIN, epochs=5))
    with pytest.raises(RunError, match="other settings"):
        tuned(tiny_classifier(seed=1), checkpoints=tmp_path)


# ---------------------------------------------------------------------------- one step


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_pictures(tmp_path):
    part = problem()
    activations = part.batches.rows(0).clone()
    activations[3] = float("nan")
    broken = Part.of_tensor(activations, part.labels, part.names)
    with pytest.raises(DataError, match=r"not finite at step \d of epoch 1, for 3\.png; look"):
        tuned(train=broken, checkpoints=tmp_path)
    with pytest.raises(DataError, match=r"for 3\.png;"):  # the checkpoint of the start is whole
        tuned(train=broken, checkpoints=tmp_path)


def test_accumulation_is_the_same_step_in_less_memory():
    start = without_dropout()
    whole = tuned(start, recipe=replace(PLAIN, epochs=2))
    parts = tuned(start, recipe=replace(PLAIN, epochs=2, accumulate=3))
    assert whole.history[2].train_loss == pytest.approx(parts.history[2].train_loss, rel=1e-4)
    assert torch.allclose(whole.validation_logits, parts.validation_logits, atol=1e-3)


def test_gradients_are_clipped_to_the_norm_asked_for():
    start = without_dropout()
    sgd = replace(PLAIN, epochs=1, optimizer="sgd", weight_decay=0.0, batch_size=40, warmup=0.0)
    moved = {}
    for clip in (1e-3, 2e-3):
        kept = {}
        tuned(
            start,
            recipe=replace(sgd, clip=clip, head_rate=1.0),
            keep_every=1,
            on_keep=lambda epoch, classifier, kept=kept: kept.update({epoch: classifier}),
        )
        old, new = start.network.state_dict(), kept[1].network.state_dict()
        moved[clip] = sum(float((new[k] - old[k]).float().square().sum()) for k in old) ** 0.5
    assert moved[2e-3] == pytest.approx(2 * moved[1e-3], rel=0.02)


def test_the_rate_warms_up_and_falls_to_zero():
    recipe = replace(PLAIN, learning_rate=0.5, warmup=0.2)
    rates = [scheduled_rate(recipe, step, 50) for step in range(50)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert rates[-1] < 0.002


def test_rates_are_discriminative_by_stage_and_the_head_has_its_own():
    recipe = replace(PLAIN, layer_decay=0.5, head_rate=0.1)
    optimizer = make_optimizer(Tail(tiny_classifier(), "stem"), recipe)
    set_rate(optimizer, 1.0)
    rates = {group["depth"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {0: 0.1, 1: 1.0, 2: 0.5, 3: 0.25}
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0.0, recipe.weight_decay}


def test_gradual_unfreezing_begins_with_the_last_stage():
    kept = {}
    fine_tune(
        tiny_classifier(),
        "stem",
        Part.of_tensor(problem().batches.rows(0), problem().labels),
        problem(seed=1),
        recipe=replace(PLAIN, gradual=True),
        precision="fp32",
        keep_every=1,
        on_keep=lambda epoch, classifier: kept.update({epoch: classifier.network.state_dict()}),
    )

    def moved(epoch):
        names = [f"stages.{n}.conv1.weight" for n in range(3)]
        return [not torch.equal(kept[0][name], kept[epoch][name]) for name in names]

    assert [moved(epoch) for epoch in (1, 2, 3)] == [
        [False, False, True],
        [False, True, True],
        [True, True, True],
    ]


def test_early_stopping_waits_for_its_patience_and_restores_the_best():
    good = tuned().classifier
    recipe = replace(PLAIN, epochs=12, patience=2)
    result = tuned(good, train=mislabelled(), recipe=recipe)
    losses = [row.calibrated_loss for row in result.history[1:]]
    assert 3 <= len(losses) < 12
    assert len(losses) - 1 - losses.index(min(losses)) == 2
    assert len(tuned(good, train=mislabelled(), recipe=replace(recipe, patience=0)).history) == 13
    assert result.best_epoch == 0
    assert result.classifier.body_hash() == good.body_hash()


def test_averaged_weights_are_what_is_evaluated_and_kept():
    plain, average = tuned(), tuned(recipe=replace(PLAIN, ema=0.9))
    assert plain.history[1].train_loss == average.history[1].train_loss
    assert plain.history[4].validation_loss != average.history[4].validation_loss
    again = tuned(recipe=replace(PLAIN, ema=1e-9))  # an average without memory
    assert again.history[4].validation_loss == pytest.approx(
        plain.history[4].validation_loss, rel=1e-4
    )


def test_tuned_weights_are_mixed_with_the_starts_where_that_lowers_the_loss():
    start = tiny_classifier()
    plain, mixed = tuned(start), tuned(start, recipe=replace(PLAIN, wise_ft=True))
    assert plain.share == 1
    assert bits(plain).split("stem")[0] == bits(mixed).split("stem")[0]  # the same history
    labels = problem(seed=1).labels
    losses = {}
    for share in SHARES:
        state = start.network.state_dict()
        state = {
            name: tensor.lerp(plain.classifier.network.state_dict()[name], share)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in state.items()
        }
        again = tiny_classifier()
        again.network.load_state_dict(state)
        with torch.no_grad():
            rest = Resumed(again.network, BOUNDARY, again.example())
            losses[share] = calibrated_loss(rest(problem(seed=1).batches.rows(0)), labels)
    assert mixed.share == min(losses, key=losses.__getitem__)
    assert calibrated_loss(mixed.validation_logits, labels) == pytest.approx(
        losses[mixed.share], rel=1e-3
    )


def test_a_start_that_stays_the_best_is_not_mixed():
    good = tuned().classifier
    recipe = replace(PLAIN, epochs=2, wise_ft=True)
    result = tuned(good, train=mislabelled(), recipe=recipe)
    assert (result.best_epoch, result.share) == (0, 1)
    assert result.classifier.body_hash() == good.body_hash()


def test_classes_of_unequal_size_are_balanced():
    labels = torch.tensor([0] * 90 + [1] * 10)
    drawn = order_of(labels, replace(PLAIN, balance="sampling"), torch.Generator().manual_seed(0))
    assert 0.3 < float((labels[drawn] == 1).float().mean()) < 0.7
    plain = order_of(labels, PLAIN, torch.Generator().manual_seed(0))
    assert sorted(plain.tolist()) == list(range(100))

    rare = torch.cat([torch.arange(36) % 3, torch.tensor([3] * 4)])
    part = Part.of_tensor(problem().batches.rows(0), rare)
    recalls = {}
    for balance in ("none", "weights"):
        result = tuned(train=part, recipe=replace(PLAIN, epochs=1, balance=balance))
        recalls[balance] = float(result.validation_logits.softmax(1)[:, 3].mean())
    assert recalls["weights"] > recalls["none"]


# ---------------------------------------------------------------------------- several processes

TWO = """
import json, sys
sys.path[:0] = {tests!r}
import torch
torch.set_num_threads(1)
import test_loop as t
from dataclasses import asdict, replace
from transferscope import distributed as d

class Counting:
    def __init__(self, part): self.part, self.seen = part, []
    def of(self, epoch, chunks):
        if epoch: self.seen += [int(i) for chunk in chunks for i in chunk]
        return self.part.batches.of(epoch, chunks)

with d.joined():
    part = t.problem()
    counting = Counting(part)
    train = t.Part(counting, part.labels, part.names)
    recipe = replace(t.PLAIN, batch_size=13, epochs=2, accumulate=2)  # the last batch has one
    result = t.tuned(t.without_dropout(), train=train, recipe=recipe)
    seen = [n for share in d.gathered(counting.seen) for n in share]
    if d.is_first():
        state = result.classifier.network.state_dict()
        torch.save(state, {out!r} + f"/{{d.world()}}.pt")
        rows = [{{k: v or 0.0 for k, v in asdict(row).items()}} for row in result.history]
        print(json.dumps({{"world": d.world(), "seen": seen, "rows": rows}}))
"""


def test_two_processes_give_what_one_gives_and_see_each_picture_once(tmp_path, capsys):
    import json

    program = tmp_path / "two.py"
    program.write_text(TWO.format(tests=FOLDERS, out=str(tmp_path)))
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [*python(), "-m", *launch, *python(), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    exec(program.read_text(), {})
    told = {1: capsys.readouterr().out, 2: done.stdout}
    answers = {count: json.loads(said.strip().splitlines()[-1]) for count, said in told.items()}
    states = {n: torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2)}
    assert [answers[count]["world"] for count in (1, 2)] == [1, 2]
    for answer in answers.values():  # two epochs: each picture twice in all
        assert sorted(answer["seen"]) == sorted([*range(40), *range(40)])
    for one, two in zip(answers[1]["rows"], answers[2]["rows"], strict=True):
        assert {**one, "seconds": 0} == pytest.approx({**two, "seconds": 0}, rel=1e-3, abs=1e-5)
    for name, tensor in states[1].items():
        assert torch.allclose(tensor.float(), states[2][name].float(), atol=2e-3), name


# ---------------------------------------------------------------------------- rate and search


def test_the_range_test_suggests_a_rate_below_the_one_that_diverges():
    start = tiny_classifier()
    before = state_of(start)
    test = find_rate(start, BOUNDARY, problem(), recipe=PLAIN, precision="fp32", steps=60)
    assert same_state(before, state_of(start))
    assert all(a < b for a, b in pairwise(test.rates))
    lowest = test.rates[test.smoothed.index(min(test.smoothed))]
    assert test.suggestion == pytest.approx(lowest / SAFETY)
    assert test.found
    better = tuned(start, recipe=replace(PLAIN, learning_rate=test.suggestion))
    assert better.best_epoch > 0


def test_where_the_loss_falls_at_no_rate_the_recipes_stays(monkeypatch):
    def rising(self, chunks, rate_of):
        for number in range(len(chunks)):
            yield number, rate_of(number), 1.0 + number

    monkeypatch.setattr(Fit, "at_rates", rising)
    test = find_rate(tiny_classifier(), BOUNDARY, problem(), recipe=PLAIN, precision="fp32")
    assert not test.found
    assert test.suggestion == PLAIN.learning_rate
    assert len(test.rates) < 100  # it ended once the loss had diverged


def test_a_longer_search_begins_with_the_trials_of_a_shorter_one():
    first = Settings("linear", "b", 3e-4, "light")
    few = draw_settings(first, ["a", "b"], count=4, seed=0)
    many = draw_settings(first, ["a", "b"], count=40, seed=0)
    assert many[:4] == few
    assert few[0] == first
    rates = [one.learning_rate for one in many[1:]]
    assert RATES[0] <= min(rates) < 2e-4
    assert 1e-3 < max(rates) <= RATES[1]
    assert {one.head for one in many} == {"linear", "mlp"}
    assert {one.augment for one in many} == {"none", "light", "strong"}
    assert {one.boundary for one in many} == {"a", "b"}
    assert draw_settings(first, ["a", "b"], count=4, seed=1) != few
    with pytest.raises(InputError, match="--search is 0"):
        draw_settings(first, ["a"], count=0, seed=0)


def test_the_best_trial_has_the_highest_accuracy_then_the_lowest_loss():
    settings = Settings("linear", "b", 3e-4, "light")
    scores = [(0.9, 0.5), (0.92, 0.6), (0.92, 0.4)]
    trials = [Trial(n, settings, top1, loss, 1.0) for n, (top1, loss) in enumerate(scores)]
    assert best_trial(trials).number == 2
    assert Trial.from_dict(trials[0].to_dict()) == trials[0]


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", 30.0, "learning rate is 30"),
        ("epochs", 0, "epochs is 0"),
        ("views", 0, "views is 0"),
        ("accumulate", 0, "accumulate is 0"),
        ("ema", 1.0, "ema is 1"),
        ("label_smoothing", -0.1, "label smoothing is -0.1"),
        ("patience", -1, "patience is -1"),
        ("layer_decay", 0.0, "layer decay is 0"),
        ("optimizer", "adam", "optimizer is 'adam'"),
        ("balance", "yes", "balance is 'yes'"),
        ("augment", "much", "much"),
    ],
)
def test_recipes_out_of_range_are_refused(field, value, message):
    with pytest.raises(InputError, match=message):
        Recipe(**{field: value})


def test_recipes_follow_the_strategy_and_what_is_given():
    assert choose_recipe("partial", {}) == Recipe()
    assert choose_recipe("scratch", {}).batch_norm == "train"
    assert choose_recipe("full", {"epochs": 3, "ema": None}).epochs == 3
    slow, fast = (choose_recipe("full", {"optimizer": o}).learning_rate for o in ("adamw", "sgd"))
    assert fast > slow
    with pytest.raises(InputError, match="no 'speed'"):
        choose_recipe("partial", {"speed": 1})


def test_boundaries_out_of_range_are_refused():
    network = load_backbone("timm/test_efficientnet", weights="random")
    with pytest.raises(InputError, match="--unfreeze is 99"):
        plan_boundary(network, 99)
    with pytest.raises(InputError, match="--unfreeze is 0"):
        plan_boundary(network, 0)


def test_half_precision_is_for_gpus():
    with pytest.raises(InputError, match="fp16"):
        fine_tune(tiny_classifier(), BOUNDARY, problem(), problem(), recipe=PLAIN, precision="fp16")
