"""How long many pieces of work will take, said once, early."""

from __future__ import annotations

import pytest

from conftest import Heard
from transferscope.workflows import reporter
from transferscope.workflows.reporter import Outlook


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(reporter.time, "monotonic", lambda: now[0])
    return now


def test_the_first_piece_says_how_long_all_will_take(clock):
    heard = Heard()
    outlook = Outlook(300, "drawings", heard)
    steps = []
    first = outlook.through(lambda *step: steps.append(step), 20)  # of 32, 12 are there already
    first(12, 32)
    assert heard.lines == []
    clock[0] = 3.0
    first(15, 32)
    assert heard.lines == ["300 drawings are to be made: about 5 min from here"]
    clock[0] = 9.0
    outlook.through(lambda *_: None, 280)(16, 280)
    assert len(heard.lines) == 1
    assert steps == [(12, 32), (15, 32)]


def test_short_work_says_nothing(clock):
    heard = Heard()
    advance = Outlook(30, "drawings", heard).through(lambda *_: None, 30)
    clock[0] = 3.0
    advance(10, 30)
    Outlook(0, "drawings", heard).through(lambda *_: None, 0)(5, 5)
    assert heard.lines == []
