"""Cues moved from picture to picture: whether a network's answer follows the cue or the object.

The corner, the border or the colours of a picture of one class are put on pictures of the others, and theirs
on pictures of the class. Whatever is moved disturbs a picture, so each is measured against the same part of
another picture that should change nothing: the answer must follow this class's part, not any part. Where it
does, the mean change of the pooled features is the direction in which the network keeps the cue.

Reference: counterfactual tests as in Geirhos et al. 2020 (shortcut learning); directions as differences of mean
features, as in concept erasure (Belrose et al. 2023), taken from the head without training as SpuFix takes its
own, which come of a principal component analysis (Neuhaus et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.acceleration.folding import folded
from transferscope.acceleration.precision import autocast
from transferscope.backbones.classifier import Classifier
from transferscope.data.cues import PATCH_STEPS, PATTERN
from transferscope.evaluation.intervals import bootstrap_mean
from transferscope.images import InputSpec
from transferscope.records import Record

Kind = Literal["patch", "border", "colour"]
"""What can be moved."""

BORDER = 0.1
"""Depth of the border that is moved, of the network's view."""

_PATCH = 16  # cells of a patch's side, of PATTERN


@dataclass(frozen=True, eq=False)
class Part:
    """What is moved.

    Attributes:
        kind: colours are moved by mapping the darkest and brightest hundredth of each channel.
        mask: bool (H, W) of the network's view, for a patch or the border; None for colours.
    """

    kind: Kind
    mask: torch.Tensor | None

    def moved(self, pictures: torch.Tensor, donors: torch.Tensor) -> torch.Tensor:
        """Pictures (N, C, H, W) in [0, 1] with this part of as many donors."""
        if self.mask is not None:
            return torch.where(self.mask.to(pictures.device), donors, pictures)
        shares = pictures.new_tensor([0.01, 0.99])
        low, high = torch.quantile(pictures.flatten(2), shares, dim=2)[..., None, None]
        to_low, to_high = torch.quantile(donors.flatten(2), shares, dim=2)[..., None, None]
        scale = (to_high - to_low) / (high - low).clamp(min=1 / 255)
        mapped: torch.Tensor = (pictures - low) * scale + to_low
        return mapped.clamp(0, 1)


def border_part(input: InputSpec) -> Part:
    """The outermost tenth of the view."""
    height, width = input.size
    depth = max(1, round(BORDER * min(height, width)))
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[depth:-depth, depth:-depth] = False
    return Part("border", mask)


def patch_part(places: Sequence[tuple[int, int]], input: InputSpec) -> Part:
    """Patches of the middle square, (row, column) from 1 to 7, as far as the view shows them."""
    height, width = input.size
    mask = torch.zeros(height, width, dtype=torch.bool)
    step = (PATTERN - _PATCH) // (PATCH_STEPS - 1)
    for row, column in places:
        top, bottom = (_seen((row - 1) * step + more, input.crop, height) for more in (0, _PATCH))
        left, right = (_seen((column - 1) * step + more, input.crop, width) for more in (0, _PATCH))
        mask[top:bottom, left:right] = True
    return Part("patch", mask)


def _seen(cell: int, crop: float, side: int) -> int:
    """Where a cell's edge lies in the view, in pixels."""
    at = (cell / PATTERN - (1 - crop) / 2) / crop
    return round(min(1.0, max(0.0, at)) * side)


def quick(classifier: Classifier) -> Classifier:
    """A copy that answers the same sooner: BatchNorm folded, channels last."""
    network = folded(classifier.network, classifier.example())
    return classifier.with_network(network.to(memory_format=torch.channels_last))


