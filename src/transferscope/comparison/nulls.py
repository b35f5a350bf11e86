"""What a witness's value is where there is nothing to be found, and how sure a value is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from transferscope.errors import InputError

Values = NDArray[np.float64]
Labels = NDArray[np.int64]


def split_halves(labels: Labels, draws: int, seed: int) -> NDArray[np.bool_]:
    """Random halves of the pictures, each with half of every class's, (draws, N); the rest is the other.

    Within classes, because the sizes of the classes were set when the set was split: they say nothing
    about a channel, and a class of few pictures is in every half. The odd picture of a class goes to
    either half. Halves and not draws with replacement, because a picture drawn twice looks like a class
    whose pictures agree: in classes of ten an epsilon squared of .42 becomes .48, and the percentile
    interval holds it 60% of the time (that of halves 96%).

    Args:
        labels: int64 (N,).
        draws: how many.
        seed: of the draws.

    Reference: McCarthy 1969, half-samples; Politis & Romano 1994, subsampling.
    """
    rng = np.random.default_rng(seed)
    halves = np.zeros((draws, len(labels)), bool)
    for one in np.unique(labels):
        places = np.flatnonzero(labels == one)
        order = np.argsort(rng.random((draws, len(places))), axis=1)
        size = (len(places) + rng.integers(0, 2, (draws, 1))) // 2
        halves[:, places] = order < size
    for draw in np.flatnonzero(halves.all(1) | ~halves.any(1)):  # classes of one picture each
        chosen = rng.integers(len(labels))
        halves[draw, chosen] = ~halves[draw, chosen]
    return halves


def half_differences(
    measure: Callable[[Values, Values, Labels], Values],
    base: Values,
    tuned: Values,
    labels: Labels,
    halves: NDArray[np.bool_],
) -> Values:
    """Half of the difference of a witness's values between the two halves of every draw, (draws, C).

    The halves are two samples of N/2 pictures without a picture in common, so its mean square over
    draws estimates the variance of the witness's value over samples of N pictures. What both halves
    share, such as a bias that comes with fewer pictures, falls out.

    Args:
        measure: a witness.
        base: (N, C) responses.
        tuned: (N, C), of the same pictures.
        labels: int64 (N,).
        halves: (draws, N), see `split_halves`.
    """

    def of(chosen: NDArray[np.bool_]) -> Values:
        return measure(base[chosen], tuned[chosen], labels[chosen])

    return np.stack([(of(half) - of(~half)) / 2 for half in halves])


def interval(values: Values, differences: Values, freedom: float) -> tuple[Values, Values]:
    """95% interval of each channel's value, low and high (C,): Student's, with the half-samples' variance.

    Args:
        values: (C,).
        differences: (draws, C), see `half_differences`.
        freedom: degrees of freedom of the variance, see `freedom_of`.
    """
    from scipy.stats import t

    reach = t.ppf(0.975, freedom) * np.sqrt((differences**2).mean(0))
    return values - reach, values + reach


def freedom_of(labels: Labels, draws: int) -> float:
    """Degrees of freedom of a variance over half-samples: at most N - K, and no more than draws."""
    return float(max(1, min(draws, len(labels) - len(np.unique(labels)))))


def moderated_variance(controls: Values) -> tuple[Values, float]:
    """Each channel's variance between controls, drawn towards its layer's, and its degrees of freedom.

    Two or three controls give a channel's variance hardly any degrees of freedom, and a layer's channels
    do not all have the same. So the variances of a layer are taken as draws around a common one, s0^2,
    with d0 degrees of freedom, both estimated from their spread: (d0 s0^2 + d s^2) / (d0 + d), with
    d0 + d degrees of freedom. Where they spread no more than chance makes them, d0 is infinite and the
    layer has one variance, the pooled one.

    Args:
        controls: (M, C), a layer's values in M >= 2 controls.

    Returns:
        (C,), and d0 + d.

    Raises:
        InputError: fewer than two controls.

    Reference: Smyth 2004, eq. 5 and section 6.2.
    """
    if len(controls) < 2:
        raise InputError(
            f"there is {len(controls)} control; how much controls differ takes 2 or more"
        )
    from scipy.special import digamma, polygamma

    own, d = controls.var(0, ddof=1), len(controls) - 1
    positive = own[own > 0]
    if len(positive) < 2:
        return np.full_like(own, own.mean()), float(d)
    logs = np.log(positive) - digamma(d / 2) + np.log(d / 2)
    spread = logs.var(ddof=1) - polygamma(1, d / 2)
    if spread <= 0:
        return np.full_like(own, positive.mean()), float(d * len(positive))
    half = _inverse_trigamma(float(spread))
    common = np.exp(logs.mean() + digamma(half) - np.log(half))
    return (2 * half * common + d * own) / (2 * half + d), 2 * half + d


def _inverse_trigamma(value: float) -> float:
    """The y whose trigamma is `value`, by Newton's method on 1 / trigamma, which is nearly linear."""
    from scipy.special import polygamma

    y = 0.5 + 1 / value
    for _ in range(50):
        now = float(polygamma(1, y))
        step = now * (1 - now / value) / float(polygamma(2, y))
        y += step
        if abs(step) < 1e-10 * y:
            break
    return y


