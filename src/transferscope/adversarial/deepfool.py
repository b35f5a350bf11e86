"""DeepFool: about the shortest way, in Euclidean length, across the nearest border between classes.

Reference: Moosavi-Dezfooli et al. 2016, algorithm 2. Deviations: pictures stay in [0, 1]; of many classes the
ten likeliest are looked at, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from transferscope.adversarial.attacked import BATCH, Attacked
from transferscope.adversarial.budgets import LEVELS, Budget, lengths
from transferscope.adversarial.projected_gradient import MARGIN, Found, Goal, Progress, pgd

CANDIDATES = 10
OVERSHOOT = 0.02

_FACTOR, _STEPS = 1.3, 20
"""How a length that does not fool on the grid grows, and the steps in which a file of it is looked for."""


def deepfool(
    attacked: Attacked,
    pictures: torch.Tensor,
    goal: Goal,
    budget: Budget,
    *,
    steps: int = 50,
    restarts: int = 1,
    seed: int = 0,
    record: bool = False,
    on_progress: Progress | None = None,
) -> Found:
    """About the smallest change that fools with a margin once it is in a file.

    DeepFool gives the length of the smallest step; rounded, that step fools no more. So PGD looks for a file
    within that length, and within longer ones, until one fools.

    Args:
        attacked, pictures, goal, budget, record, on_progress: see `pgd`; the budget is one of `l2`, and is
            the longest that is tried.
        steps: of DeepFool, at most.
        restarts, seed: not used; there is nothing random.
    """
    assert budget.norm == "l2"
    minimal, curves = minimal_changes(
        attacked, pictures, goal, steps=steps, record=record, on_progress=on_progress
    )
    least = 1 / LEVELS if budget.grid else 0.0
    found = []
    for row, change in enumerate(minimal):
        rows = torch.tensor([row])
        goal_of_it = replace(goal.of(rows), aim=min(goal.aim, MARGIN))
        length = float(change.norm())
        length = min(max(length, least), budget.epsilon) if length > 0 else budget.epsilon
        while True:  # at most 30 times from the least length to any epsilon there is
            within = Budget("l2", length, budget.grid)
            best = pgd(attacked, pictures[rows], goal_of_it, within, steps=_STEPS, record=record)
            if float(best.leads) > goal_of_it.aim or length >= budget.epsilon:
                break
            length = min(_FACTOR * length, budget.epsilon)
        found.append(best)
    ended = (
        tuple(torch.cat([curve, one.curves[0]]) for curve, one in zip(curves, found, strict=True))
        if record
        else ()
    )
    return Found(
        torch.cat([one.pictures for one in found]), torch.cat([one.leads for one in found]), ended
    )


def minimal_changes(
    attacked: Attacked,
    pictures: torch.Tensor,
    goal: Goal,
    *,
    steps: int = 50,
    record: bool = False,
    on_progress: Progress | None = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """What has to be added to each picture, off the grid.

    Args:
        attacked, pictures, goal, record, on_progress: see `pgd`.
        steps: at most.

    Returns:
        (N, C, H, W), zero where the network is fooled already and NaN where `steps` were not enough; and
        the curves of probabilities, if asked for.
    """
    changes, curves = [], []
    for begin in range(0, len(pictures), BATCH):
        rows = torch.arange(begin, min(begin + BATCH, len(pictures)))
        change, curve = _batch(attacked, pictures[rows], goal.of(rows), steps, record)
        changes.append(change)
        curves += curve
        if on_progress:
            on_progress(int(rows[-1]) + 1, len(pictures))
    return torch.cat(changes), tuple(curves)


def _batch(
    attacked: Attacked, pictures: torch.Tensor, goal: Goal, steps: int, record: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    originals = pictures.to(attacked.device)
    goal = Goal(goal.labels.to(attacked.device), goal.targeted, goal.aim)
    total = torch.zeros_like(originals)
    at = originals
    rows = torch.arange(len(pictures), device=attacked.device)
    curves: list[list[torch.Tensor]] = [[] for _ in pictures]
    for _ in range(steps):
        exact = attacked.exact(at[rows])
        if record:
            said = torch.softmax(exact / attacked.classifier.temperature, dim=1).cpu()
            for row, one in zip(rows.tolist(), said, strict=True):
                curves[row].append(one)
        open_ = goal.of(rows).lead(exact) <= 0
        rows = rows[open_]
        if not len(rows):
            break
        total[rows] += _to_border(attacked, at[rows], exact[open_], goal.of(rows))
        at = (originals + (1 + OVERSHOOT) * total).clamp(0, 1)
    else:
        rows = rows[goal.of(rows).lead(attacked.exact(at[rows])) <= 0]
    change = at - originals
    change[rows] = torch.nan
    return change.cpu(), [torch.stack(curve) for curve in curves if curve]


def _to_border(
    attacked: Attacked, pictures: torch.Tensor, said: torch.Tensor, goal: Goal
) -> torch.Tensor:
    """The step (N, C, H, W) to the nearest border of a network that were linear.

    The fast copy gives the slopes only: near a border, its rounding is larger than the gap to it.

    Args:
        attacked, pictures, goal: see `pgd`.
        said: (N, K), the network's own logits.
    """
    leaf = pictures.detach().requires_grad_()
    with torch.enable_grad():
        logits = attacked.logits(leaf)
    classes = said.shape[1]
    if goal.targeted:  # away from whatever class leads, to the target
        own = said.scatter(1, goal.labels[:, None], -torch.inf).argmax(1)
        candidates = goal.labels[:, None]
    else:
        own = goal.labels
        others = said.scatter(1, own[:, None], -torch.inf)
        candidates = others.topk(min(CANDIDATES, classes - 1), dim=1).indices
    nearest = torch.full((len(said),), torch.inf, device=said.device)
    step = torch.zeros_like(pictures)
    for column in range(candidates.shape[1]):
        other = candidates[:, column]
        gap = said.gather(1, own[:, None])[:, 0] - said.gather(1, other[:, None])[:, 0]
        difference = logits.gather(1, other[:, None]) - logits.gather(1, own[:, None])
        last = column == candidates.shape[1] - 1
        (slope,) = torch.autograd.grad(difference.sum(), leaf, retain_graph=not last)
        steep = lengths(slope).clamp_min(1e-12)
        distance = gap.clamp_min(1e-3) / steep
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        along = slope * (distance / steep)[:, None, None, None]
        step = torch.where(closer[:, None, None, None], along, step)
    return step
