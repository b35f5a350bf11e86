"""What a frozen network makes of pictures, computed once: caches, the linear probe, exemplars.

Everything below the freeze boundary is a function of the weights and the picture alone, so it is
stored under the hash of both and never computed again: for another seed, another split or another
strategy the features are found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from transferscope.activations import TruncatedForward, capture, capture_inputs, evaluating
from transferscope.backbones import Classifier, Precision, autocast, fast_bf16, folded
from transferscope.data import load_batches
from transferscope.errors import DataError, WeightsError
from transferscope.images import InputSpec, as_float
from transferscope.storage import cache_dir, read_tensors, sha256_json, write_tensors

POOLED = "pooled"
"""Name of the target that is the head's input; every other target is a layer's name."""

FEATURE_VERSION = 1
"""Part of every cache key; raised whenever the same key could mean other numbers."""

SHARD = 512
"""Pictures a cache file: the most that a killed extraction has to repeat."""

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

    from transferscope.data.augmentation import Augmentation

Progress = Callable[[int, int], None]


# ---------------------------------------------------------------------------- the cache


class FeatureStore:
    """Features of one network at one target on disk, a row a picture, found by the file's hash.

    Shards are complete files or absent; two processes that add the same picture do no harm.

    Args:
        key: JSON-able values on which the features depend, besides the picture.
    """

    def __init__(self, key: Mapping[str, object]):
        self.folder = cache_dir() / "features" / sha256_json(dict(key))[:32]
        self._where: dict[str, tuple[Path, int]] = {}
        for shard in sorted(self.folder.glob("*.safetensors")):
            for row, picture in enumerate(_shard_pictures(shard)):
                self._where[picture] = (shard, row)

    def __contains__(self, picture: str) -> bool:
        return picture in self._where

    def add(self, pictures: Sequence[str], features: torch.Tensor) -> None:
        """Appends one shard: hashes of N files and their features (N, ...)."""
        name = sha256_json(list(pictures))[:24]
        shard = self.folder / f"{name}.safetensors"
        write_tensors(shard, {"features": features}, {"pictures": list(pictures)})
        for row, picture in enumerate(pictures):
            self._where[picture] = (shard, row)

    def rows(self, pictures: Sequence[str]) -> torch.Tensor:
        """Features (N, ...) of these pictures, in this order, in the dtype stored."""
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for place, picture in enumerate(pictures):
            shard, row = self._where[picture]
            wanted.setdefault(shard, []).append((place, row))
        result: torch.Tensor | None = None
        for shard, pairs in wanted.items():
            tensors, _ = read_tensors(shard)
            features = tensors["features"]
            if result is None:
                result = features.new_empty((len(pictures), *features.shape[1:]))
            places, rows = zip(*pairs, strict=True)
            result[list(places)] = features[list(rows)].to(result.dtype)
        assert result is not None, "no pictures were asked for"
        return result


def _shard_pictures(shard: Path) -> list[str]:
    """File hashes in a shard's header; a damaged shard is removed and counts as absent."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(shard), framework="pt") as file:
            pictures: list[str] = json.loads((file.metadata() or {})["pictures"])
            return pictures
    except (SafetensorError, KeyError, ValueError, OSError):
        shard.unlink(missing_ok=True)
        return []


@dataclass(frozen=True)
class View:
    """One augmented look at every picture of a training split, the same whenever it is asked for.

    Attributes:
        augmentation: what is done to a picture.
        number: 1, 2, ...; another number draws other crops.
        seed: likewise.
    """

    augmentation: Augmentation
    number: int
    seed: int

    def key(self) -> dict[str, object]:
        """JSON-able part of the cache's key."""
        return {
            "augmentation": self.augmentation.to_dict(),
            "number": self.number,
            "seed": self.seed,
        }

    def load(self, file: Path, spec: InputSpec, *, identity: str) -> torch.Tensor:
        """uint8 (C, H, W) of a file with the hash `identity`."""
        return self.augmentation.load(
            file, spec, seed=self.seed, view=self.number, identity=identity
        )


@dataclass(frozen=True, eq=False)
class Extracted:
    """Features of N pictures.

    Attributes:
        targets: target name to features, (N, D) for `POOLED`, (N, C, H, W) and the like for layers.
        cached: how many of the pictures were found in the cache.
    """

    targets: dict[str, torch.Tensor]
    cached: int


