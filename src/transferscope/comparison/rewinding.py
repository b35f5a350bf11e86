"""Which stage's change matters: its weights set back to base's, and which pictures that gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from transferscope.acceleration.numerics import full_precision
from transferscope.activations import state_up_to
from transferscope.backbones.classifier import Classifier
from transferscope.comparison.effects import (
    Answers,
    Effect,
    Labels,
    Progress,
    answers_of,
    check_pair,
    effects_of,
)
from transferscope.copies import copied
from transferscope.errors import InputError
from transferscope.features.responses import BoundaryRows, resumed
from transferscope.records import Record


@dataclass(frozen=True)
class Flips(Record):
    """Pictures of which one network alone is right, as indices into those compared, ascending.

    Attributes:
        won: base is wrong and tuned is right: positive flips.
        lost: base is right and tuned is wrong: negative flips.
        both: number of pictures that both have right.
        neither: number of pictures that neither has right.

    Reference: Yan et al. 2021, positive-congruent training.
    """

    won: tuple[int, ...]
    lost: tuple[int, ...]
    both: int
    neither: int


@dataclass(frozen=True)
class StageRewound(Record):
    """The tuned network with the weights and BatchNorm statistics of one stage set back to base's.

    Attributes:
        stage: the layer that ends it, or the head.
        identical: the stage's weights are base's already; nothing changes.
        effect: of setting it back.
        gives_back: those of `Flips.lost` that are right with the stage set back.
        takes_away: those of `Flips.won` that are wrong with the stage set back.
    """

    stage: str
    identical: bool
    effect: Effect
    gives_back: tuple[int, ...]
    takes_away: tuple[int, ...]


@dataclass(frozen=True)
class Rewinding(Record):
    """What each stage's change matters, and what the tuning did to each picture.

    Attributes:
        stages: in order of depth, the head last.
        transfer: of the whole tuning: tuned less base.
        flips: of base and tuned.
        pictures: number of held-out pictures.
    """

    stages: tuple[StageRewound, ...]
    transfer: Effect
    flips: Flips
    pictures: int
    made_by: ClassVar[str] = "transferscope compare"

    def given_back_by(self, picture: int) -> tuple[str, ...]:
        """The stages whose rewinding gives a lost picture back; none where it takes several at once."""
        return tuple(one.stage for one in self.stages if picture in one.gives_back)


def rewind_stages(
    base: Classifier,
    tuned: Classifier,
    boundary: str | None,
    rows: BoundaryRows,
    labels: Labels,
    stages: Sequence[str],
    *,
    batch_size: int = 32,
    on_progress: Progress | None = None,
) -> Rewinding:
    """Sets each stage of the tuned network back to base's weights, one stage at a time.

    A stage is all that lies behind the stage before it (the first one: behind the boundary), so stages
    and head together are everything that was tuned, and with all of them set back tuned is base. The
    rest of the network has been tuned to what the stage gave: what it loses is that the two do not fit
    any more, as much as that the stage itself knew.

    Args:
        base: the backbone as it was, with the head of its probe; unchanged.
        tuned: of the same architecture and classes; unchanged.
        boundary: the layer up to which both are the same; None: there is none.
        rows: its activations of N held-out pictures; without a boundary, normalised pictures.
        labels: int64 (N,).
        stages: the layers that end the stages behind the boundary, in order of depth.
        batch_size: pictures a forward pass.
        on_progress: called with (networks run, all).

    Raises:
        InputError: see `effects.check_pair`; or stages that are not in order behind the boundary.
        UnknownName: no such layer.

    Reference: Neyshabur et al. 2020, section 4, module criticality; Zhang et al. 2022, re-initialisation
    robustness.
    """
    check_pair(base, tuned, boundary, len(rows), labels)
    parts = _parts(tuned, boundary, stages)
    private = tuned.with_network(copied(tuned.network).eval())
    done = 0

    def run(classifier: Classifier) -> Answers:
        nonlocal done
        answers = _answers(classifier, boundary, rows, labels, batch_size)
        done += 1
        if on_progress:
            on_progress(done, len(parts) + 2)
        return answers

    old, new = base.network.state_dict(), tuned.network.state_dict()
    before = run(base.with_network(copied(base.network).eval()))
    after = run(private)
    flips = Flips(
        won=_places(after.right & ~before.right),
        lost=_places(before.right & ~after.right),
        both=int((before.right & after.right).sum()),
        neither=int((~before.right & ~after.right).sum()),
    )
    found = []
    for stage, names in parts.items():
        identical = all(torch.equal(old[name], new[name]) for name in names)
        _put(private.network, {name: old[name] for name in names})
        rewound = after if identical else run(private)
        _put(private.network, {name: new[name] for name in names})
        found.append(
            StageRewound(
                stage=stage,
                identical=identical,
                effect=_effect(after, rewound, labels),
                gives_back=_places(rewound.right & before.right & ~after.right),
                takes_away=_places(~rewound.right & after.right & ~before.right),
            )
        )
    return Rewinding(tuple(found), _effect(before, after, labels), flips, len(labels))


def _parts(tuned: Classifier, boundary: str | None, stages: Sequence[str]) -> dict[str, list[str]]:
    """Stage -> names of its parameters and buffers; the head has what is left."""
    network, example = tuned.network, tuned.example()
    seen = set(state_up_to(network, boundary, example)) if boundary else set()
    parts: dict[str, list[str]] = {}
    for stage in stages:
        own = [name for name in state_up_to(network, stage, example) if name not in seen]
        if not own:
            raise InputError(
                f"stage {stage!r} has no weights of its own behind the one before it; give stages behind "
                f"{boundary or 'the input'!r} in order of depth"
            )
        parts[stage] = own
        seen.update(own)
    parts[tuned.head] = [name for name in network.state_dict() if name not in seen]
    return parts


def _answers(
    classifier: Classifier,
    boundary: str | None,
    rows: BoundaryRows,
    labels: Labels,
    batch_size: int,
) -> Answers:
    """Of a network in eval mode."""
    rest = resumed(classifier.network, boundary, classifier.example())
    device, parts = classifier.device, []
    with torch.inference_mode(), full_precision(device):
        for chosen in torch.arange(len(rows)).split(batch_size):
            parts.append(rest(rows[chosen].to(device).float()))
    given = torch.from_numpy(labels).to(device)
    return answers_of(torch.cat(parts), given, classifier.temperature)


def _put(network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    network.load_state_dict(tensors, strict=False)


def _effect(before: Answers, after: Answers, labels: Labels) -> Effect:
    change = (after.loss - before.loss)[:, None]
    return effects_of(change, before.right, after.right[:, None], labels)[0]


def _places(chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())
