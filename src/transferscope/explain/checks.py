"""Which attribution methods deserve belief on a network: what their maps depend on, and whether they point.

Each check has a bar, a figure and a 95% interval over pictures. A method passes where the whole interval is on
the right side of the bar and fails where it is on the wrong one; in between the pictures do not settle it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.evaluation.intervals import bootstrap_mean
from transferscope.explain.attribution import (
    BATCH,
    METHODS,
    Method,
    PictureLike,
    exact_logits,
    find_method,
    load,
)
from transferscope.explain.controls import edge_maps, random_orders
from transferscope.explain.insertion import baseline, cells, grid, insertion_less_deletion
from transferscope.explain.mosaic import CHANCE, Mosaics, mosaics, shares
from transferscope.explain.randomisation import cascade, randomised
from transferscope.explain.scores import (
    Scores,
    Target,
    Targets,
    class_index,
    default_layer,
    refuse_layer,
)
from transferscope.explain.similarity import rank_correlation, ssim
from transferscope.records import Record
from transferscope.wording import counted, number, series

KEPT = 0.5
"""Rank correlation with the map of a network of random weights at which a map counts as kept."""

SAME = 0.9
"""Rank correlation of the maps of two classes at which they count as one map."""

LEAST = 8
"""Recognised pictures that the checks need."""

RANDOMISED = 8
"""Pictures whose maps are drawn for networks of random weights."""

_RANDOM_ORDERS = 3

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Depth(Record):
    """How much of a method's maps is left when weights are redrawn from the top down to a layer.

    Attributes:
        down_to: the last one redrawn.
        rank_correlation: Spearman's, of magnitudes, mean over pictures.
        ssim: of magnitudes, mean over pictures.
    """

    down_to: str
    rank_correlation: float
    ssim: float


@dataclass(frozen=True)
class Check(Record):
    """One check of one method.

    Attributes:
        name: `randomisation`, `beats_random`, `beats_edges`, `mosaic` or `class_sensitivity`.
        figure: mean over pictures; None: it could not be had, as `said` says.
        interval: 95% of it, bootstrap over pictures.
        bar: what the figure is held against.
        n: pictures.
        passed: None: these pictures do not settle it.
        said: in words.
    """

    name: str
    figure: float | None
    interval: tuple[float, float] | None
    bar: float
    n: int
    passed: bool | None
    said: str


@dataclass(frozen=True)
class MethodVerdict(Record):
    """Whether a method deserves belief on a network.

    Attributes:
        method: its name.
        passed: True: every check; False: at least one is failed, or the method is refused; None: none is
            failed and not all are settled.
        said: in words.
        n: recognised pictures that were used.
        checks: each of them; none for a method that is refused.
        randomisation: similarity by depth.
        layer: whose maps they are; None: the pixels'.
        refused: why the method cannot be used with this network.
    """

    method: str
    passed: bool | None
    said: str
    n: int
    checks: tuple[Check, ...] = ()
    randomisation: tuple[Depth, ...] = ()
    layer: str | None = None
    refused: str | None = None


def check_methods(
    classifier: Classifier,
    pictures: Sequence[PictureLike] | torch.Tensor,
    labels: Sequence[Target],
    *,
    methods: Sequence[str | Method] = tuple(METHODS),
    layer: str | None = None,
    batch_size: int = BATCH,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> tuple[MethodVerdict, ...]:
    """Which methods deserve belief on this network.

    Only pictures that it recognises are used. Costly methods run with their `quick` options.

    Args:
        classifier: unchanged.
        pictures: N, see `attribute`; 16 to 32 are enough, of four classes or more.
        labels: N class names or indices.
        methods: names in `METHODS`, or methods of your own.
        layer: whose maps Grad-CAM and LayerCAM take; None: see `attribute`.
        batch_size: pictures, noisy versions or steps a pass.
        seed: of random weights, orders, mosaics and noise; the same one gives the same verdicts.
        on_progress: called with (methods done, all).

    Returns:
        A verdict each, in the order of `methods`.

    Raises:
        UnknownName: no such method, class or layer.
        InputError: fewer than eight recognised pictures.
        PictureError: a file that cannot be read.

    Reference: Adebayo et al. 2018; Petsiuk et al. 2018; Arias-Duart et al. 2022.
    """
    chosen = [one if isinstance(one, Method) else find_method(one) for one in methods]
    with torch.inference_mode(False):
        ground = _Ground(classifier, pictures, labels, layer, batch_size, seed)
        found = []
        for number_, method in enumerate(chosen, 1):
            found.append(ground.verdict(method))
            if on_progress:
                on_progress(number_, len(chosen))
    return tuple(found)


class _Ground:
    """Pictures, networks and controls that all methods are checked with."""

    def __init__(
        self,
        classifier: Classifier,
        pictures: Sequence[PictureLike] | torch.Tensor,
        labels: Sequence[Target],
        layer: str | None,
        batch_size: int,
        seed: int,
    ):
        self.batch_size, self.seed = batch_size, seed
        batch, _ = load(classifier, pictures)
        if len(labels) != len(batch):
            raise InputError(
                f"{len(labels)} labels were given for {len(batch)} pictures; give one each"
            )
        index = torch.tensor([class_index(classifier, one) for one in labels]).to(batch.device)
        logits = exact_logits(classifier, batch, batch_size)
        right = logits.argmax(1) == index
        if int(right.sum()) < LEAST:
            raise InputError(
                f"{int(right.sum())} of {counted(len(batch), 'picture')} are recognised; the checks need at "
                f"least {LEAST}, better 24: give more"
            )
        self.pictures, self.index = batch[right].clone(), index[right]
        others = logits[right].clone()
        others[torch.arange(len(others)), self.index] = -torch.inf
        self.runner_up = others.argmax(1)
        self.layer, self.no_layer = layer, None
        if layer is not None:
            refuse_layer(classifier, layer)
        else:
            try:
                self.layer = default_layer(classifier)
            except InputError as error:
                self.no_layer = str(error)
        self.scores = Scores(classifier, self.layer)
        groups = cascade(classifier)
        depths = dict.fromkeys((1, (len(groups) + 1) // 2, len(groups)))
        self.random_networks = {
            groups[depth - 1]: Scores(randomised(classifier, groups[:depth], seed=seed), self.layer)
            for depth in depths
        }
        self.mosaics = mosaics(self.pictures, self.index, seed=seed)
        self.base = baseline(self.scores, self.pictures, self.index, batch_size=batch_size)
        self.by_edges = self._insertion(cells(_numpy(edge_maps(self.pictures))))
        self.by_chance = self._by_chance()

    def _insertion(self, order: NDArray[np.float32]) -> NDArray[np.float64]:
        return insertion_less_deletion(
            *(self.scores, self.pictures, self.index, order, self.base),
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def _by_chance(self) -> NDArray[np.float64]:
        """The mean over random orders, a picture."""
        side = grid(self.pictures.shape[2:])
        count = side[0] * side[1]
        found = [
            self._insertion(random_orders(len(self.pictures), count, self.seed + number_))
            for number_ in range(_RANDOM_ORDERS)
        ]
        mean: NDArray[np.float64] = np.mean(found, axis=0)
        return mean

    def verdict(self, method: Method) -> MethodVerdict:
        """All checks of a method."""
        n, layer = len(self.pictures), self.layer if method.layer else None
        if method.layer and self.no_layer:
            return _refused(method, self.no_layer, n)
        try:
            own = self._maps(method, self.scores, self.pictures, self.index)
        except InputError as error:
            return _refused(method, str(error), n)
        depths, kept = self._randomisation(method, own)
        other = self._maps(method, self.scores, self.pictures, self.runner_up)
        alike = [rank_correlation(*pair) for pair in zip(own, other, strict=True)]
        score = self._insertion(cells(method.support(own)))
        checks = (
            self._check("randomisation", kept, KEPT, below=True),
            self._check("beats_random", score - self.by_chance, 0.0),
            self._check("beats_edges", score - self.by_edges, 0.0),
            self._mosaic(method, self.mosaics),
            self._check("class_sensitivity", np.array(alike), SAME, below=True),
        )
        passed, said = _summary(method, checks)
        return MethodVerdict(method.name, passed, said, n, checks, depths, layer)

    def _maps(
        self, method: Method, scores: Scores, pictures: torch.Tensor, index: torch.Tensor
    ) -> NDArray[np.float32]:
        options: dict[str, Any] = {"batch_size": self.batch_size, "seed": self.seed, **method.quick}
        return _numpy(method(scores, pictures, Targets(index), **options).maps)

    def _randomisation(
        self, method: Method, own: NDArray[np.float32]
    ) -> tuple[tuple[Depth, ...], NDArray[np.float64]]:
        """Similarity by depth, and the rank correlation of each picture when everything is redrawn."""
        depths, ranks = [], np.zeros(0)
        for name, scores in self.random_networks.items():
            drawn = self._maps(method, scores, self.pictures[:RANDOMISED], self.index[:RANDOMISED])
            pairs = list(zip(np.abs(own[:RANDOMISED]), np.abs(drawn), strict=True))
            ranks = np.array([rank_correlation(*pair) for pair in pairs])
            alike = float(np.mean([ssim(*pair) for pair in pairs]))
            depths.append(Depth(name, float(ranks.mean()), alike))
        return tuple(depths), ranks

    def _mosaic(self, method: Method, game: Mosaics | None) -> Check:
        if game is None:
            said = "the mosaic needs recognised pictures of four classes"
            return Check("mosaic", None, None, CHANCE, 0, None, said)
        maps = self._maps(method, self.scores, game.pictures, game.index)
        return self._check("mosaic", shares(method.support(maps), game.quarter), CHANCE)

    def _check(
        self, name: str, values: NDArray[np.float64], bar: float, *, below: bool = False
    ) -> Check:
        """A check whose mean has to be above its bar, or below it."""
        interval = bootstrap_mean(values, seed=self.seed)
        low, high = interval.low, interval.high
        good, bad = (high < bar, low >= bar) if below else (low > bar, high <= bar)
        passed = True if good else False if bad else None
        figure = float(values.mean())
        said = _SAID[name][0 if good else 1 if bad else 2].format(
            figure=number(figure), low=number(low), high=number(high), bar=number(bar)
        )
        return Check(name, figure, (low, high), bar, len(values), passed, said)


_SAID = {
    "randomisation": (
        "its maps change with the weights (rank correlation {figure}, {low} to {high})",
        "its maps stay as they are when all weights are redrawn (rank correlation {figure}, {low} to {high})",
        "it is not settled whether its maps change with the weights (rank correlation {figure}, {low} to "
        "{high} around {bar})",
    ),
    "beats_random": (
        "its places matter more than random ones (by {figure}, {low} to {high})",
        "its places matter no more than random ones (by {figure}, {low} to {high})",
        "it is not settled whether its places matter more than random ones (by {figure}, {low} to {high})",
    ),
    "beats_edges": (
        "its places matter more than edges (by {figure}, {low} to {high})",
        "its places matter no more than edges (by {figure}, {low} to {high})",
        "it is not settled whether its places matter more than edges (by {figure}, {low} to {high})",
    ),
    "mosaic": (
        "in a mosaic of four it points at the class asked for (share {figure}, {low} to {high}, chance {bar})",
        "in a mosaic of four it does not point at the class asked for (share {figure}, {low} to {high}, "
        "chance {bar})",
        "it is not settled whether it points in a mosaic of four (share {figure}, {low} to {high}, chance "
        "{bar})",
    ),
    "class_sensitivity": (
        "another class has another map (rank correlation {figure}, {low} to {high})",
        "another class has the same map (rank correlation {figure}, {low} to {high})",
        "it is not settled whether another class has another map (rank correlation {figure}, {low} to {high} "
        "around {bar})",
    ),
}
"""What each check says where it is passed, failed and not settled."""


def _summary(method: Method, checks: Sequence[Check]) -> tuple[bool | None, str]:
    failed = [check.said for check in checks if check.passed is False]
    open_ = [check.said for check in checks if check.passed is None]
    if failed:
        return False, f"{method.title} fails: {series(failed)}"
    if open_:
        return None, f"{method.title} is undecided: {series(open_)}"
    return True, f"{method.title} passes every check"


def _refused(method: Method, why: str, n: int) -> MethodVerdict:
    return MethodVerdict(
        method.name, False, f"{method.title} cannot be used: {why}", n, refused=why
    )


def _numpy(maps: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = maps.detach().float().cpu().numpy()
    return found