def beyond_controls(
    values: Values,
    controls: Values,
    differences: Values,
    freedom: float,
    *,
    shift: tuple[float, float] | None = None,
) -> tuple[Values, Values]:
    """Whether a layer's values lie above those of control transfers: t and one-sided p of each channel.

    t = (value - mean of controls) / sqrt((1 + 1/M) (shift + variance) + variance over pictures). A
    control differs from another by a shift of the whole layer, the variance of which is that of M means
    and has M - 1 degrees of freedom however many channels there are, and by what each channel does
    beside it, `moderated_variance`; 1/M is the error of the controls' mean. The last variance is that of
    the numerator over half-samples of pictures, all networks seeing the same ones. Part of what pictures
    do is in the others already, so the test errs towards p that are too large. The reference is Student's
    t with the degrees of freedom of a sum of variances.

    Args:
        values: (C,), a witness in the tuned network.
        controls: (M, C), the same in M >= 2 controls.
        differences: (draws, C), `half_differences` of tuned less the mean of those of the controls.
        freedom: see `freedom_of`.
        shift: variance between controls of the layer's mean, and its degrees of freedom, where more than
            this layer says what they are; None: that of these controls, M - 1.

    Returns:
        t (C,), and p (C,), never 0.

    Raises:
        InputError: fewer than two controls.

    Reference: Welch 1947 for the degrees of freedom.
    """
    if len(controls) < 2:
        raise InputError(
            f"there is {len(controls)} control; how much controls differ takes 2 or more"
        )
    shifts, new = controls.mean(1), 1 + 1 / len(controls)
    own, own_freedom = moderated_variance(controls - shifts[:, None])
    apart, known_by = shift or (float(shifts.var(ddof=1)), float(len(controls) - 1))
    parts = (
        (np.full_like(own, apart * new), known_by),
        (own * new, own_freedom),
        ((differences**2).mean(0), freedom),
    )
    total = np.sum([part for part, _ in parts], axis=0)
    unsure = np.sum([part**2 / known for part, known in parts], axis=0)
    freedoms = np.divide(total**2, unsure, out=np.full_like(total, freedom), where=unsure > 0)
    return _studentised(values - controls.mean(0), np.sqrt(total), freedoms)


def beyond_margin(
    values: Values, margin: float, differences: Values, freedom: float
) -> tuple[Values, Values]:
    """Whether values lie above a margin of equivalence: t and one-sided p of each channel, both (C,).

    Args:
        values: (C,).
        margin: up to which a value counts as no change.
        differences: (draws, C), see `half_differences`.
        freedom: see `freedom_of`.
    """
    error = np.sqrt((differences**2).mean(0))
    return _studentised(values - margin, error, np.full_like(values, freedom))


def _studentised(excess: Values, error: Values, freedom: Values) -> tuple[Values, Values]:
    """t and its upper tail; without any error whatever is above is infinitely far above."""
    from scipy.stats import t

    sure = np.where(excess > 0, np.inf, -np.inf)
    found = np.divide(excess, error, out=sure, where=error > 0)
    return found, np.maximum(t.sf(found, freedom), np.finfo(float).tiny)


def q_values(p: Values) -> Values:
    """The false discovery rate at which each test would be called, by Benjamini & Hochberg 1995."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p)) if len(p) else np.zeros(0)
