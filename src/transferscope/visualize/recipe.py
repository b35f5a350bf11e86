"""How a picture is drawn: the numbers that every picture of a sweep shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from transferscope.acceleration.precision import Precision
from transferscope.errors import InputError
from transferscope.visualize.movement import Movement

LARGEST = 4096
"""Pixels along a side of a picture, so that a slip is refused before memory is asked for."""

RECIPE_VERSION = 10
"""Raised whenever the same recipe could draw another picture; part of every unit's key."""


@dataclass(frozen=True)
class RenderRecipe:
    """How a picture is drawn.

    The defaults were chosen on eight channels of EfficientNet-Lite0's blocks.4.2 and blocks.5.3, for the
    activation reached after a given time, with no more energy at high frequencies than the usual recipe
    (Adam at 0.05, 512 steps) leaves.

    Attributes:
        steps: most optimization steps.
        size: (height, width) in pixels; None: the network's own input size.
        detail: side of what is optimized as a share of the picture's; the picture is its bilinear
            enlargement, and so has little at the highest frequencies.
        rate: of `Ascent`, until the last two fifths of the steps, in which it falls to a tenth; None:
            `REACH` shared out among the steps, so that fewer steps are longer ones.
        movement: how far the picture is moved at each step; None: not at all.
        redirect: for at most this many first steps, shut ReLUs let gradients through to pictures
            that have none, at the rate `LONGEST`; those still without one then begin again from another start.
        settled: a picture whose objective rose by less than this share over `WINDOW` steps goes on to
            the falling rate at once, and is finished earlier; 0: never.
        precision: of the loop; "auto" is bf16 where the hardware is fast at it.
    """

    steps: int = 120
    size: tuple[int, int] | None = None
    detail: float = 0.72
    rate: float | None = None
    movement: Movement | None = field(default_factory=Movement)
    redirect: int = 24
    settled: float = 0.01
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(
                f"--steps is {self.steps}; a rendering needs a whole number, at least 1"
            )
        if self.size is not None and not isinstance(self.size, tuple):
            raise InputError(f"size is {self.size!r}; give (height, width)")
        if self.size is not None and min(self.size) < 32:
            raise InputError(f"--size is {min(self.size)}; a rendering needs at least 32 pixels")
        if self.size is not None and max(self.size) > LARGEST:
            raise InputError(
                f"--size is {max(self.size)}; give at most {LARGEST} pixels, or draw smaller and enlarge"
            )
        if not 0.05 <= self.detail <= 1:
            raise InputError(f"detail is {self.detail}; it must be at least 0.05 and at most 1")
        if self.rate is not None and not 0 < self.rate <= 10:
            raise InputError(f"rate is {self.rate}; it must be above 0 and at most 10")
        if self.redirect < 0:
            raise InputError(f"redirect is {self.redirect}; it must be 0 or more steps")
        if not 0 <= self.settled < 1:
            raise InputError(f"settled is {self.settled}; it must be at least 0 and below 1")
        if self.precision not in get_args(Precision):
            raise InputError(
                f"precision is {self.precision!r}; use {', '.join(get_args(Precision))}"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields and the version, for keys."""
        return {**asdict(self), "version": RECIPE_VERSION}

    @property
    def pace(self) -> float:
        """The rate as it is used."""
        return min(LONGEST, REACH / self.steps) if self.rate is None else self.rate

    @property
    def patience(self) -> int:
        """Steps for which a picture without a gradient is redirected: `redirect`, or a third of fewer."""
        return min(self.redirect, self.steps // 3)

    def falling(self, age: int) -> float:
        """The share of the rate that a picture of so many steps gets: 1, then down to a tenth."""
        begins = FALL * self.steps
        return 1.0 if age < begins else 1 - 0.9 * (age - begins) / (self.steps - begins)


REACH = 8.0
"""Steps times rate. Half of it reaches less; twice as much reaches no more, and saturates colours."""

LONGEST = 0.2
"""Rate that is never exceeded by itself, and that of pictures whose gradient is redirected."""

FALL = 0.6
"""The share of the steps after which the rate falls."""

WINDOW = 12
"""Steps whose mean objective is held against that of as many before, to tell whether it still rises."""


def make_recipe(
    steps: int | None = None, size: int | None = None, precision: Precision = "auto"
) -> RenderRecipe:
    """The default recipe with another number of steps, another side or precision."""
    return RenderRecipe(
        precision=precision,
        steps=RenderRecipe.steps if steps is None else steps,
        size=None if size is None else (size, size),
    )
