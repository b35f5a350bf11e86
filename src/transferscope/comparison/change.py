"""What every witness says of every channel: value, interval, null and false discovery rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transferscope.comparison.nulls import (
    beyond_controls,
    beyond_margin,
    freedom_of,
    half_differences,
    interval,
    moderated_variance,
    q_values,
    split_halves,
)
from transferscope.comparison.witnesses import WITNESSES, Witness
from transferscope.errors import InputError, RunError
from transferscope.files import read_csv, write_csv

DRAWS = 100
"""Random halvings of the pictures: a standard error is known to about 7%."""

FDR = 0.05
"""False discovery rate at which a channel is called."""

MOVED, LEARNED, MATTERS, LOOKS_DIFFERENT = (
    "response_change",
    "class_information",
    "patching",
    "drawings",
)
"""The witnesses of the four questions."""

Responses = Mapping[str, NDArray[np.float64]]
"""Layer -> responses (N, C) to the same N pictures."""


@dataclass(frozen=True)
class Witnessed:
    """What one witness says of one channel.

    Attributes:
        layer: dotted name.
        channel: index within the layer.
        witness: name in `WITNESSES`.
        value: of the witness; its unit is the witness's.
        low: lower end of the 95% interval over pictures.
        high: upper end.
        null: the value that means no change: the mean of the controls, or the witness's margin.
        p: one-sided, of a value above `null`; 1 in a layer that answers identically.
        q: Benjamini-Hochberg adjusted over all channels tested by this witness.
    """

    layer: str
    channel: int
    witness: str
    value: float
    low: float
    high: float
    null: float
    p: float
    q: float


def witnessed_channels(
    base: Responses,
    tuned: Responses,
    controls: Sequence[Responses],
    labels: NDArray[np.int64],
    *,
    witnesses: Mapping[str, Witness] = WITNESSES,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Witnessed, ...]:
    """All witnesses' rows for all channels of all layers, witness by witness.

    Args:
        base: responses of the base network to held-out pictures.
        tuned: of the tuned one, to the same pictures.
        controls: of two control transfers or more; of none: gains are held against base alone, which
            says that a channel differs, and not that it learned.
        labels: int64 (N,), of the pictures.
        witnesses: by name.
        draws: random halvings of the pictures.
        seed: of the halvings; all networks see the same ones.

    Raises:
        InputError: one control, or other layers or pictures in one network than in another.
    """
    if len(controls) == 1:
        raise InputError("there is 1 control; a null of controls takes 2 or more")
    shapes = {layer: values.shape for layer, values in base.items()}
    for other in (tuned, *controls):
        if {layer: values.shape for layer, values in other.items()} != shapes:
            raise InputError(
                "the networks' responses are of different layers, channels or pictures; give the same of "
                "all of them"
            )
    halves = split_halves(labels, draws, seed)
    found = []
    for name, witness in witnesses.items():
        shifts = _shifts(witness, base, tuned, controls, labels)
        layers = [
            _layer_rows(name, witness, layer, base, tuned, controls, labels, halves, shifts[layer])
            for layer in base
        ]
        found += _with_q_values([row for rows in layers for row in rows], base, tuned)
    return tuple(found)


def _shifts(
    witness: Witness,
    base: Responses,
    tuned: Responses,
    controls: Sequence[Responses],
    labels: NDArray[np.int64],
) -> dict[str, tuple[float, float] | None]:
    """How much a whole layer shifts from control to control, and how well that is known.

    Two or three controls hardly say it of one layer, so every layer's variance is drawn towards that of all
    layers that differ, as channels' variances are within a layer.
    """
    differing = [layer for layer in base if not np.array_equal(base[layer], tuned[layer])]
    if witness.margin is not None or not controls or not differing:
        return dict.fromkeys(base)
    means = np.array(
        [
            [witness.measure(base[layer], one[layer], labels).mean() for layer in differing]
            for one in controls
        ]
    )
    variances, freedom = moderated_variance(means)
    known = dict(zip(differing, variances.tolist(), strict=True))
    return {layer: (known[layer], freedom) if layer in known else None for layer in base}


def _layer_rows(
    name: str,
    witness: Witness,
    layer: str,
    base: Responses,
    tuned: Responses,
    controls: Sequence[Responses],
    labels: NDArray[np.int64],
    halves: NDArray[np.bool_],
    shift: tuple[float, float] | None,
) -> list[Witnessed]:
    freedom = freedom_of(labels, len(halves))
    before, after = base[layer], tuned[layer]
    values = witness.measure(before, after, labels)
    own = half_differences(witness.measure, before, after, labels, halves)
    low, high = interval(values, own, freedom)
    if witness.margin is not None or not controls:
        margin = witness.margin or 0.0
        null = np.full_like(values, margin)
        _, p = beyond_margin(values, margin, own, freedom)
    else:
        there = [control[layer] for control in controls]
        reached = np.stack([witness.measure(before, one, labels) for one in there])
        shared = [half_differences(witness.measure, before, one, labels, halves) for one in there]
        null = reached.mean(0)
        beside = own - np.mean(shared, axis=0)
        _, p = beyond_controls(values, reached, beside, freedom, shift=shift)
    columns = np.stack([values, low, high, null, p], axis=1).tolist()
    return [
        Witnessed(layer, channel, name, value, below, above, nothing, chance, q=1.0)
        for channel, (value, below, above, nothing, chance) in enumerate(columns)
    ]


def _with_q_values(rows: Sequence[Witnessed], base: Responses, tuned: Responses) -> list[Witnessed]:
    """Rows with q over the layers that answer differently; the others are not tested."""
    identical = {layer for layer in base if np.array_equal(base[layer], tuned[layer])}
    tested = [row for row in rows if row.layer not in identical]
    adjusted = iter(q_values(np.array([row.p for row in tested])))
    return [
        replace(row, p=1.0, q=1.0)
        if row.layer in identical
        else replace(row, q=float(next(adjusted)))
        for row in rows
    ]


def learned_channels(rows: Sequence[Witnessed], *, fdr: float = FDR) -> tuple[Witnessed, ...]:
    """The channels that learned: class information beyond the controls, and more than in base.

    Beyond the controls at a false discovery rate of `fdr`, and with an interval of the gain above zero.
    A channel that loses less than shuffled labels make it lose has not learned.
    """
    asked = [row for row in rows if row.witness == LEARNED]
    return tuple(row for row in asked if row.q <= fdr and row.low > 0)


def save_rows(rows: Sequence[Witnessed], path: str | Path) -> None:
    """Writes rows as a CSV table, a row a channel and witness; `load_rows` reads the same values."""
    write_csv(path, [field.name for field in fields(Witnessed)], [astuple(row) for row in rows])


def load_rows(path: str | Path) -> tuple[Witnessed, ...]:
    """What `save_rows` wrote.

    Raises:
        RunError: missing, or not such a table.
    """
    kinds = {"layer": str, "channel": int, "witness": str}
    try:
        return tuple(
            Witnessed(**{f.name: kinds.get(f.name, float)(row[f.name]) for f in fields(Witnessed)})
            for row in read_csv(path)
        )
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{str(path)!r} is not a table of witnesses ({error!r}); 'transferscope compare' makes it again"
        ) from error