def extract(
    classifier: Classifier,
    files: Sequence[Path],
    hashes: Sequence[str],
    *,
    targets: Sequence[str] = (POOLED,),
    precision: Precision = "auto",
    batch_size: int = 16,
    view: View | None = None,
    on_progress: Progress | None = None,
) -> Extracted:
    """Features of pictures at one or more targets, from the cache where they are in it.

    All targets that lack a picture are filled by one forward pass, in eval mode, through a copy
    with folded BatchNorm, ended at the deepest target.

    Args:
        classifier: unchanged; its head plays no part.
        files: N pictures.
        hashes: sha256 of each file.
        targets: `POOLED` (float32) and names of layers (float16, or float32 where that overflows).
        precision: of the forward pass.
        view: how training sees the pictures; None: as prediction does.
        on_progress: called with (done, total) after every batch.

    Raises:
        PictureError: a file cannot be decoded.
    """
    device = classifier.device
    bf16 = precision == "bf16" or (precision == "auto" and fast_bf16(device))
    body = classifier.body_hash()
    for last in (False, True):
        stores = {target: _open_store(classifier, body, target, bf16, view) for target in targets}
        missing = {
            hashed: file
            for hashed, file in zip(hashes, files, strict=True)
            if any(hashed not in store for store in stores.values())
        }
        found = len(set(hashes)) - len(missing)
        if missing:
            _fill(classifier, stores, missing, precision, batch_size, view, on_progress)
        try:
            rows = {target: store.rows(hashes) for target, store in stores.items()}
            break
        except WeightsError:  # a shard whose checksum fails: its pictures are computed again
            if last:
                raise
            for store in stores.values():
                _drop_damaged(store)
    return Extracted(rows, found)


def cached_pictures(classifier: Classifier, *, precision: Precision = "auto") -> set[str]:
    """Hashes of the files whose pooled features are cached, hence known to be readable."""
    bf16 = precision == "bf16" or (precision == "auto" and fast_bf16(classifier.device))
    return set(_open_store(classifier, classifier.body_hash(), POOLED, bf16)._where)


def _open_store(
    classifier: Classifier, body: str, target: str, bf16: bool, view: View | None = None
) -> FeatureStore:
    return FeatureStore(
        {
            "version": FEATURE_VERSION,
            "body": body,
            "target": target,
            "input": classifier.input.to_dict(),
            "bf16": bf16,
            "view": view.key() if view else 0,
        }
    )


def _drop_damaged(store: FeatureStore) -> None:
    for shard in {shard for shard, _ in store._where.values()}:
        try:
            read_tensors(shard)
        except WeightsError:
            shard.unlink(missing_ok=True)


def _fill(
    classifier: Classifier,
    stores: Mapping[str, FeatureStore],
    missing: Mapping[str, Path],
    precision: Precision,
    batch_size: int,
    view: View | None,
    on_progress: Progress | None,
) -> None:
    """Computes the features of `missing` (hash to file) and adds them to every store, in shards."""
    device = classifier.device
    network = folded(classifier.network, classifier.example()).to(memory_format=torch.channels_last)
    forward = _features_of(
        network, classifier, [t for t in stores if t != POOLED], POOLED in stores
    )
    hashes, files = list(missing), list(missing.values())
    pending: dict[str, list[torch.Tensor]] = {target: [] for target in stores}
    done = written = 0

    def augmented(index: int) -> torch.Tensor:
        assert view is not None
        return view.load(files[index], classifier.input, identity=hashes[index])

    load = augmented if view else None
    for batch in load_batches(files, classifier.input, batch_size=batch_size, load=load):
        pictures = classifier.input.normalise(as_float(batch.to(device)))
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device, precision):
            features = forward(pictures)
        for target in stores:
            pending[target].append(_storable(features[target], target))
        done += len(batch)
        if done - written >= SHARD or done == len(files):
            for target, store in stores.items():
                store.add(hashes[written:done], torch.cat(pending[target]))
                pending[target] = []
            written = done
        if on_progress:
            on_progress(done, len(files))


