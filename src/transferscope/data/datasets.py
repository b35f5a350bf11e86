"""Well-known sets by name, read from their original files as torchvision places them under a folder.

torchvision's own classes read them where it has one. Official splits are kept. Sets that store their
pictures in arrays are written out once, as PNG files in folders of classes, and read as those.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from transferscope.data.layouts import Layout, folder_layout
from transferscope.data.loading import in_order
from transferscope.data.pickles import unpickled
from transferscope.data.readings import Candidate, listed
from transferscope.errors import DataError, UnknownName
from transferscope.files import FOLDER_MARK, replaced_folder


@dataclass(frozen=True, slots=True)
class Part:
    """One split of a set.

    Attributes:
        split: train, validation or test; None where the set has no splits.
        pictures: N paths of files; or uint8 (N, H, W) grey or (N, H, W, 3) RGB.
        names: N class names.
    """

    split: str | None
    pictures: Sequence[str | Path] | np.ndarray
    names: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """A well-known set and how its original files are read.

    Attributes:
        source: where it comes from.
        needs: files and folders that must be under DIR.
        arrays: whether it holds arrays of pictures, or else picture files.
        read: the splits of the set under DIR.
        fetch: downloads what is missing into DIR; None where that is not possible (any more).
    """

    source: str
    needs: tuple[str, ...]
    arrays: bool = False
    read: Callable[[Path], Iterable[Part]]
    fetch: Callable[[Path], object] | None = None


def dataset_layout(name: str, root: Path, *, download: bool = False) -> Layout:
    """The files of a well-known set.

    Args:
        name: one of `DATASETS`, or of `ALIASES`.
        root: the folder DIR that the set's own folder lies in, as torchvision's `root`.
        download: fetches what is missing, through torchvision.

    Returns:
        A layout with `root` as its root; of a set of arrays, with `root`/NAME-pictures, which is
        written at the first call: SPLIT/CLASS/NNNNN.png, numbered as in the set's arrays.

    Raises:
        UnknownName: another name.
        DataError: files are missing and not fetched, cannot be fetched, or cannot be read.
        OutputError: the pictures of a set of arrays cannot be written.
    """
    name = ALIASES.get(name, name)
    if name not in DATASETS:
        remedy = f"use {', '.join(DATASETS)}"
        raise UnknownName("dataset", name, DATASETS, where="the well-known sets", remedy=remedy)
    found, written = DATASETS[name], root / f"{name}-pictures"
    if found.arrays and (written / FOLDER_MARK).is_file():
        return folder_layout(written)
    _require(name, found, root, download)
    try:
        parts = list(found.read(root))
        if found.arrays:
            _refuse_odd(parts)
        else:
            candidates = [
                Candidate(Path(file).relative_to(root).as_posix(), name, part.split)
                for part in parts
                for file, name in zip(part.pictures, part.names, strict=True)
            ]
    except Exception as error:  # readers of the original formats raise anything for a damaged file
        raise DataError(
            f"the files of {name} under {str(root)!r} cannot be read ({_said(error)}); remove them, "
            f"and get them again from {found.source}"
        ) from error
    if found.arrays:
        _write_pictures(parts, written)
        return folder_layout(written)
    return Layout(root, tuple(sorted(candidates, key=lambda candidate: candidate.path)))


# ---------------------------------------------------------------------------- finding and fetching


def _require(name: str, found: NamedSet, root: Path, download: bool) -> None:
    """Fetches the set if it is not whole and `download` says so; DataError if it is not whole then."""
    missing = [need for need in found.needs if not (root / need).exists()]
    if missing and download and found.fetch is not None:
        try:
            with redirect_stdout(sys.stderr):
                found.fetch(root)
        except Exception as error:
            raise DataError(
                f"{name} could not be fetched into {str(root)!r} ({_said(error)}); try again, or get it from "
                f"{found.source} and put {listed(found.needs)} there"
            ) from error
        missing = [need for need in missing if not (root / need).exists()]
    if missing:
        remedy = f"get it from {found.source} and unpack it so that these lie there"
        if found.fetch is not None:
            remedy = f"--download fetches it, or {remedy}"
        raise DataError(f"no {name} under {str(root)!r}: there is no {listed(missing)}; {remedy}")


def _said(error: BaseException) -> str:
    """An error's own words, on one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


