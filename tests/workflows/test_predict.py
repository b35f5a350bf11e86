"""What a classifier says of files: all that can be named, and all that can be wrong with them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import same_state, state_of, tiny_classifier
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, WeightsError
from transferscope.evaluation.predictions import predict_files
from transferscope.images import as_float
from transferscope.workflows.predict import named_files, predict


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
    with pytest.raises(InputError, match="a picture's name is empty"):
        predict(classifier, [folder, ""])
    with pytest.raises(InputError, match="no picture"):
        predict(classifier, [])
    with pytest.raises(InputError, match="--top is 0"):
        predict(classifier, [folder], top=0)


def test_files_that_are_not_taken_are_told(folder):
    (folder / "a" / "notes.txt").write_text("no picture")
    (folder / "Thumbs.db").write_text("no picture")
    left = []
    answers = predict(tiny_classifier(), [folder], on_excluded=left.extend)
    assert len(answers) == 11
    assert [path for path, _ in left] == [
        str(folder / "Thumbs.db"),
        str(folder / "a" / "notes.txt"),
    ]


def test_nan_weights_are_an_error_not_an_answer(folder):
    classifier = tiny_classifier()
    with torch.no_grad():
        classifier.head_layer.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        predict_files(classifier, sorted(folder.rglob("*.png")))
    with pytest.raises(WeightsError, match="NaN"):
        predict(classifier, [folder])


def test_a_list_of_files_is_read_from_standard_input(folder, monkeypatch):
    files = sorted(map(str, folder.rglob("*.png")))[:3]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([files[0], "", files[1]]) + "\r\n"))
    answers = predict(tiny_classifier(), ["-", files[2]])
    assert [answer.path for answer in answers] == files
    with pytest.raises(InputError, match="standard input, and it had none"):
        named_files(["-"], io.StringIO("\n \n"))


def test_an_unsure_answer_is_marked_and_still_told(folder):
    classifier = tiny_classifier()
    sure = predict(classifier, [folder])
    least = sorted(answer.top[0].probability for answer in sure)[5]
    marked = predict(classifier, [folder], min_confidence=least)
    assert sum(answer.abstained for answer in marked) == 5
    for one, other in zip(sure, marked, strict=True):
        assert one.top == other.top
        assert other.abstained == (other.top[0].probability < least)
        assert other.to_dict()["abstained"] == other.abstained
    assert not any(answer.abstained for answer in sure)
    with pytest.raises(InputError, match=r"--min-confidence is 1.5; it must be in \[0, 1\]"):
        predict(classifier, [folder], min_confidence=1.5)


def test_a_strip_is_unsure_where_one_piece_is(tmp_path):
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (32, 96, 3), dtype=np.uint8)).save(tmp_path / "s.png")
    classifier = tiny_classifier()
    (answer,) = predict(classifier, [tmp_path / "s.png"], strip=3)
    middle = sorted(guess.probability for guess in answer.pieces)[1]
    (unsure,) = predict(classifier, [tmp_path / "s.png"], strip=3, min_confidence=middle)
    assert unsure.abstained
    assert unsure.strip == answer.strip


def test_a_strip_narrower_than_its_pieces_gets_its_line(tmp_path):
    Image.new("RGB", (2, 8)).save(tmp_path / "narrow.png")
    (answer,) = predict(tiny_classifier(), [tmp_path / "narrow.png"], strip=3)
    assert "2 pixels wide cannot be cut into 3" in answer.error


def test_any_batch_size_and_number_of_files_gives_the_same_answers(folder):
    classifier = tiny_classifier()
    before = state_of(classifier.network)
    alone = [predict(classifier, [file])[0] for file in sorted(folder.rglob("*.png"))]
    for size in (1, 2, 4, 64):
        seen: list[tuple[int, int]] = []
        together = predict(
            classifier,
            [folder],
            batch_size=size,
            on_progress=lambda done, total, seen=seen: seen.append((done, total)),
        )
        assert seen[-1] == (11, 11)
        assert [done for done, _ in seen] == [min(k + size, 11) for k in range(0, 11, size)]
        for one, other in zip(alone, together, strict=True):
            assert one.path == other.path
            for mine, yours in zip(one.top, other.top, strict=True):
                assert mine.name == yours.name
                assert mine.probability == pytest.approx(yours.probability, abs=1e-5)
    assert same_state(before, state_of(classifier.network))


def test_a_batch_of_unreadable_files_is_no_end(folder, tmp_path):
    (tmp_path / "bad").mkdir()
    for number in range(5):
        (tmp_path / "bad" / f"{number}.jpg").write_text("no picture")
    answers = predict(tiny_classifier(), [tmp_path / "bad", folder], batch_size=2)
    assert [bool(answer.error) for answer in answers] == [True] * 5 + [False] * 11
