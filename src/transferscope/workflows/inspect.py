"""`inspect`: a set of pictures, looked at before it is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from transferscope.backbones.catalogue import DEFAULT_BACKBONE
from transferscope.data.augmentation import AugmentationName, augmentation, preview
from transferscope.data.cue_accuracy import class_cues
from transferscope.data.cues import CueCollector, cues_of
from transferscope.data.duplicates import NearPair, exact_duplicates, refuse_duplicates
from transferscope.data.inspection import Inspection, PictureFacts, measured
from transferscope.data.leakage import leakage
from transferscope.data.loading import in_order
from transferscope.data.lookalike_groups import LOOKALIKES, LookalikeGroups, is_drawn
from transferscope.data.lookalikes import near_by_embedding
from transferscope.data.readings import LayoutName
from transferscope.data.scan import MEASURED_SIDE, Picture, Scan, refuse_untrainable, scan
from transferscope.data.split import Split, make_split, parse_ratio
from transferscope.errors import DataError, PictureError
from transferscope.files import refuse_foreign, sha256_file
from transferscope.images import FileFacts, InputSpec, read_picture, read_with_facts
from transferscope.report.pages.data import write_inspection
from transferscope.workflows.lookalikes import (
    drawn_pictures,
    keep_together,
    near_by_hash,
    pooled_features,
    with_splits,
)
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, refuse_inside

_PARTNERS = 8  # pictures that the preview may mix with the first


def inspect(
    data: str | Path,
    *,
    dataset: str | None = None,
    download: bool = False,
    group: str | None = None,
    layout: LayoutName = "auto",
    ratio: str | tuple[int, int, int] = (70, 15, 15),
    seed: int = 0,
    features: bool = False,
    out: str | Path | None = None,
    reporter: Reporter = SILENT,
) -> Inspection:
    """What a set of pictures holds, and what stands in the way of training on it.

    A set that `tune` would refuse is looked at all the same: why it would is in `problems`. Where the
    layout gives no splits, they are drawn as `tune` would draw them. Near duplicates are found by
    perceptual hash, and also by the features of the default backbone if every picture's are cached.

    Args:
        data: see `tune` for this, `dataset`, `download`, `group` and `layout`.
        ratio: of train, validation and test, where the folder does not say.
        seed: of the split.
        features: compute the default backbone's features where they are not cached (about 60 pictures a second
            on two cores), which finds other views of one thing. Done too where lookalikes are kept together.
        out: where `write_report` will write: refused before the work rather than after it.
        reporter: hears of the progress.

    Raises:
        DataError: no folder, or no pictures in it.
        InputError: a ratio or a group's pattern that cannot be used, or `out` lies in the set.
        OutputError: `out` is not ours to replace.
    """
    if out is not None:
        if dataset is None:
            refuse_inside(Path(out), data)
        refuse_foreign(Path(out))
    shares = parse_ratio(ratio) if isinstance(ratio, str) else ratio
    together = group == LOOKALIKES
    facts: dict[str, PictureFacts] = {}
    cues = CueCollector()

    def measure(picture: Picture, decoded: Image.Image, file: FileFacts) -> None:
        facts[picture.path] = measured(decoded, file)
        _collect(cues, picture, decoded, file)

    with reporter.task("reading pictures") as progress:
        found = scan(
            data,
            dataset=dataset,
            group=None if together else group,
            layout=layout,
            download=download,
            lenient=True,
            measure=measure,
            on_progress=progress,
        )
    given = any(picture.split for picture in found.pictures)
    vectors = pooled_features(found, compute=together or features, reporter=reporter)
    with reporter.task("looking for copies"):
        near = near_by_hash(found, facts)
        found, kept, problems = (
            _kept_together(found, near, vectors) if together else (found, None, ())
        )
        split, why_not = _split_if_possible(found, shares, seed)
        return replace(
            look(split.scan if split else found, facts, near=near, features=vectors, cues=cues),
            split_drawn=split is not None and not given,
            problems=problems or why_not,
            kept_together=kept,
        )


def inspect_run(run: Run, *, reporter: Reporter = SILENT) -> Inspection | None:
    """The pictures of a run, in the splits that it has; None if a file is no longer what it was."""
    kept = replace(run.split.scan, excluded=tuple((p, r) for p, r in run.record["excluded"]))
    facts: dict[str, PictureFacts] = {}
    cues = CueCollector()

    def measure(picture: Picture) -> tuple[str, PictureFacts] | None:
        file = kept.file(picture)
        try:
            if sha256_file(file) != picture.sha256:
                return None
            decoded, known = read_with_facts(file, least_side=MEASURED_SIDE)
            _collect(cues, picture, decoded, known)
            return picture.path, measured(decoded, known)
        except (OSError, PictureError, MemoryError):
            return None

    with reporter.task("looking at the pictures") as progress:
        for done, found in enumerate(in_order(measure, kept.pictures), start=1):
            if found is None:
                return None
            facts[found[0]] = found[1]
            progress(done, len(kept.pictures))
        return look(kept, facts, features=pooled_features(kept), cues=cues)


def _collect(cues: CueCollector, picture: Picture, decoded: Image.Image, file: FileFacts) -> None:
    if file.file is not None and cues.wants(picture.sha256):
        cues.add(picture.path, picture.sha256, cues_of(file.file, decoded, file))


def look(
    found: Scan,
    facts: Mapping[str, PictureFacts],
    *,
    near: Sequence[NearPair] | None = None,
    features: np.ndarray | None = None,
    cues: CueCollector | None = None,
) -> Inspection:
    """Brings together what was found of a set and what was measured of its pictures.

    Args:
        found: with its splits, where it has them.
        facts: of every picture, by path.
        near: near duplicates by hash, if they were looked for already.
        features: (N, D) of the default backbone, or None.
        cues: of some or all of its pictures.
    """
    by_hash = near_by_hash(found, facts) if near is None else with_splits(near, found)
    by_features = None if features is None else near_by_embedding(found, features)
    known = {pair.paths for pair in by_hash}
    return Inspection(
        found,
        tuple(facts[picture.path] for picture in found.pictures),
        exact_duplicates(found),
        (*by_hash, *(pair for pair in by_features or () if pair.paths not in known)),
        embedding=None if by_features is None else DEFAULT_BACKBONE,
        leakage=leakage(found, by_hash, features),
        cues=class_cues(cues.table(found.classes), found.pictures, found.classes) if cues else (),
    )


def write_report(
    inspection: Inspection,
    out: str | Path,
    *,
    title: str,
    flip: bool = True,
    pictures: bool = True,
) -> Path:
    """Writes an inspection as a folder with index.html, figures, inspection.json and pictures.csv.

    Args:
        inspection: what to show.
        out: a new folder, or an earlier report, which is replaced.
        title: of the page.
        flip: whether the augmentations shown may mirror.
        pictures: False leaves out pictures and the names of files.

    Returns:
        The path of index.html.
    """
    sheets = previews(inspection, flip=flip) if pictures else {}
    return write_inspection(inspection, Path(out), title=title, pictures=pictures, preview=sheets)


def previews(
    inspection: Inspection,
    names: Sequence[AugmentationName] = ("light", "strong"),
    *,
    flip: bool = True,
    seed: int = 0,
) -> dict[str, Image.Image]:
    """Augmentation's name to a sheet of one picture in twelve variants, as training will see it.

    The picture is the training picture whose contrast is the median: neither blank nor a pattern.
    """
    found = inspection.scan
    places = [i for i, p in enumerate(found.pictures) if p.split in (None, "train")]
    if not places:
        return {}
    places.sort(key=lambda i: (inspection.facts[i].contrast, i))
    middle = places[len(places) // 2]
    rng = np.random.default_rng(seed)
    others = rng.permutation([i for i in places if i != middle])[:_PARTNERS]
    spec = InputSpec()
    shown = [
        read_picture(found.file(found.pictures[int(i)]), least_side=2 * spec.least_side)
        for i in (middle, *others)
    ]
    return {name: preview(shown, spec, augmentation(name, flip=flip), seed=seed) for name in names}


# ---------------------------------------------------------------------------- parts of it


def _kept_together(
    found: Scan, near: Sequence[NearPair], features: np.ndarray | None
) -> tuple[Scan, LookalikeGroups | None, tuple[str, ...]]:
    """The set with its lookalikes in groups, what these are, and why there are none."""
    try:
        drawn = drawn_pictures(found)
    except DataError as error:
        return found, None, (str(error),)
    rows = np.array([is_drawn(picture) for picture in found.pictures], dtype=bool)
    return *keep_together(found, drawn, near, None if features is None else features[rows]), ()


def _split_if_possible(
    found: Scan, ratio: tuple[int, int, int], seed: int
) -> tuple[Split | None, tuple[str, ...]]:
    """The split that `tune` would use, if there is one, and why it would refuse the set."""
    problems = []
    split = None
    try:
        refuse_untrainable(found)
    except DataError as error:
        problems.append(str(error))
    try:
        if found.classes and found.pictures:
            split = make_split(found, ratio=ratio, seed=seed)
            refuse_duplicates(split)
    except DataError as error:
        problems += [] if problems else [str(error)]  # the first is often the cause of the second
    return split, tuple(problems)
