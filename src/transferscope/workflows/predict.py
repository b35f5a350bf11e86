"""`predict`: what a classifier says of picture files that nobody has labelled."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TextIO

import torch

from transferscope.acceleration.folding import folded
from transferscope.acceleration.precision import Precision, autocast, refuse_precision
from transferscope.backbones.classifier import Classifier
from transferscope.data.exclusions import Excluded, summary
from transferscope.data.loading import in_order
from transferscope.data.walk import walk
from transferscope.errors import InputError, PictureError
from transferscope.evaluation.answers import Answer, Prediction, prediction_of
from transferscope.evaluation.known_pictures import KnownPictures, Neighbour
from transferscope.evaluation.predictions import answered, answered_with_features
from transferscope.evaluation.strangers import allowance, refuse_false_alarms
from transferscope.images import NO_MEMORY, read_picture

_PATTERN = "*?["


STDIN = "-"
"""In place of files: read their names from standard input, one a line."""


def predict(
    classifier: Classifier,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    strip: int | None = None,
    min_confidence: float = 0.0,
    known: KnownPictures | None = None,
    false_alarms: float = 0.05,
    batch_size: int = 32,
    precision: Precision = "fp32",
    on_progress: Callable[[int, int], None] | None = None,
    on_excluded: Callable[[Excluded], None] | None = None,
) -> list[Prediction]:
    """What the classifier says of picture files.

    Files are decoded by threads while the network works on those before them; for more than one batch
    the network runs as a private copy with folded BatchNorm.

    Args:
        classifier: unchanged; in fp32, a picture gets the same probabilities alone and among others,
            to 1e-5.
        images: files, folders (all pictures in them), glob patterns, and "-" for a list of files on
            standard input, one a line.
        top: guesses a picture.
        strip: cut each picture into this many pieces of equal width and read them left to right.
        min_confidence: where the best guess is less probable, the prediction is marked as abstained.
        known: what strangers are told by (`ts.known_pictures`); None: every `known` and `familiarity` is None.
        false_alarms: share of pictures of the classes that may be called strangers.
        batch_size: pictures a forward pass.
        precision: of the forward pass; bf16 is faster where the hardware has it, and changes
            probabilities, by 0.006 in the mean on photographs of clothing.
        on_progress: called with (done, total) files after every batch.
        on_excluded: called once, before any work, with (path, reason) of the files in folders that
            are not taken.

    Returns:
        One `Prediction` a file, in the order given. A file that cannot be read has its `error`; the
        others are predicted.

    Raises:
        InputError: nothing matches, or an option out of range.
        WeightsError: the network's answer is not finite.
    """
    _refuse_counts(top=top, strip=strip, batch_size=batch_size)
    if not 0 <= min_confidence <= 1:
        raise InputError(f"--min-confidence is {min_confidence}; it must be in [0, 1]")
    refuse_false_alarms(false_alarms)
    refuse_precision(classifier.device, precision)
    if known is not None and allowance(false_alarms, known.n).range is not None:
        allowed: float | None = false_alarms
    else:
        allowed = None  # nothing is called a stranger
    paths, left_out = named_files(images)
    if on_excluded:
        on_excluded(left_out)

    results: list[Prediction] = []
    loaded = in_order(partial(_loaded, classifier, strip), paths, ahead=4 * batch_size)
    with (
        closing(loaded),  # type: ignore[type-var]  # it is a generator; Iterator hides its close
        classifier.inference(),
        autocast(classifier.device, precision),
    ):
        fast = fast_copy(classifier) if len(paths) > batch_size else classifier
        for begin in range(0, len(paths), batch_size):
            part = paths[begin : begin + batch_size]
            rows = _answers(fast, list(islice(loaded, len(part))), batch_size, known, strip)
            for path, answer in zip(part, rows, strict=True):
                said = prediction_of(classifier, path, answer, top, strip, min_confidence, allowed)
                results.append(said)
            if on_progress:
                on_progress(len(results), len(paths))
    return results


def _refuse_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


def _loaded(
    classifier: Classifier, strip: int | None, path: str
) -> list[torch.Tensor] | PictureError:
    """A file's pieces, or why it has none."""
    try:
        return _pieces(classifier, path, strip)
    except PictureError as error:
        return error
    except MemoryError:
        return PictureError(path, NO_MEMORY)


