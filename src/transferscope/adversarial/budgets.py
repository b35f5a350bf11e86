"""How far a picture may be changed: balls of a norm, on the grid of 8-bit pictures or off it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from transferscope.errors import InputError

Norm = Literal["linf", "l2"]
"""`linf`: the largest change of any value; `l2`: the Euclidean length of all changes."""

LEVELS = 255

DEFAULT_EPSILON: dict[Norm, float] = {"linf": 2 / LEVELS, "l2": 1.0}


@dataclass(frozen=True)
class Budget:
    """The pictures that an attack may make of one.

    Attributes:
        norm: in which a change is measured, of values in [0, 1].
        epsilon: the largest change.
        grid: only multiples of 1/255, which a PNG holds exactly. DeepFool's minimal step fooled 8 of 8
            pictures in floating point and none of them once it was rounded.

    Raises:
        InputError: no such norm, or an epsilon that is out of range or leaves an 8-bit picture as it is.
    """

    norm: Norm
    epsilon: float
    grid: bool = True

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise InputError(f"norm is {self.norm!r}; use {' or '.join(get_args(Norm))}")
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(
                f"epsilon is {self.epsilon:g}, and an attack changes something; give more than 0, such as "
                f"{_said(DEFAULT_EPSILON[self.norm], self.norm)}"
            )
        if self.norm == "linf" and self.epsilon > 1:
            raise InputError(
                f"epsilon is {self.epsilon:g}, and values reach from 0 to 1; give at most 1, such as "
                f"{min(round(self.epsilon), LEVELS)}/255"
            )
        if self.grid and self.epsilon * LEVELS < 1 - 1e-6:
            raise InputError(
                f"epsilon is {self.epsilon:g}, less than 1/255, and no two 8-bit pictures are closer than "
                f"that; give 1/255 or more"
            )

    def project(self, candidates: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        """The nearest pictures within the budget and within [0, 1], off the grid.

        Args:
            candidates: (N, C, H, W).
            originals: likewise, in [0, 1].
        """
        clipped = candidates.clamp(0, 1)
        if self.norm == "linf":
            return torch.minimum(
                torch.maximum(clipped, originals - self.epsilon), originals + self.epsilon
            ).clamp(0, 1)
        change = clipped - originals
        scale = (self.epsilon / lengths(change).clamp_min(1e-12)).clamp_max(1)
        return originals + change * scale[:, None, None, None]

    def on_grid(self, candidates: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        """Pictures within the budget that a file holds; `candidates` themselves without `grid`.

        In `linf` every value is rounded. In `l2` rounding would undo nearly all of a change that is spread
        over a whole picture, so the budget is spent on the largest changes, each at least one level.

        Args:
            candidates: (N, C, H, W), within the budget.
            originals: likewise, multiples of 1/255.
        """
        if not self.grid:
            return candidates
        start = (originals * LEVELS).round()
        change = (candidates - originals) * LEVELS
        if self.norm == "linf":
            most = math.floor(self.epsilon * LEVELS + 1e-4)
            kept = change.round().clamp(-most, most)
        else:
            kept = self._largest(change)
        return (start + kept).clamp_(0, LEVELS) / LEVELS

    def _largest(self, change: torch.Tensor) -> torch.Tensor:
        """Whole levels (N, C, H, W) of the largest changes, as many as the Euclidean budget pays for."""
        flat = change.flatten(1)
        levels = torch.where(flat == 0, flat, flat.sign() * flat.abs().round().clamp_min(1))
        order = flat.abs().sort(dim=1, descending=True, stable=True).indices
        spent = levels.gather(1, order).double().square().cumsum(1)
        affordable = spent <= (self.epsilon * LEVELS) ** 2 * (1 + 1e-9)
        keep = torch.zeros_like(affordable).scatter(1, order, affordable)
        return torch.where(keep, levels, torch.zeros_like(levels)).view_as(change)

    def start(self, originals: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """A random picture within the budget for each, uniform in it before [0, 1] cuts it off.

        Args:
            originals: (N, C, H, W).
            generators: one a picture, on the CPU, so that it does not depend on its batch.
        """
        drawn = []
        for original, generator in zip(originals, generators, strict=True):
            if self.norm == "linf":
                change = torch.rand(original.shape, generator=generator) * 2 - 1
            else:
                change = torch.randn(original.shape, generator=generator)
                radius = float(torch.rand((), generator=generator)) ** (1 / change.numel())
                change = change / change.norm() * radius
            drawn.append(change)
        moved = originals + self.epsilon * torch.stack(drawn).to(originals)
        return self.project(moved, originals)

    def corner(self, originals: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Random noise as large as the budget allows: the control that an attack must be better than.

        Args, Returns: as `start`, on the grid.
        """
        signs = torch.stack(
            [
                torch.randn(one.shape, generator=g)
                for one, g in zip(originals, generators, strict=True)
            ]
        ).to(originals)
        if self.norm == "linf":
            change = self.epsilon * signs.sign()
        else:
            change = self.epsilon * signs / lengths(signs)[:, None, None, None]
        return self.on_grid(self.project(originals + change, originals), originals)

    def ascent(self, gradient: torch.Tensor) -> torch.Tensor:
        """The direction (N, C, H, W) of length 1 in the norm along which a gradient grows fastest."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / lengths(gradient).clamp_min(1e-12)[:, None, None, None]

    def size(self, changes: torch.Tensor) -> torch.Tensor:
        """Of changes (N, C, H, W), in the norm, (N,)."""
        return changes.flatten(1).abs().amax(1) if self.norm == "linf" else lengths(changes)


def lengths(changes: torch.Tensor) -> torch.Tensor:
    """Euclidean lengths (N,) of (N, C, H, W)."""
    found: torch.Tensor = torch.linalg.vector_norm(changes.flatten(1), dim=1)
    return found


def _said(epsilon: float, norm: Norm) -> str:
    return f"{epsilon * LEVELS:g}/255" if norm == "linf" else f"{epsilon:g}"


def epsilon_said(epsilon: float, norm: Norm) -> str:
    """An epsilon as people write it: 2/255 in `linf`, a plain number in `l2`."""
    return _said(round(epsilon, 10), norm)


def read_epsilon(text: str) -> float:
    """The number that "2/255", "0.01" or "1e-2" says.

    Raises:
        InputError: it is no number.
    """
    above, _, below = text.partition("/")
    try:
        return float(above) / (float(below) if "/" in text else 1.0)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"epsilon is {text!r}; give a fraction such as 2/255, or a number such as 0.008"
        ) from None
