from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from transferscope.errors import DataError, InputError, RunError
from transferscope.evaluation.class_order import class_order
from transferscope.evaluation.class_size import size_trend
from transferscope.evaluation.intervals import bootstrap_mean, drawn_confusions, wilson_interval
from transferscope.evaluation.metrics import SUREST, Evaluation, confusion_counts, evaluate
from transferscope.evaluation.mistakes import error_study
from transferscope.evaluation.predictions import Predictions
from transferscope.evaluation.selective import Operating
from transferscope.evaluation.sentences import measure_rows, summary_sentences, threshold_sentences


def drawn(n: int = 300, classes: int = 7, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes - 1, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) * 2
    logits[torch.arange(n), labels] += 1.5
    names = tuple(f"class {i}" for i in range(classes))
    return Predictions(tuple(f"{i}.png" for i in range(n)), labels, logits, names, 1.3)


def test_every_figure_is_what_a_slow_loop_gives():
    predictions = drawn()
    found = evaluate(predictions, split="test", confusable=[("class 0", "class 1"), ("x", "y")])
    right = top5 = merged = 0
    loss = 0.0
    by_class: dict[str, list[bool]] = {}
    for logits, label in zip(predictions.logits, predictions.labels.tolist(), strict=True):
        order = sorted(range(7), key=lambda k: -float(logits[k]))
        right += order[0] == label
        top5 += label in order[:5]
        merged += {order[0], label} <= {0, 1} or order[0] == label
        by_class.setdefault(f"class {label}", []).append(order[0] == label)
        exponentials = [math.exp(float(v) / 1.3) for v in logits]
        loss -= math.log(exponentials[label] / sum(exponentials))
    assert found.n == 300
    assert found.top1 == pytest.approx(right / 300)
    assert found.top5 == pytest.approx(top5 / 300)
    assert found.confusable == pytest.approx(merged / 300)
    assert found.nll == pytest.approx(loss / 300, rel=1e-5)
    shares = {name: sum(hits) / len(hits) for name, hits in by_class.items()}
    assert {n: r.accuracy for n, r in found.per_class.items()} == pytest.approx(shares)
    assert "class 6" not in found.per_class, "a class without pictures has no accuracy"
    assert found.mean_per_class == pytest.approx(sum(shares.values()) / len(shares))
    assert sum(c.n for c in found.confusions) == 300 - right
    assert [c.n for c in found.confusions] == sorted((c.n for c in found.confusions), reverse=True)


def test_evaluation_survives_json():
    found = evaluate(drawn(), split="test")
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    keys = {"n", "top1", "top1_interval", "top5", "mean_per_class", "ece", "nll", "per_class"}
    assert keys <= set(found.to_dict())


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (10, 10), (345, 372)])
def test_the_interval_is_wilsons(right, n):
    z, p = 1.959963984540054, right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = wilson_interval(right, n)
    assert (low, high) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-9)


def test_predictions_survive_a_round_trip(tmp_path):
    predictions = drawn(9)
    predictions.save(tmp_path)
    loaded = Predictions.load(tmp_path)
    assert torch.equal(loaded.logits, predictions.logits)
    assert (loaded.paths, loaded.classes) == (predictions.paths, predictions.classes)
    assert loaded.temperature == predictions.temperature
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 10


def test_no_pictures_are_nothing_to_evaluate():
    empty = Predictions((), torch.empty(0, dtype=torch.int64), torch.empty(0, 3), ("a", "b", "c"))
    with pytest.raises(DataError, match="validation split has no pictures"):
        evaluate(empty, split="validation")


def test_one_class_alone_is_refused():
    one = drawn()
    one = one.rows(torch.nonzero(one.labels == 2).flatten())
    with pytest.raises(DataError, match=r"one class, 'class 2'.*at least two"):
        evaluate(one, split="test")


def test_an_evaluation_of_another_version_says_so():
    fields = evaluate(drawn(), split="test").to_dict()
    del fields["calibration"]
    with pytest.raises(RunError, match=r"another version.*evaluate"):
        Evaluation.from_dict(fields)


# ---------------------------------------------------------------------------- classes


def test_precision_f1_and_their_mean_are_scikit_learns():
    from sklearn.metrics import f1_score, precision_score

    predictions = drawn()
    found = evaluate(predictions, split="test")
    labels, said = predictions.labels.numpy(), predictions.predicted.numpy()
    present = sorted(set(labels))
    options = {"average": None, "labels": present, "zero_division": 0}
    f1, precision = f1_score(labels, said, **options), precision_score(labels, said, **options)
    assert [r.f1 for r in found.per_class.values()] == pytest.approx(list(f1))
    assert [r.precision for r in found.per_class.values()] == pytest.approx(list(precision))
    assert found.macro_f1 == pytest.approx(f1.mean())
    assert found.per_class["class 0"].interval == wilson_interval(
        round(found.per_class["class 0"].accuracy * found.per_class["class 0"].n),
        found.per_class["class 0"].n,
    )


