"""Well-known sets: each is built small in its original format, and read beside torchvision's own reader."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import struct
import urllib.error
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from transferscope.data.datasets import ALIASES, DATASETS, dataset_layout
from transferscope.data.scan import scan
from transferscope.errors import DataError, OutputError, UnknownName
from transferscope.files import FOLDER_MARK

Row = tuple[str, str, str | None]  # path from the layout's root, class, split


def put(root: Path, *paths: str) -> None:
    """Writes a small picture of its own colour at each path, in the format of its ending."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        values = np.frombuffer((path * 9).encode()[:192], np.uint8).reshape(8, 8, 3)
        Image.fromarray(values).save(root / path)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def numbered(split: str, classes: Sequence[str], labels: Sequence[int]) -> list[Row]:
    return [
        (f"{split}/{classes[label]}/{number:05d}.png", classes[label], split)
        for number, label in enumerate(labels)
    ]


# ---------------------------------------------------------------------------- sets of arrays


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and NumPy's names as it knew them."""

    def save_bytes(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: save_bytes}


def python2_pickle(path: Path, content: dict[str, object]) -> None:
    """A batch of CIFAR as it was published: protocol 2, keys and arrays as byte strings."""

    def old(value: object) -> object:
        if isinstance(value, str):
            return value.encode()
        return [old(item) for item in value] if isinstance(value, list) else value

    file = io.BytesIO()
    Python2Pickler(file, 2).dump({old(key): old(value) for key, value in content.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue().replace(b"numpy._core.", b"numpy.core."))


def cifar10(root: Path) -> list[Row]:
    home, classes = root / "cifar-10-batches-py", ["airplane", "automobile", "bird"]
    python2_pickle(home / "batches.meta", {"label_names": classes})
    for number in range(1, 6):
        batch = {"data": noise(number, 2, 3072), "labels": [number % 3, 0], "batch_label": "x"}
        python2_pickle(home / f"data_batch_{number}", batch)
    python2_pickle(home / "test_batch", {"data": noise(9, 3, 3072), "labels": [2, 1, 0]})
    train = [label for number in range(1, 6) for label in (number % 3, 0)]
    return numbered("train", classes, train) + numbered("test", classes, [2, 1, 0])


def cifar100(root: Path) -> list[Row]:
    home, classes = root / "cifar-100-python", ["apple", "pine_tree"]
    coarse = {"coarse_labels": [0, 0, 0]}
    python2_pickle(home / "meta", {"fine_label_names": classes, "coarse_label_names": ["x"]})
    for name, labels in (("train", [1, 0, 1]), ("test", [0, 0, 1])):
        batch = {"data": noise(len(name), 3, 3072), "fine_labels": labels, **coarse}
        python2_pickle(home / name, batch)
    return numbered("train", classes, [1, 0, 1]) + numbered("test", classes, [0, 0, 1])


def idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes())


def mnist(
    root: Path, folder: str = "MNIST", classes: Sequence[str] = tuple("0123456789")
) -> list[Row]:
    rows = []
    for split, prefix, labels in (("train", "train", [5, 0, 4, 0]), ("test", "t10k", [5, 0])):
        home = root / folder / "raw"
        idx(home / f"{prefix}-images-idx3-ubyte", noise(len(labels), len(labels), 28, 28))
        idx(home / f"{prefix}-labels-idx1-ubyte", np.array(labels, np.uint8))
        rows += numbered(split, classes, labels)
    return rows


def fashion_mnist(root: Path) -> list[Row]:
    classes = [f"class {number}" for number in range(10)]
    classes[0], classes[4], classes[5] = "T-shirt/top", "Coat", "Sandal"
    return mnist(root, "FashionMNIST", classes)


def svhn(root: Path) -> list[Row]:
    rows = []
    for split, labels in (("train", [1, 10, 9]), ("test", [10, 1])):
        values = noise(len(labels), 32, 32, 3, len(labels))
        table = {"X": values, "y": np.array(labels, np.uint8)[:, None]}
        savemat(root / f"{split}_32x32.mat", table)
        rows += numbered(split, "0123456789", [label % 10 for label in labels])
    return rows


