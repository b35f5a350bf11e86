"""How alike two networks see the same pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from transferscope.activations import state_up_to
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.images import as_float, to_picture

Values = NDArray[np.float64]


def frozen_up_to(base: Classifier, tuned: Classifier, layer: str) -> bool:
    """Whether every parameter and buffer that `layer`'s output depends on is bit-identical.

    Raises:
        UnknownName: no such layer.
    """
    old = state_up_to(base.network, layer, base.example())
    new = tuned.network.state_dict()
    return all(name in new and torch.equal(value, new[name]) for name, value in old.items())


def embed(base: Classifier, pictures: torch.Tensor, *, batch_size: int = 16) -> torch.Tensor:
    """Pooled features of pictures in the base network, scaled to length 1.

    Args:
        base: whose eyes judge both networks' pictures.
        pictures: uint8 (N, H, W, 3); N may be 0, where no drawing of a channel succeeded.
        batch_size: pictures a forward pass.

    Returns:
        float32 (N, D); the product of two rows is their cosine.
    """
    spec = base.input
    parts = [torch.empty(0, base.head_layer.in_features)]
    with base.inference():
        for part in pictures.split(batch_size) if len(pictures) else ():
            loaded = torch.stack([spec.load(to_picture(picture)) for picture in part])
            parts.append(base.pooled_features(as_float(loaded.to(base.device))).float().cpu())
    return functional.normalize(torch.cat(parts), dim=1)


def debiased_cka(x: Values, y: Values) -> float:
    """Linear CKA that is 0 on average where two representations have nothing in common.

    Linear CKA as it was first defined grows with the number of features: of 200 pictures two independent
    representations of 320 features each reach 0.6. Here a picture's similarity to itself is left out, so
    that layers and networks of any width compare.

    Args:
        x: (N, p) responses, N at least 4.
        y: (N, q), to the same pictures.

    Returns:
        In [-1, 1]; 1 for a representation and itself; 0 where one has no structure of its own.

    Raises:
        InputError: fewer than 4 pictures, or not as many in one as in the other.

    Reference: Song et al. 2012, eq. 5, the unbiased HSIC in each of CKA's three places, as Nguyen et al.
    2021, eq. 3 and Murphy et al. 2024; computed by the equal form of Szekely & Rizzo 2014, section 3.
    """
    refuse_unpaired(x, y, least=4)
    first, second = _centred_similarities(x), _centred_similarities(y)
    own = float((first * first).sum()) * float((second * second).sum())
    return float((first * second).sum() / np.sqrt(own)) if own > 0 else 0.0


def _centred_similarities(x: Values) -> Values:
    """(N, N) scalar products of different pictures, U-centred; zeros if the pictures do not differ."""
    n = len(x)
    x = x.astype(float) - x.mean(0)
    if not np.ptp(x, axis=0).any():
        return np.zeros((n, n))
    products = x @ x.T / np.square(x).sum()
    np.fill_diagonal(products, 0.0)
    rows = products.sum(0) / (n - 2)
    centred: Values = products - rows - rows[:, None] + products.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return centred


def procrustes_distance(x: Values, y: Values) -> float:
    """How far two representations are apart after the best rotation of one onto the other, in [0, 2].

    Of centred features scaled to a Frobenius norm of 1 each: the squared distance that is left, 0 for
    the same representation up to rotation, mirroring and one common scale, 2 where nothing is shared. The
    narrower one counts as having further features that are always 0. Independent representations with
    more features than pictures come out nearer than 2: hold it against the same with the pictures of one
    in another order.

    Args:
        x: (N, p) responses.
        y: (N, q), to the same pictures.

    Returns:
        2 if one has no variance and the other has, 0 if neither has.

    Raises:
        InputError: fewer than 2 pictures, or not as many in one as in the other.

    Reference: Schoenemann 1966; as a distance of representations Ding et al. 2021, eq. 5 of normalised
    features.
    """
    refuse_unpaired(x, y, least=2)
    first, second = (_reduced(z) for z in (x, y))
    if not first.any() and not second.any():
        return 0.0
    return max(0.0, 2 - 2 * float(np.linalg.norm(first.T @ second, "nuc")))


def _reduced(x: Values) -> Values:
    """Centred, of Frobenius norm 1 (or 0), and rotated into no more features than pictures."""
    varies = np.ptp(x, axis=0).any()
    x = x.astype(float) - x.mean(0)
    if x.shape[1] > x.shape[0]:
        x = np.asarray(np.linalg.qr(x.T, mode="r")).T
    norm = np.linalg.norm(x)
    return x / norm if varies and norm > 0 else np.zeros_like(x)


def refuse_unpaired(x: Values, y: Values, *, least: int) -> None:
    """Refuses responses to other numbers of pictures, or to too few.

    Raises:
        InputError: says which.
    """
    if len(x) != len(y):
        raise InputError(
            f"one network has responses to {len(x)} pictures and the other to {len(y)}; give both the same "
            "pictures in the same order"
        )
    if len(x) < least:
        raise InputError(f"there are responses to {len(x)} pictures; this takes {least} or more")