def test_a_class_that_is_never_said_has_no_precision():
    predictions = drawn()
    predictions.logits[:, 3] = -50
    found = evaluate(predictions, split="test").per_class["class 3"]
    assert (found.precision, found.accuracy, found.f1) == (None, 0, 0)


def test_intervals_hold_the_figure_and_say_how_they_were_made():
    found = evaluate(drawn(), split="test")
    methods = {name: interval.method for name, interval in found.intervals.items()}
    assert methods == {
        "top1": "Wilson",
        "top5": "Wilson",
        "mean_per_class": "bootstrap within classes",
        "macro_f1": "bootstrap within classes",
        "nll": "bootstrap",
    }
    for name, interval in found.intervals.items():
        assert interval.low < getattr(found, name) < interval.high
    assert found.top1_interval == (found.intervals["top1"].low, found.intervals["top1"].high)


def test_the_bootstrap_of_class_averages_is_that_of_pictures():
    predictions = drawn(200, classes=4, seed=3)
    fast = drawn_confusions(confusion_counts(predictions), draws=4000, seed=1)
    rng = np.random.default_rng(2)
    labels, said = predictions.labels.numpy(), predictions.predicted.numpy()
    slow: dict[str, list[float]] = {"mean_per_class": [], "macro_f1": []}
    for _ in range(4000):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(labels == k), (labels == k).sum()) for k in set(labels)]
        )
        recalls, f1 = [], []
        for k in sorted(set(labels)):
            hits = ((labels[rows] == k) & (said[rows] == k)).sum()
            recalls.append(hits / (labels[rows] == k).sum())
            f1.append(2 * hits / ((labels[rows] == k).sum() + (said[rows] == k).sum()))
        slow["mean_per_class"].append(float(np.mean(recalls)))
        slow["macro_f1"].append(float(np.mean(f1)))
    for name, values in slow.items():
        for share in (0.025, 0.5, 0.975):
            assert np.quantile(fast[name], share) == pytest.approx(
                np.quantile(values, share), abs=0.006
            )


def test_the_bootstrap_of_a_mean_is_close_to_the_normal_interval():
    values = np.random.default_rng(0).exponential(2.0, 3000)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert interval == bootstrap_mean(values), "the same seed gives the same interval"


# ---------------------------------------------------------------------------- class sizes


def test_the_trend_over_class_sizes_is_a_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    training = rng.integers(5, 400, 60)
    n = rng.integers(5, 30, 60)
    right = rng.binomial(n, 1 / (1 + np.exp(-(-1.0 + 0.5 * np.log2(training)))))
    found = size_trend(training.tolist(), right.tolist(), n.tolist())
    x = np.log2(np.concatenate([training, training]))[:, None]
    y = np.concatenate([np.ones(60), np.zeros(60)])
    fit = LogisticRegression(C=1e6).fit(x, y, sample_weight=np.concatenate([right, n - right]))
    assert math.log(found.odds_ratio) == pytest.approx(float(fit.coef_[0, 0]), rel=2e-3)
    wanted = fit.predict_proba(np.log2(np.array(found.sizes))[:, None])[:, 1]
    assert list(found.accuracy) == pytest.approx(list(wanted), abs=1e-3)
    assert found.interval[0] < math.exp(0.5) < found.interval[1]
    assert found.clear
    assert all(
        low <= a <= high for low, a, high in zip(found.low, found.accuracy, found.high, strict=True)
    )


def test_no_trend_without_different_sizes_and_no_infinity_without_errors():
    assert size_trend([9] * 20, [3] * 20, [5] * 20) is None
    assert size_trend([112] + [120] * 9, [3] * 10, [5] * 10) is None
    assert size_trend([1, 2, 3, 4], [1, 2, 3, 4], [4, 4, 4, 4]) is None, "too few classes"
    perfect = size_trend([2, 4, 8, 16, 32, 64], [5] * 6, [5] * 6)
    assert all(map(math.isfinite, (perfect.odds_ratio, *perfect.interval, *perfect.accuracy)))
    assert not perfect.clear


def test_the_trend_needs_the_training_counts():
    training = {f"class {k}": 2**k for k in range(7)}
    assert evaluate(drawn(), split="test").trend is None
    found = evaluate(drawn(), split="test", training=training)
    assert found.trend is not None
    assert found.per_class["class 2"].training == 4
    assert any("twice the training pictures" in sentence for sentence in summary_sentences(found))


# ---------------------------------------------------------------------------- words