def stl10(root: Path) -> list[Row]:
    home, classes = root / "stl10_binary", ["airplane", "bird", "car"]
    home.mkdir(parents=True)
    (home / "class_names.txt").write_text("\n".join(classes) + "\n")
    (home / "unlabeled_X.bin").write_bytes(b"")
    rows = []
    for split, labels in (("train", [1, 3, 2]), ("test", [2, 1])):
        (home / f"{split}_X.bin").write_bytes(noise(len(labels), len(labels), 3, 96, 96).tobytes())
        (home / f"{split}_y.bin").write_bytes(bytes(labels))
        rows += numbered(split, classes, [label - 1 for label in labels])
    return rows


# ---------------------------------------------------------------------------- sets of files


def caltech101(root: Path) -> list[Row]:
    home = "caltech101/101_ObjectCategories"
    rows: list[Row] = [
        (f"{home}/{name}/image_{number:04d}.jpg", name, None)
        for name in ("Faces_easy", "accordion")
        for number in (1, 2)
    ]
    put(root, f"{home}/BACKGROUND_Google/image_0001.jpg", *(path for path, _, _ in rows))
    return rows


def flowers102(root: Path) -> list[Row]:
    home = "flowers-102"
    splits = {"trnid": [5, 2, 8], "valid": [1, 3], "tstid": [4, 6, 7]}
    labels = [1, 2, 102, 1, 1, 2, 1, 102]
    put(root, *(f"{home}/jpg/image_{number:05d}.jpg" for number in range(1, 9)))
    savemat(root / home / "setid.mat", {name: np.array([ids]) for name, ids in splits.items()})
    savemat(root / home / "imagelabels.mat", {"labels": np.array([labels])})
    names = {1: "pink primrose", 2: "hard-leaved pocket orchid", 102: "blackberry lily"}
    ours = {"trnid": "train", "valid": "validation", "tstid": "test"}
    return [
        (f"{home}/jpg/image_{number:05d}.jpg", names[labels[number - 1]], ours[split])
        for split, ids in splits.items()
        for number in ids
    ]


def pets(root: Path) -> list[Row]:
    home, rows = "oxford-iiit-pet", []
    (root / home / "annotations").mkdir(parents=True)
    for split, listing in (("train", "trainval"), ("test", "test")):
        lines = []
        for label, stem, name in ((1, "Abyssinian", "Abyssinian"), (2, "great_pyrenees", None)):
            image = f"{stem}_{len(split)}"
            lines.append(f"{image} {label} 1 1\n")
            put(root, f"{home}/images/{image}.jpg")
            rows.append((f"{home}/images/{image}.jpg", name or "Great Pyrenees", split))
        (root / home / "annotations" / f"{listing}.txt").write_text("".join(lines))
    return rows


def cars(root: Path, labelled: str = "") -> list[Row]:
    home, rows = "stanford_cars", []
    classes = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
    (root / home / "devkit").mkdir(parents=True)
    savemat(
        root / home / "devkit" / "cars_meta.mat",
        {"class_names": np.array([classes], dtype=object)},
    )
    for split, table in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", f"{labelled}cars_test_annos_withlabels.mat"),
    ):
        files = [(f"{number:05d}.jpg", number) for number in (1, 2)]
        fields = [("bbox_x1", object), ("class", object), ("fname", object)]
        annotations = np.array([[(9, label, file) for file, label in files]], dtype=fields)
        savemat(root / home / table, {"annotations": annotations})
        rows += [
            (f"{home}/cars_{split}/{file}", classes[label - 1], split) for file, label in files
        ]
    put(root, *(path for path, _, _ in rows))
    return rows


def stanford_dogs(root: Path) -> list[Row]:
    home, rows = "stanford_dogs", []
    for split, number in (("train", 1), ("test", 2)):
        files = [
            f"n02085620-Chihuahua/n02085620_{number}.jpg",
            f"n02089078-black-and-tan_coonhound/n02089078_{number}.jpg",
        ]
        put(root, *(f"{home}/Images/{file}" for file in files))
        table = {
            "file_list": np.array([[file] for file in files], dtype=object),
            "labels": np.array([[1], [14]], dtype=np.uint8),
        }
        savemat(root / home / f"{split}_list.mat", table)
        names = ("Chihuahua", "black-and-tan_coonhound")
        rows += [(f"{home}/Images/{f}", name, split) for f, name in zip(files, names, strict=True)]
    return rows


