"""How well one cue alone tells labels apart, on pictures that its classifier was not fitted to.

A network may learn a cue in place of the object (a shortcut; Geirhos et al. 2020, Shortcut learning in deep
neural networks): the watermark of the shop that all shoes come from, the border, the camera's colour cast.
Each cue is given to a classifier of its own, which sees nothing else. Classes differ in brightness or sharpness
by nature: what raises an alarm is a cue that all but decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transferscope.data.cues import CUES, KINDS, PATTERN, CueTable, Family
from transferscope.data.scan import Picture
from transferscope.records import Record

ALARM = 0.8
"""Balanced accuracy that the lower end of a cue's interval must reach to raise an alarm."""

LEAST_Q = 0.01
"""q-value above which no cue raises an alarm, however accurate."""

FOLDS = 5
"""Of the cross-validation."""

_PATCH, _STEP = 16, 8  # cells of a patch's side, and from patch to patch
_LEAST_PICTURES = 10  # of a label, below which a cue is not judged for it
_QUIET = (
    0.5  # deviation of a patch's detail (of at most 1) below which it is noise, and not enlarged
)


@dataclass(frozen=True)
class CueFinding(Record):
    """How well one cue alone tells labels apart, on pictures that its classifier was not fitted to.

    Attributes:
        name: of the cue; a fixed patch is called by its place in the middle square.
        family: what it is a property of.
        label: the one that is told from all others; None: all are told apart.
        accuracy: balanced: the mean share of each label's pictures that were recognised.
        low, high: its 95% interval.
        chance: 1/2 of one label against the rest, 1/K of all.
        n: pictures judged.
        p: one-sided, against predictions that have nothing to do with the labels.
        q: Benjamini-Hochberg over everything asked at once.
    """

    name: str
    family: Family
    label: str | None
    accuracy: float
    low: float
    high: float
    chance: float
    n: int
    p: float
    q: float

    @property
    def alarm(self) -> bool:
        """Whether the cue all but decides: it could be learned in place of the object."""
        return self.label is not None and self.low >= ALARM and self.q <= LEAST_Q

    def to_dict(self) -> dict[str, Any]:
        """Its fields, and whether it is an alarm."""
        return super().to_dict() | {"alarm": self.alarm}


def cue_accuracy(
    values: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray | None = None,
    *,
    name: str = "",
    family: Family = "tone",
    label: int | None = None,
    groups: Sequence[str] | None = None,
) -> CueFinding:
    """How well one cue tells labels apart. For many cues use `cue_findings`, which corrects for their number.

    Args:
        values: (n,) numbers, or (n,) names, or (n, D): some numbers, or the 256 cells of a patch.
        labels: int (n,), from 0; each of at least 10 pictures.
        held_out: bool (n,): fitted to the others and judged on these; None: cross-validated.
        name: of the finding.
        family: of the finding.
        label: that is told from the rest; None: all labels.
        groups: (n,) pictures of one group are fitted to or judged together.

    Raises:
        ValueError: fewer than two labels, or one of fewer than 10 pictures.
    """
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < _LEAST_PICTURES:
        raise ValueError(
            f"labels have {counts.tolist()} pictures; a cue is judged on two labels or more, each of "
            f"at least {_LEAST_PICTURES}"
        )
    told = _told(values, labels, _folds(labels, held_out, groups))
    names = [str(one) for one in range(len(counts))]
    return _judged(name, family, told, names, label)