# ---------------------------------------------------------------------------- through torchvision

Splits: TypeAlias = Mapping[str | None, Mapping[str, Any]]
"""Our name of a split to the options that torchvision's class takes for it."""

UNSPLIT: Splits = {None: {}}
BY_FLAG: Splits = {"train": {"train": True}, "test": {"train": False}}
TWO: Splits = {split: {"split": split} for split in ("train", "test")}
THREE: Splits = {"train": {"split": "train"}, "validation": {"split": "val"}, "test": TWO["test"]}


def _torchvision(name: str) -> Any:
    """A dataset class (or a module) of torchvision.datasets, which is not loaded before it is needed."""
    return getattr(importlib.import_module("torchvision.datasets"), name)


def _through(
    class_name: str, splits: Splits, classes: Sequence[str] = (), *, arrays: bool = False
) -> dict[str, Any]:
    """How a set is read and fetched that torchvision has a class for.

    `classes` are names in label order, where torchvision has others or none.
    """

    def read(root: Path) -> Iterator[Part]:
        for split, options in splits.items():
            found = _torchvision(class_name)(root, **options)
            pictures, labels = _contents(found)
            yield Part(split, pictures, _named(labels, classes or found.classes, split))

    def fetch(root: Path) -> None:
        for options in splits.values():
            _torchvision(class_name)(root, download=True, **options)

    return {"read": read, "fetch": fetch, "arrays": arrays}


def _contents(found: Any) -> tuple[Any, Sequence[int]]:
    """Pictures and labels of a torchvision dataset, wherever its class keeps them."""
    if hasattr(found, "data"):
        pictures = np.asarray(found.data)
        labels = np.asarray(found.targets if hasattr(found, "targets") else found.labels).tolist()
        return (pictures.transpose(0, 2, 3, 1) if pictures.ndim == 4 else pictures), labels
    for name in ("samples", "_samples"):
        if hasattr(found, name):
            files, labels = zip(*getattr(found, name), strict=True)
            return files, labels
    return (found._image_files if hasattr(found, "_image_files") else found._images), found._labels


def _named(labels: Iterable[int], classes: Sequence[str], split: str | None) -> list[str]:
    """The class name of each label; ValueError for one that is none of the classes'."""
    names = []
    for label in labels:
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise ValueError(
                f"its {split} part has the label {label!r} among {len(classes)} classes"
            )
        name = classes[label]
        names.append(name if isinstance(name, str) else name[0])  # Imagenette has synonyms
    return names


_GTSRB = _through("GTSRB", TWO, [f"{number:05d}" for number in range(43)])


def _gtsrb(root: Path) -> Iterator[Part]:
    """The set names its 43 signs by number only: the folders of its training part."""
    train, test = _GTSRB["read"](root)
    yield replace(train, names=[Path(file).parent.name for file in train.pictures])
    yield test


# ---------------------------------------------------------------------------- folders and MATLAB tables

_NO_CLASS = "BACKGROUND_Google"  # of Caltech-101: pictures of none of its classes


def _caltech101(root: Path) -> Iterator[Part]:
    """The folders themselves: torchvision's class only counts their files, and guesses the names."""
    home = root / "caltech101/101_ObjectCategories"
    found = [one for one in folder_layout(home).candidates if one.class_name != _NO_CLASS]
    yield Part(None, [home / one.path for one in found], [str(one.class_name) for one in found])


def _cars(root: Path) -> Iterator[Part]:
    home = root / "stanford_cars"
    devkit = home / "devkit"
    classes = _mat(devkit / "cars_meta.mat", "class_names")
    # A later addition, which lies beside the devkit or in it.
    labelled = "cars_test_annos_withlabels.mat"
    tested = home / labelled if (home / labelled).exists() else devkit / labelled
    for split, table in (("train", devkit / "cars_train_annos.mat"), ("test", tested)):
        folder = home / f"cars_{split}"
        if (folder / folder.name).is_dir():  # as the copies in circulation are packed
            folder /= folder.name
        rows = _mat(table, "annotations")
        labels = [int(row["class"]) - 1 for row in rows]
        names = _named(labels, [str(name) for name in classes], split)
        yield Part(split, [folder / str(row["fname"]) for row in rows], names)


