"""The attacks by name, and what one of them makes of pictures that are then files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.adversarial.attacked import Attacked
from transferscope.adversarial.budgets import Budget, Norm
from transferscope.adversarial.deepfool import deepfool
from transferscope.adversarial.projected_gradient import (
    MARGIN,
    Found,
    Goal,
    Progress,
    fgsm,
    generator_of,
    pgd,
)
from transferscope.adversarial.sentences import attack_sentences
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, UnknownName
from transferscope.images import as_float, to_picture
from transferscope.notebook import panel

AIM = 5.0
"""Lead at which an attack is content: two classes then stand at 150 to 1."""


class Attack(Protocol):
    """The signature that all attacks share; see `pgd` for the arguments."""

    def __call__(
        self,
        attacked: Attacked,
        pictures: torch.Tensor,
        goal: Goal,
        budget: Budget,
        *,
        steps: int,
        restarts: int,
        seed: int,
        record: bool,
        on_progress: Progress | None,
    ) -> Found:
        """See `pgd`."""


@dataclass(frozen=True)
class Entry:
    """A registered attack.

    Attributes:
        run: the function.
        norms: in which it works, its own first.
        title: its name in the field.
    """

    run: Attack
    norms: tuple[Norm, ...]
    title: str


ATTACKS: Mapping[str, Entry] = {
    "pgd": Entry(pgd, ("linf", "l2"), "PGD"),
    "fgsm": Entry(fgsm, ("linf", "l2"), "FGSM"),
    "deepfool": Entry(deepfool, ("l2",), "DeepFool"),
}


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A picture, what an attack made of it, and what the network says of the file.

    Attributes:
        original: uint8 (H, W, C), the picture at the network's input size.
        adversarial: likewise.
        method: name of the attack.
        norm: of epsilon and distance.
        epsilon: the largest change allowed.
        distance: the change made.
        source: the class that the original is taken for.
        source_probability: of it, there.
        target: the class to be reached; without one, that which the adversarial picture is taken for.
        answer: what the file, read back through the network's own preprocessing, is taken for.
        probability: of `target`, read back.
        lead: of the target's logit above all others, or of the answer's above the source's.
        verified: whether the file fools, with a lead of at least `MARGIN`.
        file: of the adversarial picture, or None if it was not written.
        curve: (probability of source, of target) at every step.
        noise_answer: what the picture with random noise of the same size is taken for: the control.
        noise_probability: of it.
        seed: of random starts and of the noise.
    """

    original: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    method: str
    norm: Norm
    epsilon: float
    distance: float
    source: str
    source_probability: float
    target: str
    answer: str
    probability: float
    lead: float
    verified: bool
    file: str | None
    curve: tuple[tuple[float, float], ...]
    noise_answer: str
    noise_probability: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: everything but the pictures; the classes as `from` and `to`."""
        return {
            "file": self.file,
            "from": self.source,
            "to": self.target,
            "probability": self.probability,
            "epsilon": self.epsilon,
            "verified": self.verified,
            "norm": self.norm,
            "method": self.method,
            "distance": self.distance,
            "answer": self.answer,
            "lead": self.lead,
            "from_probability": self.source_probability,
            "noise": {"class": self.noise_answer, "probability": self.noise_probability},
            "curve": [list(point) for point in self.curve],
            "seed": self.seed,
        }

    def _repr_html_(self) -> str:
        return panel("Attack", sentences=attack_sentences(self), pictures=_shown(self))


def _shown(made: Perturbation) -> list[tuple[NDArray[np.uint8], str]]:
    """Both pictures and what they are taken for."""
    return [
        (made.original, f"{made.source} {made.source_probability:.1%}"),
        (made.adversarial, f"{made.target} {made.probability:.1%}"),
    ]


def find_attack(method: str, norm: Norm) -> Entry:
    """The registered attack.

    Raises:
        UnknownName: no such one.
        InputError: it does not work in this norm.
    """
    if method not in ATTACKS:
        raise UnknownName(
            "attack",
            method,
            ATTACKS,
            where="Transferscope",
            remedy=f"there are {', '.join(ATTACKS)}",
        )
    entry = ATTACKS[method]
    if norm not in entry.norms:
        raise InputError(
            f"norm is {norm!r}, and {entry.title} works in {' and '.join(entry.norms)}; give that norm, "
            "or method pgd"
        )
    return entry


def class_index(classifier: Classifier, name: str) -> int:
    """Of a class by name.

    Raises:
        UnknownName: no such class.
    """
    if name not in classifier.classes:
        raise UnknownName(
            "class",
            name,
            classifier.classes,
            where="this network",
            remedy="'transferscope predict MODEL IMAGE' shows the names of some",
        )
    return classifier.classes.index(name)


def perturb(
    classifier: Classifier,
    pictures: torch.Tensor,
    *,
    to: str | None = None,
    budget: Budget | None = None,
    method: str = "pgd",
    steps: int = 40,
    restarts: int = 2,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> list[Perturbation]:
    """Attacks pictures; what is returned is what their PNGs, read back, are taken for.

    Args:
        classifier: unchanged.
        pictures: uint8 (N, C, H, W) of the network's input size.
        to: the class that they are to be taken for; None: any other than now.
        budget: on the grid; None: 2/255 in `linf`.
        method: one of `ATTACKS`.
        steps, restarts, seed, on_progress: see `pgd`.

    Returns:
        One a picture, in their order. One that no longer fools, or never did, has `verified` False.

    Raises:
        UnknownName, InputError: no such class or attack, steps or restarts below 1, pictures of another size
            or kind, or one that is of the class `to` already.
    """
    budget = budget or Budget("linf", 2 / 255)
    entry = find_attack(method, budget.norm)
    _refuse_options(classifier, pictures, budget, steps, restarts)
    wanted = None if to is None else class_index(classifier, to)
    attacked = Attacked(classifier, "fp32")
    sources = attacked.exact(pictures).argmax(1).cpu()
    if wanted is not None and (there := (sources == wanted).nonzero().flatten().tolist()):
        which = "the picture is" if len(pictures) == 1 else f"picture {there[0] + 1} is"
        raise InputError(
            f"{which} taken for {to!r} already, so there is nothing to change; give another class"
        )
    labels = sources if wanted is None else torch.full_like(sources, wanted)
    goal = Goal(labels, targeted=wanted is not None, aim=AIM)
    found = entry.run(
        attacked,
        as_float(pictures),
        goal,
        budget,
        steps=steps,
        restarts=restarts,
        seed=seed,
        record=True,
        on_progress=on_progress,
    )
    written = (found.pictures * 255).round().to(torch.uint8)
    return _read_back(attacked, pictures, written, goal, budget, found, method, seed)


def _refuse_options(
    classifier: Classifier, pictures: torch.Tensor, budget: Budget, steps: int, restarts: int
) -> None:
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if not budget.grid:
        raise InputError(
            "the budget is off the grid of 8-bit pictures; give Budget(..., grid=True)"
        )
    if len(classifier.classes) < 2:
        raise InputError("the network knows one class only; an attack needs another")
    if pictures.dtype != torch.uint8 or tuple(pictures.shape[1:]) != classifier.input.shape:
        raise InputError(
            f"the pictures are {pictures.dtype} {tuple(pictures.shape)}; they must be torch.uint8 "
            f"(N, {', '.join(map(str, classifier.input.shape))}), as InputSpec.load gives them"
        )


def _read_back(
    attacked: Attacked,
    pictures: torch.Tensor,
    written: torch.Tensor,
    goal: Goal,
    budget: Budget,
    found: Found,
    method: str,
    seed: int,
) -> list[Perturbation]:
    """What the network says of each picture's PNG, and of noise as large as the attack."""
    classifier = attacked.classifier
    files = torch.stack([classifier.input.load(io.BytesIO(png_of(one))) for one in written])
    originals = as_float(pictures)
    noise = budget.corner(originals, [generator_of(one, seed, -1) for one in originals])
    before, after, noisy = (attacked.exact(part).cpu() for part in (pictures, files, noise))
    lead = goal.lead(after)
    said, told, control = (
        torch.softmax(logits / classifier.temperature, dim=1) for logits in (before, after, noisy)
    )
    distances = (budget.size(files.double() - pictures.double()) / 255).tolist()
    results = []
    for row in range(len(pictures)):
        source, answer = int(before[row].argmax()), int(after[row].argmax())
        target = int(goal.labels[row]) if goal.targeted else _other(after[row], source)
        random = int(noisy[row].argmax())
        results.append(
            Perturbation(
                original=_array(pictures[row]),
                adversarial=_array(files[row]),
                method=method,
                norm=budget.norm,
                epsilon=budget.epsilon,
                distance=distances[row],
                source=classifier.classes[source],
                source_probability=float(said[row, source]),
                target=classifier.classes[target],
                answer=classifier.classes[answer],
                probability=float(told[row, target]),
                lead=float(lead[row]),
                verified=answer == target and float(lead[row]) >= MARGIN,
                file=None,
                curve=tuple((float(one[source]), float(one[target])) for one in found.curves[row]),
                noise_answer=classifier.classes[random],
                noise_probability=float(control[row, random]),
                seed=seed,
            )
        )
    return results