def food101(root: Path) -> list[Row]:
    home, rows = "food-101", []
    (root / home / "meta").mkdir(parents=True)
    for split, number in (("train", 11), ("test", 22)):
        listing = {name: [f"{name}/{number}"] for name in ("pizza", "apple_pie")}
        (root / home / "meta" / f"{split}.json").write_text(json.dumps(listing))
        rows += [(f"{home}/images/{name}/{number}.jpg", name, split) for name in listing]
    put(root, *(path for path, _, _ in rows))
    return rows


def dtd(root: Path) -> list[Row]:
    home, rows = "dtd/dtd", []
    (root / home / "labels").mkdir(parents=True)
    for split, listing in (("train", "train1"), ("validation", "val1"), ("test", "test1")):
        files = [f"{name}/{name}_{len(split):04d}.jpg" for name in ("zigzagged", "banded")]
        (root / home / "labels" / f"{listing}.txt").write_text("\n".join(files) + "\n")
        rows += [(f"{home}/images/{file}", file.split("/")[0], split) for file in files]
    put(root, *(path for path, _, _ in rows))
    return rows


def eurosat(root: Path) -> list[Row]:
    names = ("AnnualCrop", "SeaLake")
    rows: list[Row] = [
        (f"eurosat/2750/{name}/{name}_{number}.jpg", name, None)
        for name in names
        for number in (1, 2)
    ]
    put(root, *(path for path, _, _ in rows))
    return rows


