"""What all examples share: their options, the record `result.json` that they leave, and their pictures.

An example is a file `NN_name.py` with a docstring whose first line is its title. It imports this file before
all others (`# isort: split` keeps it there), as threads are told here how to wait, before torch is loaded.

    def main(told: Lesson) -> None: ...

    if __name__ == "__main__":
        sys.exit(start(main, __file__))

In `main` it adds to the lesson what it measured and drew:

    told.row("top-1 on test", lesson="88.65%", ours=f"{top1:.1%}", note="another network, other pictures")
    told.figure("curves.svg", history_figure(rows), "Accuracy and loss by epoch.")
    told.mistake("The loss is divided by i instead of i + 1.")
    told.finding("The maps moved no more than under control transfers.")

`start` reads the options, replaces the folder `--out` as a whole once `main` has ended, and says what is in it.
`result.json` in that folder is a `Lesson` as JSON:

    {"number": "02", "name": "cifar10", "title": "CIFAR-10 with ResNet-18: ...",
     "network": "EfficientNet-Lite0", "data": "36 generated characters",
     "original": false, "fast": false, "seconds": 151.2,
     "lesson": [{"what": str, "lesson": str, "ours": str, "note": str}, ...],
     "figures": [{"file": "curves.svg", "caption": str}, ...],
     "wrong": [str, ...],            what the lesson got wrong, a sentence each
     "findings": [str, ...],         what was found here that the lesson does not have, a sentence each
     "setting": {str: str | number | bool, ...}}

`lesson` is "" in a row where the lesson reports nothing. Files of figures are paths inside the folder. Rows
and sentences are in the order in which they were added.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

import sklearn.datasets
from matplotlib import cbook
from PIL import Image

from transferscope.acceleration.memory import reuse_memory
from transferscope.backbones.weights import load_backbone
from transferscope.cli.app import say_error
from transferscope.data.demo import CHARACTERS, write_demo_set
from transferscope.errors import InputError
from transferscope.files import read_json, replaced_folder, write_bytes, write_json, write_text
from transferscope.records import Record
from transferscope.workflows.demo import DEMO_EPOCHS, DEMO_RATE, DEMO_UNFREEZE

RESULT = "result.json"

NETWORK = "EfficientNet-Lite0 (ImageNet weights that a package ships)"


@dataclass(frozen=True)
class Row:
    """A line of the table "lesson / ours".

    Attributes:
        what: is compared, with its unit.
        lesson: what the lesson reports; "" where it reports nothing.
        ours: what this example got.
        note: why they differ, or how far they may be compared.
    """

    what: str
    lesson: str
    ours: str
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A file of the folder, and what it shows."""

    file: str
    caption: str


