"""What tells strangers, of a run or an export; and how well it does on a folder of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from transferscope.backbones.classifier import Classifier
from transferscope.data.exclusions import is_loss
from transferscope.data.loading import load_batches
from transferscope.data.scan import Picture
from transferscope.data.split import Split
from transferscope.errors import DataError, InputError, PictureError, RunError, WeightsError
from transferscope.evaluation.detection import Detection, Pictures, detection
from transferscope.evaluation.known_pictures import FILE, KnownPictures, kept_rows
from transferscope.evaluation.predictions import answered_with_features
from transferscope.evaluation.strangers import Training, Values, centred_energy, refuse_false_alarms
from transferscope.exports.hub import CONFIG as HUB_CONFIG
from transferscope.exports.hub import hub_known_pictures
from transferscope.files import hash_tensors, is_writable, read_json, sha256_file, write_json
from transferscope.workflows.predict import fast_copy, named_files
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, files_of, labels_of

VALIDATION = 5000
"""Validation pictures, at most, that a threshold rests on: the true share of false alarms is within 0.6 points
of the 5% allowed then."""

RECORD = Path("evaluation", "strangers.json")
"""Where a run keeps what was measured last on a folder of strangers."""

_BATCH = 32


def known_pictures(
    model: str | Path | Run,
    *,
    classifier: Classifier | None = None,
    data: str | Path | None = None,
    reporter: Reporter = SILENT,
) -> KnownPictures | None:
    """What `predict` tells strangers by: `strangers.safetensors` of a run, or of an export for the Hub.

    A run without the file gets it, if its pictures are where they were.

    Args:
        model: a run or its folder, or the folder of an export.
        classifier: of the model, opened already and on the device where features are to be computed; None:
            the run's own.
        data: where the run's pictures are, if they are no longer where they were.
        reporter: told why there is none.

    Returns:
        None where there is none: of a backbone, of a lone file of weights, of a run whose pictures are gone.

    Raises:
        DataError: `data` has none of the run's pictures.
        InputError: `data` of what is no run.
    """
    path = model.path if isinstance(model, Run) else Path(model)
    if not (path / "run.json").is_file():
        if data is not None:
            raise InputError(
                f"--data {str(data)!r} is where a run's pictures are, and {str(model)!r} is no run folder; "
                "leave it out"
            )
        return _of_export(str(model), reporter)
    run = (model if isinstance(model, Run) else Run(path)).at(data)
    classifier = classifier or run.classifier
    weights = hash_tensors(classifier.network.state_dict())
    try:
        kept = KnownPictures.load(path / FILE, root=run.root)
        if kept.weights == weights:
            return kept
    except (WeightsError, RunError):
        pass  # made again
    try:
        _refuse_others(run)
        made = known_of(classifier, run.split, seed=run.config.seed, reporter=reporter)
    except DataError as error:
        reporter.say(f"strangers are not told: {error}")
        return None
    if is_writable(path):
        made.save(path / FILE)
    return made


def _of_export(model: str, reporter: Reporter) -> KnownPictures | None:
    if not model.startswith("hf-hub:") and not (Path(model) / HUB_CONFIG).is_file():
        return None
    try:
        return hub_known_pictures(model)
    except (WeightsError, RunError) as error:
        reporter.say(f"strangers are not told: {error}")
        return None


def known_of(
    classifier: Classifier,
    split: Split,
    *,
    seed: int = 0,
    features: tuple[torch.Tensor, torch.Tensor] | None = None,
    reporter: Reporter = SILENT,
) -> KnownPictures:
    """The same, of a classifier that was tuned on a split's training pictures.

    Args:
        classifier: unchanged.
        split: with its pictures where its scan has them.
        seed: of the draw, where not all training pictures are kept.
        features: what the head sees of all training and of all validation pictures, (N, D) each; None: they
            are computed.
        reporter: hears of the progress.
    """
    train, validation = split.part("train"), split.part("validation")
    labels = labels_of(train).numpy()
    rows = kept_rows(labels, classifier.head_layer.in_features, seed=seed)
    most = min(len(validation), VALIDATION)
    spread = [at * len(validation) // most for at in range(most)]
    kept = [train[at] for at in rows]
    if features is None:
        files = [split.scan.file(one) for one in (*kept, *(validation[at] for at in spread))]
        seen, logits = answers_of(classifier, files, reporter, "features of the tuned network")
    else:
        wanted = (torch.from_numpy(rows), torch.tensor(spread, dtype=torch.int64))
        chosen = torch.cat([part[at].float() for part, at in zip(features, wanted, strict=True)])
        with classifier.inference():
            logits = classifier.head_layer(chosen.to(classifier.device)).cpu().numpy()
        seen = chosen.cpu().numpy()
    n = len(rows)
    return KnownPictures.of_features(
        Training(seen[:n], labels[rows], centred_energy(logits[:n])),
        (seen[n:], logits[n:]),
        classes=classifier.classes,
        weights=hash_tensors(classifier.network.state_dict()),
        of=len(train),
        paths=[one.path for one in kept],
        root=split.scan.root,
    )


def _refuse_others(run: Run) -> None:
    """Refuses training and validation pictures that are gone, or are no longer those of the split.

    Raises:
        DataError: one is.
    """
    for part in ("train", "validation"):
        if run.split.part(part):
            files_of(run, part, None)


def answers_of(
    classifier: Classifier,
    files: Sequence[Path],
    reporter: Reporter = SILENT,
    words: str = "features",
) -> tuple[Values, Values]:
    """Features (N, D) and logits (N, K) of pictures, by one forward pass each, in fp32.

    Raises:
        PictureError: one cannot be read.
    """
    features = [torch.empty(0, classifier.head_layer.in_features)]
    logits = [torch.empty(0, len(classifier.classes))]
    done = 0
    with reporter.task(words) as progress, classifier.inference():
        fast = fast_copy(classifier) if len(files) > _BATCH else classifier
        for batch in load_batches(files, classifier.input, batch_size=_BATCH):
            one, other = answered_with_features(fast, batch)
            logits.append(one)
            features.append(other)
            done += len(batch)
            progress(done, len(files))
    return torch.cat(features).numpy(), torch.cat(logits).numpy()


# ---------------------------------------------------------------------------- how well it does


class StrangerFiles(NamedTuple):
    """Pictures of none of a run's classes, found before any work.

    Attributes:
        folder: that they lie in.
        files: that can be read.
        seen: pictures left out because they are the run's own by their bytes.
        unread: files that cannot be read.
    """

    folder: Path
    files: list[Path]
    seen: int
    unread: int


def stranger_files(run: Run, folder: str | Path) -> StrangerFiles:
    """The pictures in a folder that are new to a run and can be read.

    Raises:
        DataError: it has none.
        InputError: no such folder, or nothing in it is a picture.
    """
    home = Path(folder)
    if not home.exists():
        raise InputError(
            f"--strangers {str(folder)!r} is not there; give a folder of pictures of none of the classes"
        )
    named, left_out = named_files([folder])
    own = {picture.sha256 for picture in run.split.scan.pictures}
    new = [Path(one) for one in named if sha256_file(one) not in own]
    files = [path for path in new if _is_readable(path, run.classifier)]
    lost = sum(is_loss(reason) for _, reason in left_out)
    found = StrangerFiles(home, files, len(named) - len(new), len(new) - len(files) + lost)
    if not new:
        raise DataError(
            f"every picture of {str(folder)!r} ({len(named)}) is one of the run's own; give pictures of none "
            "of its classes"
        )
    if not files:
        raise DataError(
            f"no picture of {str(folder)!r} can be read ({found.unread} cannot; 'transferscope predict' says "
            "why of each); give pictures of none of the classes"
        )
    return found


def detect(
    run: Run,
    strangers: str | Path | StrangerFiles,
    *,
    split: str,
    files: Sequence[Path],
    pictures: Sequence[Picture],
    false_alarms: float = 0.05,
    keep: bool = True,
    data: str | Path | None = None,
    reporter: Reporter = SILENT,
) -> Detection:
    """How well strangers in a folder are told from a split's pictures.

    Args:
        run: a finished run.
        strangers: a folder with pictures of none of its classes, in any order below it, or those found there.
        split: name of the split.
        files, pictures: of the split.
        false_alarms: share that is allowed.
        keep: whether the run keeps the record.
        data: where the run's pictures are, if they are no longer where they were.
        reporter: hears of the progress.

    Raises:
        DataError: the run's pictures are gone, or the folder has none that are new to it.
        InputError: no such folder, or no share of false alarms.
    """
    refuse_false_alarms(false_alarms)
    if not isinstance(strangers, StrangerFiles):
        strangers = stranger_files(run, strangers)
    known = known_pictures(run, data=data, reporter=reporter)
    if known is None:
        raise DataError(
            f"{str(run.path)!r} has no {FILE}, and it is made of the run's pictures; say where they are with "
            "--data"
        )
    ours = answers_of(run.classifier, files, reporter, f"{split} pictures, familiarity")
    theirs = answers_of(run.classifier, strangers.files, reporter, "strangers")
    home = strangers.folder.resolve()
    found = detection(
        replace(known, root=None),
        Pictures([one.path for one in pictures], *ours),
        Pictures([_shown(path, strangers.folder) for path in strangers.files], *theirs),
        allowed=false_alarms,
        temperature=run.classifier.temperature,
        split=split,
        name=home.name,
        root=str(home),
        seen=strangers.seen,
        excluded=strangers.unread,
    )
    if keep and is_writable(run.path):
        write_json(run.path / RECORD, found.to_dict())
    return found


def _shown(path: Path, folder: Path) -> str:
    """A file's name below the folder, which may be a link to elsewhere."""
    whole, home = path.absolute(), folder.absolute()
    return str(whole.relative_to(home) if whole.is_relative_to(home) else whole)


def _is_readable(path: Path, classifier: Classifier) -> bool:
    try:
        classifier.input.load(path)
    except PictureError:
        return False
    return True


def stored_detection(run: Path) -> Detection | None:
    """What was measured of a run last; None where there is nothing that can be read."""
    file = run / RECORD
    if not file.is_file():
        return None
    with suppress(RunError):
        return Detection.from_dict(read_json(file))
    return None
