"""The linear probe: a head fitted exactly, not by epochs, on cached features.

All folds of the cross-validation are one smooth problem: their logits come of one matrix product, and
L-BFGS solves them together. In the principal axes of the features the curvature is close to diagonal, and
scaled by it few steps reach the optimum: `benchmarks/probe.py` compares it with scikit-learn's fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from transferscope.errors import DataError, InputError

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
"""Values of C, the inverse regularisation, among which a probe's is chosen."""

# Nats a picture: a fit ends when a step gains less. A fit of one strength has none before it to start from.
_CHOOSING, _ALONE, _FINAL = 3e-4, 1e-5, 1e-7
_ROWS = 8192  # at a time: their logits for all folds are in memory


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
            were no folds.
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
) -> Probe:
    """Multinomial logistic regression, its strength chosen by stratified cross-validation.

    Features are standardised inside, and the scaling is folded into the weights returned. The
    strengths are walked from the middle one in the direction in which the log-loss of the folds
    falls, each fit starting from the one before, until it rises.

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

    Raises:
        DataError: features that are not finite.
        InputError: not V rows a picture.
    """
    if len(features) != views * len(labels):
        raise InputError(
            f"there are {len(features)} rows of features for {views} views of {len(labels)} pictures; "
            f"give {views * len(labels)} rows, view after view"
        )
    if not torch.isfinite(features).all():
        raise DataError(
            "the network's features are not finite; its weights are damaged: load others"
        )
    x = features.float()
    std, mean = torch.std_mean(x, 0, correction=0)
    std[std < 1e-8] = 1.0
    rotated, axes = _principal_axes((x - mean) / std)
    problem = _Problem(rotated, labels.repeat(views), classes)
    weights = rotated.new_ones(classes) if class_weights is None else class_weights.to(rotated)
    counts = weights[problem.y] / views
    folds = min(folds, int(torch.bincount(labels, minlength=classes).min()))
    losses: dict[float, float] = {}
    strength, start, held_out = 0.01, rotated.new_zeros(classes, rotated.shape[1]), None
    if folds >= 2:
        fold_of = _stratified(labels, folds, seed).repeat(views)
        strength, start, held_out, losses = _choose(problem, fold_of, folds, strengths, counts)
    fitted = problem.fit(start, counts[:, None], strength, _FINAL)
    weight = fitted[:, :-1] @ axes.T / std
    return Probe(weight, fitted[:, -1] - weight @ mean, strength, losses, held_out)


def _choose(
    problem: _Problem,
    fold_of: torch.Tensor,
    folds: int,
    strengths: Sequence[float],
    counts: torch.Tensor,
) -> tuple[float, torch.Tensor, torch.Tensor, dict[float, float]]:
    """The best C, a start for the fit to all rows, the folds' logits at it, and every log-loss."""
    rows = torch.arange(len(fold_of), device=fold_of.device)
    trains = (fold_of[:, None] != torch.arange(folds, device=fold_of.device)) * counts[:, None]
    grid = sorted(strengths)
    tolerance = _CHOOSING if len(grid) > 1 else _ALONE
    weights = problem.x.new_zeros(folds * problem.classes, problem.x.shape[1])
    losses: dict[float, float] = {}
    best = (np.inf, 0.0, weights, weights)

    def improves(strength: float, weights: torch.Tensor) -> bool:
        nonlocal best
        weights = problem.fit(weights, trains, strength, tolerance)
        logits = problem.logits(weights, folds)[rows, fold_of]
        each = nn.functional.cross_entropy(logits.double(), problem.y, reduction="none")
        losses[strength] = float((each * counts).sum() / counts.sum())
        better = losses[strength] < best[0]
        if better:
            best = (losses[strength], strength, weights, logits)
        return better

    middle = len(grid) // 2
    improves(grid[middle], weights)
    for path in (grid[middle + 1 :], grid[:middle][::-1]):
        for strength in path:
            if not improves(strength, best[2]):
                break
        if best[1] != grid[middle]:
            break
    _, strength, weights, logits = best
    mean = weights.view(folds, problem.classes, -1).mean(0)
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


