"""What each channel knew of the classes through training, and when it had learned it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.comparison.change import DRAWS, FDR, Responses
from transferscope.comparison.nulls import (
    beyond_margin,
    freedom_of,
    half_differences,
    q_values,
    split_halves,
)
from transferscope.comparison.witnesses.class_information import (
    class_information,
    class_information_gain,
)
from transferscope.errors import InputError
from transferscope.records import Record

Values = NDArray[np.float64]

ENOUGH = 0.5
"""Share of its final gain from which on a channel counts as having learned."""


@dataclass(frozen=True)
class LearningTime(Record):
    """When a channel had learned what it learned.

    Attributes:
        epoch: the first kept one from which on the gain in class information stays at or above half of
            that of the last.
        low: earliest kept epoch of the 95% interval over pictures.
        high: the latest; None: the interval does not end by the last kept epoch.
    """

    epoch: int
    low: int
    high: int | None


@dataclass(frozen=True)
class LayerTimeline(Record):
    """A layer's channels through training.

    Attributes:
        layer: dotted name.
        epochs: that were kept, ascending.
        base: class information of each channel before training, (C,).
        information: after each epoch, (epochs, C).
        times: of each channel; None where no gain could be shown at the last epoch.
    """

    layer: str
    epochs: tuple[int, ...]
    base: tuple[float, ...]
    information: tuple[tuple[float, ...], ...]
    times: tuple[LearningTime | None, ...]

    @property
    def learned_by(self) -> tuple[int, ...]:
        """Channels that had learned by each kept epoch; they count from their time on."""
        known = [time.epoch for time in self.times if time is not None]
        return tuple(sum(one <= epoch for one in known) for epoch in self.epochs)

    @property
    def median_epoch(self) -> float | None:
        """Median time of the channels that learned; None if none did."""
        known = [time.epoch for time in self.times if time is not None]
        return float(np.median(known)) if known else None


def timelines(
    base: Responses,
    epochs: Mapping[int, Responses],
    labels: NDArray[np.int64],
    *,
    learned: Mapping[str, NDArray[np.bool_]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    fdr: float = FDR,
) -> tuple[LayerTimeline, ...]:
    """The timeline of every layer.

    A channel has a time only if its gain at the last epoch is above zero at a false discovery rate of
    `fdr`, over all channels of all layers, and, where it is given, if it is among the `learned`. The
    interval is of times in samples of pictures drawn about the one there is: to the gains of all epochs
    their joint errors over half-samples are added and subtracted.

    Args:
        base: responses of the network before training to held-out pictures.
        epochs: epoch -> responses of the network as it was after it, to the same pictures. The last one
            is the end that gains are compared with.
        labels: int64 (N,), of the pictures.
        learned: layer -> bool (C,), channels known to have learned, such as those beyond control
            transfers (`change.learned_channels`); None: not known.
        draws: random halvings of the pictures.
        seed: of the halvings.
        fdr: false discovery rate of a gain.

    Raises:
        InputError: no epochs, or other layers or pictures in one than in another.
    """
    shapes = {layer: values.shape for layer, values in base.items()}
    for epoch, one in epochs.items():
        if {layer: values.shape for layer, values in one.items()} != shapes:
            raise InputError(
                f"the responses after epoch {epoch} are of other layers, channels or pictures than base's; "
                "give the same of all"
            )
    if not epochs:
        raise InputError(
            "no epochs were kept, so there is no timeline; tune with --keep-every 1 to have one"
        )
    order = tuple(sorted(epochs))
    halves, freedom = split_halves(labels, draws, seed), freedom_of(labels, draws)
    gains, errors, chances = {}, {}, {}
    for layer, before in base.items():
        after = [epochs[epoch][layer] for epoch in order]
        gains[layer] = np.stack([class_information_gain(before, one, labels) for one in after])
        errors[layer] = np.stack(
            [
                half_differences(class_information_gain, before, one, labels, halves)
                for one in after
            ],
            axis=1,
        )
        _, p = beyond_margin(gains[layer][-1], 0.0, errors[layer][:, -1], freedom)
        chances[layer] = p
    q = iter(q_values(np.concatenate([chances[layer] for layer in base])))
    found = []
    for layer, before in base.items():
        sure = np.array([next(q) <= fdr for _ in range(before.shape[1])], bool)
        if learned is not None:
            sure &= learned[layer]
        known = class_information(before, labels)
        found.append(
            LayerTimeline(
                layer,
                order,
                tuple(known.tolist()),
                tuple(map(tuple, (known + gains[layer]).tolist())),
                _times(order, gains[layer], errors[layer], sure),
            )
        )
    return tuple(found)


def _times(
    epochs: tuple[int, ...], gains: Values, errors: Values, sure: NDArray[np.bool_]
) -> tuple[LearningTime | None, ...]:
    """Times of the channels that gained.

    Args:
        epochs: E, ascending.
        gains: (E, C).
        errors: (draws, E, C).
        sure: (C,).
    """
    best = first_lasting(gains)
    drawn = np.concatenate([first_lasting(gains + errors), first_lasting(gains - errors)])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0, method="closest_observation")

    def time(channel: int) -> LearningTime | None:
        if not sure[channel]:
            return None
        ends = [
            epochs[int(end[channel])] if end[channel] < len(epochs) else None for end in (low, high)
        ]
        early = ends[0]
        assert early is not None, "a gain that is sure is there in more than 2.5% of the samples"
        return LearningTime(epochs[int(best[channel])], early, ends[1])

    return tuple(time(channel) for channel in range(gains.shape[1]))


def first_lasting(gains: Values, share: float = ENOUGH) -> NDArray[np.int64]:
    """Index of the first epoch from which on a gain stays at or above a share of the last, (..., C).

    Args:
        gains: (..., E, C), in order of the epochs.
        share: of the gain after the last epoch.

    Returns:
        E where the last gain is not above 0: there is no such epoch.
    """
    last = gains[..., -1:, :]
    reached = gains >= share * last
    lasting = np.logical_and.accumulate(reached[..., ::-1, :], axis=-2)
    first = gains.shape[-2] - lasting.sum(-2)
    never = gains.shape[-2]
    return np.asarray(np.where(last[..., 0, :] > 0, first, never), np.int64)
