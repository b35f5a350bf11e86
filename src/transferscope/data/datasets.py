"""Well-known sets by name, read from their original files as torchvision places them under a folder.

Official splits are kept. Sets that store their pictures in arrays are written out once, as PNG files in
folders of classes, and read as those. Nothing is unpickled: the two sets that are distributed as pickles are
read by an unpickler that knows plain values and one stand-in for an array.
"""

from __future__ import annotations

import http.client
import importlib
import pickle
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from transferscope.data.layouts import Candidate, Layout, folder_layout, listed
from transferscope.data.loading import in_order
from transferscope.errors import DataError, UnknownName
from transferscope.storage import FOLDER_MARK, replaced_folder

DIGITS = tuple("0123456789")
"""Classes of the sets of digits."""


@dataclass(frozen=True, slots=True)
class Part:
    """One split of a set that is stored as arrays.

    Attributes:
        split: train or test.
        pictures: uint8 (N, H, W) grey or (N, H, W, 3) RGB.
        labels: N indices into `classes`.
        classes: names in the set's own order.
    """

    split: str
    pictures: np.ndarray
    labels: Sequence[int]
    classes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """A well-known set and how its original files are read; a `FileSet` or an `ArraySet`.

    Attributes:
        description: one line.
        source: where it comes from.
        home: folder that the files lie in, from DIR; "" for DIR itself.
        needs: files and folders that must be in it.
        fetch: downloads what is missing into DIR; None where the set cannot be downloaded any more,
            or never could.
    """

    description: str
    source: str
    home: str
    needs: tuple[str, ...]
    fetch: Callable[[Path], object] | None


@dataclass(frozen=True, kw_only=True)
class FileSet(NamedSet):
    """A set of picture files.

    Attributes:
        load: the files under DIR, with paths that start from it.
    """

    load: Callable[[Path], Iterable[Candidate]]


@dataclass(frozen=True, kw_only=True)
class ArraySet(NamedSet):
    """A set of arrays of pictures.

    Attributes:
        load: the splits in the folder `home`.
    """

    load: Callable[[Path], Iterable[Part]]


def dataset_layout(name: str, root: Path, *, download: bool = False) -> Layout:
    """The files of a well-known set.

    Args:
        name: one of `DATASETS`, or of `ALIASES`.
        root: the folder DIR that the set's own folder lies in, as torchvision's `root`.
        download: fetches what is missing, through torchvision.

    Returns:
        A layout with `root` as its root; of an `ArraySet`, with `root`/NAME-pictures, which is
        written at the first call: SPLIT/CLASS/NNNNN.png, numbered as in the set's arrays.

    Raises:
        UnknownName: another name.
        DataError: files are missing and not fetched, cannot be fetched, or cannot be read.
        OutputError: the pictures of an `ArraySet` cannot be written.
    """
    name = ALIASES.get(name, name)
    if name not in DATASETS:
        raise UnknownName(
            "dataset",
            name,
            DATASETS,
            where="the well-known sets",
            remedy=f"use {', '.join(DATASETS)}",
        )
    found = DATASETS[name]
    if isinstance(found, FileSet):
        _require(name, found, root, download)
        with _reading(name, found, root):
            candidates = list(found.load(root))
        candidates.sort(key=lambda candidate: candidate.path)
        return Layout(root, tuple(candidates))
    assert isinstance(found, ArraySet)
    pictures = root / f"{name}-pictures"
    if not (pictures / FOLDER_MARK).is_file():
        _require(name, found, root, download)
        with _reading(name, found, root):
            parts = [_checked(part) for part in found.load(root / found.home)]
        _write_pictures(parts, pictures)
    return folder_layout(pictures)


# ---------------------------------------------------------------------------- finding and fetching

_UNREADABLE = (
    OSError,
    MatReadError,
    RuntimeError,  # of torchvision, for files that are missing or have another checksum
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    OverflowError,
    pickle.UnpicklingError,
    zlib.error,
)
"""What the readers of the original formats raise for a damaged file."""

