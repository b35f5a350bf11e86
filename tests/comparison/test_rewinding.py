"""Stages set back to base's weights: against a network put together by hand, and what it gives back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_patching import BOUNDARY, LABELS, LAYERS, losses, moved, pictures, rows_of

from conftest import same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.comparison.rewinding import Rewinding, rewind_stages
from transferscope.copies import copied
from transferscope.errors import InputError, UnknownName

STAGES = (*LAYERS, "head")


def networks() -> tuple[Classifier, Classifier]:
    """Of which each has some pictures right that the other has not."""
    base = tiny_classifier()
    tuned = moved(base, by=0.2)
    tuned.network.head.bias.data -= tuned(pictures()).mean(0)
    base.network.head.bias.data -= base(pictures()).mean(0)
    return base, tuned


def by_hand(base: Classifier, tuned: Classifier, *stages: str) -> torch.Tensor:
    """Logits of the tuned network with whole modules of base in it."""
    network = copied(tuned.network)
    for stage in stages:
        network.set_submodule(stage, copied(base.network).get_submodule(stage))
    with torch.no_grad():
        return tuned.with_network(network)(pictures()) / tuned.temperature


def test_a_stage_set_back_is_bases_module_in_the_tuned_network():
    base, tuned = networks()
    tuned.temperature = 0.7
    found = rewind_stages(base, tuned, BOUNDARY, rows_of(base, pictures()), LABELS, LAYERS)
    assert tuple(one.stage for one in found.stages) == STAGES
    old = base(pictures()).argmax(1).numpy() == LABELS
    plain = by_hand(base, tuned)
    new = plain.argmax(1).numpy() == LABELS
    assert found.flips.won == tuple(np.flatnonzero(new & ~old))
    assert found.flips.lost == tuple(np.flatnonzero(old & ~new))
    assert found.flips.both == (old & new).sum()
    assert found.flips.neither == (~old & ~new).sum()
    assert found.flips.won
    assert found.flips.lost
    for one in found.stages:
        logits = by_hand(base, tuned, one.stage)
        right = logits.argmax(1).numpy() == LABELS
        assert one.effect.loss == pytest.approx((losses(logits) - losses(plain)).mean(), abs=1e-4)
        assert one.effect.accuracy == pytest.approx(right.mean() - new.mean())
        assert one.gives_back == tuple(i for i in found.flips.lost if right[i])
        assert one.takes_away == tuple(i for i in found.flips.won if not right[i])
        assert not one.identical
    assert any(one.gives_back for one in found.stages)
    picture = next(one.gives_back[0] for one in found.stages if one.gives_back)
    assert found.given_back_by(picture) == tuple(
        one.stage for one in found.stages if picture in one.gives_back
    )
    assert found.given_back_by(found.flips.won[0]) == ()


def test_the_stages_together_are_the_whole_tuning():
    """One stage behind the boundary and the head: with both set back tuned is base."""
    base, tuned = networks()
    tuned.network.head.load_state_dict(base.network.head.state_dict())
    found = rewind_stages(base, tuned, BOUNDARY, rows_of(base, pictures()), LABELS, ["stages.2"])
    whole, head = found.stages
    assert head.identical
    assert head.effect.loss == 0
    assert head.effect.p == 1
    assert whole.effect.loss == pytest.approx(-found.transfer.loss, abs=1e-4)
    assert whole.gives_back == found.flips.lost
    assert whole.takes_away == found.flips.won


def test_a_network_against_itself_has_nothing_to_set_back():
    base, _ = networks()
    same = base.with_network(copied(base.network))
    found = rewind_stages(base, same, BOUNDARY, rows_of(base, pictures()), LABELS, LAYERS)
    assert found.transfer.loss == 0
    assert found.transfer.p == 1
    assert not found.flips.won
    assert not found.flips.lost
    for one in found.stages:
        assert one.identical
        assert (one.effect.loss, one.effect.p) == (0, 1)
        assert one.effect.accuracy_low < 0 < one.effect.accuracy_high
        assert not one.gives_back


def test_records_survive_and_networks_stay_as_they_were():
    base, tuned = networks()
    tuned.network.train()
    before, heard = [state_of(one.network) for one in (base, tuned)], []
    rows = rows_of(base, pictures())

    def progress(done: int, total: int) -> None:
        heard.append((done, total))

    found = rewind_stages(base, tuned, BOUNDARY, rows, LABELS, LAYERS, on_progress=progress)
    assert Rewinding.from_dict(found.to_dict()) == found
    assert heard == [(done, 5) for done in range(1, 6)]
    halved = rewind_stages(base, tuned, BOUNDARY, rows, LABELS, LAYERS, batch_size=7)
    assert halved.transfer.loss == pytest.approx(found.transfer.loss, abs=1e-5)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewind_stages(base, tuned, BOUNDARY, rows, LABELS, LAYERS, on_progress=stop)
    for known, one in zip(before, (base, tuned), strict=True):
        assert same_state(known, state_of(one.network))


def test_what_cannot_be_set_back_is_refused():
    base, tuned = networks()
    rows = rows_of(base, pictures())
    with pytest.raises(InputError, match=r"'stages.1' has no weights of its own"):
        rewind_stages(base, tuned, BOUNDARY, rows, LABELS, LAYERS[::-1])
    with pytest.raises(InputError, match=r"'stages.0' has no weights"):
        rewind_stages(base, tuned, BOUNDARY, rows, LABELS, [BOUNDARY])
    with pytest.raises(UnknownName, match=r"stages\.5"):
        rewind_stages(base, tuned, BOUNDARY, rows, LABELS, ["stages.5"])
    with pytest.raises(InputError, match="40 pictures and 39 labels"):
        rewind_stages(base, tuned, BOUNDARY, rows, LABELS[1:], LAYERS)
