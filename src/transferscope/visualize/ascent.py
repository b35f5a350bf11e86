"""The optimizer of the render loop: every row by itself, each at its own age."""

from __future__ import annotations

from collections.abc import Sequence

import torch

MOMENTUM, MEMORY = 0.5, 0.99
"""Decay of the averages of the gradient and of its square. A momentum of 0.9, usual in training, was
measured to cost a fifth more steps here: what a picture wants next changes within a few."""

ADAPTIVITY = 0.3
"""The power to which the second moment divides the step: 0 is plain momentum, 0.5 Adam. Between the
two, as much is reached as with Adam and with half the energy at high frequencies, since coefficients
that hardly matter are not driven as hard as those that do."""

_EPSILON = 1e-8


class Ascent:
    """Partially adaptive gradient ascent with Nesterov momentum on the rows of a tensor.

    The gradient of each row is scaled to a mean square of 1, so a row never depends on its neighbours
    or on the scale of its objective. A row without a gradient stays where it is, without coasting on its
    momentum: a ReLU that a step has shut would be shut further by another in the same direction.

    Args:
        free: (N, ...), changed in place.
        rate: length of a step.

    Reference: Chen et al. 2018, "Closing the Generalization Gap of Adaptive Gradient Methods" (Padam);
    Dozat 2016 for the momentum.
    """

    def __init__(self, free: torch.Tensor, rate: float):
        self.free = free
        self.rate = rate
        self._first = torch.zeros_like(free)
        self._second = torch.zeros_like(free)
        self._ages = [0] * len(free)

    def forget(self, row: int) -> None:
        """A row begins anew: no momentum, no memory."""
        self._first[row] = 0
        self._second[row] = 0
        self._ages[row] = 0

    @torch.no_grad()
    def step(self, rows: Sequence[int], gradient: torch.Tensor, shares: Sequence[float]) -> None:
        """One step of some rows.

        Args:
            rows: R indexes; the others stay as they are.
            gradient: (R, ...) of the objective; rows of zeros neither move nor age.
            shares: R factors of the rate.
        """
        moving = gradient.flatten(1).any(1).tolist()
        for place, row in enumerate(rows):
            if not moving[place]:
                continue
            self._ages[row] += 1
            age = self._ages[row]
            own = gradient[place]
            own = own / own.abs().amax()  # whose squares are in range
            own /= own.square().mean().sqrt()
            first = self._first[row].mul_(MOMENTUM).add_(own, alpha=1 - MOMENTUM)
            second = self._second[row].mul_(MEMORY).addcmul_(own, own, value=1 - MEMORY)
            ahead = first * (MOMENTUM / (1 - MOMENTUM ** (age + 1)))
            ahead += own * ((1 - MOMENTUM) / (1 - MOMENTUM**age))
            spread = (second / (1 - MEMORY**age)).add_(_EPSILON)
            spread = spread.log_().mul_(ADAPTIVITY).exp_()  # a power, in a third of its time
            self.free[row] += ahead.div_(spread).mul_(self.rate * shares[place])
