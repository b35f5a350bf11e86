"""The linear probe: a head fitted exactly, not by epochs, on cached features.

All folds of the cross-validation are one smooth problem: their logits come of one matrix product, and
L-BFGS solves them together; where they are too large for that, one after the other. In the principal axes of
the features the curvature is close to diagonal, and scaled by it few steps reach the optimum:
`benchmarks/probe.py` compares it with scikit-learn's fits.

A fit ends when its duality gap, a bound on how far its objective is above the least, is small. A small step
proves nothing: far from the optimum, too, one gains little now and then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from transferscope.errors import DataError, InputError

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
"""Values of C, the inverse regularisation, among which a probe's is chosen."""

# Nats a picture by which a fit's objective may be above the least: of the folds', and of the last one's.
# Separable classes leave so little of it that a share of itself is allowed as well, down to float32's noise.
_CHOOSING, _FINAL, _SHARE, _NOISE = 1e-4, 1e-6, 1e-3, 1e-7
_STEPS, _ROUNDS = 1000, 10  # of the optimiser, and how often it begins anew with a scale of its own
_LOGITS = 2**22  # in memory at a time, for all folds
_TOGETHER = 2**20  # weights, at most, of folds that are fitted together
_ALL_FOLDS = 10**8  # logits of a strength, all folds: beyond, one fold chooses the strength


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear head fitted exactly on cached features.

    Attributes:
        weight: float32 (K, D).
        bias: float32 (K,).
        strength: the inverse regularisation C that cross-validation chose.
        strengths: every C tried, with its cross-validated log-loss in nats.
        held_out: float32 (rows, K), the logits of every row by the fit, at the strength chosen, of the
            folds that do not hold its picture: for accuracies with honest intervals. None where there
            were no folds, or they were not asked for.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float
    strengths: dict[float, float]
    held_out: torch.Tensor | None = None

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(N, K) of pooled features (N, D)."""
        return nn.functional.linear(features.float(), self.weight, self.bias)


def fit_probe(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    *,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    views: int = 1,
    class_weights: torch.Tensor | None = None,
    held_out: bool = True,
) -> Probe:
    """Multinomial logistic regression, its strength chosen by stratified cross-validation.

    Features are standardised inside, and the scaling is folded into the weights returned. The
    strengths are walked from the middle one in the direction in which the log-loss of the folds
    falls, each fit starting from the one before, until it rises. Above 10^8 logits of all folds together
    (20,000 pictures of 1,000 classes), the first fold alone chooses.

    Args:
        features: (V N, D), of the training split alone: N pictures, or V views of them one after
            the other, so that row i belongs to picture i % N.
        labels: int64 (N,) in 0..classes-1; every class present.
        classes: K.
        seed: of the folds.
        strengths: values of C, in scikit-learn's sense: it multiplies the sum of the pictures' losses.
        folds: at most; no more than the rarest class has pictures. With a class of one picture there
            is no fold to choose by, and C = 0.01 is used.
        views: V; all views of a picture are in one fold, and each counts 1/V.
        class_weights: (K,), how much a picture of each class counts, in fit and choice; None: alike.
        held_out: whether the folds' logits are wanted; without, a large set is fitted the sooner.

    Raises:
        DataError: features that are not finite, or a fit that does not come near its optimum.
        InputError: not V rows a picture.
    """
    if len(features) != views * len(labels):
        raise InputError(
            f"there are {len(features)} rows of features for {views} views of {len(labels)} pictures; "
            f"give {views * len(labels)} rows, view after view"
        )
    if not all(bool(torch.isfinite(part).all()) for part in features.split(_PART)):
        raise DataError(
            "the network's features are not finite; its weights are damaged: load others"
        )
    rotated, axes, mean, std = _principal_axes(features)
    problem = _Problem(rotated, labels.repeat(views), classes)
    weights = rotated.new_ones(classes) if class_weights is None else class_weights.to(rotated)
    counts = weights[problem.y] / views
    folds = min(folds, int(torch.bincount(labels, minlength=classes).min()))
    losses: dict[float, float] = {}
    strength, start, logits = 0.01, rotated.new_zeros(classes, rotated.shape[1]), None
    if folds >= 2:
        fold_of = _stratified(labels, folds, seed).repeat(views)
        strength, start, logits, losses = _choose(
            problem, fold_of, folds, strengths, counts, held_out
        )
    fitted = problem.fit(start, counts[:, None], strength, _FINAL)
    weight = fitted[:, :-1] @ axes.T / std
    return Probe(weight, fitted[:, -1] - weight @ mean, strength, losses, logits)


def _choose(
    problem: _Problem,
    fold_of: torch.Tensor,
    folds: int,
    strengths: Sequence[float],
    counts: torch.Tensor,
    held_out: bool,
) -> tuple[float, torch.Tensor, torch.Tensor | None, dict[float, float]]:
    """The best C, a start for the fit to all rows, the folds' logits at it, and every log-loss."""
    grid, k = sorted(strengths), problem.classes
    judges = 1 if len(grid) > 1 and len(fold_of) * folds * k > _ALL_FOLDS else folds
    judged = (fold_of < judges).nonzero().flatten()
    losses: dict[float, float] = {}
    best = (np.inf, 0.0, problem.x.new_zeros(judges * k, problem.x.shape[1]))

    def trains(first: int, last: int) -> torch.Tensor:
        heads = torch.arange(first, last, device=fold_of.device)
        return (fold_of[:, None] != heads) * counts[:, None]

    def improves(strength: float, start: torch.Tensor) -> bool:
        nonlocal best
        weights = problem.fit(start, trains(0, judges), strength, _CHOOSING)
        logits = problem.own_logits(weights, judged, fold_of)
        each = nn.functional.cross_entropy(logits, problem.y[judged], reduction="none").double()
        losses[strength] = float((each * counts[judged]).sum() / counts[judged].sum())
        better = losses[strength] < best[0]
        if better:
            best = (losses[strength], strength, weights)
        return better

    middle = len(grid) // 2
    improves(grid[middle], best[2])
    for path in (grid[middle + 1 :], grid[:middle][::-1]):
        for strength in path:
            if not improves(strength, best[2]):
                break
        if best[1] != grid[middle]:
            break
    _, strength, weights = best
    mean = weights.view(judges, k, -1).mean(0)
    logits = None
    if held_out:
        others = [
            problem.fit(mean, trains(fold, fold + 1), strength, _CHOOSING)
            for fold in range(judges, folds)
        ]
        rows = torch.arange(len(fold_of), device=fold_of.device)
        logits = problem.own_logits(torch.cat([weights, *others]), rows, fold_of)
    return strength, mean, logits, dict(sorted(losses.items()))


