"""The live table grows without a second bar, and without a terminal there are plain lines."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from transferscope import terminal
from transferscope.terminal import Terminal, epoch_table
from transferscope.training.checkpoints import EpochRow

STEPS = 5


def row(epoch: int, loss: float | None = None) -> EpochRow:
    """Of a fit whose best epoch is the fourth."""
    known = epoch > 0
    return EpochRow(
        epoch=epoch,
        train_loss=2 / (epoch + 1) if known else None,
        train_top1=0.5 if known else None,
        validation_loss=1 + 0.1 * abs(epoch - 4),
        validation_top1=0.81,
        calibrated_loss=0.9 + 0.1 * abs(epoch - 4) if loss is None else loss,
        learning_rate=3e-4,
        seconds=1.5,
    )


def screen(height: int = 30) -> Console:
    return Console(
        record=True, force_terminal=True, width=100, height=height, file=io.StringIO(), _environ={}
    )


def paper() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=100, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def final(console: Console) -> list[str]:
    """What is left on the screen: the sequences that move the cursor are obeyed."""
    lines: list[str] = [""]
    at = 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written(console)):
        if part == "\n":
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif part.endswith("A"):
            at -= int(part[2:-1])
        elif part.endswith("K"):
            lines[at] = ""
        elif part != "\r" and not part.startswith("\x1b"):
            lines[at] += part
    return [line.rstrip() for line in lines]


def fit(reporter: Terminal, epochs: int) -> None:
    with reporter.task("fine-tuning") as progress:
        reporter.epoch(row(0))
        for epoch in range(1, epochs + 1):
            for step in range(STEPS):
                progress((epoch - 1) * STEPS + step + 1, epochs * STEPS)
            reporter.epoch(row(epoch))


def test_a_terminal_ends_with_one_table_and_one_bar() -> None:
    console = screen()
    fit(Terminal(quiet=False, to=console), 6)
    left = final(console)
    assert sum("train loss" in line for line in left) == 1
    assert sum("fine-tuning" in line for line in left) == 1
    assert "30/30" in next(line for line in left if "fine-tuning" in line)
    epochs = [line.split()[0] for line in left if re.match(r" *(start|\d+) ", line)]
    assert epochs == ["start", "1", "2", "3", "4", "5", "6"]
    assert [line.split()[0] for line in left if line.endswith("best")] == ["4"]


def test_of_many_epochs_the_last_and_the_best_are_shown() -> None:
    console = screen()
    fit(Terminal(quiet=False, to=console), 200)
    left = final(console)
    epochs = [line.split()[0] for line in left if re.match(r" *(start|\d+|⋮)( |$)", line)]
    assert epochs == ["4", "⋮", *map(str, range(191, 201))]
    assert [line.split()[0] for line in left if line.endswith("best")] == ["4"]
    assert sum("fine-tuning" in line for line in left) == 1


@pytest.mark.parametrize("height", [6, 10, 16])
def test_the_table_fits_on_a_low_terminal(height: int) -> None:
    console = screen(height)
    fit(Terminal(quiet=False, to=console), 40)
    left = final(console)
    assert len([line for line in left if line]) < height
    assert any(line.startswith("    4 ") or line.split()[:1] == ["4"] for line in left)
    assert sum("fine-tuning" in line for line in left) == 1


def test_news_stand_above_the_table() -> None:
    console = screen()
    reporter = Terminal(quiet=False, to=console)
    with reporter.task("fine-tuning") as progress:
        reporter.epoch(row(0))
        progress(1, 2)
        reporter.say("the loss of [bold]one[/] batch")
        reporter.epoch(row(1))
    left = final(console)
    assert left[0] == "the loss of [bold]one[/] batch"
    assert sum("train loss" in line for line in left) == 1


def test_work_within_work_has_a_bar_only_while_it_lasts() -> None:
    console = screen()
    reporter = Terminal(quiet=False, to=console)
    with reporter.task("fine-tuning") as outer:
        outer(1, 2)
        with reporter.task("a view [dim]") as inner:
            inner(1, 1)
        outer(2, 2)
    with reporter.task("evaluating") as progress:
        progress(3, 3)
    left = final(console)
    assert [line.split()[0] for line in left if line] == ["fine-tuning", "evaluating"]


def test_a_second_fit_begins_a_table_of_its_own() -> None:
    console = screen()
    reporter = Terminal(quiet=False, to=console)
    fit(reporter, 2)
    fit(reporter, 3)
    epochs = [line.split()[0] for line in final(console) if re.match(r" *(start|\d+) ", line)]
    assert epochs == ["start", "1", "2", "start", "1", "2", "3"]


def test_a_second_fit_has_a_best_of_its_own_without_a_terminal() -> None:
    console = paper()
    reporter = Terminal(quiet=False, to=console)
    with reporter.task("two fits"):
        reporter.epoch(row(0))
        with reporter.task("a view"):
            reporter.epoch(row(1, loss=9.0))
        reporter.epoch(row(0, loss=5.0))
    marked = [line.endswith("best so far") for line in written(console).splitlines()]
    assert marked == [True, False, False, True, False]


def interrupted(reporter: Terminal) -> None:
    with reporter.task("fine-tuning") as progress:
        progress(1, 9)
        reporter.epoch(row(0))
        raise KeyboardInterrupt


def test_a_broken_fit_gives_the_terminal_back() -> None:
    console = screen()
    reporter = Terminal(quiet=False, to=console)
    with pytest.raises(KeyboardInterrupt):
        interrupted(reporter)
    assert written(console).rstrip().endswith("\x1b[?25h")  # the cursor is shown again
    reporter.say("after")
    assert final(console)[-2] == "after"


def test_without_a_terminal_there_is_a_line_an_epoch() -> None:
    console = paper()
    fit(Terminal(quiet=False, to=console), 5)
    lines = [" ".join(line.split()) for line in written(console).splitlines()]
    assert lines[0] == "epoch 0 train - - validation 1.400 81.0% rate - 1.5 s best so far"
    assert lines[1] == (
        "epoch 1 train 1.000 50.0% validation 1.300 81.0% rate 3.0e-04 1.5 s best so far"
    )
    assert "best" not in lines[5]
    assert re.fullmatch(r"fine-tuning \(25\): \d+\.\d s", lines[6])
    assert "\x1b" not in written(console)


def test_long_work_without_a_terminal_tells_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    console = paper()
    with Terminal(quiet=False, to=console).task("reading") as progress:
        for done in range(1, 41):
            now[0] += 1
            progress(done, 40)
    assert written(console).splitlines() == [
        "reading: 11/40, about 29 s left",
        "reading: 22/40, about 18 s left",
        "reading: 33/40, about 7 s left",
        "reading (40): 40.0 s",
    ]


@pytest.mark.parametrize("make", [screen, paper])
def test_quiet_is_quiet(make: type[Console]) -> None:
    console = make()
    reporter = Terminal(quiet=True, to=console)
    fit(reporter, 2)
    reporter.say("anything")
    assert written(console) == ""


def test_a_loss_that_is_not_a_number_is_never_the_best() -> None:
    console = paper()
    console.print(epoch_table([row(0, math.nan), row(1), row(2, math.nan)]))
    marked = [line for line in written(console).splitlines() if line.endswith("best")]
    assert [line.split()[0] for line in marked] == ["1"]


def test_the_table_fits_in_eighty_columns() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=80, _environ={})
    console.print(epoch_table([row(epoch) for epoch in range(120)]))
    assert "…" not in written(console)
    assert max(map(len, written(console).splitlines())) <= 80


def test_long_work_without_a_terminal_says_early_how_long(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    to = paper()
    with Terminal(False, to=to).task("drawing") as advance:
        now[0] = 3.0
        advance(2, 200)
        first = written(to)
        now[0] = 4.0
        advance(3, 200)
        assert written(to) == first  # once; then every ten seconds
    assert first == "drawing: 2/200, about 5 min left\n"
    quick = paper()
    with Terminal(False, to=quick).task("drawing") as advance:
        now[0] = 7.0
        advance(100, 200)
        assert written(quick) == ""


# ---------------------------------------------------------------------------- in Python


@pytest.fixture
def heard(monkeypatch) -> Console:
    console = paper()
    monkeypatch.setattr(terminal, "console", lambda: console)
    return console


def work(count: int, *, reporter: object = None) -> int:
    """What works."""
    if reporter is not None:
        with reporter.task("work") as advance:
            advance(count, count)
    return count


def test_python_shows_progress_to_who_looks_on_and_is_quiet_where_asked(heard, monkeypatch):
    shown = terminal.with_progress(work)
    assert shown(2) == 2
    assert written(heard) == ""  # nobody looks on: neither a terminal nor a notebook
    assert shown(2, progress=True) == 2
    assert written(heard).startswith("work (2): ")
    monkeypatch.setattr(terminal, "interactive", lambda: True)
    length = len(written(heard))
    shown(2)
    assert len(written(heard)) > length
    length = len(written(heard))
    shown(2, progress=False)
    shown(2, reporter=Terminal(True))  # one's own has precedence
    assert len(written(heard)) == length


def test_every_long_function_of_the_public_map_has_progress():
    import inspect

    import transferscope as ts

    for name in ts._LONG:
        parameters = inspect.signature(getattr(ts, name)).parameters
        assert parameters["progress"].default is None
    assert "progress" in inspect.signature(ts.Run.evaluator).parameters
    assert ts.compare.__doc__
