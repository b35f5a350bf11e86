"""`attack`: pictures changed so little that nobody sees it, until the network takes them for something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from transferscope.adversarial.attacks import (
    Perturbation,
    amplification,
    class_index,
    difference_picture,
    find_attack,
    perturb,
    png_of,
    read_back,
)
from transferscope.adversarial.budgets import (
    DEFAULT_EPSILON,
    Budget,
    Norm,
    epsilon_said,
    read_epsilon,
)
from transferscope.adversarial.projected_gradient import MARGIN
from transferscope.backbones.classifier import Classifier
from transferscope.errors import AttackError, InputError
from transferscope.files import (
    refuse_foreign,
    replaced_folder,
    sha256_file,
    write_bytes,
    write_json,
)
from transferscope.report.sheets.attack import attack_figure
from transferscope.wording import probability
from transferscope.workflows.reporter import SILENT, Reporter

ADVERSARIAL, RECORD = "adversarial.png", "attack.json"

_SAME = 1e-3
"""Largest difference between the probability that is stated and the one of the written file."""


def attack(
    classifier: Classifier,
    image: str | Path,
    *,
    to: str | None = None,
    epsilon: float | str | None = None,
    norm: Norm | None = None,
    method: str = "pgd",
    steps: int = 40,
    restarts: int = 2,
    seed: int = 0,
    out: str | Path | None = None,
    called: str | None = None,
    reporter: Reporter = SILENT,
) -> Perturbation:
    """Changes a picture until the network takes its file for another class: "this dog is now a cat".

    What is said is what the PNG is taken for, read back through the network's own preprocessing.

    Args:
        classifier: unchanged.
        image: a picture's file; the network sees it cut and resized to its input size, and so is the result.
        to: the class it is to be taken for; None: any other than now.
        epsilon: the largest change, of values in [0, 1], also as text ("2/255"); None: 2/255 in `linf`, 1 in
            `l2`.
        norm: `linf` or `l2`; None: the method's own.
        method: one of `ATTACKS`: pgd, fgsm or deepfool.
        steps: a try.
        restarts: tries, the later ones from random starts.
        seed: of these.
        out: a folder for original.png, adversarial.png, difference.png, attack.png (the figure) and
            attack.json; None: nothing is written, and the file is read back from memory.
        called: what the network is called on the figure; None: its backbone's name.
        reporter: hears of the progress.

    Raises:
        UnknownName: no such class or attack; the nearest is named.
        InputError: the picture is of that class already, or an option is out of range.
        PictureError: the picture cannot be read.
        AttackError: no picture within epsilon was found that fools. Nothing is written.
        OutputError: `out` is not ours to replace, or cannot be written.
    """
    (made,) = attack_files(
        classifier,
        [image],
        to=to,
        epsilon=epsilon,
        norm=norm,
        method=method,
        steps=steps,
        restarts=restarts,
        seed=seed,
        out=out,
        called=called,
        reporter=reporter,
    )
    if not made.verified:
        raise AttackError(failure(made, steps))
    return made


def attack_files(
    classifier: Classifier,
    images: Sequence[str | Path],
    *,
    to: str | None = None,
    epsilon: float | str | None = None,
    norm: Norm | None = None,
    method: str = "pgd",
    steps: int = 40,
    restarts: int = 2,
    seed: int = 0,
    out: str | Path | None = None,
    called: str | None = None,
    reporter: Reporter = SILENT,
) -> list[Perturbation]:
    """`attack` for several pictures at once; of more than one, each has a folder of its own in `out`.

    Returns:
        One a picture, in their order. Where nothing that fools was found, `verified` is False, `file` None, and
        nothing is written for it.

    Raises:
        AttackError: none of several pictures was made to fool. Others as in `attack`.
    """
    if not images:
        raise InputError("no picture was given; name at least one file")
    budget = _budget(method, norm, epsilon)
    find_attack(method, budget.norm)
    if to is not None:
        class_index(classifier, to)
    if out is not None:
        refuse_foreign(Path(out))
    pictures = torch.stack([classifier.input.load(Path(image)) for image in images])
    with reporter.task("attacking") as progress:
        records = perturb(
            classifier,
            pictures,
            to=to,
            budget=budget,
            method=method,
            steps=steps,
            restarts=restarts,
            seed=seed,
            on_progress=progress,
        )
    if not any(one.verified for one in records):
        raise AttackError(
            failure(records[0], steps)
            if len(records) == 1
            else f"none of {len(records)} pictures was made to fool; of the first: {failure(records[0], steps)}"
        )
    if out is None:
        return records
    with replaced_folder(out) as folder:
        names = _names(images)
        return [
            _write(classifier, one, Path(image), folder / name, Path(out) / name, called)
            if one.verified
            else one
            for one, image, name in zip(records, images, names, strict=True)
        ]


def _budget(method: str, norm: Norm | None, epsilon: float | str | None) -> Budget:
    if norm is None:
        norm = "l2" if method == "deepfool" else "linf"
    if isinstance(epsilon, str):
        epsilon = read_epsilon(epsilon)
    return Budget(norm, DEFAULT_EPSILON.get(norm, 1.0) if epsilon is None else float(epsilon))


def _names(images: Sequence[str | Path]) -> list[str]:
    """A folder's name for each picture, none twice; of a single one, the folder itself."""
    if len(images) == 1:
        return ["."]
    stems = [Path(image).stem for image in images]
    names = [f"{number:03d}-{stem}"[:80] for number, stem in enumerate(stems, 1)]
    return (
        names if len({stem.casefold() for stem in stems}) < len(stems) else [s[:80] for s in stems]
    )


