"""A map of pictures in two networks: pictures that a network sees alike lie near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transferscope.comparison.geometry import refuse_unpaired
from transferscope.errors import InputError
from transferscope.records import Record

Values = NDArray[np.float64]
Method = Literal["t-SNE", "PCA"]
Points = tuple[tuple[float, float], ...]

COMPONENTS = 50
"""Principal components that a map is made from: the usual number, which takes noise and time off t-SNE."""

FEWEST = 60
"""Pictures from which on a map is by t-SNE; fewer have no neighbourhoods of its usual size."""

MOST = 1000
"""Pictures shown; of more, as many are drawn at random."""


@dataclass(frozen=True)
class PictureMap(Record):
    """The same pictures placed by two networks.

    Attributes:
        pictures: index of each among those that were given.
        labels: class of each.
        base: (x, y) of each in base; centred, of a root mean square of 1 together.
        tuned: the same in the tuned network, turned, mirrored and scaled to lie as base's do.
        method: `t-SNE`, or `PCA` of few pictures. Distances between clusters and their sizes mean
            nothing in a map by t-SNE.
        trustworthiness: by network ("base", "tuned"), in [0, 1]: whether neighbours on the map are
            neighbours in the features. Around 0.5 for points placed at random.
        neighbours: how many of each picture that asks after.
        disparity: share of the tuned map's variance that base's does not explain after the alignment;
            0 for the same map, 1 for one that has nothing to do with it.
    """

    pictures: tuple[int, ...]
    labels: tuple[int, ...]
    base: Points
    tuned: Points
    method: Method
    trustworthiness: dict[str, float]
    neighbours: int
    disparity: float


def picture_map(
    base: Values, tuned: Values, labels: NDArray[np.int64], *, seed: int = 0, most: int = MOST
) -> PictureMap:
    """Pictures in the plane, by each network's features, both maps turned alike.

    Args:
        base: (N, p) pooled features of held-out pictures, or a layer's responses.
        tuned: (N, q), of the same pictures.
        labels: int64 (N,), which are carried along and not used.
        seed: of t-SNE, and of the draw where there are more pictures than are shown.
        most: pictures shown.

    Raises:
        InputError: fewer than 6 pictures, other numbers of them, or features that do not differ between
            pictures.

    Reference: van der Maaten & Hinton 2008, started from principal components (Kobak & Berens 2019);
    Gower 1975 for the alignment; Venna & Kaski 2001 for trustworthiness.
    """
    from scipy.spatial import procrustes
    from sklearn.manifold import trustworthiness

    refuse_unpaired(base, tuned, least=6)
    for name, x in (("base", base), ("tuned", tuned)):
        if not np.ptp(x, axis=0).any():
            raise InputError(
                f"the {name} network's features are the same for all {len(x)} pictures, so there is no map"
            )
    n = len(base)
    rng = np.random.default_rng(seed)
    shown = np.sort(rng.choice(n, most, replace=False)) if n > most else np.arange(n)
    features = {"base": base[shown].astype(float), "tuned": tuned[shown].astype(float)}
    method: Method = "t-SNE" if len(shown) >= FEWEST else "PCA"
    placed = {name: _placed(x, method, seed) for name, x in features.items()}
    first, second, disparity = procrustes(placed["base"], placed["tuned"])
    scale = np.sqrt(len(shown))
    near = min(10, (len(shown) - 1) // 2)
    return PictureMap(
        pictures=tuple(shown.tolist()),
        labels=tuple(labels[shown].tolist()),
        base=_points(first * scale),
        tuned=_points(second * scale),
        method=method,
        trustworthiness={
            name: float(trustworthiness(x, placed[name], n_neighbors=near))
            for name, x in features.items()
        },
        neighbours=near,
        disparity=float(disparity),
    )


def _placed(x: Values, method: Method, seed: int) -> Values:
    """(N, 2)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(COMPONENTS, *x.shape) if method == "t-SNE" else min(2, *x.shape)
    reduced: Values = PCA(components, svd_solver="full").fit_transform(x)
    if reduced.shape[1] < 2:
        return np.pad(reduced, ((0, 0), (0, 1)))
    if method == "PCA":
        return reduced
    perplexity = min(30.0, (len(x) - 1) / 3)
    placed = TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced)
    return np.asarray(placed, float)


def _points(xy: Sequence[Sequence[float]] | Values) -> Points:
    return tuple((round(float(x), 4), round(float(y), 4)) for x, y in xy)