def answers(
    classifier: Classifier, pictures: torch.Tensor, *, batch_size: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, K) and pooled features (N, D), on the CPU, of pictures in [0, 1]; the head is linear."""
    with classifier.inference() as running, autocast(classifier.device, "auto"):
        batches = [batch.to(classifier.device) for batch in pictures.split(batch_size)]
        features = torch.cat([running.pooled_features(batch).float().cpu() for batch in batches])
    head = classifier.head_layer
    with torch.inference_mode():
        return head(features.to(classifier.device)).float().cpu(), features


@dataclass(frozen=True)
class Shift(Record):
    """What moving a part does to the predictions, against moving the same part of another picture.

    Attributes:
        effect: mean change of the class's probability, up where its cue is given, down where it is taken.
        low, high: its 95% interval, bootstrap over pictures.
        p: of the same, one-sided (paired t-test).
        n: pictures.
        turned: share of pictures of which the prediction changes likewise, less the share in which the other
            part does that.
    """

    effect: float
    low: float
    high: float
    p: float
    n: int
    turned: float


def shift(
    logits: torch.Tensor, control: torch.Tensor, label: int, *, towards: bool, temperature: float
) -> Shift:
    """Compares answers with the part of a class and with the control's, both (N, K).

    Args:
        logits, control: of the same pictures.
        label: the class.
        towards: whether the class is expected to be said more (its cue is given) or less (it is taken).
        temperature: of the probabilities.
    """
    from scipy.stats import ttest_1samp

    sign = 1 if towards else -1
    said = (
        sign
        * ((logits.argmax(1) == label).double() - (control.argmax(1) == label).double()).numpy()
    )
    probability = (logits / temperature).softmax(1) - (control / temperature).softmax(1)
    change = sign * probability[:, label].double().numpy()
    interval = bootstrap_mean(change)
    if len(change) < 2 or not np.ptp(change):
        p = 1.0  # nothing varies: no test
    else:
        p = float(ttest_1samp(change, 0.0, alternative="greater").pvalue)
    mean, turned = float(change.mean()), float(said.mean())
    return Shift(mean, interval.low, interval.high, p, len(change), turned)


# ---------------------------------------------------------------------------- taken from the head


def without_directions(
    weight: torch.Tensor, bias: torch.Tensor, directions: torch.Tensor, mean: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear head that no longer sees some directions: every picture is taken to be at `mean` along them.

    Args:
        weight, bias: (K, D) and (K,).
        directions: (M, D), none of them zero.
        mean: (D,), features of pictures without the cue.

    Returns:
        Weight and bias. On features without a part along the directions other than the mean's, the logits stay.
    """
    basis = torch.linalg.qr(directions.double().T)[0]  # (D, M)
    seen = weight.double() @ basis
    return (
        (weight.double() - seen @ basis.T).to(weight),
        (bias.double() + seen @ (basis.T @ mean.double())).to(bias),
    )


def reweighted_head(
    features: torch.Tensor,
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    start: tuple[torch.Tensor, torch.Tensor],
    *,
    strength: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear head fitted anew on weighted pooled features.

    Standardised multinomial logistic regression; what it is pulled towards is the head as it was.

    Args:
        features: (N, D); all K classes among their labels.
        labels: int64 (N,).
        weights: (N,), of the losses; their sum is made N.
        start: weight (K, D) and bias (K,) of the head before.
        strength: of the pull: nats a picture for each squared unit of change.

    Reference: AFR (Qiu et al. 2023), whose penalty is the squared distance from the first head.
    """
    weight, bias = (one.detach().double().clone().requires_grad_() for one in start)
    first = weight.detach().clone()
    scale = features.double().std(0).clamp(min=1e-6)
    rows, classes = features.double(), torch.from_numpy(labels)
    own = torch.from_numpy(weights / weights.sum())
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        losses = torch.nn.functional.cross_entropy(
            rows @ weight.T + bias, classes, reduction="none"
        )
        loss = (own * losses).sum() + strength * ((weight - first) * scale).square().sum()
        loss.backward()
        return loss

    optimiser.step(objective)
    return weight.detach().to(start[0]), bias.detach().to(start[1])
