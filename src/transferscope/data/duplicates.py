"""Copies in a set: files of equal bytes, and pictures that look the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transferscope.data.scan import Scan


@dataclass(frozen=True, slots=True)
class Copies:
    """Files of equal bytes.

    Attributes:
        paths: two or more, sorted.
        classes: of each path; None where it has none.
        splits: of each path; None before a split is made.
    """

    paths: tuple[str, ...]
    classes: tuple[str | None, ...]
    splits: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two pictures that look the same but are not byte for byte the same.

    Attributes:
        paths: the two, sorted.
        classes: of each.
        splits: of each.
        measure: `phash` (distance in bits of 64) or `embedding` (1 - cosine of pooled features).
        distance: 0 is the same.
    """

    paths: tuple[str, str]
    classes: tuple[str | None, str | None]
    splits: tuple[str | None, str | None]
    measure: str
    distance: float