def _stanford_dogs(root: Path) -> Iterator[Part]:
    """Class names are the folders' without the WordNet number: n02085620-Chihuahua."""
    home = root / "stanford_dogs"
    for split in ("train", "test"):
        files = [str(file) for file in _mat(home / f"{split}_list.mat", "file_list")]
        breeds = [file.partition("/")[0].partition("-")[2] for file in files]
        yield Part(split, [home / "Images" / file for file in files], breeds)


def _mat(path: Path, variable: str) -> np.ndarray:
    """A variable of a MATLAB file, without dimensions of length one (but with a first)."""
    try:
        with open(path, "rb") as file:
            return np.atleast_1d(loadmat(file, squeeze_me=True)[variable])
    except (MatReadError, NotImplementedError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path.name} holds no {variable!r} that can be read: {error}") from error


# ---------------------------------------------------------------------------- CIFAR's pickles


def _cifar(class_name: str) -> dict[str, Any]:
    """How CIFAR-10 or CIFAR-100 is read and fetched: rows of 3072 bytes, red before green before blue."""

    def read(root: Path) -> Iterator[Part]:
        found = _torchvision(class_name)
        home = root / found.base_folder
        classes = unpickled(home / found.meta["filename"])[found.meta["key"]]
        for split, files in (("train", found.train_list), ("test", found.test_list)):
            batches = [unpickled(home / file) for file, _ in files]
            rows = np.concatenate([batch["data"].values() for batch in batches])
            key = "labels" if "labels" in batches[0] else "fine_labels"
            names = _named([label for batch in batches for label in batch[key]], classes, split)
            yield Part(split, rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), names)

    def fetch(root: Path) -> None:
        """Downloads the archive only: torchvision's class would go on and unpickle it."""
        found, utils = _torchvision(class_name), _torchvision("utils")
        utils.download_and_extract_archive(
            found.url, root, filename=found.filename, md5=found.tgz_md5
        )

    return {"read": read, "fetch": fetch, "arrays": True}


# ---------------------------------------------------------------------------- writing arrays as files


def _refuse_odd(parts: Iterable[Part]) -> None:
    """ValueError for arrays without a label for each picture, and class names that cannot name folders."""
    for part in parts:
        if len(part.names) != len(part.pictures):
            raise ValueError(
                f"its {part.split} part has {len(part.pictures)} pictures and {len(part.names)} labels"
            )
        for name in set(part.names):
            pieces = PurePosixPath(name).parts
            odd = not pieces or any(piece.startswith((".", "/")) for piece in pieces)
            if odd or "\\" in name or "\0" in name:
                raise ValueError(f"it has a class {name!r}, which cannot name a folder")


def _write_pictures(parts: Iterable[Part], folder: Path) -> None:
    """Writes SPLIT/CLASS/NNNNN.png; the whole folder or nothing."""

    def write(job: tuple[Path, Any]) -> None:
        path, picture = job
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(picture)).save(path, "PNG", compress_level=1)

    with replaced_folder(folder) as fresh:
        for part in parts:
            places = (
                fresh / str(part.split) / name / f"{number:05d}.png"
                for number, name in enumerate(part.names)
            )
            for _ in in_order(write, zip(places, part.pictures, strict=True)):
                pass


# ---------------------------------------------------------------------------- the registry

ALIASES = {"stanford_cars": "cars"}
"""Other names of the sets."""

_IDX_FILES = (
    "train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte"
)
_CIFAR10_BATCHES = " ".join(f"data_batch_{number}" for number in range(1, 6))
_STL10_FILES = "train_X.bin train_y.bin test_X.bin test_y.bin unlabeled_X.bin"
_CARS_FILES = "cars_train cars_test devkit/cars_meta.mat devkit/cars_train_annos.mat"