def named_files(
    images: Sequence[str | Path], stdin: TextIO | None = None
) -> tuple[list[str], list[tuple[str, str]]]:
    """Files, folders, patterns and "-" as a list of files; a missing file stays, to get its own line.

    Returns:
        The files, and (path, reason) of what lies in the folders named and is not taken. A file that is named
        itself is always taken.

    Raises:
        InputError: nothing is named, a name is empty, or something named holds no picture.
    """
    found: list[str] = []
    left_out: list[tuple[str, str]] = []
    for image in map(str, images):
        if not image:  # a shell's variable that is not set, and not all that lies here
            raise InputError(
                "a picture's name is empty; name files, folders or patterns, . for this folder"
            )
        if image == STDIN:
            lines = (line.rstrip("\r\n") for line in stdin or sys.stdin)
            listed = [line for line in lines if line.strip()]
            if not listed:
                raise InputError("'-' reads file names from standard input, and it had none")
            found += listed
        else:
            found += _named(image, left_out)
    if not found:
        raise InputError("no picture was given; name files, folders or patterns, or - for a list")
    return found, left_out


def _in_folder(image: str, left_out: list[tuple[str, str]]) -> list[str]:
    """The pictures in a folder, as `tune` would find them."""
    try:
        found = walk(Path(image))
    except OSError as error:
        raise InputError(
            f"cannot list {image!r}: {error.strerror or error}; make it readable"
        ) from error
    passed = [(str(Path(image, path)), reason) for path, reason in found.left_out]
    if not found.files:
        others = f" ({summary(passed)})" if passed else ""
        raise InputError(
            f"{image!r} has no picture in it{others}; give files or a folder of pictures"
        )
    left_out += passed
    return [str(Path(image, path)) for path in found.files]


def _named(image: str, left_out: list[tuple[str, str]]) -> list[str]:
    if Path(image).is_dir():
        return _in_folder(image, left_out)
    if not Path(image).exists() and any(sign in image for sign in _PATTERN):
        matches = sorted(glob.glob(image, recursive=True))  # noqa: PTH207 - also absolute patterns
        if not matches:
            raise InputError(f"the pattern {image!r} matches no file")
        return [
            file
            for one in matches
            for file in (_in_folder(one, left_out) if Path(one).is_dir() else [one])
        ]
    return [image]


def fast_copy(classifier: Classifier) -> Classifier:
    """A private copy with folded BatchNorm, for many forward passes."""
    network = folded(classifier.network, classifier.example()).to(memory_format=torch.channels_last)
    return classifier.with_network(network)


def _answers(
    classifier: Classifier,
    loaded: Sequence[list[torch.Tensor] | PictureError],
    batch_size: int,
    known: KnownPictures | None,
    strip: int | None,
) -> Iterator[Answer | PictureError]:
    """What is made of every file, or why it could not be read."""
    pieces = [piece for found in loaded if not isinstance(found, PictureError) for piece in found]
    parts = [
        torch.stack(pieces[begin : begin + batch_size])
        for begin in range(0, len(pieces), batch_size)
    ]
    both = [_forward(classifier, part, known is not None) for part in parts]
    logits = torch.cat([one for one, _ in both] or [torch.empty(0)])
    probabilities = (logits / classifier.temperature).softmax(-1)
    shares: list[float] = []
    nearest: list[tuple[Neighbour, ...]] = []
    if known is not None and both:
        features = torch.cat([one for _, one in both]).numpy()
        shares = known.familiarity(features, logits.numpy()).tolist()
        nearest = known.neighbours(features)
    at = 0
    for found in loaded:
        if isinstance(found, PictureError):
            yield found
            continue
        begin, at = at, at + len(found)
        least = min(shares[begin:at], default=None)
        yield Answer(
            probabilities[begin:at],
            None if least is None else min(1.0, len(found) * least),
            nearest[begin] if nearest and strip is None else (),
        )


def _forward(
    classifier: Classifier, batch: torch.Tensor, with_features: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and features of a batch; without, an empty tensor for them."""
    if with_features:
        return answered_with_features(classifier, batch)
    return answered(classifier, batch), torch.empty(0)


def _pieces(classifier: Classifier, path: str, strip: int | None) -> list[torch.Tensor]:
    spec = classifier.input
    if strip is None:
        return [spec.load(path)]
    picture = read_picture(path, channels=spec.channels)
    edges = [round(index * picture.width / strip) for index in range(strip + 1)]
    if picture.width < strip:
        raise PictureError(path, f"{picture.width} pixels wide cannot be cut into {strip} pieces")
    return [
        spec.load(picture.crop((left, 0, right, picture.height))) for left, right in pairwise(edges)
    ]
