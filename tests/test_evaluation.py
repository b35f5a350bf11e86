from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import tiny_classifier
from transferscope.backbones import Classifier
from transferscope.errors import DataError, InputError, WeightsError
from transferscope.evaluation import (
    Evaluation,
    Predictions,
    evaluate,
    expected_calibration_error,
    fit_temperature,
    predict,
    predict_files,
    wilson_interval,
)
from transferscope.images import as_float


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
    import json

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


def test_calibration_error_is_the_binned_gap():
    probabilities = drawn().probabilities
    labels = drawn().labels
    confidence, said = probabilities.max(1)
    total = 0.0
    for index in range(15):
        low, high = index / 15, (index + 1) / 15
        inside = (confidence >= low) & ((confidence < high) | (index == 14))
        if inside.any():
            gap = confidence[inside].mean() - (said == labels)[inside].float().mean()
            total += float(inside.float().mean()) * abs(float(gap))
    assert expected_calibration_error(probabilities, labels) == pytest.approx(total, abs=1e-6)


def test_the_temperature_undoes_overconfidence():
    predictions = drawn(2000)
    best = fit_temperature(predictions.logits, predictions.labels)
    hot = fit_temperature(predictions.logits * 3, predictions.labels)
    assert hot == pytest.approx(3 * best, rel=1e-2)
    losses = {
        t: float(torch.nn.functional.cross_entropy(predictions.logits / t, predictions.labels))
        for t in (best * 0.97, best, best * 1.03)
    }
    assert min(losses, key=losses.__getitem__) == best


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


# ---------------------------------------------------------------------------- predicting files


@pytest.fixture
def folder(tmp_path, make_folder):
    return make_folder(tmp_path / "pictures", {"a": 5, "b": 6}, seed=5)


def test_alone_in_a_batch_and_after_reload_the_same_probabilities(folder, tmp_path):
    classifier = tiny_classifier()
    files = sorted(folder.rglob("*.png"))
    batch = torch.softmax(predict_files(classifier, files), -1)
    alone = torch.cat([torch.softmax(predict_files(classifier, [file]), -1) for file in files])
    assert float((batch - alone).abs().max()) < 1e-5
    classifier.save(tmp_path / "c.safetensors")
    reloaded = Classifier.load(tmp_path / "c.safetensors", network=classifier.network)
    again = torch.softmax(predict_files(reloaded, files, batch_size=3), -1)
    assert float((batch - again).abs().max()) < 1e-5
    listed = predict(classifier, [folder], top=4)
    for row, answer in zip(batch, listed, strict=True):
        for guess in answer.top:
            index = classifier.classes.index(guess.name)
            assert guess.probability == pytest.approx(float(row[index]), abs=1e-5)


def test_an_unreadable_file_gets_its_line_and_the_others_are_predicted(folder, tmp_path):
    bad = tmp_path / "notes.jpg"
    bad.write_text("not a picture")
    files = sorted(folder.rglob("*.png"))[:2]
    answers = predict(tiny_classifier(), [files[0], bad, "missing.png", files[1]])
    assert [a.path for a in answers] == [str(files[0]), str(bad), "missing.png", str(files[1])]
    assert [bool(a.error) for a in answers] == [False, True, True, False]
    assert "no such file" in answers[2].error
    assert not answers[1].top


def test_a_strip_is_read_piece_by_piece(tmp_path):
    classifier = tiny_classifier()
    draw = np.random.default_rng(0)
    pieces = [draw.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    Image.fromarray(np.concatenate(pieces, axis=1)).save(tmp_path / "strip.png")
    (answer,) = predict(classifier, [tmp_path / "strip.png"], strip=3)
    batch = torch.stack([as_float(torch.from_numpy(p).permute(2, 0, 1)) for p in pieces])
    wanted = [classifier.classes[int(i)] for i in classifier(batch).argmax(1)]
    assert answer.strip == " ".join(wanted)
    assert [guess.name for guess in answer.pieces] == wanted
    assert answer.to_dict()["strip"] == answer.strip


def test_patterns_folders_and_nothing(folder):
    classifier = tiny_classifier()
    assert len(predict(classifier, [str(folder / "a" / "*.png")])) == 5
    assert len(predict(classifier, [folder])) == 11
    with pytest.raises(InputError, match="matches no file"):
        predict(classifier, [str(folder / "*.gif")])
    with pytest.raises(InputError, match="no picture"):
        predict(classifier, [])
    with pytest.raises(InputError, match="--top is 0"):
        predict(classifier, [folder], top=0)


def test_nan_weights_are_an_error_not_an_answer(folder):
    classifier = tiny_classifier()
    with torch.no_grad():
        classifier.head_layer.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        predict_files(classifier, sorted(folder.rglob("*.png")))
    with pytest.raises(WeightsError, match="NaN"):
        predict(classifier, [folder])
