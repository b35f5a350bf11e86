"""What a picture is optimized for: a small algebra of quantities that are maximised.

An objective knows which layers it needs and turns their activations into one number a picture.
Objectives add, subtract, multiply and divide, among themselves and with numbers:

    channel("blocks.4.2", 7) - 0.1 * total_variation()

Reference: the algebra is lucid's (Olah et al. 2017, "Feature Visualization").
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from typing import Any

import numpy as np
import torch

from transferscope.errors import InputError

LOGITS = "<logits>"
"""Stands for the classifier's head in `Objective.layers` and in the activations."""

Activations = Mapping[str, torch.Tensor]
Measure = Callable[[Activations, torch.Tensor], torch.Tensor]

_SUM, _PRODUCT, _ATOM = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Objective:
    """A quantity of a picture, one number each, to be maximised.

    `+ - * /` take another objective or a finite real number (numpy's too) on either side, and `sum`
    works. Division by the number 0 is refused. Division by an objective whose value is 0 gives what
    torch gives, infinity or NaN, for that picture alone; its rendering then ends as `non_finite`.

    Attributes:
        layers: dotted names of the layers whose activations it needs; `LOGITS` is the head.
        measure: (activations, pictures) -> (N,); activations by layer name, pictures (N, C, H, W)
            in [0, 1].
        name: how it is written, for captions.
        binding: how tightly the name holds together: 1 a sum, 2 a product, 3 neither.
    """

    layers: tuple[str, ...]
    measure: Measure
    name: str = "objective"
    binding: int = _ATOM

    __array_ufunc__ = None  # numpy's scalars leave the operation to the objective

    def __call__(self, activations: Activations, pictures: torch.Tensor) -> torch.Tensor:
        """(N,) float32: the value of every picture."""
        return self.measure(activations, pictures)

    def __add__(self, other: Objective | float) -> Objective:
        return _combined(self, other, operator.add, "+")

    def __radd__(self, other: float) -> Objective:
        if _operand(other) == 0:  # where `sum` begins
            return self
        return _combined(other, self, operator.add, "+")

    def __sub__(self, other: Objective | float) -> Objective:
        return _combined(self, other, operator.sub, "-")

    def __rsub__(self, other: float) -> Objective:
        return _combined(other, self, operator.sub, "-")

    def __mul__(self, other: Objective | float) -> Objective:
        return _combined(self, other, operator.mul, "*")

    def __rmul__(self, other: float) -> Objective:
        return _combined(other, self, operator.mul, "*")

    def __truediv__(self, other: Objective | float) -> Objective:
        if _operand(other) == 0:
            raise InputError(f"{self.name} is divided by 0; divide by a number other than 0")
        return _combined(self, other, operator.truediv, "/")

    def __rtruediv__(self, other: float) -> Objective:
        return _combined(other, self, operator.truediv, "/")

    def __neg__(self) -> Objective:
        return Objective(
            self.layers,
            lambda activations, pictures: -self(activations, pictures),
            f"-{_written(self, _PRODUCT, on_the_right=True)}",
            _PRODUCT,
        )


def blend(parts: Mapping[Objective, float] | Iterable[tuple[Objective, float]]) -> Objective:
    """The weighted mean of objectives, over whichever layers they look at.

    The weights are divided by their sum. Activations of different layers differ in size: to let each
    count the same, give each the inverse of what it has for its best real picture.

    Args:
        parts: objectives and their weights, above 0.

    Raises:
        InputError: no parts, or a weight that is not above 0.
    """
    pairs: list[tuple[Objective, float]] = list(
        parts.items() if isinstance(parts, Mapping) else parts
    )
    if not pairs:
        raise InputError("there is nothing to blend; give at least one objective with its weight")
    for objective, weight in pairs:
        if not 0 < weight < math.inf:
            raise InputError(
                f"the weight of {objective.name} is {weight:g}; it must be above 0 and finite "
                "(subtract an objective with '-')"
            )
    total = sum(weight for _, weight in pairs)
    weighted = [(weight / total) * objective for objective, weight in pairs]
    return reduce(Objective.__add__, weighted)


def interpolate(first: Objective, second: Objective) -> Objective:
    """From one objective to another over the pictures of a batch, in equal steps.

    Of N pictures, picture i maximises (1 - i / (N - 1)) `first` + i / (N - 1) `second`.

    Reference: lucid's `channel_interpolate`.
    """

    def measure(activations: Activations, pictures: torch.Tensor) -> torch.Tensor:
        refuse_single(len(pictures), "interpolate")
        share = torch.linspace(0, 1, len(pictures), device=pictures.device)
        return (1 - share) * first(activations, pictures) + share * second(activations, pictures)

    layers = tuple(dict.fromkeys((*first.layers, *second.layers)))
    return Objective(layers, measure, f"interpolate({first.name}, {second.name})")


def refuse_single(count: int, name: str) -> None:
    """Refuses a batch of one picture for an objective that looks at several.

    Raises:
        InputError: `count` is below 2.
    """
    if count < 2:
        raise InputError(
            f"{name} looks at several pictures together and met a batch of {count}; draw them with "
            "render_together"
        )


# ---------------------------------------------------------------------------- operands and names


def _operand(value: object) -> Objective | float | None:
    """An operand of the algebra, or None for what Python's own TypeError should name."""
    if isinstance(value, Objective):
        return value
    if isinstance(value, bool | np.bool_):
        raise InputError(f"{value} is no number to combine an objective with; write 1 or 0")
    if not isinstance(value, Real):
        return None
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{number} met an objective; give a finite number")
    return number


def _combined(
    left: Objective | float,
    right: Objective | float,
    operation: Callable[[Any, Any], torch.Tensor],
    symbol: str,
) -> Objective:
    first, second = _operand(left), _operand(right)
    if first is None or second is None:
        return NotImplemented  # type: ignore[no-any-return]  # as operators may
    sides = first, second
    layers = [name for side in sides if isinstance(side, Objective) for name in side.layers]
    binding = _SUM if symbol in "+-" else _PRODUCT

    def measure(activations: Activations, pictures: torch.Tensor) -> torch.Tensor:
        return operation(
            *(one(activations, pictures) if isinstance(one, Objective) else one for one in sides)
        )

    left_name = _written(first, binding)
    right_name = _written(second, binding + (symbol in "-/"), on_the_right=True)
    name = f"{left_name} {symbol} {right_name}"
    return Objective(tuple(dict.fromkeys(layers)), measure, name, binding)


def _written(side: Objective | float, binding: int, *, on_the_right: bool = False) -> str:
    """An operand's name, in parentheses where it would otherwise be read differently."""
    name, own = (side.name, side.binding) if isinstance(side, Objective) else (f"{side:g}", _ATOM)
    return f"({name})" if own < binding or (on_the_right and name.startswith("-")) else name