@dataclass
class Lesson(Record):
    """What an example was asked for, and what it has measured and drawn so far.

    Attributes:
        number, name: of the file `NN_name.py`.
        title: the first line of its docstring.
        network, data: what figures and captions call them.
        original: whether the lesson's own weights and pictures are asked for.
        fast: whether the smaller setting of the tests is.
        folder: where files are written; not stored.
        own: the reader's pictures, `--data`; not stored.
        lesson, figures, wrong, findings, setting: see the module's docstring.
        seconds: of the whole example.
    """

    made_by: ClassVar[str] = "python examples/NN_name.py"

    number: str
    name: str
    title: str
    network: str = NETWORK
    data: str = "generated characters"
    original: bool = False
    fast: bool = False
    seconds: float = 0.0
    lesson: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    setting: dict[str, Any] = field(default_factory=dict)
    folder: Path = field(default=Path(), repr=False)
    own: Path | None = field(default=None, repr=False)

    def row(self, what: str, *, lesson: str = "", ours: str, note: str = "") -> None:
        """Adds a line to the table, and prints it."""
        self.lesson.append(Row(what, lesson, ours, note))
        print(f"{what}: {f'lesson {lesson}, ' if lesson else ''}here {ours}", flush=True)

    def figure(
        self,
        file: str,
        content: str | bytes | Image.Image | None,
        caption: str,
        *,
        data: str | None = None,
    ) -> Path:
        """Writes a figure into the folder and lists it.

        Args:
            file: its name.
            content: SVG text, a file's bytes or a picture; None where the file is written already.
            caption: what it shows; the network and the data are added.
            data: what is shown, if it is not the example's pictures.
        """
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Image.Image):
            content.save(path)
        elif isinstance(content, bytes):
            write_bytes(path, content)
        elif content is not None:
            write_text(path, content)
        self.figures.append(Figure(file, f"{caption} ({self.network}; {data or self.data}.)"))
        return path

    def mistake(self, *sentences: str) -> None:
        """Says what the lesson got wrong."""
        self.wrong += sentences

    def finding(self, sentence: str) -> None:
        """Says what was found that the lesson does not have, and prints it."""
        self.findings.append(sentence)
        print(sentence, flush=True)

    def source(
        self, *, dataset: str, backbone: str, characters: str = CHARACTERS, **counts: int
    ) -> dict[str, Any]:
        """The pictures and the network that the options ask for, as arguments of `ts.tune` and `ts.advise`.

        By default generated characters and the embedded network; with `--data` the reader's pictures; with
        `--original` the lesson's own of both, downloaded into `--data` or beside the results. What figures and
        captions call them is set too.

        Args:
            dataset: the lesson's set, by the package's name for it.
            backbone: the lesson's network, likewise.
            characters: that are generated.
            counts: train, validation, test, strips: see `write_demo_set`.
        """
        if self.original:
            self.network, self.data = backbone, dataset
            load_backbone(backbone, download=True)  # before the pictures, which are larger
            root = self.own or Path("lessons") / "original"
            root.mkdir(parents=True, exist_ok=True)
            return {"data": root, "dataset": dataset, "backbone": backbone, "download": True}
        if self.own is not None:
            self.data = f"pictures of {self.own.resolve().name}"
            return {"data": self.own}
        self.data = f"{len(characters)} generated characters"
        write_demo_set(self.folder / "data", characters=characters, **counts)
        return {"data": self.folder / "data" / "characters"}

    def recipe(self) -> dict[str, Any]:
        """What `ts.tune` tunes and how: for characters as `transferscope demo` does, else its own defaults."""
        if self.original or self.own is not None:
            return {"strategy": "partial"}
        return {
            "strategy": "partial",
            "unfreeze": DEMO_UNFREEZE,
            "epochs": DEMO_EPOCHS,
            "lr": DEMO_RATE,
            "augment": "none",
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `result.json`."""
        values = super().to_dict()
        for name in ("folder", "own"):
            del values[name]
        return values


def read_lesson(folder: str | Path) -> Lesson:
    """What an example left in its folder.

    Raises:
        RunError: there is no `result.json`, or one of another version.
    """
    return Lesson.from_dict(read_json(Path(folder) / RESULT))


def photographs() -> dict[str, Path]:
    """The photographs that scikit-learn and matplotlib ship, by what they show."""
    shipped = Path(sklearn.datasets.__file__).parent / "images"
    portrait = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return {
        "a flower": shipped / "flower.jpg",
        "a temple": shipped / "china.jpg",
        "an officer": Path(str(portrait)),
    }


# ---------------------------------------------------------------------------- the command


def start(main: Callable[[Lesson], None], file: str, arguments: Sequence[str] | None = None) -> int:
    """Runs an example with the command line's options; the exit code: 0 done, 1 failed, 2 wrong usage.

    Args:
        main: adds to the lesson what it measures and draws.
        file: the example's own.
        arguments: instead of the command line's.
    """
    number, _, name = Path(file).stem.partition("_")
    text = str(main.__globals__["__doc__"])
    options = _parser(text, f"lessons/{number}_{name}").parse_args(arguments)
    told = Lesson(number, name, text.splitlines()[0].rstrip("."))
    told.original, told.fast, told.own = options.original, options.fast, options.data
    if arguments is None:  # a process of its own
        reuse_memory()
    began = time.perf_counter()
    try:
        if told.own is not None and not told.own.is_dir():
            raise InputError(
                f"--data {str(told.own)!r} is no folder; give one that holds a folder of pictures a class"
            )
        with replaced_folder(options.out) as told.folder:
            main(told)
            told.seconds = round(time.perf_counter() - began, 1)
            write_json(told.folder / RESULT, told.to_dict())
    except Exception as error:  # noqa: BLE001 - the outermost layer; TRANSFERSCOPE_DEBUG shows it
        say_error(error)
        return 2 if isinstance(error, InputError) else 1
    print(f"{len(told.figures)} figures and {RESULT} in {options.out} ({told.seconds:.0f} s)")
    return 0


def run_example(file: str | Path, arguments: Sequence[str]) -> int:
    """Runs an example in this process, as its command does: for tests and for the gallery."""
    sys.path.insert(0, str(Path(file).parent))
    try:
        found = runpy.run_path(str(file), run_name="example")
    finally:
        sys.path.pop(0)
    return start(found["main"], str(file), arguments)


def _parser(text: str, out: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="your own pictures, a folder a class"
    )
    parser.add_argument(
        "--original",
        action="store_true",
        help="the lesson's own network and pictures, which are downloaded",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(out), metavar="DIR", help=f"default: {out}"
    )
    parser.add_argument("--fast", action="store_true", help="fewer of everything, as the tests do")
    return parser
