"""When channels learned: a planted time is found, and noise has none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from transferscope.comparison.timeline import LayerTimeline, first_lasting, timelines
from transferscope.comparison.witnesses.class_information import class_information
from transferscope.errors import InputError

CLASSES, EACH, CHANNELS = 8, 20, 40
LABELS = np.repeat(np.arange(CLASSES), EACH)
EPOCHS = (1, 2, 4, 6, 8)


def training(seed: int, planted: int | None, *, noise: float = 0.5):
    """Channels 0 to 19 know the classes from epoch `planted` on; the others never know more than before."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(CLASSES, CHANNELS))
    picture = rng.normal(size=(len(LABELS), CHANNELS))

    def at(epoch: int) -> dict[str, np.ndarray]:
        knows = (np.arange(CHANNELS) < CHANNELS // 2) & (planted is not None and epoch >= planted)
        own = means[LABELS] * np.where(knows, 1.5, 0.3)
        return {
            "blocks.6": own + picture + (noise if epoch else 0) * rng.normal(size=picture.shape)
        }

    return at(0), {epoch: at(epoch) for epoch in EPOCHS}


def test_a_planted_time_is_found():
    base, epochs = training(0, planted=4)
    (found,) = timelines(base, epochs, LABELS, draws=40)
    times = [time.epoch for time in found.times[: CHANNELS // 2] if time]
    assert len(times) == CHANNELS // 2
    assert np.mean(np.array(times) == 4) > 0.9
    assert all(time.low <= time.epoch <= (time.high or 99) for time in found.times if time)
    held = [time.low <= 4 <= (time.high or 99) for time in found.times[: CHANNELS // 2]]
    assert np.mean(held) > 0.95
    assert found.epochs == EPOCHS
    assert found.median_epoch == 4
    assert found.learned_by[0] <= 2 < CHANNELS // 2 - 2 <= found.learned_by[2]
    assert found.base == pytest.approx(class_information(base["blocks.6"], LABELS))
    assert found.information[3] == pytest.approx(class_information(epochs[6]["blocks.6"], LABELS))
    assert LayerTimeline.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_noise_has_no_time():
    counts = []
    for seed in range(12):
        base, epochs = training(seed, planted=None)
        (found,) = timelines(base, epochs, LABELS, draws=20, seed=seed)
        counts.append(sum(time is not None for time in found.times))
        assert found.median_epoch is None or counts[-1]
    assert sum(counts) <= 0.01 * 12 * CHANNELS
    base, epochs = training(0, planted=4)
    shuffled = np.random.default_rng(3).permutation(LABELS)
    (found,) = timelines(base, epochs, shuffled, draws=20)
    assert sum(time is not None for time in found.times) <= 1


def test_a_network_that_stays_as_it_was_has_no_time():
    base, _ = training(0, planted=4)
    (found,) = timelines(base, dict.fromkeys(EPOCHS, base), LABELS, draws=5)
    assert found.times == (None,) * CHANNELS
    assert found.learned_by == (0,) * len(EPOCHS)


def test_only_channels_known_to_have_learned_have_a_time():
    base, epochs = training(0, planted=4)
    learned = np.arange(CHANNELS) < 5
    (found,) = timelines(base, epochs, LABELS, learned={"blocks.6": learned}, draws=20)
    assert [time is not None for time in found.times] == learned.tolist()


def test_a_time_is_the_first_from_which_on_half_is_kept():
    gains = np.array([[0.0, 0.6, 0.4, 0.5, 1.0], [0.9, 0.6, 0.8, 0.7, 1.0], [1, 1, 1, 1, -0.1]]).T
    assert first_lasting(gains).tolist() == [3, 0, 5]
    assert first_lasting(np.stack([gains, gains])).shape == (2, 3)


def test_an_uncertain_time_says_so():
    """The more pictures differ in what they say, the wider; an end that is not reached is None."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(len(LABELS), 60))
    slow = {
        epoch: {"a": base + epoch / 8 * 0.8 * rng.normal(size=(CLASSES, 60))[LABELS]}
        for epoch in EPOCHS
    }
    (found,) = timelines({"a": base}, slow, LABELS, draws=50)
    assert any(time and time.low < (time.high or 99) for time in found.times)


def test_what_does_not_fit_is_refused():
    base, _ = training(0, planted=None)
    with pytest.raises(InputError, match="--keep-every"):
        timelines(base, {}, LABELS)
    with pytest.raises(InputError, match="after epoch 4"):
        timelines(base, {1: base, 4: {"blocks.6": base["blocks.6"][:, 1:]}}, LABELS)
