"""One forward pass a picture: what layers and the head's input are, from the cache where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import torch
from torch import nn

from transferscope import distributed
from transferscope.acceleration.folding import folded
from transferscope.acceleration.precision import Precision, autocast, fast_bf16
from transferscope.activations import TruncatedForward, capture, capture_inputs
from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.data.loading import load_batches
from transferscope.errors import OutputError, TransferscopeError
from transferscope.features.exemplars import channel_means
from transferscope.features.store import FeatureStore, Rows, make_room
from transferscope.images import InputSpec, as_float

if TYPE_CHECKING:
    from transferscope.data.augmentation import Augmentation

POOLED = "pooled"
"""Name of the target that is the head's input; the others are layers' names and `mean_of` them."""

_MEAN = "mean:"

FEATURE_VERSION = 1
"""Part of every cache key; raised whenever the same key could mean other numbers."""

SHARD = 512
"""Pictures a cache file, at most: what a killed extraction has to repeat."""

SHARD_BYTES = 64 * 2**20
"""Bytes a cache file, about, where 512 pictures have more: it is held in memory until it is written."""

_HEADER_BYTES = 72  # a picture, in a cache file: its hash, quoted
_ATTEMPTS = 3  # at filling a cache from which another process removes shards

Progress = Callable[[int, int], None]
Given = ParamSpec("Given")


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


def mean_of(layer: str) -> str:
    """The target that holds the spatial means of a layer's output, float32 (N, C): `channel_means`."""
    return _MEAN + layer


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
    with folded BatchNorm, ended at the deepest target. Of several processes (`distributed`) each
    computes its share of what is missing; all return the same.

    Args:
        classifier: unchanged; its head plays no part.
        files: N pictures.
        hashes: sha256 of each file.
        targets: `POOLED` and `mean_of` layers (float32), and names of layers (float16, or float32
            where that overflows).
        precision: of the forward pass.
        view: how training sees the pictures; None: as prediction does.
        on_progress: called with (done, total) after every batch of this process's share.

    Raises:
        PictureError: a file cannot be decoded.
        OutputError: the features do not fit the cache's budget, or cannot be written.
    """
    rows, cached = _filled(
        classifier, files, hashes, targets, precision, batch_size, view, on_progress
    )
    return Extracted({target: found[:] for target, found in rows.items()}, cached)


def boundary_rows(
    classifier: Classifier,
    files: Sequence[Path],
    hashes: Sequence[str],
    layer: str,
    *,
    precision: Precision = "auto",
    batch_size: int = 16,
    view: View | None = None,
    on_progress: Progress | None = None,
) -> Rows:
    """A layer's activations of N pictures, memory-mapped: for sets larger than the memory.

    What the cache lacks is computed first; arguments and errors are those of `extract`. How much a
    set will take is said by `planned_bytes`, how much there is by `cache_budget`.
    """
    rows, _ = _filled(classifier, files, hashes, (layer,), precision, batch_size, view, on_progress)
    return rows[layer]


def planned_bytes(classifier: Classifier, target: str, n: int) -> int:
    """Bytes of the cache that n pictures' features at a target will take.

    A layer whose values overflow float16 takes twice as much.
    """
    network = still(classifier.network)
    with torch.inference_mode():
        features = _features_of(network, classifier, (target,))(classifier.example())[target]
    return n * (features.numel() * (2 if _is_layer(target) else 4) + _HEADER_BYTES)


def cached_pictures(classifier: Classifier, *, precision: Precision = "auto") -> set[str]:
    """Hashes of the files whose pooled features are cached, hence known to be readable."""
    bf16 = _in_bf16(classifier, precision)
    return _open_store(classifier, classifier.body_hash(), POOLED, bf16).pictures


def _filled(
    classifier: Classifier,
    files: Sequence[Path],
    hashes: Sequence[str],
    targets: Sequence[str],
    precision: Precision,
    batch_size: int,
    view: View | None,
    on_progress: Progress | None,
) -> tuple[dict[str, Rows], int]:
    """Rows by target, computed where the cache lacked them, and how many pictures it had.

    A shard may turn out damaged, or be removed by another process, between the listing and the
    mapping: its pictures are computed again. All processes take the same decisions together.
    """
    bf16, body = _in_bf16(classifier, precision), classifier.body_hash()
    file_of = dict(zip(hashes, files, strict=True))
    computed: set[str] = set()

    def opened() -> dict[str, FeatureStore]:
        return {target: _open_store(classifier, body, target, bf16, view) for target in targets}

    for _ in range(_ATTEMPTS):
        stores = opened()
        lacking = [h for h in file_of if any(h not in store for store in stores.values())]
        filled = [t for t, store in stores.items() if any(h not in store for h in lacking)]
        # Process 0's lists, so that every picture is in exactly one process's share.
        missing, filled = distributed.gathered((lacking, filled))[0]
        computed.update(missing)
        if missing:
            _together(_make_room, classifier, stores, hashes, filled, len(missing))
            mine = {hashed: file_of[hashed] for hashed in distributed.share(missing)}
            into = {target: stores[target] for target in filled}
            _together(_fill, classifier, into, mine, precision, batch_size, view, on_progress)
            stores = opened()
        rows = {target: store.rows(hashes) for target, store in stores.items()}
        whole = {target: found for target, found in rows.items() if found is not None}
        if all(distributed.gathered(len(whole) == len(rows))):
            return whole, len(file_of) - len(computed)
    raise OutputError(
        f"the features of {len(file_of)} pictures were removed from the cache {_ATTEMPTS} times before "
        "they could be read; end the other processes that fill it, or raise TRANSFERSCOPE_CACHE_BUDGET"
    )


def _together(work: Callable[Given, None], *given: Given.args, **named: Given.kwargs) -> None:
    """Does `work` in every process and waits for all; where it fails in one, every one raises."""
    failure = "it was interrupted"
    try:
        work(*given, **named)
        failure = ""
    except TransferscopeError as error:
        failure = str(error)
        raise
    finally:
        failures = distributed.gathered(failure)
    for number, said in enumerate(failures):
        if said:
            raise TransferscopeError(f"process {number} could not go on: {said}")


def _make_room(
    classifier: Classifier,
    stores: Mapping[str, FeatureStore],
    hashes: Sequence[str],
    filled: Sequence[str],
    missing: int,
) -> None:
    """Room for `missing` pictures at the targets `filled`, beside what is there of all pictures."""
    if distributed.is_first():
        needed = sum(planned_bytes(classifier, target, missing) for target in filled)
        make_room(needed, set().union(*(store.files(hashes) for store in stores.values())))


def _in_bf16(classifier: Classifier, precision: Precision) -> bool | str:
    """Whether features are computed in bf16, or that they are in fp16: a part of the cache's key."""
    if precision == "fp16":
        return precision
    return precision == "bf16" or (precision == "auto" and fast_bf16(classifier.device))