def _features_of(
    network: nn.Module, classifier: Classifier, layers: Sequence[str], pooled: bool
) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """A forward pass that yields layers' outputs and, if wanted, the head's input."""
    if not pooled:
        return TruncatedForward(network, layers, classifier.example())

    def forward(pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        with capture(network, layers) as caught, capture_inputs(network, classifier.head) as inputs:
            network(pictures)
        return {**caught, POOLED: inputs[-1].flatten(1)}

    return forward


def _storable(features: torch.Tensor, target: str) -> torch.Tensor:
    features = features.float().cpu()
    if target == POOLED:
        return features
    half = features.half()
    return half if bool(torch.isfinite(half).all()) else features


# ---------------------------------------------------------------------------- the linear probe


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear head fitted exactly on cached features.

    Attributes:
        weight: float32 (K, D).
        bias: float32 (K,).
        strength: the inverse regularisation C that cross-validation chose.
        strengths: every C tried, with its cross-validated log-loss in nats.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float
    strengths: dict[float, float]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(N, K) of pooled features (N, D)."""
        return nn.functional.linear(features.float(), self.weight, self.bias)


STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


def fit_probe(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    *,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
) -> Probe:
    """Multinomial logistic regression, its strength chosen by stratified cross-validation.

    Features are standardised inside, and the scaling is folded into the weights returned. The
    strengths are tried from the strongest regularisation on, each fit starting from the one before,
    until the log-loss of the folds has risen twice in a row.

    Args:
        features: (N, D), of the training split alone.
        labels: int64 (N,) in 0..classes-1; every class present.
        classes: K.
        seed: of the folds.
        folds: at most; no more than the rarest class has pictures. With a class of one picture there
            is no fold to choose by, and C = 0.01 is used.

    Raises:
        DataError: features that are not finite.
    """
    if not torch.isfinite(features).all():
        raise DataError(
            "the network's features are not finite; its weights are damaged: load others"
        )
    x, y = features.float().numpy(), labels.numpy()
    mean, std = x.mean(0), x.std(0)
    std[std < 1e-8] = 1.0
    x = (x - mean) / std
    rarest = int(np.bincount(y, minlength=classes).min())
    folds = min(folds, rarest)
    with threadpool_limits(1):  # one thread a fit, folds side by side: faster, and the same bits
        losses = _cross_validate(x, y, strengths, folds, seed) if folds >= 2 else {}
        strength = min(losses, key=losses.__getitem__) if losses else 0.01
        model = _regression().set_params(C=strength, tol=1e-4).fit(x, y)
    weight, bias = model.coef_, model.intercept_
    if classes == 2:  # scikit-learn keeps one row for two classes: logit(1) - logit(0)
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / std
    return Probe(
        weight=torch.from_numpy(weight).float(),
        bias=torch.from_numpy(bias - weight @ mean).float(),
        strength=strength,
        strengths=losses,
    )


def _cross_validate(
    x: np.ndarray, y: np.ndarray, strengths: Sequence[float], folds: int, seed: int
) -> dict[float, float]:
    """Mean log-loss over held-out folds by strength."""
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y))
    models = [_regression() for _ in parts]
    losses: dict[float, float] = {}

    def held_out_loss(fold: int, strength: float) -> float:
        train, held = parts[fold]
        model = models[fold].set_params(C=strength).fit(x[train], y[train])
        return float(log_loss(y[held], model.predict_proba(x[held]), normalize=False))

    with ThreadPoolExecutor(min(folds, torch.get_num_threads())) as pool:
        for strength in sorted(strengths):
            total = sum(pool.map(held_out_loss, range(folds), [strength] * folds))
            losses[strength] = total / len(y)
            tried = list(losses.values())
            if len(tried) > 2 and tried[-1] > tried[-2] > tried[-3]:
                break
    return losses


def _regression() -> LogisticRegression:
    """Multinomial logistic regression that starts each fit from the one before."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(warm_start=True, max_iter=1000, tol=1e-3)


# ---------------------------------------------------------------------------- exemplars


def channel_responses(
    classifier: Classifier,
    files: Sequence[Path],
    layers: Sequence[str],
    *,
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """How strongly real pictures excite every channel, in fp32.

    Returns:
        layer -> float32 (N, channels): the spatial mean of each channel; for tokens (T, D) the mean
        over tokens.

    Raises:
        UnknownName: no such layer.
    """
    forward = TruncatedForward(classifier.network, layers, classifier.example())
    collected: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    done = 0
    with evaluating(classifier), torch.inference_mode():
        for batch in load_batches(files, classifier.input, batch_size=batch_size):
            pictures = classifier.input.normalise(as_float(batch.to(classifier.device)))
            for layer, output in forward(pictures).items():
                collected[layer].append(channel_means(output).float().cpu())
            done += len(batch)
            if on_progress:
                on_progress(done, len(files))
    return {layer: torch.cat(parts) for layer, parts in collected.items()}


def channel_means(output: torch.Tensor) -> torch.Tensor:
    """(N, C) from (N, C, H, W), tokens (N, T, C) or a vector (N, C)."""
    if output.ndim == 4:
        return output.mean((2, 3))
    return output.mean(1) if output.ndim == 3 else output
