"""From responses to what changed: nulls, false discoveries, rows."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, t

from transferscope.comparison.change import (
    Witnessed,
    learned_channels,
    load_rows,
    save_rows,
    witnessed_channels,
)
from transferscope.comparison.nulls import (
    beyond_controls,
    beyond_margin,
    half_differences,
    moderated_variance,
    q_values,
    split_halves,
)
from transferscope.comparison.witnesses import WITNESSES
from transferscope.comparison.witnesses.class_information import class_information_gain
from transferscope.errors import InputError, RunError

CLASSES, EACH, CHANNELS = 10, 20, 60
LABELS = np.repeat(np.arange(CLASSES), EACH)
INFORMATION = {"class_information": WITNESSES["class_information"]}


def networks(seed: int, *, gaining: int = 0, controls: int = 3):
    """Base, tuned and controls at one layer: base's class means, moved by every tuning in its own way.

    In the first `gaining` channels of tuned the class means are made twice as far apart.
    """
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 0.6, (CLASSES, CHANNELS))
    picture = rng.normal(size=(len(LABELS), CHANNELS))

    def of(gain: np.ndarray | float, moved: float) -> dict[str, np.ndarray]:
        own = means * gain + rng.normal(0, moved, means.shape)
        noise = 0.8 * picture + 0.6 * rng.normal(size=picture.shape)
        return {"blocks.6": own[LABELS] + (noise if moved else picture)}

    factor = np.where(np.arange(CHANNELS) < gaining, 2.5, 1.0)
    return of(1.0, 0.0), of(factor, 0.15), [of(1.0, 0.15) for _ in range(controls)]


def rows_of(base, tuned, controls, labels=LABELS, **options) -> tuple[Witnessed, ...]:
    given = {"witnesses": INFORMATION, "draws": 30} | options
    return witnessed_channels(base, tuned, controls, labels, **given)


# ---------------------------------------------------------------------------- power and errors


def test_half_the_channels_gain_and_they_are_the_ones_that_learned():
    power, false = [], []
    for seed in range(8):
        found = learned_channels(rows_of(*networks(seed, gaining=CHANNELS // 2)))
        right = sum(row.channel < CHANNELS // 2 for row in found)
        power.append(right / (CHANNELS // 2))
        false.append((len(found) - right) / max(1, len(found)))
    assert statistics.fmean(power) > 0.8
    assert statistics.fmean(false) <= 0.05


def test_a_transfer_that_is_one_more_control_has_learned_nothing():
    for controls in (2, 3):
        counts = [
            len(learned_channels(rows_of(*networks(s, controls=controls)))) for s in range(10)
        ]
        assert sum(counts) / (10 * CHANNELS) <= 0.005
        assert sum(count > 0 for count in counts) <= 2


def test_a_network_against_itself_has_no_change_in_any_row():
    base, _, controls = networks(0)
    rows = witnessed_channels(base, base, controls, LABELS, draws=10)
    assert len(rows) == CHANNELS * len(WITNESSES)
    assert all(row.value == pytest.approx(0, abs=1e-12) for row in rows)
    assert all(row.p == row.q == 1 for row in rows)
    assert not learned_channels(rows)


def test_labels_that_mean_nothing_show_nothing():
    base, tuned, controls = networks(1, gaining=CHANNELS // 2)
    shuffled = np.random.default_rng(0).permutation(LABELS)
    assert learned_channels(rows_of(base, tuned, controls))
    assert not learned_channels(rows_of(base, tuned, controls, labels=shuffled))


def test_losing_less_than_the_controls_is_not_learning():
    base, _, _ = networks(2)
    noise = np.random.default_rng(5).normal(size=(4, len(LABELS), CHANNELS))
    tuned = {"blocks.6": base["blocks.6"] + 0.5 * noise[3]}
    controls = [{"blocks.6": base["blocks.6"] + 3 * one} for one in noise[:3]]
    rows = rows_of(base, tuned, controls)
    beyond = [row for row in rows if row.q <= 0.05]
    assert len(beyond) > CHANNELS // 2
    assert len(learned_channels(rows)) <= 2


def test_channels_of_a_frozen_layer_are_not_tested():
    base, tuned, controls = networks(3, gaining=CHANNELS // 2)
    alone = rows_of(base, tuned, controls)
    frozen = {"blocks.3": base["blocks.6"]}
    both = rows_of(base | frozen, tuned | frozen, [one | frozen for one in controls])
    assert [row for row in both if row.layer == "blocks.6"] == list(alone)
    assert all(row.p == row.q == 1 for row in both if row.layer == "blocks.3")


def test_moved_is_more_than_the_margin_of_equivalence():
    base, tuned, controls = networks(4)
    still = {"blocks.6": base["blocks.6"] + 0.02 * tuned["blocks.6"]}
    options = {"witnesses": {"response_change": WITNESSES["response_change"]}}
    assert all(row.q <= 0.05 for row in rows_of(base, tuned, controls, **options))
    rows = rows_of(base, still, controls, **options)
    assert all(0 < row.value < row.null == 0.01 for row in rows)
    assert not any(row.q <= 0.05 for row in rows)


# ---------------------------------------------------------------------------- the parts, slowly


def test_halves_have_half_of_every_class():
    labels = np.repeat(np.arange(4), [10, 7, 2, 1])
    halves = split_halves(labels, 400, 0)
    assert halves.shape == (400, 20)
    for one, size in enumerate((10, 7, 2, 1)):
        counts = halves[:, labels == one].sum(1)
        assert set(counts) == {size // 2, (size + 1) // 2}
    assert np.abs(halves.mean(0) - 0.5).max() < 0.1
    assert np.array_equal(halves, split_halves(labels, 400, 0))
    assert not np.array_equal(halves, split_halves(labels, 400, 1))


def test_half_differences_of_a_mean_have_the_textbook_variance():
    values = np.random.default_rng(0).normal(size=(40, 3))
    labels = np.zeros(40, int)

    def mean(base, tuned, labels):
        return base.mean(0)

    found = half_differences(mean, values, values, labels, split_halves(labels, 4000, 0))
    assert (found**2).mean(0) == pytest.approx(values.var(0, ddof=1) / 40, rel=0.1)


def test_a_picture_drawn_twice_would_look_like_agreement():
    """Why pictures are halved and not drawn with replacement."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(36), 10)
    base = rng.normal(size=(360, 200))
    tuned = rng.normal(0, 0.8, (36, 200))[labels] + rng.normal(size=(360, 200))
    value = class_information_gain(base, tuned, labels).mean()
    again = np.concatenate([rng.choice(np.flatnonzero(labels == k), 10) for k in range(36)])
    drawn = class_information_gain(np.zeros_like(base), tuned[again], labels).mean()
    assert 0.03 < drawn - value < 0.1
    half = split_halves(labels, 1, 0)[0]
    assert class_information_gain(base[half], tuned[half], labels[half]).mean() == pytest.approx(
        value, abs=0.01
    )


