"""Cues: measured as they are, told where they decide, not told where they do not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from transferscope.data.cue_accuracy import cue_accuracy, cue_findings
from transferscope.data.cues import NUMBERS, CueCollector, CueTable, cue_table, cues_of
from transferscope.images import read_with_facts

CLASSES = ("a", "b", "c")
PER_CLASS = 60


def scene(rng: np.random.Generator) -> Image.Image:
    """A smooth picture of random colours with a random shape in it."""
    coarse = rng.integers(30, 226, (5, 5, 3)).astype(np.uint8)
    picture = Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)
    x, y = rng.integers(10, 60), rng.integers(10, 40)
    ImageDraw.Draw(picture).ellipse((x, y, x + 24, y + 24), tuple(rng.integers(0, 255, 3)))
    return picture


def watermark(picture: Image.Image) -> None:
    draw = ImageDraw.Draw(picture)
    draw.line((62, 58, 80, 58), "white", 2)
    draw.line((68, 54, 68, 66), "white", 2)


def frame(picture: Image.Image) -> None:
    ImageDraw.Draw(picture).rectangle((0, 0, 95, 71), outline=(40, 60, 120), width=6)


def tint(picture: Image.Image) -> None:
    picture.paste(Image.blend(picture, Image.new("RGB", picture.size, (255, 200, 60)), 0.3))


PLANTS = {"watermark": watermark, "frame": frame, "tint": tint}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory):
    """A table of the tiny set with a cue on 95% of one class, or on a third of all classes."""

    @cache
    def make(name: str = "", only: int | None = 1) -> tuple[CueTable, np.ndarray]:
        folder = tmp_path_factory.mktemp("set")
        rng = np.random.default_rng(3)
        files, labels = [], np.repeat(np.arange(len(CLASSES)), PER_CLASS)
        for place, label in enumerate(labels):
            picture = scene(rng)
            draw = rng.random()
            if name and (draw < 0.95 and label == only if only is not None else draw < 1 / 3):
                PLANTS[name](picture)
            files.append(folder / CLASSES[label] / f"{place}.png")
            files[-1].parent.mkdir(exist_ok=True)
            picture.save(files[-1])
        names = [file.relative_to(folder).as_posix() for file in files]
        return cue_table(files, names, class_folders=CLASSES), labels

    return make


def test_a_clean_set_raises_no_alarm(planted):
    table, labels = planted()
    found = cue_findings(table, labels, CLASSES)
    assert {one.label for one in found} == {*CLASSES, None}
    assert not [one for one in found if one.alarm]
    assert sum(one.q < 0.05 for one in found) <= 0.1 * len(found)


@pytest.mark.parametrize(
    ("name", "family"), [("watermark", "patch"), ("frame", "border"), ("tint", "colour")]
)
def test_a_planted_cue_raises_an_alarm_on_its_class_alone(planted, name, family):
    table, labels = planted(name)
    found = cue_findings(table, labels, CLASSES)
    assert found[0].alarm
    assert ("b", family) in {(one.label, one.family) for one in found if one.alarm}
    assert {one.label for one in found if one.alarm} == {"b"}


@pytest.mark.parametrize("name", PLANTS)
def test_a_cue_on_pictures_of_all_classes_raises_none(planted, name):
    table, labels = planted(name, only=None)
    assert not [one for one in cue_findings(table, labels, CLASSES) if one.alarm]


def test_shuffled_labels_are_told_at_the_rate_that_p_claims(planted):
    table, labels = planted("frame")
    rng = np.random.default_rng(0)
    values = table.column("border blue")
    assert cue_accuracy(values, labels, label=1).p < 1e-6
    shuffled = [cue_accuracy(values, rng.permutation(labels), label=1).p for _ in range(60)]
    assert np.mean(np.array(shuffled) < 0.05) < 0.12


def test_the_accuracy_is_that_of_pictures_not_fitted_to():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 300)
    noise = rng.normal(size=600).astype(np.float32)
    held_out = np.tile([True, False, False], 200)
    by_chance = cue_accuracy(noise, labels, held_out)
    assert by_chance.n == 200
    assert by_chance.low < 0.5 < by_chance.high
    assert by_chance.p > 0.01
    told = cue_accuracy(noise + 3 * labels, labels, held_out)
    assert told.accuracy > 0.9
    assert told.p < 1e-10
    assert told.chance == 0.5


def test_balanced_accuracy_its_interval_and_its_p_are_those_of_the_slow_way():
    """The exact permutation distribution, drawn."""
    from transferscope.data.cue_accuracy import _judged

    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], (50, 20, 10))
    told = np.where(rng.random(80) < 0.15, labels, rng.integers(0, 3, 80))
    confusion = np.zeros((3, 3), dtype=int)
    np.add.at(confusion, (labels, told), 1)
    found = _judged("x", "tone", confusion, "abc", None)
    one = _judged("x", "tone", confusion, "abc", 2)
    assert one.accuracy == pytest.approx(
        ((told[labels == 2] == 2).mean() + (told[labels != 2] != 2).mean()) / 2
    )

    def balanced(true: np.ndarray) -> float:
        return float(np.mean([(told[true == one] == one).mean() for one in range(3)]))

    drawn = np.array([balanced(rng.permutation(labels)) for _ in range(4000)])
    assert found.accuracy == pytest.approx(balanced(labels))
    assert found.p == pytest.approx((drawn >= found.accuracy).mean(), abs=0.03)
    assert found.low < found.accuracy < found.high


def test_few_pictures_are_never_certain():
    """Ten of a class, told without an error, could be 85% as well."""
    labels = np.repeat([0, 1], (10, 500))
    found = cue_accuracy(labels.astype(np.float32), labels, label=0)
    assert found.accuracy == 1
    assert found.low < 1
    with pytest.raises(ValueError, match=r"\[9, 500\]"):
        cue_accuracy(labels[1:].astype(np.float32), labels[1:])


def test_folders_are_a_cue_only_where_they_are_not_the_classes(tmp_path):
    rng = np.random.default_rng(0)
    cues = []
    for number in range(60):
        file = tmp_path / f"{number}.png"
        scene(rng).save(file)
        cues.append(cues_of(file, *read_with_facts(file)))
    labels = np.repeat([0, 1, 2], 20)

    def told(folders: list[str]) -> list[str | None]:
        gathered = CueCollector()
        for number, one in enumerate(cues):
            gathered.add(f"train/{folders[labels[number]]}/{number:02}.png", f"{number:064x}", one)
        table = gathered.table(("x", "y", "z"))  # ordered by path
        own = labels[[int(Path(path).stem) for path in table.paths]]
        found = cue_findings(table, own, ("x", "y", "z"))
        return [one.label for one in found if one.name == "folder" and one.alarm]

    assert told(["x", "y", "z"]) == []
    assert told(["n01", "n02", "n03"]) == []
    assert told(["shop/x", "home/y", "home/z"]) == ["x"]


def test_exif_and_compression_are_read_from_the_head(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "One"
    exif[0x0132] = "2020:01:02 13:30:00"
    picture = scene(np.random.default_rng(0))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture.save(tmp_path / "b.jpg", quality=30)
    picture.save(tmp_path / "c.png")
    table = cue_table([tmp_path / name for name in ("a.jpg", "b.jpg", "c.png")])
    assert table.kinds["camera"] == ("Maker One", "", "")
    assert table.column("hour")[0] == 13
    assert table.column("date")[0] == 737426
    assert np.isnan(table.column("hour")[1:]).all()
    fine, coarse, none = table.column("compression")
    assert fine < coarse
    assert np.isnan(none)
    assert table.column("shape")[0] == pytest.approx(96 / 72)
    assert table.numbers.shape == (3, len(NUMBERS))


def test_the_collector_keeps_a_sample_that_does_not_depend_on_the_order(tmp_path):
    file = tmp_path / "a.png"
    scene(np.random.default_rng(0)).save(file)
    cues = cues_of(file, *read_with_facts(file))
    digests = [f"{(number * 7919) % 101:016x}" + "0" * 48 for number in range(100)]
    kept = []
    for order in (range(100), range(99, -1, -1)):
        gathered = CueCollector(most=10)
        for number in order:
            gathered.add(f"{number:03}.png", digests[number], cues)
        kept.append(gathered.table().paths)
    assert kept[0] == kept[1]
    assert len(kept[0]) == 10
    smallest = sorted(range(100), key=lambda number: digests[number])[:10]
    assert kept[0] == tuple(sorted(f"{number:03}.png" for number in smallest))


def test_a_picture_of_one_pixel_has_cues(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "a.png")
    Image.new("L", (3000, 1)).save(tmp_path / "b.png")
    table = cue_table([Path(tmp_path / "a.png"), Path(tmp_path / "b.png")])
    assert np.isfinite(table.column("brightness")).all()