def _other(logits: torch.Tensor, source: int) -> int:
    """The likeliest class but one."""
    return int(logits.index_fill(0, torch.tensor([source]), -torch.inf).argmax())


def png_of(picture: torch.Tensor | NDArray[np.uint8]) -> bytes:
    """The bytes of a picture's PNG, uint8 (C, H, W) or (H, W, C)."""
    data = io.BytesIO()
    to_picture(picture).save(data, "PNG")
    return data.getvalue()


def _array(picture: torch.Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


def read_back(classifier: Classifier, files: Sequence[bytes]) -> torch.Tensor:
    """Probabilities (N, K) that a classifier gives files' bytes through its own preprocessing, on the CPU."""
    loaded = torch.stack([classifier.input.load(io.BytesIO(data)) for data in files])
    with classifier.inference():
        return classifier.probabilities(as_float(loaded).to(classifier.device)).cpu().clone()


def difference_picture(record: Perturbation, factor: int) -> NDArray[np.uint8]:
    """The change times `factor`, on middle grey: uint8 (H, W, C)."""
    change = record.adversarial.astype(np.int32) - record.original
    shown: NDArray[np.uint8] = np.clip(128 + factor * change, 0, 255).astype(np.uint8)
    return shown


def amplification(record: Perturbation) -> int:
    """By how much a change is to be multiplied to fill the range from black to white."""
    change = np.abs(record.adversarial.astype(np.int32) - record.original).max()
    return max(1, int(120 // max(int(change), 1)))