def test_moderated_variances_lie_between_a_channels_own_and_the_layers():
    rng = np.random.default_rng(0)
    true = 5 / rng.chisquare(5, 20000)
    controls = rng.normal(size=(3, 20000)) * np.sqrt(true)
    found, freedom = moderated_variance(controls)
    assert freedom == pytest.approx(5 + 2, rel=0.1)
    own = controls.var(0, ddof=1)
    common = (found - own * 2 / freedom).mean() * freedom / (freedom - 2)
    assert common == pytest.approx(1, rel=0.1)
    controls = rng.normal(size=(3, 400))
    same, freedom = moderated_variance(controls)
    assert same.std() < controls.var(0, ddof=1).std() / 4
    assert freedom > 10
    with pytest.raises(InputError, match="1 control"):
        moderated_variance(controls[:1])


@pytest.mark.parametrize("controls", [2, 3, 5])
@pytest.mark.parametrize("spread", [4, 1e6], ids=["uneven channels", "even channels"])
def test_p_of_one_more_control_is_uniform(controls, spread):
    rng = np.random.default_rng(0)
    p = []
    for _ in range(40):
        error = np.sqrt(spread / rng.chisquare(spread, 300))
        values, others = error * rng.normal(size=300), error * rng.normal(size=(controls, 300))
        p.append(beyond_controls(values, others, np.zeros((10, 300)), 10)[1])
    p = np.concatenate(p)
    assert kstest(p, "uniform").statistic < 0.02
    assert (p < 0.01).mean() < 0.016
    assert (p < 0.001).mean() < 0.005


