"""The homework: 36 characters, and strips of four.

    python examples/06_homework.py

The lesson ends with a task: a network that recognises the 36 characters 0-9 and A-Z, and reads strips of
four. Its parts are a dictionary, a data set, a network, a training function, the cutting of the strips, and
the share of strips that are read whole.

Here the characters are generated, in typefaces of which none serves training and test alike, and each part
is a call of the package. `--data DIR` takes your pictures, a folder a character. Nothing is known that
`--original` could download.
"""

from __future__ import annotations

from _lesson import Lesson, start

# isort: split

import sys
from pathlib import Path

import transferscope as ts
from transferscope.data.demo import CHARACTERS, CONFUSABLE, STRIP_LENGTH
from transferscope.errors import InputError
from transferscope.evaluation.intervals import wilson_interval
from transferscope.evaluation.metrics import Evaluation
from transferscope.files import read_csv
from transferscope.report.figures.answers import write_answer_figure
from transferscope.report.figures.classes import confusion_figure, per_class_figure
from transferscope.report.figures.training import history_figure
from transferscope.workflows.demo import read_strips

SHOWN = 6  # strips of the figure


def main(told: Lesson) -> None:
    """The parts of the task, in its order."""
    if told.original:
        raise InputError(
            "--original asks for the homework's own pictures, of which no address is known; leave it out, or "
            "give your pictures by --data DIR"
        )
    strips = 8 if told.fast else 50
    source = told.source(
        dataset="",
        backbone="efficientnet_lite0",
        characters="0123ABCD" if told.fast else CHARACTERS,
        train=10 if told.fast else 40,
        validation=3 if told.fast else 10,
        test=3 if told.fast else 10,
        strips=strips,
    )
    recipe = told.recipe()
    if told.fast:
        recipe["epochs"] = 1
    run = ts.tune(
        **source, **recipe, confusable=confusable(source["data"]), out=told.folder / "run"
    )
    told.setting = {**recipe, "strips": strips}
    dictionary = {name: place for place, name in enumerate(run.split.scan.classes)}
    told.row("characters in the dictionary", lesson="36", ours=str(len(dictionary)))
    for part, count in run.results["pictures"].items():
        told.row(f"pictures in the data set, {part}", ours=f"{count:,}")
    network = run.classifier.network
    told.row(
        "parameters of the network",
        ours=f"{sum(one.numel() for one in network.parameters()):,}",
        note=f"tuned behind {run.results['boundary']}",
    )
    told.figure("history.svg", history_figure(run.history), "Loss and accuracy by epoch.")
    found = run.evaluate("test")
    tested(told, run, found)
    if told.own is None:
        strips_read(told, run, found)


def confusable(data: Path) -> tuple[tuple[str, str], ...]:
    """Pairs of the set's classes that are one drawing in some typefaces."""
    classes = set(ts.scan(data).classes)
    return tuple(pair for pair in CONFUSABLE if set(pair) <= classes)


def tested(told: Lesson, run: ts.Run, found: Evaluation) -> None:
    """Single characters."""
    ends = found.intervals["top1"]
    told.row(
        "top-1 on single test characters",
        ours=f"{found.top1:.1%} ({ends.low:.1%} to {ends.high:.1%})",
        note=f"{found.n} pictures in typefaces that training has not seen",
    )
    if found.confusable is not None:
        pairs = ", ".join(f"{a} and {b}" for a, b in run.config.confusable)
        told.row(
            "top-1 on test, look-alikes counted as one",
            ours=f"{found.confusable:.1%}",
            note=f"{pairs}: in some typefaces only the width or a serif tells them apart",
        )
    told.figure("per-class.svg", per_class_figure(found), "Accuracy by character.")
    predictions = ts.Predictions.load(run.path / "evaluation")
    told.figure("confusion.svg", confusion_figure(predictions), "What is taken for what.")


def strips_read(told: Lesson, run: ts.Run, found: Evaluation) -> None:
    """Strips, cut into four pieces of equal width and read from left to right."""
    read = read_strips(run)
    low, high = wilson_interval(read["right"], read["n"])
    told.row(
        f"strips of {STRIP_LENGTH} read whole",
        ours=f"{read['share']:.1%} ({low:.1%} to {high:.1%})",
        note=f"{read['n']} strips; with look-alikes counted as one "
        f"{read['share_with_lookalikes_merged']:.1%}",
    )
    told.finding(
        f"Characters that are right {found.top1:.1%} of the time make strips that are right "
        f"{found.top1**STRIP_LENGTH:.1%} of the time if mistakes fall independently; {read['share']:.1%} were."
    )
    folder = told.folder / "data"
    rows = read_csv(folder / "strips.csv")[:SHOWN]
    answers = ts.predict(run.classifier, [folder / row["path"] for row in rows], strip=STRIP_LENGTH)
    write_answer_figure(told.folder / "strips.svg", answers)
    told.figure("strips.svg", None, "Strips, how they were cut, and what was read.")


if __name__ == "__main__":
    sys.exit(start(main, __file__))