def cue_findings(
    table: CueTable,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    held_out: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[CueFinding, ...]:
    """How well each cue tells all labels apart, and each label from the rest; the strongest first.

    Args:
        table: of n pictures.
        labels: int (n,), places in `names`: classes, or splits ("can validation be told from test?").
        names: of the labels.
        held_out: see `cue_accuracy` for this and `groups`.

    Returns:
        Nothing where fewer than two labels have 10 pictures. Labels of fewer pictures are left out, and so are
        cues that have one value, and folders of which each holds one label: those are how the set is laid out.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    present = np.flatnonzero(counts >= _LEAST_PICTURES)
    if len(present) < 2:
        return ()
    kept: list[int] = np.flatnonzero(np.isin(labels, present)).tolist()
    own = np.searchsorted(present, labels[kept])
    called = [names[int(one)] for one in present]
    part = None if held_out is None else np.asarray(held_out)[kept]
    joined = None if groups is None else [groups[i] for i in kept]
    folds = _folds(own, part, joined)
    asked = (None, *range(len(called))) if len(called) > 2 else (None, 0)
    found = [
        _judged(name, family, told, called, label)
        for name, family, values in _cues(table.taken(kept), own)
        for told in [_told(values, own, folds)]
        for label in asked
    ]
    return tuple(sorted(_corrected(found), key=lambda one: (one.label is None, -one.low, one.name)))


def telling(found: Sequence[CueFinding]) -> tuple[CueFinding, ...]:
    """Of what `cue_findings` found, what is worth a reader's time: every alarm, and of each cue how well it
    tells all labels apart and the label that it tells best; in the order given."""
    seen: set[tuple[str, bool]] = set()
    kept = []
    for one in found:
        key = one.name, one.label is None
        if one.alarm or key not in seen:
            kept.append(one)
        seen.add(key)
    return tuple(kept)


def class_cues(
    table: CueTable, pictures: Sequence[Picture], classes: Sequence[str]
) -> tuple[CueFinding, ...]:
    """`telling` of a set's classes, on its training and validation pictures: test pictures are left unseen.

    Args:
        table: of some of the pictures.
        pictures: with their labels and splits.
        classes: in label order.
    """
    known = {one.path: one for one in pictures if one.split != "test" and one.label is not None}
    places = [place for place, path in enumerate(table.paths) if path in known]
    own = [known[table.paths[place]] for place in places]
    groups = [one.group or one.path for one in own] if any(one.group for one in own) else None
    labels = np.array([one.label for one in own], dtype=np.int64)
    return telling(cue_findings(table.taken(places), labels, classes, groups=groups))


def _cues(table: CueTable, labels: np.ndarray) -> Iterator[tuple[str, Family, np.ndarray]]:
    """Name, family and values of the cues that can tell something."""
    for name, (family, columns) in CUES.items():
        values = np.stack([table.column(one) for one in columns], axis=1)
        if (values[1:] != values[:1]).any() and not np.isnan(values).all():
            yield name, family, values
    for name, kind in KINDS.items():
        text = np.array(table.kinds[name])
        if len(set(text)) > 1 and not (name == "folder" and _one_each(text, labels)):
            yield name, kind, text
    for (top, left), patch in _patches(table.patterns):
        yield f"patch {_place(top)}-{_place(left)}", "patch", patch


def _one_each(text: np.ndarray, labels: np.ndarray) -> bool:
    pairs = set(zip(text.tolist(), labels.tolist(), strict=True))
    return len(pairs) == len(set(text)) == len(set(labels.tolist()))


def _patches(patterns: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Patches along the rim of the middle square, float32 (n, D), of unit size unless there is next to no
    detail in them."""
    last = PATTERN - _PATCH
    for top in range(0, last + 1, _STEP):
        for left in range(0, last + 1, _STEP):
            if {top, left} & {0, last}:
                patch = patterns[:, top : top + _PATCH, left : left + _PATCH]
                patch = patch.reshape(len(patch), -1).astype(np.float32) / 127
                patch -= patch.mean(1, keepdims=True)
                size = np.linalg.norm(patch, axis=1, keepdims=True)
                yield (top, left), patch / np.maximum(size, _QUIET * _PATCH)


def _place(start: int) -> int:
    return start // _STEP + 1


Folds = list[tuple[np.ndarray, np.ndarray]]


def _folds(labels: np.ndarray, held_out: np.ndarray | None, groups: Sequence[str] | None) -> Folds:
    """(places fitted to, places judged) of each fold."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if held_out is not None:
        return [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]
    if groups is not None and len(set(groups)) > FOLDS:
        grouped = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        return list(grouped.split(labels, labels, groups))
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels))


def _told(values: np.ndarray, labels: np.ndarray, folds: Folds) -> np.ndarray:
    """int64 (K, K), pictures by label and by what a classifier of this cue alone, not fitted to them, says."""
    classes = int(labels.max()) + 1
    found = np.zeros(classes * classes, dtype=np.int64)
    inputs = values.reshape(len(values), -1)
    say = _by_patch if inputs.shape[1] == _PATCH**2 else _by_tree
    for fitted, judged in folds:
        told = say(inputs[fitted], labels[fitted], inputs[judged])
        found += np.bincount(labels[judged] * classes + told, minlength=classes * classes)
    return found.reshape(classes, classes)


def _by_patch(fitted: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """The label of the nearest mean patch."""
    member = labels[:, None] == np.arange(labels.max() + 1)
    means = (member / np.maximum(member.sum(0), 1)).T.astype(np.float32) @ fitted
    return np.asarray((judged @ means.T - (means**2).sum(1) / 2).argmax(1))


def _by_tree(fitted: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """What a small decision tree says; names are given to it one by one."""
    from sklearn import config_context
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        class_weight="balanced",
        max_leaf_nodes=max(8, 2 * len(np.unique(labels))),
        min_samples_leaf=3,
        random_state=0,
    )
    if fitted.dtype.kind in "US":
        tree = make_pipeline(OneHotEncoder(handle_unknown="ignore", max_categories=50), tree)
    with config_context(skip_parameter_validation=True):
        return np.asarray(tree.fit(fitted, labels).predict(judged))


def _judged(
    name: str, family: Family, told: np.ndarray, names: Sequence[str], label: int | None
) -> CueFinding:
    """Balanced accuracy with its interval and p, of (K, K) counts; of one label against the rest where given.

    The interval is normal, of independent shares with one picture of each outcome added (Agresti and Coull
    1998). The p-value is that of the linear permutation statistic with its exact mean and variance (Hoeffding
    1951).
    """
    from scipy.special import ndtr

    if label is not None:
        hit, own, said, n = told[label, label], told[label].sum(), told[:, label].sum(), told.sum()
        told = np.array([[n - own - said + hit, said - hit], [own - hit, hit]])
    sizes, n, hits = told.sum(1), int(told.sum()), np.diag(told)
    count, asked = len(told), sizes > 0
    accuracy = float((hits[asked] / sizes[asked]).mean())
    smooth = (hits[asked] + 1) / (sizes[asked] + 2)
    error = float(np.sqrt((smooth * (1 - smooth) / (sizes[asked] + 2)).sum()) / asked.sum())
    weights = np.where(asked, 1 / np.maximum(sizes, 1), 0) / asked.sum()
    rows, columns = sizes / n, told.sum(0) / n
    expected = rows * weights @ columns
    apart = np.diag(weights) - (weights * columns)[:, None] - rows * weights + expected
    spread = np.sqrt(n * n / max(n - 1, 1) * (rows[:, None] * columns * apart**2).sum())
    p = float(ndtr((n * expected - accuracy) / spread)) if spread > 0 else 1.0
    return CueFinding(
        name=name,
        family=family,
        label=None if label is None else names[label],
        accuracy=accuracy,
        low=max(0.0, accuracy - 1.96 * error),
        high=min(1.0, accuracy + 1.96 * error),
        chance=1 / count,
        n=n,
        p=p,
        q=p,
    )


def _corrected(found: Sequence[CueFinding]) -> list[CueFinding]:
    from scipy.stats import false_discovery_control

    if not found:
        return []
    q = false_discovery_control([one.p for one in found])
    return [replace(one, q=float(value)) for one, value in zip(found, q, strict=True)]
