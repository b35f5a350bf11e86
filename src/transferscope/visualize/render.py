"""Channels and other objectives drawn, and judged.

Whatever is drawn, each picture ends with a status that is decided from activations and gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from transferscope.acceleration.precision import Precision
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError
from transferscope.visualize.canvas import Parametrization, fourier
from transferscope.visualize.engine import Engine, Job, Progress
from transferscope.visualize.movement import seed_of
from transferscope.visualize.objectives.algebra import LOGITS, Objective
from transferscope.visualize.objectives.channels import channel, logit, neuron
from transferscope.visualize.recipe import RenderRecipe, make_recipe
from transferscope.visualize.records import Drawn, Render, Sign, Status

_SAME = 1e-3
"""Share by which a picture must differ from noise to count as exciting a channel."""

_ROUNDING = 1e-6
"""Share by which fp32 figures of the same value may differ, since batches add up in another order."""

ObjectiveKind = Literal["channel", "neuron", "logit"]


def render_channels(
    classifier: Classifier,
    layer: str,
    indexes: Sequence[int],
    *,
    sign: Sign = "plus",
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    exemplar_max: Mapping[int, float] | None = None,
    starts: Mapping[int, torch.Tensor] | None = None,
    objective: ObjectiveKind = "channel",
    precision: Precision = "auto",
    on_progress: Progress | None = None,
) -> list[Render]:
    """Draws channels of a layer.

    A channel's picture depends on layer, index, sign and seed, not on which channels are beside it; but
    one that is drawn alone on a CPU has all threads, which add up in another order: up to rounding,
    which the ascent may enlarge.

    Args:
        classifier: unchanged.
        layer: dotted name; with the objective "logit" only part of the seed.
        indexes: of the channels, or of the classes.
        sign: "minus" drives a signed channel the other way.
        seed: of the start and of the movements.
        steps: most optimization steps; None: the recipe's.
        size: side in pixels; None: the network's input size.
        exemplar_max: for each channel, the best real picture's activation times the sign.
        starts: for some channels that real picture, (C, H, W) in [0, 1], to begin again from if the
            random start has no gradient, or ends below it.
        objective: what is driven: the channel's mean, its middle neuron, or a class's logit.
        precision: of the loop; activations are always measured in fp32.
        on_progress: called with (pictures done, pictures in all).

    Raises:
        UnknownName: no such layer.
        InputError: no such channel, or an option out of range.
    """
    recipe = make_recipe(steps, size, precision)
    engine = Engine(classifier, (LOGITS if objective == "logit" else layer,), recipe)
    best = exemplar_max or {}
    jobs = [
        job_of(objective, layer, index, sign, seed, best.get(index), (starts or {}).get(index))
        for index in indexes
    ]
    drawn = engine.draw(jobs, on_progress)
    return judge(drawn, layer, indexes, sign, seed, best)


def job_of(
    objective: ObjectiveKind,
    layer: str,
    index: int,
    sign: Sign,
    seed: int,
    best: float | None = None,
    exemplar: torch.Tensor | None = None,
) -> Job:
    """What an `Engine` needs to draw a channel, a neuron or a class; the random numbers are its own.

    Raises:
        InputError: an objective that is not one of them.
    """
    if objective == "logit":
        wanted = logit(index) if sign == "plus" else -logit(index)
    elif objective in ("channel", "neuron"):
        wanted = (channel if objective == "channel" else neuron)(layer, index, sign)
    else:
        raise InputError(f"--objective is {objective!r}; use channel, neuron or logit")
    return Job(wanted, seed_of(layer, index, sign, seed), best, exemplar)


def render(
    classifier: Classifier,
    objective: Objective,
    *,
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    parametrization: Parametrization = fourier,
    precision: Precision = "auto",
    recipe: RenderRecipe | None = None,
) -> Render:
    """Draws one picture for any objective.

    Args:
        classifier: unchanged.
        objective: what is maximised.
        seed, steps, size, precision: see `render_channels`.
        parametrization: what is optimized.
        recipe: in place of `steps`, `size` and `precision`, which are then not given.

    Raises:
        InputError: no objective, a recipe beside what it already says, or an option out of range.

    Returns:
        A `Render` whose layer is the objective's name, whose channel is -1 and whose activation is
        the objective's value.
    """
    if recipe is not None and (steps, size, precision) != (None, None, "auto"):
        raise InputError("both a recipe and steps, size or precision are given; give one of them")
    _refuse_others(objective)
    chosen = recipe or make_recipe(steps, size, precision)
    engine = Engine(classifier, objective.layers, chosen, parametrization=parametrization)
    drawn = engine.draw([Job(objective, seed_of(objective.name, seed))])
    return judge(drawn, objective.name, (-1,), "plus", seed, {})[0]


def render_together(
    classifier: Classifier,
    objective: Objective,
    count: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    parametrization: Parametrization = fourier,
    precision: Precision = "auto",
) -> list[Render]:
    """Draws several pictures for an objective that looks at all of them, such as `diversity`.

    Args as for `render`; `count` is the number of pictures, which are one batch.
    """
    if count < 1:
        raise InputError(f"count is {count}; at least 1 picture must be drawn")
    _refuse_others(objective)
    recipe = make_recipe(steps, size, precision)
    engine = Engine(classifier, objective.layers, recipe, parametrization=parametrization)
    seeds = [seed_of(objective.name, seed, number) for number in range(count)]
    drawn = engine.draw_together(objective, seeds)
    return judge(drawn, objective.name, (-1,) * count, "plus", seed, {})


def _refuse_others(objective: object) -> None:
    """A number is an objective in sums only."""
    if not isinstance(objective, Objective):
        raise InputError(
            f"the objective is {objective!r}; give one such as channel('blocks.4.2', 3) - 2 * total_variation()"
        )


def judge(
    drawn: Drawn,
    layer: str,
    indexes: Sequence[int],
    sign: Sign,
    seed: int,
    exemplar_max: Mapping[int, float | None],
) -> list[Render]:
    """`Drawn` as records, each with its status."""
    return [
        Render(
            layer=layer,
            channel=index,
            sign=sign,
            seed=seed,
            picture=picture,
            activation=float(drawn.activation[row]),
            exemplar_max=exemplar_max.get(index),
            status=_status(drawn, row, exemplar_max.get(index)),
            steps=int(drawn.steps[row]),
            from_exemplar=bool(drawn.from_exemplar[row]),
        )
        for row, (index, picture) in enumerate(zip(indexes, drawn.arrays(), strict=True))
    ]


def _status(drawn: Drawn, row: int, best: float | None) -> Status:
    """See `records.Status`."""
    if not drawn.finite[row]:
        return "non_finite"
    start, reached = float(drawn.start[row]), float(drawn.activation[row])
    same = _SAME * abs(start)
    if drawn.blocked[row]:
        # A channel that never changes has the same value for noise as for any real picture.
        unmoved = best is not None and best <= max(0.0, start + same)
        return "dead_on_data" if unmoved else "zero_gradient"
    if best is not None and max(abs(best - start), abs(reached - start)) <= same:
        return "dead_on_data"  # constant: rounding alone tells the drawing from the real picture
    wanted = start if best is None else best
    # What has come from noise to within a thousandth of the way is there: 0.000 against 0.000 is no lag.
    slack = max(_ROUNDING * abs(wanted), _SAME * abs(wanted - start))
    return "below_exemplar" if reached < wanted - slack else "optimized"
