"""Whether a channel's drawings differ between networks: a test on embeddings of paired drawings, its power.

Both networks draw a channel from the same seeds. What one seed's two drawings differ by is d; the mean of d
over seeds is the distance of the two networks' mean drawings. If both networks draw alike, a seed's two
drawings might as well be each other's, so that the sign of d means nothing: turning the signs of all seeds
in all ways gives the test's null, exactly and for any distribution of drawings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.comparison.gram_matrices import Grams, gram_distances, scaled_gram
from transferscope.comparison.nulls import q_values
from transferscope.comparison.sign_flips import (
    ALPHA,
    detectable_mean_share,
    detectable_ratio,
    effective_dimensions,
    flip_test,
    mean_apart,
    share_weight,
    squared_distance,
)
from transferscope.errors import InputError
from transferscope.records import Record
from transferscope.wording import counted, number, percent, short

Values = NDArray[np.float64]

CHANCE_PAIRS = 400
"""Unrelated pairs of drawings whose mean similarity is called chance, where a layer has as many."""

BETWEEN = "between"
"""Name, beside "base" and "tuned", of distances from one network to the other."""


@dataclass(frozen=True)
class PairedDrawings:
    """What is kept of one channel's drawings in both networks; its size does not depend on embeddings.

    Attributes:
        layer: dotted name.
        channel: index.
        seeds: that it was drawn from.
        products: (n, n), scalar products of the differences d of the n usable seeds.
        similarity: mean cosine of a drawing of base and one of tuned from another seed; None for n < 2.
        rerender: mean cosine of two drawings of one network, by network; None for n < 2.
        grams: mean Gram distances by feature layer, of drawings from different seeds: between the networks
            and within each ("between", "base", "tuned"); empty if not measured.
    """

    layer: str
    channel: int
    seeds: int
    products: Values
    similarity: float | None
    rerender: dict[str, float | None]
    grams: dict[str, dict[str, float]]


@dataclass(frozen=True)
class DrawingTest(Record):
    """Whether one channel's drawings show the change.

    Attributes:
        layer: dotted name.
        channel: index.
        seeds: that it was drawn from in both networks.
        usable: of which both drawings ended `optimized`; the others do not enter.
        u: unbiased estimate of the squared distance of the two networks' mean embeddings, which have length
            1 at most; around 0 and as often negative where nothing changed.
        low: lower end of its 95% interval; None with fewer than 3 usable seeds.
        high: upper end.
        p: one-sided, by sign flips; None if not tested.
        q: Benjamini-Hochberg adjusted over all channels tested together; None if not tested.
        smallest_p: that so many seeds can reach.
        spread: mean squared distance of two drawings of one network: what `u` may be compared with.
        detectable: the squared distance that would be found at p <= .05 with 80% probability; None if no
            distance would, because too few seeds are usable, or where nothing was tested.
        similarity: mean cosine of the two networks' drawings, different seeds throughout.
        rerender: mean cosine of two drawings of one network, by network: the ceiling of `similarity`.
        gram: distance of the two networks' drawings in texture, in units of that of the layer's unrelated
            channels; None if not measured.
        gram_rerender: the same within each network: the floor of `gram`.
        reason: why it was not tested; empty if it was.
    """

    layer: str
    channel: int
    seeds: int
    usable: int
    u: float | None
    low: float | None
    high: float | None
    p: float | None
    q: float | None
    smallest_p: float | None
    spread: float | None
    detectable: float | None
    similarity: float | None
    rerender: dict[str, float | None]
    gram: float | None
    gram_rerender: dict[str, float | None]
    reason: str
    made_by: ClassVar[str] = "transferscope compare"


@dataclass(frozen=True)
class PooledDrawingTest(Record):
    """Whether the drawings of several channels together show a change.

    Attributes:
        name: of the layer, or of the selection of channels.
        channels: how many there are.
        tested: of which at least two seeds were usable.
        share: mean over them of U / mean |d|^2: how much of what a seed's two drawings differ by is the same
            for all seeds; around 0 where nothing changed, 1 where seeds make no difference.
        p: one-sided, by sign flips independent by channel; None if none was tested.
        smallest_p: that they can reach.
        detectable: the share that would be found at p <= .05 with 80% probability; None if none would.
        reason: why it was not tested; empty if it was.
    """

    name: str
    channels: int
    tested: int
    share: float | None
    p: float | None
    smallest_p: float | None
    detectable: float | None
    reason: str
    made_by: ClassVar[str] = "transferscope compare"


# ---------------------------------------------------------------------------- from embeddings


def paired_drawings(
    layer: str,
    channel: int,
    base: torch.Tensor,
    tuned: torch.Tensor,
    usable: Sequence[bool],
    *,
    grams: tuple[Grams, Grams] | None = None,
) -> PairedDrawings:
    """What the tests need of one channel's drawings.

    Whether a seed is usable may depend on its two drawings alone and in the same way on both, so that
    leaving it out favours neither network.

    Args:
        layer, channel: which it is.
        base: (S, D) embeddings of base's drawings, of length 1 (`geometry.embed`).
        tuned: (S, D) of tuned's, from the same seeds in the same order.
        usable: (S,), which seeds' drawings ended `optimized` in both networks.
        grams: `gram_features` of base's and of tuned's drawings, S rows each.

    Raises:
        InputError: other shapes.
    """
    if base.shape != tuned.shape or base.ndim != 2 or len(usable) != len(base):
        raise InputError(
            f"embeddings are {tuple(base.shape)} and {tuple(tuned.shape)} with {len(usable)} usable flags; "
            "they must be (S, D) of the same S seeds"
        )
    kept = torch.tensor([index for index, good in enumerate(usable) if good], dtype=torch.long)
    old, new = (vectors[kept].double().cpu().numpy() for vectors in (base, tuned))
    difference = new - old
    enough = len(kept) > 1
    distances: dict[str, dict[str, float]] = {}
    if grams is not None and enough:
        of = [{name: values[kept] for name, values in one.items()} for one in grams]
        pairs = {BETWEEN: (of[0], of[1]), "base": (of[0], of[0]), "tuned": (of[1], of[1])}
        distances = {name: gram_distances(*pair) for name, pair in pairs.items()}
    return PairedDrawings(
        layer=layer,
        channel=channel,
        seeds=len(base),
        products=difference @ difference.T,
        similarity=mean_apart(old @ new.T) if enough else None,
        rerender={
            "base": mean_apart(old @ old.T) if enough else None,
            "tuned": mean_apart(new @ new.T) if enough else None,
        },
        grams=distances,
    )


def chance_pairs(
    usable: NDArray[np.bool_], *, count: int = CHANCE_PAIRS, seed: int = 0
) -> NDArray[np.int64]:
    """Drawings of unrelated channels to compare: (P, 2, 2), the (channel, seed) of base and that of tuned.

    Different channels and different seeds; none twice. Drawn as numbers, so that the memory that it takes
    does not grow with all the pairs there are.

    Args:
        usable: (C, S), which drawings ended `optimized` in both networks.
        count: pairs wanted; fewer come back where there are not as many.
        seed: of the draw.
    """
    places = np.argwhere(usable)
    every = len(places) ** 2
    rng = np.random.default_rng(seed)
    # where two channels and two seeds differ, a quarter of all pairs will do: twice as many as wanted
    drawn = rng.choice(every, min(every, 8 * count), replace=False)
    pairs = np.stack([places[drawn // max(1, len(places))], places[drawn % max(1, len(places))]], 1)
    unrelated: NDArray[np.int64] = pairs[(pairs[:, 0] != pairs[:, 1]).all(1)][:count]
    return unrelated


def chance_similarities(
    base: torch.Tensor, tuned: torch.Tensor, pairs: NDArray[np.int64]
) -> torch.Tensor:
    """Cosines (P,) of unrelated channels' drawings, base against tuned.

    Args:
        base: (C, S, D) embeddings of length 1.
        tuned: (C, S, D).
        pairs: (P, 2, 2), see `chance_pairs`.
    """
    (first, one), (second, other) = torch.from_numpy(pairs).permute(1, 2, 0)
    return (base[first, one] * tuned[second, other]).sum(1)


# ---------------------------------------------------------------------------- the tests


def drawing_tests(
    drawn: Sequence[PairedDrawings],
    *,
    scales: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
) -> tuple[DrawingTest, ...]:
    """Each channel's test, with q over all that were tested.

    Args:
        drawn: channels of any layers.
        scales: layer of the channels -> feature layer -> `gram_scale`; for `gram`.
        seed: of the flips, where there are too many to try all.
    """
    sizes = _dimensions(drawn)
    tests = [_tested(one, sizes, (scales or {}).get(one.layer), seed) for one in drawn]
    adjusted = iter(q_values(np.array([test.p for test in tests if test.p is not None])))
    return tuple(
        test if test.p is None else replace(test, q=float(next(adjusted))) for test in tests
    )


def _tested(
    drawn: PairedDrawings, dimensions: int | None, scale: Mapping[str, float] | None, seed: int
) -> DrawingTest:
    usable = len(drawn.products)
    texture = {name: scaled_gram(one, scale) for name, one in drawn.grams.items()} if scale else {}
    test = DrawingTest(
        layer=drawn.layer,
        channel=drawn.channel,
        seeds=drawn.seeds,
        usable=usable,
        u=None,
        low=None,
        high=None,
        p=None,
        q=None,
        smallest_p=None,
        spread=None,
        detectable=None,
        similarity=drawn.similarity,
        rerender=drawn.rerender,
        gram=texture.get(BETWEEN),
        gram_rerender={name: texture.get(name) for name in ("base", "tuned")},
        reason=_why_not(drawn),
    )
    if test.reason:
        return test
    u, low, high = squared_distance(drawn.products)
    p, smallest = flip_test([drawn.products], seed=seed)
    ceiling = [value for value in drawn.rerender.values() if value is not None]
    ratio = detectable_ratio(usable, dimensions) if dimensions else None
    noise = max(0.0, float(np.trace(drawn.products)) / usable - u)
    return replace(
        test,
        u=u,
        low=low,
        high=high,
        p=p,
        smallest_p=smallest,
        spread=2 - sum(ceiling),
        detectable=None if ratio is None else ratio * noise,
    )


def _why_not(drawn: PairedDrawings) -> str:
    usable = len(drawn.products)
    if usable >= 2:
        return ""
    return (
        f"drawings from {usable} of {counted(drawn.seeds, 'seed')} ended 'optimized' in both networks; a "
        "test takes 2 or more"
    )


def pooled_drawing_test(
    name: str, drawn: Sequence[PairedDrawings], *, seed: int = 0
) -> PooledDrawingTest:
    """Whether several channels' drawings show a change together, which each alone may be too few to show.

    The statistic is the mean of the channels' U, each divided by its own mean |d|^2, so that a channel
    whose drawings vary much does not hide the others; no flip changes what it is divided by. (U's standard
    deviation over flips would leave of a channel of two seeds no more than U's sign, and find less.)

    Args:
        name: of the layer, or of the selection.
        drawn: its channels; those with fewer than two usable seeds do not enter.
        seed: of the flips, where there are too many to try all.
    """
    products = [one.products for one in drawn if len(one.products) >= 2]
    test = PooledDrawingTest(
        name=name,
        channels=len(drawn),
        tested=len(products),
        share=None,
        p=None,
        smallest_p=None,
        detectable=None,
        reason="",
    )
    if not products:
        return replace(
            test,
            reason=f"in none of {counted(len(drawn), 'channel')} drawings from 2 seeds ended 'optimized' in "
            "both networks",
        )
    p, smallest = flip_test(products, seed=seed)
    return replace(
        test,
        share=float(np.mean([mean_apart(one) * share_weight(one) for one in products])),
        p=p,
        smallest_p=smallest,
        detectable=detectable_mean_share(products) if smallest <= ALPHA else None,
    )


def _dimensions(drawn: Sequence[PairedDrawings]) -> int | None:
    """`effective_dimensions` as a whole number that simulation can use."""
    found = effective_dimensions([one.products for one in drawn])
    return None if found is None else round(min(found, 200.0))


# ---------------------------------------------------------------------------- in words


def drawing_sentence(test: DrawingTest, *, fdr: float = ALPHA) -> str:
    """What a channel's test says, and what it could not have said."""
    if test.reason or test.p is None or test.q is None or test.u is None:
        return f"Not tested: {test.reason}."
    seeds = counted(test.usable, "seed")
    if test.q <= fdr:
        return (
            f"The drawings look different: squared distance {number(test.u, 3)}, p = {short(test.p)}, "
            f"q = {short(test.q)} with {seeds}."
        )
    if test.detectable is None:
        return (
            f"The drawings could not be told apart with {seeds}: the smallest p that so many can reach is "
            f"{short(test.smallest_p)}, however different they are."
        )
    return (
        f"The drawings could not be told apart with {seeds} (p = {short(test.p)}): taken alone, a squared "
        f"distance of {number(test.detectable, 3)} would have been found with 80% probability, where two "
        f"drawings of one network are {number(test.spread, 3)} apart."
    )


def pooled_sentence(test: PooledDrawingTest) -> str:
    """What the test of several channels says, and what it could not have said."""
    if test.reason or test.p is None or test.share is None:
        return f"Not tested: {test.reason}."
    channels = f"{counted(test.tested, 'channel')} of {test.name}"
    if test.p <= ALPHA:
        return (
            f"Taken together, the drawings of {channels} look different: {percent(test.share, 0)} of what a "
            f"seed's two drawings differ by is common to all seeds (p = {short(test.p)})."
        )
    if test.detectable is None:
        return (
            f"The drawings of {channels} could not be told apart: the smallest p that these seeds can reach "
            f"is {short(test.smallest_p)}, however different they are."
        )
    return (
        f"The drawings of {channels} could not be told apart (p = {short(test.p)}): a common share of "
        f"{percent(test.detectable, 0)} would have been found with 80% probability."
    )