def _in(home: str, names: str) -> tuple[str, ...]:
    return tuple(f"{home}/{name}" for name in names.split())


DATASETS: dict[str, NamedSet] = {
    "cifar10": NamedSet(
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        needs=_in("cifar-10-batches-py", f"batches.meta {_CIFAR10_BATCHES} test_batch"),
        **_cifar("CIFAR10"),
    ),
    "cifar100": NamedSet(
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        needs=_in("cifar-100-python", "meta train test"),
        **_cifar("CIFAR100"),
    ),
    "mnist": NamedSet(
        source="http://yann.lecun.com/exdb/mnist/",
        needs=_in("MNIST/raw", _IDX_FILES),
        **_through("MNIST", BY_FLAG, "0123456789", arrays=True),
    ),
    "fashion_mnist": NamedSet(
        source="https://github.com/zalandoresearch/fashion-mnist",
        needs=_in("FashionMNIST/raw", _IDX_FILES),
        **_through("FashionMNIST", BY_FLAG, arrays=True),
    ),
    "svhn": NamedSet(
        source="http://ufldl.stanford.edu/housenumbers/",
        needs=("train_32x32.mat", "test_32x32.mat"),
        **_through("SVHN", TWO, "0123456789", arrays=True),
    ),
    "stl10": NamedSet(
        source="https://cs.stanford.edu/~acoates/stl10/",
        needs=_in("stl10_binary", f"class_names.txt {_STL10_FILES}"),
        **_through("STL10", TWO, arrays=True),
    ),
    "caltech101": NamedSet(
        source="https://data.caltech.edu/records/mzrjq-6wc02",
        needs=_in("caltech101", "101_ObjectCategories"),
        **_through("Caltech101", UNSPLIT) | {"read": _caltech101},
    ),
    "flowers102": NamedSet(
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        needs=_in("flowers-102", "jpg imagelabels.mat setid.mat"),
        **_through("Flowers102", THREE),
    ),
    "pets": NamedSet(
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        needs=_in("oxford-iiit-pet", "images annotations/trainval.txt annotations/test.txt"),
        **_through("OxfordIIITPet", {"train": {"split": "trainval"}, "test": {"split": "test"}}),
    ),
    "cars": NamedSet(
        source="https://github.com/pytorch/vision/issues/7545 (lists copies: Stanford's own is gone)",
        needs=_in("stanford_cars", _CARS_FILES),
        read=_cars,
    ),
    "stanford_dogs": NamedSet(
        source="http://vision.stanford.edu/aditya86/ImageNetDogs/ (images.tar and lists.tar)",
        needs=_in("stanford_dogs", "Images train_list.mat test_list.mat"),
        read=_stanford_dogs,
    ),
    "food101": NamedSet(
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        needs=_in("food-101", "images meta/train.json meta/test.json"),
        **_through("Food101", TWO),
    ),
    "dtd": NamedSet(
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        needs=_in("dtd/dtd", "images labels/train1.txt labels/val1.txt labels/test1.txt"),
        **_through("DTD", THREE),
    ),
    "eurosat": NamedSet(
        source="https://github.com/phelber/eurosat",
        needs=_in("eurosat", "2750"),
        **_through("EuroSAT", UNSPLIT),
    ),
    "gtsrb": NamedSet(
        source="https://benchmark.ini.rub.de/",
        needs=_in("gtsrb", "GTSRB/Training GTSRB/Final_Test/Images GT-final_test.csv"),
        **_GTSRB | {"read": _gtsrb},
    ),
    "fgvc_aircraft": NamedSet(
        source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        needs=_in("fgvc-aircraft-2013b", "data/images data/variants.txt"),
        **_through("FGVCAircraft", THREE),
    ),
    "imagenette": NamedSet(
        source="https://github.com/fastai/imagenette",
        needs=_in("imagenette2", "train val"),
        **_through("Imagenette", {"train": TWO["train"], "validation": {"split": "val"}}),
    ),
}
"""Name to set: what `--dataset` takes."""