def test_what_pictures_do_makes_the_test_more_careful_not_less():
    rng = np.random.default_rng(1)
    p = []
    for _ in range(40):
        values, others = rng.normal(size=300), rng.normal(size=(3, 300))
        differences = rng.normal(0, 0.7, (50, 300))
        p.append(beyond_controls(values, others, differences, 50)[1])
    p = np.concatenate(p)
    assert (p < 0.05).mean() < 0.05
    assert (p < 0.005).mean() < 0.005


def test_a_shift_of_a_whole_layer_is_not_taken_for_learning():
    """A control may gain or lose in all of a layer's channels together."""
    rng = np.random.default_rng(0)
    shares, p = [], []
    for _ in range(300):
        values = rng.normal() + 0.5 * rng.normal(size=200)
        controls = rng.normal(size=(2, 1)) + 0.5 * rng.normal(size=(2, 200))
        p.append(beyond_controls(values, controls, np.zeros((10, 200)), 10)[1])
        shares.append((q_values(p[-1]) <= 0.05).mean())
    assert statistics.fmean(shares) <= 0.05
    assert (np.concatenate(p) < 0.05).mean() < 0.09


def test_t_is_the_excess_over_its_error():
    values, controls = np.array([2.0, 0.0]), np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    differences = np.array([[0.3, 0.1], [-0.3, -0.1]])
    found, p = beyond_controls(values, controls, differences, 50)
    for channel in range(2):
        variance = 0.25 * 4 / 3  # both channels of the layer have the same variance: no moderation
        error = math.sqrt(variance + differences[0, channel] ** 2)
        assert found[channel] == pytest.approx((values[channel] - 0.5) / error)
    assert p[0] < 0.05 < p[1]
    found, p = beyond_margin(values, 0.01, differences, 50)
    assert found[0] == pytest.approx(1.99 / 0.3)
    assert p[0] == pytest.approx(t.sf(1.99 / 0.3, 50))
    _, p = beyond_margin(np.array([0.5, 0.0]), 0.01, np.zeros((2, 2)), 50)
    assert 0 < p[0] < 1e-9
    assert p[1] == 1


def test_q_is_the_smallest_rate_at_which_a_test_is_called():
    p = np.array([0.001, 0.8, 0.02, 0.03, 0.5])
    order = sorted(p)
    slow = [min(order[k] * 5 / (k + 1) for k in range(order.index(one), 5)) for one in p]
    assert q_values(p) == pytest.approx(slow)
    assert len(q_values(np.zeros(0))) == 0


# ---------------------------------------------------------------------------- records


def test_rows_survive_a_round_trip(tmp_path):
    rows = witnessed_channels(*networks(0, gaining=5), LABELS, draws=5)
    assert {row.witness for row in rows} == set(WITNESSES)
    save_rows(rows, tmp_path / "rows.csv")
    assert load_rows(tmp_path / "rows.csv") == rows
    header = (tmp_path / "rows.csv").read_text().splitlines()[0]
    assert header == "layer,channel,witness,value,low,high,null,p,q"
    (tmp_path / "other.csv").write_text("layer,channel\nblocks.6,x\n")
    with pytest.raises(RunError, match="not a table of witnesses"):
        load_rows(tmp_path / "other.csv")


def test_learned_needs_both_the_controls_and_the_gain():
    row = Witnessed("blocks.6", 3, "class_information", 0.2, 0.1, 0.3, 0.0, 0.001, 0.01)
    assert learned_channels([row]) == (row,)
    for changes in ({"q": 0.06}, {"low": 0.0}, {"witness": "best_class_auc"}):
        assert not learned_channels([replace(row, **changes)])


def test_what_cannot_be_compared_is_refused():
    base, tuned, controls = networks(0)
    with pytest.raises(InputError, match="there is 1 control"):
        rows_of(base, tuned, controls[:1])
    with pytest.raises(InputError, match="different layers"):
        rows_of(base, tuned, [controls[0], {"blocks.6": controls[1]["blocks.6"][:, :-1]}])
    with pytest.raises(InputError, match="different layers"):
        rows_of(base, {"blocks.5": tuned["blocks.6"]}, controls)