def _is_layer(target: str) -> bool:
    """Whether a target is a layer's whole output, not a vector a picture."""
    return target != POOLED and not target.startswith(_MEAN)


def _open_store(
    classifier: Classifier, body: str, target: str, bf16: bool | str, view: View | None = None
) -> FeatureStore:
    return FeatureStore(
        {
            "version": FEATURE_VERSION,
            "body": body,
            "architecture": classifier.architecture_hash(),
            "target": target,
            "input": classifier.input.to_dict(),
            "bf16": bf16,
            "view": view.key() if view else 0,
        }
    )


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
    forward = _features_of(network, classifier, tuple(stores))
    hashes, files = list(missing), list(missing.values())
    pending: dict[str, list[torch.Tensor]] = {target: [] for target in stores}
    done = written = held = 0

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
            held += pending[target][-1].nbytes
        done += len(batch)
        if done - written >= SHARD or held >= SHARD_BYTES or done == len(files):
            for target, store in stores.items():
                store.add(hashes[written:done], torch.cat(pending[target]))
                pending[target] = []
            written, held = done, 0
        if on_progress:
            on_progress(done, len(files))


def _features_of(
    network: nn.Module, classifier: Classifier, targets: Sequence[str]
) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """A forward pass that yields every target's features, and ends at the deepest of them."""
    layer_of = {target: target.removeprefix(_MEAN) for target in targets if target != POOLED}
    layers = list(dict.fromkeys(layer_of.values()))
    example = classifier.example()
    truncated = TruncatedForward(network, layers, example) if layers else None
    last = (
        {one.name for one in layers_of(network, example) if one.channels_last} if layers else set()
    )

    def forward(pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        if POOLED not in targets:
            assert truncated is not None
            outputs = truncated(pictures)
        else:
            with (
                capture(network, layers) as outputs,
                capture_inputs(network, classifier.head) as inputs,
            ):
                network(pictures)
            found[POOLED] = inputs[-1].flatten(1)
        for target, layer in layer_of.items():
            output = outputs[layer]
            if not _is_layer(target):
                first = output.movedim(-1, 1) if layer in last else output
                output = channel_means(first.float())
            found[target] = output
        return found

    return forward


def _storable(features: torch.Tensor, target: str) -> torch.Tensor:
    features = features.float().cpu()
    if not _is_layer(target):
        return features
    half = features.half()
    return half if bool(torch.isfinite(half).all()) else features
