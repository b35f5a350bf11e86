"""Lookalikes kept together and counted across a split, by features that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from transferscope.data.duplicates import NearPair
from transferscope.data.leakage import MUCH, Leakage, has_lookalike, leakage, nearest_cosines
from transferscope.data.lookalike_groups import (
    CLOSENESS,
    MOST_OF_A_CLASS,
    alike_by_features,
    group_lookalikes,
    refuse_given_parts,
)
from transferscope.data.scan import Picture, Scan
from transferscope.data.split import make_split
from transferscope.errors import DataError


def a_set(labels: np.ndarray, splits: list[str | None] | None = None) -> Scan:
    splits = splits or [None] * len(labels)
    pictures = tuple(
        Picture(f"{label}/{n:04d}.png", int(label), splits[n], None, f"{n:064x}")
        for n, label in enumerate(labels)
    )
    names = tuple(str(label) for label in range(int(labels.max()) + 1))
    return Scan(Path("set"), pictures, names, ())


def clustered(
    clusters: int, size: int, classes: int = 2, noise: float = 0.02, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 64), labels and cluster of `clusters` things a class, each seen `size` times."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes * clusters, 64))
    thing = np.repeat(np.arange(len(centres)), size)
    features = centres[thing] + noise * rng.normal(size=(len(thing), 64))
    return features.astype(np.float32), thing // clusters, thing


def test_every_view_of_a_thing_lies_in_one_part_and_none_in_two():
    features, labels, thing = clustered(20, 4)
    scan = a_set(labels)
    group_of, kept = group_lookalikes(scan, (), alike_by_features(features, labels))
    assert (kept.groups, kept.pictures, kept.largest, kept.left_apart) == (40, 160, 4, 0)
    named = [group_of[picture.path] for picture in scan.pictures]
    assert len(set(zip(named, thing, strict=True))) == 40
    together = Scan(
        scan.root,
        tuple(
            Picture(p.path, p.label, None, g, p.sha256)
            for p, g in zip(scan.pictures, named, strict=True)
        ),
        scan.classes,
        (),
    )
    split = make_split(together)
    parts = {}
    for picture, one in zip(split.scan.pictures, thing, strict=True):
        parts.setdefault(one, set()).add(picture.split)
    assert all(len(some) == 1 for some in parts.values())
    assert leakage(split.scan, None, features).either == 0
    plain = leakage(make_split(scan).scan, None, features)
    assert plain.share > 0.9
    assert plain.much
    assert "--group lookalikes" in plain.meaning


def test_pictures_of_different_things_stay_alone():
    features, labels, _ = clustered(80, 1)
    scan = a_set(labels)
    group_of, kept = group_lookalikes(scan, (), alike_by_features(features, labels))
    assert (group_of, kept.groups) == ({}, 0)
    found = leakage(make_split(scan).scan, (), features)
    assert (found.either, found.much, found.meaning) == (0, False, "")


def test_a_chain_does_not_swallow_its_class():
    """Each picture is like the next, all around a circle: together they would be the whole class."""
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    labels = np.arange(100) % 2 * 0
    scan = a_set(np.concatenate([labels, np.ones(10, dtype=int)]))
    features = np.concatenate([features, np.eye(10, 2, dtype=np.float32)])
    every = np.array([picture.label for picture in scan.pictures])
    group_of, kept = group_lookalikes(scan, (), alike_by_features(features, every))
    assert kept.largest <= MOST_OF_A_CLASS * 100
    assert kept.left_apart > 0
    assert "may lie across the split" in kept.sentence
    assert len(set(group_of.values())) >= 1 / MOST_OF_A_CLASS


def test_near_duplicates_by_hash_are_joined_first_and_groups_of_small_classes_are_small():
    scan = a_set(np.repeat([0, 1], 6))
    near = [
        NearPair((f"0/{a:04d}.png", f"0/{b:04d}.png"), ("0", "0"), (None, None), "phash", d)
        for a, b, d in ((0, 1, 2.0), (1, 2, 4.0), (3, 4, 1.0))
    ]
    group_of, kept = group_lookalikes(scan, near, None)
    assert group_of == {
        "0/0000.png": "like 0/0000.png",
        "0/0001.png": "like 0/0000.png",
        "0/0003.png": "like 0/0003.png",
        "0/0004.png": "like 0/0003.png",
    }
    assert (kept.left_apart, kept.features) == (1, False)
    assert "hash alone" in kept.sentence


def test_only_pictures_of_one_class_are_lookalikes_by_features():
    features = np.ones((6, 8), dtype=np.float32)
    labels = np.array([0, 0, 1, 1, 2, 3])
    one, other, distance = alike_by_features(features, labels)
    assert {(min(a, b), max(a, b)) for a, b in zip(one, other, strict=True)} == {(0, 1), (2, 3)}
    assert np.allclose(distance, 0, atol=1e-6)


def test_a_set_of_which_nothing_is_drawn_is_refused():
    scan = a_set(np.zeros(3, dtype=int), ["train", "validation", "test"])
    with pytest.raises(DataError, match="no split to draw"):
        refuse_given_parts(scan)
    refuse_given_parts(a_set(np.zeros(2, dtype=int), ["train", "test"]))


def test_leakage_counts_each_picture_once_whatever_finds_it():
    features, labels, _ = clustered(10, 2, noise=0.0)
    splits = ["train", "validation"] * 20
    scan = a_set(labels, splits)
    far = features.copy()
    far[1::2] = np.random.default_rng(5).normal(size=(20, 64))
    pair = NearPair(("0/0000.png", "0/0001.png"), ("0", "0"), ("train", "validation"), "phash", 0.0)
    assert leakage(scan, [pair], features) == Leakage(20, 1, 20, 20)
    assert leakage(scan, [pair], far) == Leakage(20, 1, 0, 1)
    assert leakage(scan, [pair], far).share < MUCH < leakage(scan, [pair], features).share
    assert leakage(a_set(labels), [pair], features) is None


def test_cosines_and_lookalikes_are_those_of_the_slow_way():
    rng = np.random.default_rng(2)
    train, part = rng.normal(size=(240, 16)), rng.normal(size=(600, 16))
    own, labels = rng.integers(0, 3, 240), rng.integers(0, 4, 600)
    part[:50] = train[:50] + 0.3 * rng.normal(size=(50, 16))
    labels[:50] = own[:50]
    slow = (part / np.linalg.norm(part, axis=1)[:, None]) @ (
        train / np.linalg.norm(train, axis=1)[:, None]
    ).T
    train, part = train.astype(np.float32), part.astype(np.float32)
    assert np.allclose(nearest_cosines(train, part), slow.max(1), atol=1e-6)
    expected = [
        (1 - slow[i][own == labels[i]]).min(initial=9)
        <= CLOSENESS * typical(train[own == labels[i]])
        for i in range(600)
    ]
    found = has_lookalike(train, own, part, labels)
    assert found.tolist() == expected
    assert found[:50].all()
    assert not found[labels == 3].any(), "no training picture is of that class"


def typical(features: np.ndarray) -> float:
    """Median distance of two pictures."""
    return float(np.median(pdist(features.astype(float), "cosine"))) if len(features) > 1 else 0.0
