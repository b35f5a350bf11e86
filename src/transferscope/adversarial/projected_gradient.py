"""Attacks that climb a gradient within a budget: FGSM in one step, PGD in many.

The gradient is taken at the picture as a file would hold it, and moves a finer one behind it, so that what
is optimised is what is written.

Reference: Goodfellow et al. 2015 (FGSM); Madry et al. 2018 (PGD); Croce and Hein 2020 for the two losses.
Deviations: the step shrinks from 0.3 to 0.03 epsilon, the first try starts from the picture itself, and the
best picture on the way is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from transferscope.adversarial.attacked import BATCH, Attacked, leads
from transferscope.adversarial.budgets import Budget

Progress = Callable[[int, int], None]

MARGIN = 0.5
"""Lead, in logits, with which a file must fool: another machine's rounding does not undo it."""

FIRST_STEP, LAST_STEP = 0.3, 0.03
"""Lengths of the steps, in units of epsilon; a single step is as long as epsilon."""


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack made of N pictures.

    Attributes:
        pictures: (N, C, H, W) in [0, 1], the best found, on the CPU; the original where nothing was better.
        leads: (N,), by how much the network itself then puts the wanted answer above all others: the target's
            logit, or the largest but the true one's; the picture fools where it is positive.
        curves: for each picture (steps, K), the probabilities on the way; empty unless asked for.
    """

    pictures: torch.Tensor
    leads: torch.Tensor
    curves: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class Goal:
    """What an attack is after.

    Attributes:
        labels: int64 (N,), the class to reach, or to leave.
        targeted: whether it is to be reached.
        aim: the lead, in logits, from which a picture is left as it is.
    """

    labels: torch.Tensor
    targeted: bool
    aim: float = 0.0

    def of(self, rows: torch.Tensor) -> Goal:
        """For some of the pictures."""
        return Goal(self.labels[rows.to(self.labels.device)], self.targeted, self.aim)

    def lead(self, logits: torch.Tensor) -> torch.Tensor:
        """Of the wanted answer above the others, (N,); positive where the picture fools."""
        lead = leads(logits, self.labels.to(logits.device))
        return lead if self.targeted else -lead

    def cotangent(self, logits: torch.Tensor, *, margin: bool) -> torch.Tensor:
        """The gradient (N, K), with respect to logits (N, K), of what is climbed.

        Without `margin` the log-odds of the class against all others: the direction of cross-entropy, which
        does not vanish where the network is sure. With it, the lead above the largest of the others.
        """
        labels = self.labels.to(logits.device)[:, None]
        others = logits.scatter(1, labels, -torch.inf)
        if margin:
            weights = torch.zeros_like(logits).scatter(1, others.argmax(1, keepdim=True), 1.0)
        else:
            weights = torch.softmax(others, dim=1)
        climbed = -weights.scatter(1, labels, -1.0)
        return climbed if self.targeted else -climbed


def fgsm(
    attacked: Attacked,
    pictures: torch.Tensor,
    goal: Goal,
    budget: Budget,
    *,
    steps: int = 1,
    restarts: int = 1,
    seed: int = 0,
    record: bool = False,
    on_progress: Progress | None = None,
) -> Found:
    """One step as long as the budget along the gradient; see `pgd`, of whose steps it takes one."""
    return pgd(attacked, pictures, goal, budget, steps=1, record=record, on_progress=on_progress)


def pgd(
    attacked: Attacked,
    pictures: torch.Tensor,
    goal: Goal,
    budget: Budget,
    *,
    steps: int = 40,
    restarts: int = 1,
    seed: int = 0,
    record: bool = False,
    on_progress: Progress | None = None,
) -> Found:
    """Many steps along the gradient, projected back into the budget after each.

    Args:
        attacked: the network.
        pictures: (N, C, H, W) in [0, 1], for a budget on the grid multiples of 1/255.
        goal: what is wanted of each.
        budget: how far a picture may be changed.
        steps: a try.
        restarts: tries; the first from the picture, the others from random ones. Every second climbs the lead
            above the nearest class instead of the log-odds. Pictures that reached the aim are tried no more.
        seed: of the random starts, which depend on the picture and not on its batch.
        record: keep the curves of probabilities.
        on_progress: called with (picture-steps done, all); what is reached early counts as done.
    """
    parts: list[Found] = []
    for begin in range(0, len(pictures), BATCH):
        rows = torch.arange(begin, min(begin + BATCH, len(pictures)))

        climb = _Climb(attacked, pictures[rows], goal.of(rows), budget, record)
        for number in range(restarts):
            for step in climb.once(number, steps, seed):
                if on_progress:
                    passed = begin * restarts * steps + len(rows) * (number * steps + step)
                    on_progress(passed, len(pictures) * restarts * steps)
        if on_progress:
            on_progress((int(rows[-1]) + 1) * restarts * steps, len(pictures) * restarts * steps)
        parts.append(climb.found())
    return Found(
        torch.cat([part.pictures for part in parts]),
        torch.cat([part.leads for part in parts]),
        tuple(curve for part in parts for curve in part.curves),
    )


class _Climb:
    """A batch of pictures, and the best that was made of each so far."""

    def __init__(
        self, attacked: Attacked, pictures: torch.Tensor, goal: Goal, budget: Budget, record: bool
    ):
        self._attacked, self._budget = attacked, budget
        self._originals = pictures.to(attacked.device)
        self._goal = Goal(goal.labels.to(attacked.device), goal.targeted, goal.aim)
        self._best = self._originals.clone()
        self._lead = torch.full((len(pictures),), -torch.inf, device=attacked.device)
        self._open = torch.arange(len(pictures), device=attacked.device)  # not at the aim yet
        self._curves: list[list[torch.Tensor]] | None = [[] for _ in pictures] if record else None

    def once(self, number: int, steps: int, seed: int) -> Iterator[int]:
        """One try from its own start, number 0 from the pictures themselves; yields the steps done."""
        fine = self._originals[self._open]
        if number and len(self._open):
            generators = [generator_of(one, seed, number) for one in fine.cpu()]
            fine = self._budget.start(fine, generators)
        for step in range(steps + 1):
            if not len(self._open):
                return
            originals = self._originals[self._open]
            coarse = self._budget.on_grid(fine, originals)
            leaf = coarse.detach().requires_grad_(step < steps)
            with torch.set_grad_enabled(step < steps):
                logits = self._attacked.logits(leaf)
            still_open = self._look(coarse, logits.detach())
            if step == steps:
                return
            goal = self._goal.of(self._open)
            climbed = (logits * goal.cotangent(logits.detach(), margin=number % 2 == 1)).sum()
            (gradient,) = torch.autograd.grad(climbed, leaf)
            moved = fine + self._budget.epsilon * _length(step, steps) * self._budget.ascent(
                gradient.to(fine.dtype)
            )
            fine = self._budget.project(moved, originals)[still_open]
            self._open = self._open[still_open]
            yield step + 1

    def _look(self, pictures: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Keeps what is better than before; which of the open pictures go on, bool (n,)."""
        goal = self._goal.of(self._open)
        lead = goal.lead(logits)
        if self._curves is not None:
            said = torch.softmax(logits / self._attacked.classifier.temperature, dim=1).cpu()
            for row, one in zip(self._open.tolist(), said, strict=True):
                self._curves[row].append(one)
        reached = (lead > goal.aim).nonzero().flatten()
        if len(reached):  # the copy says so: does the network?
            exact = goal.of(reached).lead(self._attacked.exact(pictures[reached]))
            lead = lead.index_copy(0, reached, exact)
        better = lead > self._lead[self._open]
        rows = self._open[better]
        self._best[rows], self._lead[rows] = pictures[better], lead[better]
        goes_on = torch.ones_like(better)
        goes_on[reached] = lead[reached] <= goal.aim
        return goes_on

    def found(self) -> Found:
        """The best of all tries, with what the network itself says of it."""
        lead = self._goal.lead(self._attacked.exact(self._best))
        curves = () if self._curves is None else tuple(torch.stack(one) for one in self._curves)
        return Found(self._best.cpu(), lead.cpu(), curves)


def _length(step: int, steps: int) -> float:
    """Of a step, in units of epsilon."""
    return 1.0 if steps == 1 else FIRST_STEP - (FIRST_STEP - LAST_STEP) * step / (steps - 1)


def generator_of(picture: torch.Tensor, seed: int, number: int) -> torch.Generator:
    """Random numbers of a picture (C, H, W) in [0, 1]: the same in every batch and for every network."""
    values = (picture * 255).round().to(torch.uint8).contiguous().numpy().tobytes()
    digest = hashlib.sha256(values + f"/{seed}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