def test_every_figure_is_told_with_its_interval_and_method():
    found = evaluate(drawn(), split="test", confusable=[("class 0", "class 1")])
    rows = {name: (value, words) for name, value, words in measure_rows(found, look_alikes="0/1")}
    low, high = found.top1_interval
    assert rows["top-1"] == (
        f"{found.top1:.2%}",
        f"95% interval {low:.1%} to {high:.1%} (Wilson)",
    )
    assert "bootstrap within classes" in rows["macro F1"][1]
    assert rows["cross-entropy, nats"][0] == f"{found.nll:.4f}"
    assert rows["top-1, look-alikes as one"] == (f"{found.confusable:.2%}", "0/1")


def test_classes_in_another_order_are_the_same_answers():
    predictions = drawn()
    order = [f"class {k}" for k in (3, 1, 6, 0, 2, 5, 4)]
    other = predictions.for_classes(order)
    assert other.classes == tuple(order)
    for row in range(0, 300, 37):
        label, said = predictions.labels[row], predictions.predicted[row]
        assert other.classes[int(other.labels[row])] == predictions.classes[int(label)]
        assert other.classes[int(other.predicted[row])] == predictions.classes[int(said)]
    assert float(other.losses.sum()) == pytest.approx(float(predictions.losses.sum()))
    with pytest.raises(InputError, match="'zebra'"):
        predictions.for_classes([*order[:-1], "zebra"])


# ---------------------------------------------------------------------------- in words


def test_top5_of_five_classes_is_no_figure():
    few, many = (
        evaluate(drawn(classes=k), split="test") for k in (5, 7)
    )  # one class has no picture
    assert "top-5" not in [name for name, *_ in measure_rows(few)]
    assert "top-5" in [name for name, *_ in measure_rows(many)]
    assert few.top5 == 1  # the JSON has it all the same


def test_an_interval_without_width_is_none():
    perfect = drawn(n=40, classes=3)
    perfect = Predictions(
        perfect.paths,
        perfect.labels,
        torch.nn.functional.one_hot(perfect.labels, 3).float() * 9,
        perfect.classes,
        1.0,
    )
    rows = {name: words for name, _, words in measure_rows(evaluate(perfect, split="test"))}
    assert rows["mean per class"].startswith("no interval")
    assert rows["top-1"].startswith("95% interval 91.2% to 100.0%")  # Wilson's has a width
    assert not any("100.0% to 100.0%" in words for words in rows.values())


def test_a_threshold_that_serves_several_targets_is_told_once():
    def operating(wanted: float, threshold: float) -> Operating:
        return Operating(wanted=wanted, min_confidence=threshold, coverage=0.9, accuracy=0.99)

    found = threshold_sentences([operating(0.9, 0.5), operating(0.95, 0.5), operating(0.99, 0.8)])
    assert len(found) == 2
    assert "chosen on validation for 90% and 95%," in found[0]
    assert "0.800, chosen on validation for 99%," in found[1]


def test_the_surest_errors_are_told_and_counted():
    predictions = drawn(n=60)
    study = error_study(predictions, split="test")
    plain = evaluate(predictions, split="test")
    assert not any("The surest of" in one for one in summary_sentences(plain))
    found = replace(plain, surest_errors=study.worst[:SUREST])
    (said,) = [one for one in summary_sentences(found) if "The surest of" in one]
    first = study.worst[0]
    assert (
        f"{first.path} ({first.label}, taken for {first.predicted}, {first.probability:.1%})"
        in said
    )
    assert said.startswith(f"The surest of {len(study.worst)} errors: ")
    assert said.count("taken for") == 5
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_means_of_very_many_values_have_the_interval_of_drawing_them(monkeypatch):
    values = np.random.default_rng(0).exponential(1.0, 5000)
    drawn = bootstrap_mean(values)
    monkeypatch.setattr("transferscope.evaluation.intervals.NORMAL", 100)
    normal = bootstrap_mean(values)
    assert (normal.low, normal.high) == pytest.approx((drawn.low, drawn.high), rel=0.004)


def test_a_thousand_classes_are_ordered_without_turning_the_tree(monkeypatch):
    names = tuple(map(str, range(40)))
    pairs = torch.arange(40) ^ 1  # each class is taken for its neighbour half of the time
    labels = torch.arange(40).repeat(6)
    said = torch.where(torch.arange(240) % 80 < 40, labels, pairs[labels])
    logits = 5 * torch.nn.functional.one_hot(said, 40).float()
    monkeypatch.setattr("transferscope.evaluation.class_order._TURNED", 3)
    found = class_order(Predictions(tuple(map(str, range(240))), labels, logits, names))
    assert sorted(found) == list(range(40))
    assert all(found[place] ^ 1 == found[place + 1] for place in range(0, 40, 2))
