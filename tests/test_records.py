"""Records write themselves as plain values and read themselves back."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from transferscope.errors import RunError
from transferscope.records import Record


@dataclass(frozen=True)
class Part(Record):
    name: str
    interval: tuple[float, float]


@dataclass(frozen=True)
class Whole(Record):
    parts: tuple[Part, ...]
    by_name: dict[str, Part]
    count: int = 0
    made_by: ClassVar[str] = "transferscope evaluate"


def test_a_record_survives_json():
    part = Part("Ü", (0.25, 0.75))
    whole = Whole((part,), {"x": part}, 3)
    assert Whole.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def test_what_a_newer_version_adds_is_passed_over():
    assert Part.from_dict({"name": "a", "interval": [0, 1], "new": None}) == Part("a", (0.0, 1.0))


@pytest.mark.parametrize(
    "change", [{"parts": [{"name": "a"}]}, {"count": "many"}, {"by_name": None}]
)
def test_what_does_not_fit_names_the_field_and_the_remedy(change):
    fields = {"parts": [], "by_name": {}, "count": 1} | change
    with pytest.raises(
        RunError, match=r"stored Whole.*'transferscope evaluate' makes it again"
    ) as told:
        Whole.from_dict(fields)
    assert next(iter(change)) in str(told.value)