def _stratified(labels: torch.Tensor, folds: int, seed: int) -> torch.Tensor:
    """int64 (N,): the fold that holds each picture out."""
    from sklearn.model_selection import StratifiedKFold

    y = labels.cpu().numpy()
    fold_of = np.empty(len(y), np.int64)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)
    for fold, (_, held) in enumerate(split):
        fold_of[held] = fold
    return torch.from_numpy(fold_of).to(labels.device)


_PART = 8192  # rows of features that are standardised and rotated at a time


def _principal_axes(
    features: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Standardised rows in their principal axes, the axes, and the means and deviations (D,).

    A rotation changes neither logits nor the penalty. Where D > N, d = N: the optimum lies in the
    span of the rows. The last coordinate is 1, for the bias. Of a large set, no second copy is made.

    Returns:
        Coordinates (N, d + 1), axes (D, d), means and deviations.
    """
    mean = torch.stack([part.float().sum(0).double() for part in features.split(_PART)]).sum(0)
    mean = (mean / len(features)).float()
    square = features.new_zeros(features.shape[1], dtype=torch.float64)
    for part in features.split(_PART):
        square += (part.float() - mean).square().sum(0)
    std = (square / len(features)).sqrt().float()
    std[std < 1e-8] = 1.0
    n, width = len(features), min(features.shape)
    rotated = mean.new_ones(n, width + 1)
    parts = [rotated[begin : begin + _PART, :-1] for begin in range(0, n, _PART)]
    basis = None
    if features.shape[1] > n:
        basis, lower = torch.linalg.qr(((features.float() - mean) / std).T)
        rotated[:, :-1] = lower.T
    else:
        for part, given in zip(parts, features.split(_PART), strict=True):
            part.copy_(given).sub_(mean).div_(std)
    gram = mean.new_zeros(width, width)
    for part in parts:
        gram.addmm_(part.T, part)
    _, axes = torch.linalg.eigh(gram)
    for part in parts:
        part.copy_(part @ axes)
    return rotated, axes if basis is None else basis @ axes, mean, std


# ---------------------------------------------------------------------------- the optimum


@dataclass(frozen=True, eq=False)
class _Point:
    """Weights (heads K, d + 1), the objective there in nats a picture, and its gradient, summed."""

    weights: torch.Tensor
    loss: float
    gradient: torch.Tensor


class _Reached(Exception):
    """A point whose gap is small enough; ends the optimiser where it is found."""

    def __init__(self, point: _Point):
        self.point = point


class _Problem:
    """Penalised multinomial log-loss of one or several heads on the same rows.

    Args:
        x: float32 (N, d + 1), centred and rotated, the last coordinate 1.
        y: int64 (N,).
        classes: K.
    """

    def __init__(self, x: torch.Tensor, y: torch.Tensor, classes: int):
        self.x, self.y, self.classes = x, y, classes

    def own_logits(
        self, weights: torch.Tensor, rows: torch.Tensor, head_of: torch.Tensor
    ) -> torch.Tensor:
        """(n, K) of rows int64 (n,), each by its own head among weights (heads K, d + 1)."""
        result = self.x.new_empty(len(rows), self.classes)
        for head, own in enumerate(weights.split(self.classes)):
            for places in (head_of[rows] == head).nonzero().flatten().split(_PART):
                result[places] = self.x[rows[places]] @ own.T
        return result

    def fit(
        self, start: torch.Tensor, counts: torch.Tensor, strength: float, tolerance: float
    ) -> torch.Tensor:
        """The heads' optimum, (heads K, d + 1).

        Args:
            start: (heads K, d + 1).
            counts: (N, heads), the weight of each row's loss for each head; 0 where it is held out.
            strength: C.
            tolerance: nats a picture by which the objective may be above the least.

        Raises:
            DataError: no such point was found.
        """
        group = max(1, _TOGETHER // (self.classes * self.x.shape[1]))
        return torch.cat(
            [
                self._fit(one, count, strength, tolerance)
                for one, count in zip(
                    start.split(group * self.classes), counts.split(group, 1), strict=True
                )
            ]
        )

    def _fit(
        self, start: torch.Tensor, counts: torch.Tensor, strength: float, tolerance: float
    ) -> torch.Tensor:
        """By L-BFGS in coordinates scaled by the curvature, begun anew where it ends too early."""
        penalty = self.x.new_full((self.x.shape[1],), 1 / strength)
        penalty[-1] = 0.0
        if self.classes == 2:  # as if there were one row of weights, logit(1) - logit(0)
            penalty *= 2
        pictures = float(counts.sum())
        for _ in range(_ROUNDS):
            scale = (self._curvature(start, counts, self.x) + penalty).rsqrt()
            found = self._descended(start, scale, counts, penalty, tolerance)
            start = found.weights
            # The bias bends otherwise here than where the descent began, and its share of the gap with it.
            bends = self._curvature(start, counts, self.x[:, -1:])[:, 0]
            gap = _gap(found.gradient, penalty, bends) / pictures
            if gap <= _allowed(found.loss, tolerance):
                return start
        raise DataError(
            f"the linear probe did not converge at C = {strength:g}: {gap:.2g} nats a picture "
            f"above its optimum after {_ROUNDS} rounds, and {tolerance:g} are allowed; look for pictures "
            "whose features are extreme ('transferscope inspect'), or choose another --backbone"
        )

    def _descended(
        self,
        start: torch.Tensor,
        scale: torch.Tensor,
        counts: torch.Tensor,
        penalty: torch.Tensor,
        tolerance: float,
    ) -> _Point:
        """The first point met whose gap is small enough, or the one where the optimiser ends."""
        pictures = float(counts.sum())
        bends = scale[:, -1].pow(-2)

        def at(scaled: np.ndarray) -> _Point:
            weights = torch.from_numpy(scaled).to(start).view_as(start) * scale
            loss, gradient = self._loss(weights, counts)
            pulled = weights * penalty
            loss += 0.5 * float((weights * pulled).sum())
            return _Point(weights, loss / pictures, gradient.add_(pulled))

        def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
            point = at(scaled)
            if _gap(point.gradient, penalty, bends) / pictures <= _allowed(point.loss, tolerance):
                raise _Reached(point)
            gradient = point.gradient * (scale / pictures)
            return point.loss, gradient.flatten().double().cpu().numpy()

        begin = (start / scale).flatten().double().cpu().numpy()
        options = {"ftol": 0.0, "gtol": 0.0, "maxiter": _STEPS, "maxfun": 2 * _STEPS}
        try:
            best = minimize(objective, begin, method="L-BFGS-B", jac=True, options=options)
        except _Reached as reached:
            return reached.point
        return at(best.x)

    def _blocks(
        self, counts: torch.Tensor, beside: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Rows, what stands beside them and counts, as many at a time as their logits allow."""
        rows = max(1, _LOGITS // (counts.shape[1] * self.classes))
        yield from zip(self.x.split(rows), beside.split(rows), counts.split(rows), strict=True)

    def _curvature(
        self, weights: torch.Tensor, counts: torch.Tensor, coordinates: torch.Tensor
    ) -> torch.Tensor:
        """Diagonal of the summed losses' Hessian in some of x's columns (N, c), (heads K, c)."""
        heads, width = counts.shape[1], coordinates.shape[1]
        # A class that is certain of every row bends nothing.
        diagonal = weights.new_full((len(weights), width), 1e-6)
        for x, own, count in self._blocks(counts, coordinates):
            p = (x @ weights.T).view(len(x), heads, self.classes).softmax(2)
            p = p * (1 - p) * count[..., None]
            diagonal.addmm_(p.view(len(x), -1).T, own.square())
        return diagonal

    def _loss(self, weights: torch.Tensor, counts: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Sum of the counted losses, and its gradient (heads K, d + 1)."""
        heads = counts.shape[1]
        loss, gradient = 0.0, torch.zeros_like(weights)
        for x, y, count in self._blocks(counts, self.y):
            logs = (x @ weights.T).view(len(x), heads, self.classes).log_softmax(2)
            right = y[:, None, None].expand(-1, heads, 1)
            loss -= float((logs.gather(2, right)[..., 0].double() * count).sum())
            errors = logs.exp_()
            errors.scatter_add_(2, right, errors.new_full((), -1.0).expand(right.shape))
            errors *= count[..., None]
            gradient.addmm_(errors.view(len(x), -1).T, x)
        return loss, gradient


def _allowed(loss: float, tolerance: float) -> float:
    """The gap, nats a picture, at which a fit with this objective counts as converged."""
    return min(tolerance, max(_SHARE * loss, _NOISE))


def _gap(gradient: torch.Tensor, penalty: torch.Tensor, bends: torch.Tensor) -> float:
    """The most by which an objective is above its least value, in nats.

    Where the penalty's curvature is at least c, a point with the gradient g is at most g^2 / 2c above the
    optimum; for this objective that is the duality gap. The bias has no penalty: its own curvature stands
    in for it, so that its share is an estimate.

    Args:
        gradient: (heads K, d + 1), of the sum over the pictures and of the penalty.
        penalty: (d + 1,), 0 for the bias.
        bends: (heads K,), the curvature of each bias.

    Reference: Boyd and Vandenberghe 2004, eq. 9.9.
    """
    weights, bias = gradient[:, :-1], gradient[:, -1]
    total = (weights.square() / penalty[:-1]).sum(dtype=torch.float64)
    total += (bias.square() / bends).sum(dtype=torch.float64)
    return float(total) / 2