def gtsrb(root: Path) -> list[Row]:
    home = "gtsrb/GTSRB"
    rows: list[Row] = [
        (f"{home}/Training/{label:05d}/00000_00000.ppm", f"{label:05d}", "train")
        for label in (0, 1)
    ]
    tested = [("00000.ppm", 1), ("00001.ppm", 0)]
    rows += [(f"{home}/Final_Test/Images/{file}", f"{label:05d}", "test") for file, label in tested]
    put(root, *(path for path, _, _ in rows))
    with open(root / "gtsrb" / "GT-final_test.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([("Filename", "Width", "ClassId")])
        csv.writer(file, delimiter=";").writerows((name, 8, label) for name, label in tested)
    return rows


def fgvc_aircraft(root: Path) -> list[Row]:
    home, rows = "fgvc-aircraft-2013b/data", []
    (root / home / "images").mkdir(parents=True)
    (root / home / "variants.txt").write_text("707-320\nF/A-18\n")
    for split, listing, number in (
        ("train", "train", 1),
        ("validation", "val", 3),
        ("test",) * 2 + (5,),
    ):
        files = [(f"{number:07d}", "F/A-18"), (f"{number + 1:07d}", "707-320")]
        lines = "".join(f"{file} {name}\n" for file, name in files)
        (root / home / f"images_variant_{listing}.txt").write_text(lines)
        rows += [(f"{home}/images/{file}.jpg", name, split) for file, name in files]
    put(root, *(path for path, _, _ in rows))
    return rows


def imagenette(root: Path) -> list[Row]:
    names = {"n01440764": "tench", "n02102040": "English springer"}
    rows: list[Row] = [
        (f"imagenette2/{folder}/{wnid}/{wnid}_{len(folder)}.JPEG", name, split)
        for folder, split in (("train", "train"), ("val", "validation"))
        for wnid, name in names.items()
    ]
    put(root, *(path for path, _, _ in rows))
    return rows


BUILDERS: dict[str, Callable[[Path], list[Row]]] = {
    builder.__name__: builder
    for builder in (
        *(cifar10, cifar100, mnist, fashion_mnist, svhn, stl10),
        *(caltech101, flowers102, pets, cars, stanford_dogs, food101, dtd, eurosat, gtsrb),
        *(fgvc_aircraft, imagenette),
    )
}
"""Writes a tiny original of a set under a folder, and says what it holds."""


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny sets are not the published bytes."""
    for module in ("flowers102", "cifar", "stl10", "svhn"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5: Path(path).is_file()
        )


# ---------------------------------------------------------------------------- every set


@pytest.mark.parametrize("name", DATASETS)
def test_pictures_classes_and_splits(name: str, tmp_path: Path) -> None:
    expected = BUILDERS[name](tmp_path)
    layout = dataset_layout(name, tmp_path)
    arrays = DATASETS[name].arrays
    assert layout.root == (tmp_path / f"{name}-pictures" if arrays else tmp_path)
    found = [(one.path, one.class_name, one.split) for one in layout.candidates]
    assert found == sorted(expected)
    assert (layout.stray, layout.empty, layout.unsorted) == ((), (), ())
    assert {one.group for one in layout.candidates} == {None}
    seen = scan(tmp_path, dataset=name)
    assert [picture.path for picture in seen.pictures] == [path for path, _, _ in sorted(expected)]
    assert seen.classes == tuple(sorted({label for _, label, _ in expected}))
    assert seen.excluded == ()


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_says_where_it_comes_from(name: str) -> None:
    assert DATASETS[name].source.startswith("http")


@pytest.mark.parametrize("name", DATASETS)
def test_a_set_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        dataset_layout(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"no {name} under {str(tmp_path)!r}: there is no ")
    assert DATASETS[name].needs[0] in message
    assert DATASETS[name].source in message
    assert ("--download fetches it" in message) == (name not in ("cars", "stanford_dogs"))
    assert list(tmp_path.iterdir()) == []


def test_a_set_whose_part_is_missing(tmp_path: Path) -> None:
    gtsrb(tmp_path)
    (tmp_path / "gtsrb" / "GT-final_test.csv").unlink()
    with pytest.raises(DataError, match=r"there is no 'gtsrb/GT-final_test\.csv'; --download"):
        dataset_layout("gtsrb", tmp_path)


def test_the_cars_by_their_other_name_and_with_the_labels_in_the_devkit(tmp_path: Path) -> None:
    expected = cars(tmp_path, "devkit/")
    assert ALIASES["stanford_cars"] == "cars"
    layout = dataset_layout("stanford_cars", tmp_path)
    assert [one.path for one in layout.candidates] == sorted(path for path, _, _ in expected)


def test_cars_in_a_folder_twice(tmp_path: Path) -> None:
    expected = cars(tmp_path)
    home = tmp_path / "stanford_cars"
    (home / "cars_test").rename(home / "inner")
    (home / "cars_test").mkdir()
    (home / "inner").rename(home / "cars_test" / "cars_test")
    assert len(scan(tmp_path, dataset="cars").pictures) == len(expected)


def test_cars_without_the_labels_of_the_test_part(tmp_path: Path) -> None:
    cars(tmp_path)
    (tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(DataError, match=r"cars_test_annos_withlabels\.mat"):
        dataset_layout("cars", tmp_path)


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'cifar10'.*imagenette"):
        dataset_layout("cifar", tmp_path)
    with pytest.raises(UnknownName):
        scan(tmp_path, dataset="Cifar-11")


def test_groups_are_read_off_the_paths_of_a_set(tmp_path: Path) -> None:
    eurosat(tmp_path)
    found = scan(tmp_path, dataset="eurosat", group=r"_(\d+)\.jpg")
    assert [picture.group for picture in found.pictures] == ["1", "2"] * 2


# ---------------------------------------------------------------------------- against torchvision

ORACLES = {
    "cifar10": ("CIFAR10", {"train": {"train": True}, "test": {"train": False}}),
    "cifar100": ("CIFAR100", {"train": {"train": True}, "test": {"train": False}}),
    "mnist": ("MNIST", {"train": {"train": True}, "test": {"train": False}}),
    "fashion_mnist": ("FashionMNIST", {"train": {"train": True}, "test": {"train": False}}),
    "svhn": ("SVHN", {"train": {"split": "train"}, "test": {"split": "test"}}),
    "stl10": ("STL10", {"train": {"split": "train"}, "test": {"split": "test"}}),
    "caltech101": ("Caltech101", {None: {}}),
}


@pytest.mark.parametrize("name", ORACLES)
def test_pixels_and_labels_are_torchvisions(name: str, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path)
    layout = dataset_layout(name, tmp_path)
    class_name, splits = ORACLES[name]
    for split, options in splits.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of the names that the old pickles have
            other = getattr(torchvision.datasets, class_name)(tmp_path, **options)
        names = getattr(other, "classes", None) or getattr(other, "categories", "0123456789")
        ours = [one for one in layout.candidates if one.split == split]
        if split is not None:
            ours.sort(key=lambda one: one.path.rpartition("/")[2])  # the arrays' order
        assert len(ours) == len(other)
        for one, (picture, label) in zip(ours, other, strict=True):
            with Image.open(layout.root / one.path) as file:
                assert np.array_equal(np.asarray(file), np.asarray(picture))
            assert names[label].split(" - ")[0] == one.class_name  # torchvision: 0 - zero


# ---------------------------------------------------------------------------- sets of arrays


def test_pictures_are_written_once(tmp_path: Path) -> None:
    mnist(tmp_path)
    first = dataset_layout("mnist", tmp_path)
    written = tmp_path / "mnist-pictures" / "train" / "5" / "00000.png"
    before = written.stat().st_mtime_ns
    for file in (tmp_path / "MNIST" / "raw").iterdir():
        file.unlink()
    assert dataset_layout("mnist", tmp_path) == first
    assert written.stat().st_mtime_ns == before


def test_a_half_written_folder_is_not_taken_for_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(tmp_path)
    real, saved = Image.Image.save, []

    def fail_late(self: Image.Image, path: Path, *args: object, **options: object) -> None:
        saved.append(path)
        if len(saved) > 3:
            raise OSError(28, "No space left on device")
        real(self, path, *args, **options)

    monkeypatch.setattr(Image.Image, "save", fail_late)
    with pytest.raises(OutputError, match="No space left"):
        dataset_layout("mnist", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["MNIST"]
    monkeypatch.undo()
    assert len(dataset_layout("mnist", tmp_path).candidates) == 6


def test_a_folder_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    mnist(tmp_path)
    put(tmp_path, "mnist-pictures/mine.png")
    with pytest.raises(OutputError, match="would be lost"):
        dataset_layout("mnist", tmp_path)
    assert (tmp_path / "mnist-pictures" / "mine.png").is_file()
    assert not (tmp_path / "mnist-pictures" / FOLDER_MARK).exists()


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def attacks(proof: Path) -> dict[str, object]:
    return {
        "system": Attack(os.system, f"touch {proof}"),
        "open": Attack(open, str(proof), "w"),
        "getattr": Attack(getattr, "text", "join"),
        "subclass": Attack(np.memmap, str(proof), "uint8", "w+", 0, (3,)),
    }


@pytest.mark.parametrize("kind", attacks(Path("proof")))
@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_an_attack_in_a_pickle_is_refused_and_not_run(kind: str, file: str, tmp_path: Path) -> None:
    cifar10(tmp_path)
    proof = tmp_path / "proof"
    content = {"label_names": ["a", "b", "c"], "labels": [0], "data": attacks(proof)[kind]}
    (tmp_path / "cifar-10-batches-py" / file).write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match=rf"{file} asks for \w+\.\w+.* it may be an attack"):
        dataset_layout("cifar10", tmp_path)
    assert not proof.exists()
    assert not (tmp_path / "cifar10-pictures").exists()


def test_numpy_itself_is_not_let_into_a_pickle(tmp_path: Path) -> None:
    """`numpy.ndarray` would take the bytes of a buffer for pointers to objects."""
    cifar10(tmp_path)
    data = Attack(np.ndarray, (384,), "O", b"\1" * 3072)
    content = {"data": [data], "labels": [0]}
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match="cannot be read"):
        dataset_layout("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["", "..", "../../x", "/x", ".x", "a\\b", "a\0b"])
def test_a_class_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    cifar10(tmp_path)
    classes = ["airplane", "automobile", name]
    python2_pickle(tmp_path / "cifar-10-batches-py" / "batches.meta", {"label_names": classes})
    with pytest.raises(DataError, match="which cannot name a folder"):
        dataset_layout("cifar10", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cifar-10-batches-py"]


# ---------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("cifar100", "cifar-100-python/meta"),
        ("mnist", "MNIST/raw/t10k-images-idx3-ubyte"),
        ("svhn", "train_32x32.mat"),
        ("stl10", "stl10_binary/train_X.bin"),
        ("flowers102", "flowers-102/setid.mat"),
        ("pets", "oxford-iiit-pet/annotations/test.txt"),
        ("cars", "stanford_cars/devkit/cars_meta.mat"),
        ("stanford_dogs", "stanford_dogs/train_list.mat"),
        ("food101", "food-101/meta/test.json"),
        ("dtd", "dtd/dtd/labels/val1.txt"),
        ("gtsrb", "gtsrb/GT-final_test.csv"),
        ("fgvc_aircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "text", "bytes"])
def test_damaged_files(name: str, file: str, damage: str, tmp_path: Path) -> None:
    rows = BUILDERS[name](tmp_path)
    whole = (tmp_path / file).read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "text": b"not\nit\n", "bytes": b"\xff\xfe\0\1" * 9}
    (tmp_path / file).write_bytes(damaged[damage])
    if damage == "cut" and name in (
        "dtd",
        "fgvc_aircraft",
    ):  # half of their lists is a shorter list
        assert 0 < len(dataset_layout(name, tmp_path).candidates) < len(rows)
        return
    with pytest.raises(DataError) as caught:
        dataset_layout(name, tmp_path)
    assert "cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert DATASETS[name].source in str(caught.value)


@pytest.mark.parametrize("name", ["svhn", "stl10"])
def test_other_bytes_than_the_published_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BUILDERS[name](tmp_path)
    real = torchvision.datasets.utils.check_integrity
    monkeypatch.setattr(f"torchvision.datasets.{name}.check_integrity", real)
    with pytest.raises(DataError, match=r"cannot be read \(Dataset not found or corrupted"):
        dataset_layout(name, tmp_path)
    assert not (tmp_path / f"{name}-pictures").exists()


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    mnist(tmp_path)
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    idx(labels, np.array([1, 2], np.uint8))
    with pytest.raises(DataError, match="4 pictures and 2 labels"):
        dataset_layout("mnist", tmp_path)
    idx(labels, np.array([1, 2, 3, 10], np.uint8))
    with pytest.raises(DataError, match="the label 10 among 10 classes"):
        dataset_layout("mnist", tmp_path)


# ---------------------------------------------------------------------------- fetching


def offline(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Makes every download of torchvision fail; returns the calls."""
    calls: list[tuple[object, ...]] = []

    def refuse(*arguments: object, **_: object) -> None:
        calls.append(arguments)
        raise urllib.error.URLError("no network")

    for module in vars(torchvision.datasets).values():
        for function in ("download_url", "download_and_extract_archive"):
            if hasattr(module, "__name__") and function in getattr(module, "__dict__", {}):
                monkeypatch.setattr(module, function, refuse)
    return calls


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].fetch is not None])
def test_a_fetch_that_fails(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = offline(monkeypatch)
    with pytest.raises(DataError) as caught:
        dataset_layout(name, tmp_path, download=True)
    assert calls
    assert "no network" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert DATASETS[name].source in str(caught.value)


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_there_is_not_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = offline(monkeypatch)
    expected = BUILDERS[name](tmp_path)
    assert len(dataset_layout(name, tmp_path, download=True).candidates) == len(expected)
    assert not calls


@pytest.mark.parametrize("name", ["cars", "stanford_dogs"])
def test_what_cannot_be_fetched(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"get it from .* and unpack it"):
        dataset_layout(name, tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("cifar10", "torchvision.datasets.utils.download_and_extract_archive"),
        ("pets", "torchvision.datasets.oxford_iiit_pet.download_and_extract_archive"),
        ("stl10", "torchvision.datasets.stl10.download_and_extract_archive"),
    ],
)
def test_a_fetch(
    name: str,
    function: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected: list[Row] = []

    def archive(*_: object, md5: str, **__: object) -> None:
        assert len(md5) == 32  # torchvision checks the bytes
        print("fetching")
        if not expected:
            expected.extend(BUILDERS[name](tmp_path))

    monkeypatch.setattr(function, archive)
    layout = scan(tmp_path, dataset=name, download=True)
    assert [picture.path for picture in layout.pictures] == sorted(path for path, _, _ in expected)
    assert capsys.readouterr().out == ""  # standard output is for results


def test_a_fetch_that_leaves_parts_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "torchvision.datasets.utils.download_and_extract_archive", lambda *_, **__: None
    )
    with pytest.raises(DataError, match="there is no 'cifar-100-python/meta'"):
        dataset_layout("cifar100", tmp_path, download=True)
