"""The render loop: many pictures a pass, each driven towards its own objective.

The user's network is never touched: the loop works on a private copy with folded BatchNorm and, on a
CPU, depthwise convolutions whose gradients are fast. What is reported is measured on the untouched
network, without random movements, in fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from transferscope.activations import TruncatedForward, evaluating
from transferscope.backbones import Classifier, Precision, autocast, folded
from transferscope.backbones.depthwise import phased
from transferscope.errors import InputError
from transferscope.images import as_float, to_picture
from transferscope.visualize.objectives import LOGITS, Objective, channels
from transferscope.visualize.parametrization import Canvas, Parametrization, fourier
from transferscope.visualize.records import Render, Sign, Status
from transferscope.visualize.transforms import Movement, draw_moves, move, seed_of

RECIPE_VERSION = 1
"""Raised whenever the same recipe could draw another picture; part of every unit's key."""

BATCH = 8
"""Pictures a forward pass: more are no faster on two cores, and take more memory."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RenderRecipe:
    """How a picture is drawn.

    NAdam at 0.15, 32 steps on the whole picture: among recipes of about the same cost on
    EfficientNet-Lite0 (fewer pixels and more steps, other rates, a falling rate) the one with the most
    natural colours and the highest activations.

    Attributes:
        steps: optimization steps.
        size: (height, width) in pixels; None: the network's own input size.
        rate: NAdam's learning rate.
        redirect: for at most this many first steps, shut ReLUs let gradients through to pictures
            that have none; those still without one then begin again from another start.
        precision: of the loop; "auto" is bf16 where the hardware is fast at it.
    """

    steps: int = 32
    size: tuple[int, int] | None = None
    rate: float = 0.15
    redirect: int = 8
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"--steps is {self.steps}; a rendering needs at least 1")
        if self.size is not None and min(self.size) < 32:
            raise InputError(f"--size is {min(self.size)}; a rendering needs at least 32 pixels")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields and the version, for keys."""
        return {**asdict(self), "version": RECIPE_VERSION}


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures as the loop left them, before they are judged.

    Attributes:
        pictures: uint8 (N, C, H, W).
        activation: float32 (N,), of the finished pictures, untransformed, untouched network, fp32.
        start: float32 (N,), the same of the starts.
        blocked: bool (N,), True where no step ever had a gradient.
        finite: bool (N,), False where a gradient or the picture left the numbers.
    """

    pictures: torch.Tensor
    activation: torch.Tensor
    start: torch.Tensor
    blocked: torch.Tensor
    finite: torch.Tensor


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
    precision: Precision = "auto",
    on_progress: Progress | None = None,
) -> list[Render]:
    """Draws channels of a layer.

    A channel's picture depends on layer, index, sign and seed, not on the channels beside it.

    Args:
        classifier: unchanged.
        layer: dotted name.
        indexes: of the channels.
        sign: "minus" drives a signed channel the other way.
        seed: of the start and of the movements.
        steps: optimization steps; None: the recipe's.
        size: side in pixels; None: the network's input size.
        exemplar_max: for each channel, the best real picture's activation times the sign.
        starts: for some channels a real picture, (C, H, W) in [0, 1], to begin again from if the
            random start has no gradient.
        precision: of the loop; activations are always measured in fp32.
        on_progress: called with (pictures done, pictures in all).

    Raises:
        UnknownName: no such layer.
        InputError: no such channel, or an option out of range.
    """
    recipe = make_recipe(steps, size, precision)
    engine = Engine(classifier, (layer,), recipe)
    renders: list[Render] = []
    for begin in range(0, len(indexes), BATCH):
        part = tuple(indexes[begin : begin + BATCH])
        drawn = engine.draw_channels(layer, part, sign=sign, seed=seed, starts=starts)
        best = {index: (exemplar_max or {}).get(index) for index in part}
        renders += judge(drawn, layer, part, sign, seed, recipe.steps, best)
        if on_progress:
            on_progress(len(renders), len(indexes))
    return renders


def render(
    classifier: Classifier,
    objective: Objective,
    *,
    seed: int = 0,
    steps: int | None = None,
    size: int | None = None,
    parametrization: Parametrization = fourier,
    precision: Precision = "auto",
) -> Render:
    """Draws one picture for any objective.

    Returns:
        A `Render` whose layer is the objective's name, whose channel is -1 and whose activation is
        the objective's value.
    """
    recipe = make_recipe(steps, size, precision)
    engine = Engine(classifier, objective.layers, recipe)
    generators = [torch.Generator().manual_seed(seed_of(objective.name, seed))]
    drawn = engine.draw(objective, generators, parametrization=parametrization)
    return judge(drawn, objective.name, (-1,), "plus", seed, recipe.steps, {})[0]


def make_recipe(
    steps: int | None = None, size: int | None = None, precision: Precision = "auto"
) -> RenderRecipe:
    """The default recipe with another number of steps, another side or precision."""
    return RenderRecipe(
        precision=precision,
        steps=RenderRecipe.steps if steps is None else steps,
        size=None if size is None else (size, size),
    )


def judge(
    drawn: Drawn,
    layer: str,
    indexes: Sequence[int],
    sign: Sign,
    seed: int,
    steps: int,
    exemplar_max: Mapping[int, float | None],
) -> list[Render]:
    """`Drawn` as records, each with its status."""
    renders = []
    for row, index in enumerate(indexes):
        best = exemplar_max.get(index)
        picture = np.ascontiguousarray(drawn.pictures[row].permute(1, 2, 0).numpy())
        renders.append(
            Render(
                layer=layer,
                channel=index,
                sign=sign,
                seed=seed,
                picture=picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture,
                activation=float(drawn.activation[row]),
                exemplar_max=best,
                status=_status(drawn, row, best),
                steps=steps,
            )
        )
    return renders


def _status(drawn: Drawn, row: int, best: float | None) -> Status:
    """See `records.Status`."""
    if not drawn.finite[row]:
        return "non_finite"
    if drawn.blocked[row]:
        return "dead_on_data" if best is not None and best <= 0 else "zero_gradient"
    reached = float(drawn.activation[row])
    return (
        "below_exemplar"
        if reached < (float(drawn.start[row]) if best is None else best)
        else "optimized"
    )


# ---------------------------------------------------------------------------- the engine


class Engine:
    """A private, faster copy of a network that draws pictures for objectives over given layers.

    Args:
        classifier: unchanged; figures are measured on it.
        layers: dotted names, `LOGITS` for the head.
        recipe: see `RenderRecipe`.
    """

    def __init__(self, classifier: Classifier, layers: Sequence[str], recipe: RenderRecipe):
        self.classifier = classifier
        self.recipe = recipe
        self.shape = (classifier.input.channels, *(recipe.size or classifier.input.size))
        self._names = {name: classifier.head if name == LOGITS else name for name in layers}
        example = classifier.example()
        fast = folded(classifier.network, example)
        if classifier.device.type == "cpu":
            fast = phased(fast)
        self._network = _with_redirectable_relus(fast).to(memory_format=torch.channels_last)
        if self._names:
            wanted = list(self._names.values())
            self._forward = TruncatedForward(self._network, wanted, example)
            self._exact = TruncatedForward(classifier.network, wanted, example)

    def draw_channels(
        self,
        layer: str,
        indexes: Sequence[int],
        *,
        sign: Sign,
        seed: int,
        starts: Mapping[int, torch.Tensor] | None = None,
    ) -> Drawn:
        """One picture a channel; args as for `render_channels`."""
        generators = [
            torch.Generator().manual_seed(seed_of(layer, index, sign, seed)) for index in indexes
        ]
        given = [(starts or {}).get(index) for index in indexes]
        return self.draw(channels(layer, indexes, sign), generators, starts=given)

    def draw(
        self,
        objective: Objective,
        generators: Sequence[torch.Generator],
        *,
        parametrization: Parametrization = fourier,
        starts: Sequence[torch.Tensor | None] = (),
    ) -> Drawn:
        """N pictures from N generators, maximising the objective for each by itself."""
        recipe, device = self.recipe, self.classifier.device
        canvas = parametrization(generators, self.shape, device=device)
        before = self._measured(canvas, objective)
        blocked = torch.ones(len(generators), dtype=torch.bool)
        finite = torch.ones(len(generators), dtype=torch.bool)
        optimizer = torch.optim.NAdam([canvas.free], lr=recipe.rate, maximize=True)
        for step in range(recipe.steps):
            if step == recipe.redirect and blocked.any():
                self._restart(canvas, optimizer, parametrization, generators, starts, blocked)
            moves = draw_moves(generators)
            optimizer.zero_grad(set_to_none=True)
            self._value(canvas, objective, moves).sum().backward()
            gradient = canvas.free.grad
            assert gradient is not None
            shut = _rows_without(gradient)
            if shut.any() and step < recipe.redirect:
                gradient[shut] = self._redirected(canvas, objective, moves)[shut]
            blocked &= shut.cpu()
            broken = ~torch.isfinite(gradient).flatten(1).all(1)
            finite &= ~broken.cpu()
            gradient[broken] = 0
            optimizer.step()
        after = self._measured(canvas, objective)
        with torch.no_grad():
            pictures = canvas.pictures()
        finite &= torch.isfinite(pictures).flatten(1).all(1).cpu() & torch.isfinite(after)
        return Drawn(_as_bytes(pictures), after, before, blocked, finite)

    # ------------------------------------------------------------------ steps

    def _value(self, canvas: Canvas, objective: Objective, moves: torch.Tensor) -> torch.Tensor:
        pictures = canvas.pictures()
        moved = move(pictures, moves, Movement())
        return objective(self._activations(moved), pictures)

    def _activations(self, moved: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self._names:
            return {}
        with autocast(self.classifier.device, self.recipe.precision):
            found = self._forward(self.classifier.input.normalise(moved))
        return {name: found[actual] for name, actual in self._names.items()}

    def _redirected(
        self, canvas: Canvas, objective: Objective, moves: torch.Tensor
    ) -> torch.Tensor:
        """The gradient that the free numbers would have if shut ReLUs let it through."""
        relus = [m for m in self._network.modules() if isinstance(m, _RedirectableReLU)]
        for relu in relus:
            relu.redirected = True
        try:
            value = self._value(canvas, objective, moves).sum()
            (gradient,) = torch.autograd.grad(value, canvas.free)
        finally:
            for relu in relus:
                relu.redirected = False
        return gradient

    def _restart(
        self,
        canvas: Canvas,
        optimizer: torch.optim.Optimizer,
        parametrization: Parametrization,
        generators: Sequence[torch.Generator],
        starts: Sequence[torch.Tensor | None],
        blocked: torch.Tensor,
    ) -> None:
        """Gives blocked rows another start: the real picture given, or a fresh random one."""
        device = canvas.free.device
        for row in blocked.nonzero().flatten().tolist():
            start = starts[row] if row < len(starts) else None
            if start is not None:
                start = nn.functional.interpolate(
                    start[None].float(), self.shape[1:], mode="bilinear", antialias=True
                ).clamp(0, 1)
            own = generators[row : row + 1]
            fresh = parametrization(own, self.shape, device=device, start=start)
            with torch.no_grad():
                canvas.free[row] = fresh.free[0]
            for moment in ("exp_avg", "exp_avg_sq"):
                optimizer.state[canvas.free][moment][row] = 0

    def _measured(self, canvas: Canvas, objective: Objective) -> torch.Tensor:
        """(N,): the objective of the pictures as files would hold them, on the untouched network."""
        with torch.no_grad():
            pictures = _as_bytes(canvas.pictures())
        spec = self.classifier.input
        loaded = torch.stack([spec.load(to_picture(picture)) for picture in pictures])
        batch = as_float(loaded.to(self.classifier.device))
        if not self._names:
            return objective({}, batch).cpu()
        with evaluating(self.classifier), torch.no_grad():
            found = self._exact(spec.normalise(batch))
        values = {name: found[actual] for name, actual in self._names.items()}
        return objective(values, batch).float().cpu()


def _rows_without(gradient: torch.Tensor) -> torch.Tensor:
    """bool (N,): rows that are zero throughout."""
    return (gradient == 0).flatten(1).all(1)


def _as_bytes(pictures: torch.Tensor) -> torch.Tensor:
    """[0, 1] as uint8 on the CPU; what is not a number becomes black."""
    return (pictures.nan_to_num(0).clamp(0, 1) * 255).round().byte().cpu()


# ---------------------------------------------------------------------------- redirected ReLUs


class _Redirect(torch.autograd.Function):
    """ReLU or ReLU6 whose gradient passes through where it is shut, if it would open it.

    Reference: lucid's `redirected_relu_grad`.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ceiling: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.ceiling = ceiling
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        grad = grads[0]
        opens = (x <= 0) & (grad > 0)
        closes = (x >= ctx.ceiling) & (grad < 0)
        inside = (x > 0) & (x < ctx.ceiling)
        return grad * (inside | opens | closes), None


class _RedirectableReLU(nn.Module):
    """A ReLU of the private copy; `redirected` changes its gradient only."""

    def __init__(self, relu: nn.ReLU | nn.ReLU6):
        super().__init__()
        self.ceiling = 6.0 if isinstance(relu, nn.ReLU6) else float("inf")
        self.redirected = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.redirected:
            result: torch.Tensor = _Redirect.apply(x, self.ceiling)
            return result
        return nn.functional.relu6(x) if self.ceiling == 6.0 else nn.functional.relu(x)


def _with_redirectable_relus(network: nn.Module) -> nn.Module:
    """A copy whose ReLU modules can be redirected; layer names stay."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if name and type(module) in (nn.ReLU, nn.ReLU6):
            network.set_submodule(name, _RedirectableReLU(module).eval())
    return network