def _principal_axes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (N, d + 1) of rows (N, D) in their principal axes, and the axes (D, d).

    A rotation changes neither logits nor the penalty. Where D > N, d = N: the optimum lies in the
    span of the rows. The last coordinate is 1, for the bias.
    """
    basis = None
    if x.shape[1] > len(x):
        basis, lower = torch.linalg.qr(x.T)
        x = lower.T
    _, axes = torch.linalg.eigh(x.T @ x)
    rotated = torch.cat([x @ axes, x.new_ones(len(x), 1)], 1)
    return rotated, axes if basis is None else basis @ axes


# ---------------------------------------------------------------------------- the optimum


class _Problem:
    """Penalised multinomial log-loss of one or several heads on the same rows.

    Args:
        x: float32 (N, d + 1), centred and rotated, the last coordinate 1.
        y: int64 (N,).
        classes: K.
    """

    def __init__(self, x: torch.Tensor, y: torch.Tensor, classes: int):
        self.x, self.y, self.classes = x, y, classes

    def logits(self, weights: torch.Tensor, heads: int) -> torch.Tensor:
        """(N, heads, K) by weights (heads K, d + 1)."""
        return (self.x @ weights.T).view(len(self.x), heads, self.classes)

    def fit(
        self, start: torch.Tensor, counts: torch.Tensor, strength: float, tolerance: float
    ) -> torch.Tensor:
        """The heads' optimum, (heads K, d + 1), by L-BFGS in coordinates scaled by the curvature.

        Args:
            start: (heads K, d + 1).
            counts: (N, heads), the weight of each row's loss for each head; 0 where it is held out.
            strength: C.
            tolerance: nats a picture; the fit ends when a step gains less.
        """
        penalty = self.x.new_full((self.x.shape[1],), 1 / strength)
        penalty[-1] = 0.0
        if self.classes == 2:  # as if there were one row of weights, logit(1) - logit(0)
            penalty *= 2
        pictures = float(counts.sum())
        scale = (self._curvature(start, counts) + penalty).rsqrt()

        def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
            weights = torch.from_numpy(scaled).to(start).view_as(start) * scale
            loss, gradient = self._loss(weights, counts)
            pulled = weights * penalty
            loss += 0.5 * float((weights * pulled).sum())
            gradient = gradient.add_(pulled) * (scale / pictures)
            return loss / pictures, gradient.flatten().double().cpu().numpy()

        best = minimize(
            objective,
            (start / scale).flatten().double().cpu().numpy(),
            method="L-BFGS-B",
            jac=True,
            options={"ftol": tolerance, "gtol": 0.0, "maxiter": 1000},
        )
        return torch.from_numpy(best.x).to(start).view_as(start) * scale

    def _curvature(self, weights: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Diagonal of the summed losses' Hessian, (heads K, d + 1)."""
        heads = counts.shape[1]
        diagonal = torch.full_like(
            weights, 1e-6
        )  # a class that is certain of every row bends nothing
        for x, count in zip(self.x.split(_ROWS), counts.split(_ROWS), strict=True):
            p = (x @ weights.T).view(len(x), heads, self.classes).softmax(2)
            p = p * (1 - p) * count[..., None]
            diagonal.addmm_(p.view(len(x), -1).T, x.square())
        return diagonal

    def _loss(self, weights: torch.Tensor, counts: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Sum of the counted losses, and its gradient (heads K, d + 1)."""
        heads = counts.shape[1]
        loss, gradient = 0.0, torch.zeros_like(weights)
        for x, y, count in zip(
            self.x.split(_ROWS), self.y.split(_ROWS), counts.split(_ROWS), strict=True
        ):
            logs = (x @ weights.T).view(len(x), heads, self.classes).log_softmax(2)
            right = y[:, None, None].expand(-1, heads, 1)
            loss -= float((logs.gather(2, right)[..., 0].double() * count).sum())
            errors = logs.exp_()
            errors.scatter_add_(2, right, errors.new_full((), -1.0).expand(right.shape))
            errors *= count[..., None]
            gradient.addmm_(errors.view(len(x), -1).T, x)
        return loss, gradient