def _write(
    classifier: Classifier,
    made: Perturbation,
    image: Path,
    folder: Path,
    final: Path,
    called: str | None,
) -> Perturbation:
    """Writes a picture's files, and holds the network's answer to the written one against what is stated.

    The record names the picture by its bytes' hash, so that an atlas finds it whatever it is called.

    Raises:
        AttackError: the file that was written does not fool as stated.
    """
    folder.mkdir(exist_ok=True)
    file = folder / ADVERSARIAL
    write_bytes(folder / "original.png", png_of(made.original))
    write_bytes(file, png_of(made.adversarial))
    write_bytes(folder / "difference.png", png_of(difference_picture(made, amplification(made))))
    said = read_back(classifier, [file.read_bytes()])[0]
    index = classifier.classes.index(made.target)
    if int(said.argmax()) != index or abs(float(said[index]) - made.probability) > _SAME:
        taken = classifier.classes[int(said.argmax())]
        raise AttackError(
            f"the file is taken for {taken!r} ({float(said.max()):.1%}) once it is written, and not for "
            f"{made.target!r} with {made.probability:.1%}; give a larger --epsilon"
        )
    kept = replace(made, file=str(final / ADVERSARIAL))
    write_json(folder / RECORD, kept.to_dict() | {"picture": sha256_file(image)})
    write_bytes(folder / "attack.png", attack_figure(kept, model=called or classifier.backbone))
    return kept


def failure(made: Perturbation, steps: int) -> str:
    """Why a picture is not one that fools, and what may help."""
    said = f"{made.answer!r}"
    if made.answer == made.target:
        found = (
            f"the picture is taken for {said} by a hair only ({made.lead:.2f} logits, and {MARGIN:g} are "
            "needed for its file to fool elsewhere too)"
        )
    else:
        found = f"the nearest picture found is still taken for {said}"
        if made.target != made.answer:
            found += f", and for {made.target!r} with {probability(made.probability)}"
    largest = epsilon_said(made.epsilon, made.norm)
    more = epsilon_said(2 * made.epsilon, made.norm)
    stronger = f"--steps {2 * steps}" if made.method == "pgd" else "--method pgd"
    return (
        f"{made.method} within {made.norm} {largest} does not turn {made.source!r} into "
        f"{made.target!r}: {found}; nothing was written. Give a larger --epsilon ({more}), or {stronger}"
    )