_UNFETCHED = (
    OSError,  # also urllib's
    RuntimeError,
    ValueError,
    EOFError,
    http.client.HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def _require(name: str, found: NamedSet, root: Path, download: bool) -> None:
    """Fetches the set if it is not whole and `download` says so; refuses what is not whole.

    Raises:
        DataError: as said.
    """
    missing = _missing(found, root)
    if missing and download and found.fetch is not None:
        try:
            with redirect_stdout(sys.stderr):
                found.fetch(root)
        except _UNFETCHED as error:
            raise DataError(
                f"{name} could not be fetched into {str(root)!r} ({_said(error)}); try again, or get it from "
                f"{found.source} and put {listed(_places(found, found.needs))} there"
            ) from error
        missing = _missing(found, root)
    if not missing:
        return
    remedy = f"get it from {found.source} and unpack it so that these lie there"
    if found.fetch is not None:
        remedy = f"--download fetches it, or {remedy}"
    raise DataError(
        f"no {name} under {str(root)!r}: there is no {listed(_places(found, missing))}; {remedy}"
    )


def _missing(found: NamedSet, root: Path) -> list[str]:
    return [need for need in found.needs if not (root / found.home / need).exists()]


def _places(found: NamedSet, needs: Sequence[str]) -> list[str]:
    return [f"{found.home}/{need}".strip("/") for need in needs]


@contextmanager
def _reading(name: str, found: NamedSet, root: Path) -> Iterator[None]:
    """Turns what the readers of the original formats raise into a `DataError`."""
    try:
        yield
    except _UNREADABLE as error:
        raise DataError(
            f"the files of {name} in {str(root / found.home)!r} cannot be read ({_said(error)}); remove them, "
            f"and get them again from {found.source}"
        ) from error


def _said(error: BaseException) -> str:
    """An error's own words, on one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _torchvision(name: str) -> Any:
    """A dataset class of torchvision, which is not loaded before it is needed."""
    return getattr(importlib.import_module("torchvision.datasets"), name)


def _fetched(name: str, *splits: str) -> Callable[[Path], object]:
    """Downloads a set by torchvision, which checks its archives; `splits` where each has its own."""

    def fetch(root: Path) -> None:
        for options in [{"split": split} for split in splits] or [{}]:
            _torchvision(name)(root, download=True, **options)

    return fetch


# ---------------------------------------------------------------------------- sets of files


def _candidates(
    root: Path, split: str | None, files: Iterable[str | Path], names: Iterable[str]
) -> Iterator[Candidate]:
    for file, name in zip(files, names, strict=True):
        yield Candidate(Path(file).relative_to(root).as_posix(), name, split)


def _lists_of(name: str, **splits: str) -> Callable[[Path], Iterator[Candidate]]:
    """Reads a set whose torchvision class keeps `_image_files`, `_labels` and `classes`.

    Args:
        name: of that class.
        splits: our name of a split to its own.
    """

    def load(root: Path) -> Iterator[Candidate]:
        for split, given in splits.items():
            found = _torchvision(name)(root, split=given)
            names = (found.classes[label] for label in found._labels)
            yield from _candidates(root, split, found._image_files, names)

    return load


def _pets(root: Path) -> Iterator[Candidate]:
    for split, given in (("train", "trainval"), ("test", "test")):
        found = _torchvision("OxfordIIITPet")(root, split=given)
        names = (found.classes[label] for label in found._labels)
        yield from _candidates(root, split, found._images, names)


def _gtsrb(root: Path) -> Iterator[Candidate]:
    """The set names its 43 signs by number only: the folders of its training part."""
    train = [file for file, _ in _torchvision("GTSRB")(root, split="train")._samples]
    yield from _candidates(root, "train", train, (Path(file).parent.name for file in train))
    test = _torchvision("GTSRB")(root, split="test")._samples
    files = (file for file, _ in test)
    yield from _candidates(root, "test", files, (f"{label:05d}" for _, label in test))


def _imagenette(root: Path) -> Iterator[Candidate]:
    for split, given in (("train", "train"), ("validation", "val")):
        found = _torchvision("Imagenette")(root, split=given)
        files = (file for file, _ in found._samples)
        names = (found.classes[label][0] for _, label in found._samples)
        yield from _candidates(root, split, files, names)


def _eurosat(root: Path) -> Iterator[Candidate]:
    found = _torchvision("EuroSAT")(root)
    files = (file for file, _ in found.samples)
    yield from _candidates(root, None, files, (found.classes[label] for _, label in found.samples))


def _caltech101(root: Path) -> Iterator[Candidate]:
    """The folders themselves: torchvision's class only counts their files, and guesses the names."""
    home = "caltech101/101_ObjectCategories"
    for found in folder_layout(root / home).candidates:
        if found.class_name != "BACKGROUND_Google":  # pictures of none of the classes
            yield Candidate(f"{home}/{found.path}", found.class_name)


def _cars(root: Path) -> Iterator[Candidate]:
    home = root / "stanford_cars"
    devkit = home / "devkit"
    classes = _mat(devkit / "cars_meta.mat", "class_names")
    labelled = (
        "cars_test_annos_withlabels.mat"  # a later addition, which lies beside the devkit or in it
    )
    tested = home / labelled if (home / labelled).exists() else devkit / labelled
    for split, table in (("train", devkit / "cars_train_annos.mat"), ("test", tested)):
        folder = f"cars_{split}"
        if (home / folder / folder).is_dir():  # as the copies in circulation are packed
            folder = f"{folder}/{folder}"
        for row in _mat(table, "annotations"):
            name = str(classes[int(row["class"]) - 1])
            yield Candidate(f"stanford_cars/{folder}/{row['fname']}", name, split)


def _stanford_dogs(root: Path) -> Iterator[Candidate]:
    """Class names are the folders' without the WordNet number: n02085620-Chihuahua."""
    for split in ("train", "test"):
        for file in _mat(root / "stanford_dogs" / f"{split}_list.mat", "file_list"):
            breed = str(file).partition("/")[0].partition("-")[2]
            yield Candidate(f"stanford_dogs/Images/{file}", breed, split)


def _mat(path: Path, variable: str, *, squeeze: bool = True) -> np.ndarray:
    """A variable of a MATLAB file, by default without dimensions of length one (but with a first).

    Raises:
        OSError: no such file.
        ValueError: not a MATLAB file, or one without that variable.
    """
    try:
        with open(path, "rb") as file:
            return np.atleast_1d(loadmat(file, squeeze_me=squeeze)[variable])
    except (MatReadError, NotImplementedError, ValueError, TypeError) as error:
        raise ValueError(f"{path.name} is not a MATLAB file that can be read: {error}") from error
    except KeyError:
        raise ValueError(f"{path.name} holds no variable {variable!r}") from None


# ---------------------------------------------------------------------------- sets of arrays


def _cifar(
    home: Path, meta: str, names: str, labels: str, **splits: Sequence[str]
) -> Iterator[Part]:
    """CIFAR-10 and CIFAR-100: rows of 3072 bytes, red before green before blue.

    Args:
        home: folder of the batches.
        meta: file of the class names.
        names: their key there.
        labels: the labels' key in a batch.
        splits: name to the files of its batches.
    """
    classes = _unpickled(home / meta)[names]
    for split, files in splits.items():
        batches = [_unpickled(home / file) for file in files]
        rows = np.concatenate([batch["data"].values() for batch in batches])
        pictures = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        yield Part(
            split, pictures, [label for batch in batches for label in batch[labels]], classes
        )


def _cifar10(home: Path) -> Iterator[Part]:
    train = [f"data_batch_{number}" for number in range(1, 6)]
    return _cifar(home, "batches.meta", "label_names", "labels", train=train, test=["test_batch"])


def _cifar100(home: Path) -> Iterator[Part]:
    return _cifar(home, "meta", "fine_label_names", "fine_labels", train=["train"], test=["test"])


def _fetch_cifar(name: str) -> Callable[[Path], object]:
    """Downloads the archive only: torchvision's class would go on and unpickle it."""

    def fetch(root: Path) -> None:
        utils, found = importlib.import_module("torchvision.datasets.utils"), _torchvision(name)
        utils.download_and_extract_archive(
            found.url, root, filename=found.filename, md5=found.tgz_md5
        )

    return fetch


class _PickledArray:
    """Stands for an array of bytes in a pickle: keeps its shape and bytes.

    NumPy's own functions are not let in: `numpy.ndarray` itself, called with a buffer and the type
    object, would take any bytes for pointers.
    """

    def __init__(self, *_: object):
        self._shape: tuple[int, ...] = ()
        self._data: bytes | str = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self._shape, _, _, self._data = state

    def values(self) -> np.ndarray:
        """The array, uint8."""
        data = self._data.encode("latin1") if isinstance(self._data, str) else self._data
        return np.frombuffer(data, np.uint8).reshape(self._shape)


class _PickledType:
    """Stands for the type of a pickled array, which is bytes in every file that is read here."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Reads plain values and arrays of bytes, as Python 2 wrote them; finds nothing else."""

    _STAND_INS = {  # noqa: RUF012 (never changed)
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledType,
    }

    def __init__(self, file: IO[bytes], name: str):
        super().__init__(file, encoding="latin1")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of an admitted name.

        Raises:
            UnpicklingError: every other name.
        """
        try:
            return self._STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"{self._name} asks for {module}.{name}, which no picture needs: it may be an attack"
            ) from None


def _unpickled(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = _Unpickler(file, path.name).load()
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no dictionary")
    return content


def _mnist(home: Path, classes: Sequence[str] = DIGITS) -> Iterator[Part]:
    for split, prefix in (("train", "train"), ("test", "t10k")):
        pictures = _idx(home / f"{prefix}-images-idx3-ubyte")
        yield Part(split, pictures, _idx(home / f"{prefix}-labels-idx1-ubyte").tolist(), classes)


def _fashion_mnist(home: Path) -> Iterator[Part]:
    return _mnist(home, _torchvision("FashionMNIST").classes)


def _idx(path: Path) -> np.ndarray:
    """An IDX file of bytes: two zeros, 8, the number of dimensions, their sizes, the values."""
    data = path.read_bytes()
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an IDX file of bytes")
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _svhn(home: Path) -> Iterator[Part]:
    for split in ("train", "test"):
        file = home / f"{split}_32x32.mat"
        pictures = _mat(file, "X", squeeze=False).transpose(3, 0, 1, 2)
        labels = _mat(file, "y") % 10  # the digit 0 has the label 10
        yield Part(split, pictures, labels.tolist(), DIGITS)


def _stl10(home: Path) -> Iterator[Part]:
    """Planes of red, green and blue, each column by column; labels from 1."""
    classes = (home / "class_names.txt").read_text(encoding="utf-8").split()
    for split in ("train", "test"):
        planes = np.fromfile(home / f"{split}_X.bin", np.uint8).reshape(-1, 3, 96, 96)
        labels = np.fromfile(home / f"{split}_y.bin", np.uint8).astype(int) - 1
        yield Part(split, planes.transpose(0, 3, 2, 1), labels.tolist(), classes)


def _checked(part: Part) -> Part:
    """`part`, if it has a label for each picture, and class names that can name folders.

    Raises:
        ValueError: otherwise.
    """
    count = len(part.pictures)
    if part.pictures.shape[3:] not in ((), (3,)) or part.pictures.ndim < 3:
        raise ValueError(f"its {part.split} part has the shape {part.pictures.shape}")
    if len(part.labels) != count:
        raise ValueError(
            f"its {part.split} part has {count} pictures and {len(part.labels)} labels"
        )
    for label in part.labels:
        if not isinstance(label, int) or not 0 <= label < len(part.classes):
            raise ValueError(
                f"its {part.split} part has the label {label!r} among {len(part.classes)} classes"
            )
    for name in part.classes:
        pieces = PurePosixPath(name).parts
        odd = not pieces or any(piece.startswith((".", "/")) for piece in pieces)
        if odd or "\\" in name or "\0" in name:
            raise ValueError(f"it has a class {name!r}, which cannot name a folder")
    return part


def _write_pictures(parts: Sequence[Part], folder: Path) -> None:
    """Writes SPLIT/CLASS/NNNNN.png; the whole folder or nothing."""

    def write(job: tuple[Path, np.ndarray]) -> None:
        path, picture = job
        Image.fromarray(np.ascontiguousarray(picture)).save(path, "PNG", compress_level=1)

    with replaced_folder(folder) as fresh:
        for part in parts:
            homes = {label: fresh / part.split / part.classes[label] for label in set(part.labels)}
            for home in homes.values():
                home.mkdir(parents=True, exist_ok=True)
            jobs = (
                (homes[label] / f"{number:05d}.png", part.pictures[number])
                for number, label in enumerate(part.labels)
            )
            for _ in in_order(write, jobs):
                pass


# ---------------------------------------------------------------------------- the registry

ALIASES = {"stanford_cars": "cars"}
"""Other names of the sets."""

_IDX_FILES = tuple(
    f"{prefix}-{content}-ubyte"
    for prefix in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
)

DATASETS: dict[str, NamedSet] = {
    "cifar10": ArraySet(
        description="small colour pictures of 10 kinds of animals and vehicles; 60,000 of 32 x 32",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        home="cifar-10-batches-py",
        needs=("batches.meta", *(f"data_batch_{n}" for n in range(1, 6)), "test_batch"),
        fetch=_fetch_cifar("CIFAR10"),
        load=_cifar10,
    ),
    "cifar100": ArraySet(
        description="small colour pictures of 100 kinds of things; 60,000 of 32 x 32",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        home="cifar-100-python",
        needs=("meta", "train", "test"),
        fetch=_fetch_cifar("CIFAR100"),
        load=_cifar100,
    ),
    "mnist": ArraySet(
        description="handwritten digits; 70,000 grey pictures of 28 x 28",
        source="http://yann.lecun.com/exdb/mnist/",
        home="MNIST/raw",
        needs=_IDX_FILES,
        fetch=_fetched("MNIST"),
        load=_mnist,
    ),
    "fashion_mnist": ArraySet(
        description="10 kinds of clothing; 70,000 grey pictures of 28 x 28",
        source="https://github.com/zalandoresearch/fashion-mnist",
        home="FashionMNIST/raw",
        needs=_IDX_FILES,
        fetch=_fetched("FashionMNIST"),
        load=_fashion_mnist,
    ),
    "svhn": ArraySet(
        description="digits of house numbers in the street; 99,289 pictures of 32 x 32",
        source="http://ufldl.stanford.edu/housenumbers/",
        home="",
        needs=("train_32x32.mat", "test_32x32.mat"),
        fetch=_fetched("SVHN", "train", "test"),
        load=_svhn,
    ),
    "stl10": ArraySet(
        description="10 kinds of animals and vehicles; the 13,000 labelled pictures of 96 x 96",
        source="https://cs.stanford.edu/~acoates/stl10/",
        home="stl10_binary",
        needs=("class_names.txt", "train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"),
        fetch=_fetched("STL10"),
        load=_stl10,
    ),
    "caltech101": FileSet(
        description="101 kinds of objects and 8,677 pictures, without a split",
        source="https://data.caltech.edu/records/mzrjq-6wc02",
        home="caltech101",
        needs=("101_ObjectCategories",),
        fetch=_fetched("Caltech101"),
        load=_caltech101,
    ),
    "flowers102": FileSet(
        description="102 kinds of flowers of Britain; 8,189 pictures",
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        home="flowers-102",
        needs=("jpg", "imagelabels.mat", "setid.mat"),
        fetch=_fetched("Flowers102"),
        load=_lists_of("Flowers102", train="train", validation="val", test="test"),
    ),
    "pets": FileSet(
        description="37 breeds of cats and dogs; 7,349 pictures",
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        home="oxford-iiit-pet",
        needs=("images", "annotations/trainval.txt", "annotations/test.txt"),
        fetch=_fetched("OxfordIIITPet"),
        load=_pets,
    ),
    "cars": FileSet(
        description="196 makes, models and years of cars; 16,185 pictures",
        source="https://github.com/pytorch/vision/issues/7545 (lists copies: Stanford's own is gone)",
        home="stanford_cars",
        needs=("cars_train", "cars_test", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
        fetch=None,
        load=_cars,
    ),
    "stanford_dogs": FileSet(
        description="120 breeds of dogs; 20,580 pictures out of ImageNet",
        source="http://vision.stanford.edu/aditya86/ImageNetDogs/ (images.tar and lists.tar)",
        home="stanford_dogs",
        needs=("Images", "train_list.mat", "test_list.mat"),
        fetch=None,
        load=_stanford_dogs,
    ),
    "food101": FileSet(
        description="101 dishes; 101,000 pictures",
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        home="food-101",
        needs=("images", "meta/train.json", "meta/test.json"),
        fetch=_fetched("Food101"),
        load=_lists_of("Food101", train="train", test="test"),
    ),
    "dtd": FileSet(
        description="47 describable textures; 5,640 pictures, the first of the ten official divisions",
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        home="dtd/dtd",
        needs=("images", "labels/train1.txt", "labels/val1.txt", "labels/test1.txt"),
        fetch=_fetched("DTD"),
        load=_lists_of("DTD", train="train", validation="val", test="test"),
    ),
    "eurosat": FileSet(
        description="10 kinds of land use seen from a satellite; 27,000 pictures, without a split",
        source="https://github.com/phelber/eurosat",
        home="eurosat",
        needs=("2750",),
        fetch=_fetched("EuroSAT"),
        load=_eurosat,
    ),
    "gtsrb": FileSet(
        description="43 German traffic signs, named by number; 39,270 pictures",
        source="https://benchmark.ini.rub.de/",
        home="gtsrb",
        needs=("GTSRB/Training", "GTSRB/Final_Test/Images", "GT-final_test.csv"),
        fetch=_fetched("GTSRB", "train", "test"),
        load=_gtsrb,
    ),
    "fgvc_aircraft": FileSet(
        description="100 variants of aircraft; 10,000 pictures",
        source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        home="fgvc-aircraft-2013b",
        needs=("data/images", "data/variants.txt"),
        fetch=_fetched("FGVCAircraft"),
        load=_lists_of("FGVCAircraft", train="train", validation="val", test="test"),
    ),
    "imagenette": FileSet(
        description="10 easy classes of ImageNet; 13,394 pictures in their full size",
        source="https://github.com/fastai/imagenette",
        home="imagenette2",
        needs=("train", "val"),
        fetch=_fetched("Imagenette"),
        load=_imagenette,
    ),
}
"""Name to set: what `--dataset` takes."""
