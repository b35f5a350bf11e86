"""Lookalikes of a set, by hash and by a network's features, kept together or counted across a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from transferscope import distributed
from transferscope.acceleration.precision import Precision
from transferscope.backbones.catalogue import DEFAULT_BACKBONE
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.data.duplicates import NearPair
from transferscope.data.inspection import THUMBNAIL, PictureFacts, measured
from transferscope.data.lookalike_groups import (
    LookalikeGroups,
    alike_by_features,
    group_lookalikes,
    is_drawn,
    refuse_given_parts,
)
from transferscope.data.lookalikes import MAX_EMBEDDED, near_duplicates
from transferscope.data.scan import Measure, Picture, Scan
from transferscope.features.extraction import POOLED, cached_pictures, extract
from transferscope.images import FileFacts
from transferscope.machine import cache_dir
from transferscope.workflows.reporter import SILENT, Reporter


def near_by_hash(found: Scan, facts: Mapping[str, PictureFacts]) -> tuple[NearPair, ...]:
    """Near duplicates by perceptual hash and thumbnail, of measured pictures."""
    ordered = [facts[picture.path] for picture in found.pictures]
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in ordered), dtype=np.uint8)
    return near_duplicates(
        found,
        np.array([one.phash for one in ordered], dtype=np.uint64),
        np.array([one.mirrored for one in ordered], dtype=np.uint64),
        thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL, 3),
    )


def with_splits(near: Sequence[NearPair], found: Scan) -> tuple[NearPair, ...]:
    """The pairs with the splits that their pictures have now."""
    split_of = {picture.path: picture.split for picture in found.pictures}
    return tuple(
        replace(pair, splits=(split_of[pair.paths[0]], split_of[pair.paths[1]])) for pair in near
    )


def pooled_features(
    found: Scan,
    source: Classifier | None = None,
    *,
    compute: bool = False,
    precision: Precision = "auto",
    targets: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> np.ndarray | None:
    """Pooled features (N, D) of a set; None of too many pictures, or where they are not cached.

    Args:
        found: N pictures.
        source: the network; None: the default backbone.
        compute: compute what is not cached.
        precision: of the forward pass.
        targets: what else of the network will be asked for, so that one pass serves both.
        reporter: hears of the progress.
    """
    if not 0 < len(found.pictures) <= MAX_EMBEDDED:
        return None
    if not compute and not (cache_dir() / "features").is_dir():
        return None
    source = load_backbone(DEFAULT_BACKBONE) if source is None else source
    hashes = [picture.sha256 for picture in found.pictures]
    if not compute and not set(hashes) <= cached_pictures(source, precision=precision):
        return None
    files = [found.file(picture) for picture in found.pictures]
    with reporter.task("features of the frozen backbone") as progress:
        pooled = extract(
            source,
            files,
            hashes,
            targets=tuple(dict.fromkeys((POOLED, *targets))),
            precision=precision,
            on_progress=progress,
        )
    features: np.ndarray = pooled.targets[POOLED].numpy()
    return features


def drawn_pictures(found: Scan) -> Scan:
    """The pictures whose part a split decides; those that the layout gives for judging are left alone.

    Raises:
        DataError: nothing is drawn.
    """
    refuse_given_parts(found)
    return replace(found, pictures=tuple(filter(is_drawn, found.pictures)))


def keep_together(
    found: Scan, drawn: Scan, near: Sequence[NearPair], features: np.ndarray | None
) -> tuple[Scan, LookalikeGroups]:
    """A set whose lookalikes have a group each, so that a split that is drawn keeps them in one part.

    Args:
        found: the set; groups that it has are replaced.
        drawn: its `drawn_pictures`.
        near: near duplicates by hash.
        features: (N, D), pooled, of the drawn pictures; None: only the hashes are looked at.
    """
    labels = np.array([picture.label for picture in drawn.pictures])
    alike = None if features is None else alike_by_features(features, labels)
    group_of, kept = group_lookalikes(drawn, near, alike)
    named = tuple(replace(one, group=group_of.get(one.path)) for one in found.pictures)
    return replace(found, pictures=named), kept


def scanned_together(
    read: Callable[[Measure], Scan],
    source: Classifier,
    *,
    precision: Precision,
    targets: Sequence[str],
    reporter: Reporter,
) -> Scan:
    """A set in which lookalikes have a group each; of several processes, all get the first one's.

    Args:
        read: scans the set, and shows every picture to what it is given.
        source: whose features are compared.
        precision, targets, reporter: see `pooled_features`.

    Raises:
        DataError: nothing is drawn.
    """
    facts: dict[str, PictureFacts] = {}

    def measure(picture: Picture, decoded: Image.Image, file: FileFacts) -> None:
        facts[picture.path] = measured(decoded, file)

    def looked_at() -> tuple[Scan, Scan, tuple[NearPair, ...]]:
        found = read(measure)
        drawn = drawn_pictures(found)
        return found, drawn, near_by_hash(drawn, facts)

    found, drawn, near = distributed.by_first(looked_at)
    features = pooled_features(
        drawn, source, compute=True, precision=precision, targets=targets, reporter=reporter
    )
    together, kept = distributed.by_first(lambda: keep_together(found, drawn, near, features))
    reporter.say(kept.sentence)
    return together
