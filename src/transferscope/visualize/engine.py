"""Many pictures at once, each driven towards its own objective.

A worker has a few places, and a picture that is finished leaves its place to the next one. On a CPU each
thread has a worker: a quarter faster than one whose every operation is spread over the threads. What is
reported is measured on the user's untouched network, without random movements, in fp32.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.quasirandom import SobolEngine

from transferscope.acceleration.network import FastNetwork
from transferscope.activations import TruncatedForward
from transferscope.backbones.classifier import Classifier
from transferscope.copies import still
from transferscope.errors import InputError
from transferscope.images import as_float
from transferscope.visualize.ascent import Ascent
from transferscope.visualize.canvas import Parametrization, fourier
from transferscope.visualize.movement import GREY, draw_moves, enlarged, move, movements_of
from transferscope.visualize.objectives.algebra import LOGITS, Objective
from transferscope.visualize.recipe import FALL, LONGEST, WINDOW, RenderRecipe
from transferscope.visualize.records import FIGURES, Drawn, finished

PLACES = 8
"""Pictures of a worker on a CPU: with 4, a third of the time goes into beginning operations; more than 8 are
no faster."""

PLACES_GPU = 32

MEASURED = 2
"""Pictures measured at once on a CPU: fp32 of 8 would need more memory than drawing does, and that would
save a hundredth of the time of a picture."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Job:
    """One picture to be drawn.

    Attributes:
        objective: what it maximises.
        seed: of its start and of its movements.
        best: the objective's value for the best real picture, or None if there is none.
        exemplar: that picture, (C, H, W) in [0, 1]: where the drawing begins again if a random start
            has no gradient, or ends below `best`.
    """

    objective: Objective
    seed: int
    best: float | None = None
    exemplar: torch.Tensor | None = None


@dataclass(eq=False)
class _Sketch:
    """A picture in its place."""

    job: Job
    number: int
    generator: torch.Generator
    movements: SobolEngine
    from_exemplar: bool
    age: int = 0
    steps: int = 0
    blocked: bool = True
    finite: bool = True
    restarted: bool = False
    started: torch.Tensor | None = None
    picture: torch.Tensor | None = None
    values: list[float] = field(default_factory=list)


class Engine:
    """Draws pictures for objectives over given layers.

    Args:
        classifier: unchanged; figures are measured on it.
        layers: dotted names, `LOGITS` for the head.
        recipe: see `RenderRecipe`.
        parametrization: what is optimized.
    """

    def __init__(
        self,
        classifier: Classifier,
        layers: Sequence[str],
        recipe: RenderRecipe,
        *,
        parametrization: Parametrization = fourier,
    ):
        self.classifier = classifier
        self.recipe = recipe
        self.parametrization = parametrization
        self.size = recipe.size or classifier.input.size
        self.names = {name: classifier.head if name == LOGITS else name for name in layers}
        wanted, example = list(self.names.values()), classifier.example()
        self._network = FastNetwork(classifier.network, wanted, example, recipe.precision)
        if wanted:
            self._exact = TruncatedForward(
                still(classifier.network), wanted, example, channels_first=True
            )
        if self.size != classifier.input.size:
            self._refuse_another_size()
        self._stop = threading.Event()
        self._workers: list[_Worker] = []

    def _refuse_another_size(self) -> None:
        """Some networks, such as most vision transformers, take one size only."""
        if not self._network.takes(self.size):
            height, width = self.classifier.input.size
            raise InputError(
                f"the size is {self.size[0]} x {self.size[1]}, and this {self.classifier.backbone} takes "
                f"pictures of {height} x {width} pixels only; leave --size out"
            )

    def draw(self, jobs: Sequence[Job], on_progress: Progress | None = None) -> Drawn:
        """Draws every job by itself; a picture does not depend on which are drawn beside it.

        One job alone has all threads on a CPU. Most layers come out the same to the bit nevertheless (in
        bf16, and in fp32 from 128 pixels); where sums are split among threads, as for the logits of a
        whole network, the rounding is another, and the ascent enlarges it.

        A picture that ends below the best real one is drawn again from that one, and the better is kept.

        Args:
            jobs: at least one; objectives over the engine's layers.
            on_progress: called with (pictures done, pictures in all).
        """
        if not jobs:
            raise InputError("there is nothing to draw; give at least one channel")
        drawn = self._measured([_sketch(job, n) for n, job in enumerate(jobs)], jobs, on_progress)
        below = [
            number
            for number, job in enumerate(jobs)
            if job.exemplar is not None
            and job.best is not None
            and not drawn.from_exemplar[number]
            and drawn.finite[number]
            and not drawn.blocked[number]
            and drawn.activation[number] < job.best
        ]
        if not below:
            return drawn
        again = [jobs[number] for number in below]
        sketches = [_sketch(job, n, from_exemplar=True) for n, job in enumerate(again)]
        return _better(drawn, self._measured(sketches, again, None), below)

    def draw_together(self, objective: Objective, seeds: Sequence[int]) -> Drawn:
        """Pictures that depend on each other, such as those of `diversity`: all in one pass.

        Args:
            objective: of the whole batch, (N,).
            seeds: one a picture.
        """
        jobs = [Job(objective, seed) for seed in seeds]
        sketches = [_sketch(job, number) for number, job in enumerate(jobs)]
        self._stop.clear()
        _Worker(self, self._network, len(jobs), objective).run(sketches)
        return self._judged(sketches, jobs, objective)

    # ------------------------------------------------------------------ workers

    def _measured(
        self, sketches: list[_Sketch], jobs: Sequence[Job], on_progress: Progress | None
    ) -> Drawn:
        self._run(sketches, on_progress)
        return self._judged(sketches, jobs, None)

    def _run(self, sketches: list[_Sketch], on_progress: Progress | None) -> None:
        """Shares the sketches out among the workers, in a fixed way, and waits for them."""
        on_cpu = self.classifier.device.type == "cpu"
        places = PLACES if on_cpu else PLACES_GPU
        count = min(torch.get_num_threads(), len(sketches)) if on_cpu else 1
        while len(self._workers) < count:
            network = self._network.twin() if self._workers else self._network
            self._workers.append(_Worker(self, network, places, None))
        self._stop.clear()
        with (
            _threads_kept(),
            ThreadPoolExecutor(count, "render") as pool,
        ):
            futures = [
                pool.submit(worker.run, sketches[number::count], threads=1 if count > 1 else None)
                for number, worker in enumerate(self._workers[:count])
            ]
            try:
                left = set(futures)
                while left:
                    done, left = wait_for(left, timeout=0.2)
                    for future in done:
                        future.result()
                    if on_progress:
                        on_progress(sum(s.picture is not None for s in sketches), len(sketches))
            except BaseException:
                self._stop.set()
                raise

    # ------------------------------------------------------------------ measuring

    def _judged(
        self, sketches: Sequence[_Sketch], jobs: Sequence[Job], together: Objective | None
    ) -> Drawn:
        canvases = torch.stack([_held(sketch.picture) for sketch in sketches])
        starts = torch.stack([_held(sketch.started) for sketch in sketches])
        activation = self.measure(canvases, jobs, together)
        return Drawn(
            canvases=canvases,
            size=self.size,
            activation=activation,
            start=self.measure(starts, jobs, together),
            blocked=torch.tensor([sketch.blocked for sketch in sketches]),
            finite=torch.tensor([sketch.finite for sketch in sketches])
            & torch.isfinite(activation),
            steps=torch.tensor([sketch.steps for sketch in sketches]),
            from_exemplar=torch.tensor([sketch.from_exemplar for sketch in sketches]),
        )

    def measure(
        self, canvases: torch.Tensor, jobs: Sequence[Job], together: Objective | None = None
    ) -> torch.Tensor:
        """The objectives of finished pictures on the untouched network, fp32, unmoved.

        Args:
            canvases: uint8 (N, C, h, w).
            jobs: one a picture.
            together: an objective of the whole batch in place of the jobs' own.

        Returns:
            float32 (N,).
        """
        parts = []
        at_once = MEASURED if self.classifier.device.type == "cpu" else PLACES_GPU
        step = len(jobs) if together else at_once
        with torch.no_grad():
            for begin in range(0, len(jobs), step):
                part = jobs[begin : begin + step]
                pictures = finished(canvases[begin : begin + step], self.size)
                batch = as_float(pictures).to(self.classifier.device)
                batch = batch.contiguous(memory_format=torch.channels_last)  # twice as fast
                found = {}
                if self.names:
                    exact = self._exact(self.classifier.input.normalise(batch))
                    found = {name: exact[actual] for name, actual in self.names.items()}
                parts.append(_values(found, batch, part, together).float().cpu())
        return torch.cat(parts)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Gives torch back its number of threads, which the workers lower for themselves."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Worker:
    """Some places with a network of their own; used by one thread at a time."""

    def __init__(
        self, engine: Engine, network: FastNetwork, places: int, together: Objective | None
    ):
        # Not the engine itself: in a cycle they would keep their networks until Python looks for cycles.
        self._network, self._names, self._together = network, engine.names, together
        self._recipe, self._size, self._stop = engine.recipe, engine.size, engine._stop
        self._parametrization, self._input = engine.parametrization, engine.classifier.input
        self._device = engine.classifier.device
        self._least = 1  # pictures a pass: fewer are filled up
        channels = self._input.channels
        grey = torch.full((1, channels, 1, 1), GREY, device=self._device)
        self._grey = self._input.normalise(grey)
        height, width = engine.size
        detail = engine.recipe.detail
        self._shape = (
            channels,
            max(16, 8 * round(height * detail / 8)),  # the transform is slow at other sides
            max(16, 8 * round(width * detail / 8)),
        )
        canvas = engine.parametrization(
            [torch.Generator().manual_seed(0)], self._shape, device=self._device
        )
        self._decode = canvas.decode
        free = canvas.free.detach()
        self._free = torch.zeros((places, *free.shape[1:]), dtype=free.dtype, device=free.device)
        self._ascent = Ascent(self._free, engine.recipe.pace)

    def run(self, sketches: Sequence[_Sketch], *, threads: int | None = None) -> None:
        """Draws the sketches; their pictures and figures are set.

        Args:
            sketches: in the order in which they get places.
            threads: that each operation is spread over; None: as it is.
        """
        self._least = min(PLACES, 1 << (len(sketches).bit_length() - 1))
        if threads is not None:
            torch.set_num_threads(threads)  # of this thread
        with torch.enable_grad():
            self._run(sketches)

    def _run(self, sketches: Sequence[_Sketch]) -> None:
        queue = list(reversed(sketches))
        held: dict[int, _Sketch] = {}
        while queue or held:
            for place in range(len(self._free)):
                if place not in held and queue:
                    held[place] = queue.pop()
                    self._begin(place, held[place])
            if self._stop.is_set():
                return
            self._step(held)
            for place, sketch in list(held.items()):
                if self._finished(sketch):
                    sketch.picture = self._bytes(place)
                    del held[place]

    # ------------------------------------------------------------------ a place

    def _begin(self, place: int, sketch: _Sketch) -> None:
        """Puts a start into a place: random, or the sketch's real picture."""
        start = None
        if sketch.from_exemplar and sketch.job.exemplar is not None:
            start = nn.functional.interpolate(
                sketch.job.exemplar[None].float(),
                self._shape[1:],
                mode="bilinear",
                antialias=True,
            ).clamp(0, 1)
        canvas = self._parametrization(
            [sketch.generator], self._shape, device=self._device, start=start
        )
        self._free[place] = canvas.free.detach()[0]
        self._ascent.forget(place)
        sketch.age = 0
        sketch.values.clear()
        if sketch.started is None:
            sketch.started = self._bytes(place)

    def _bytes(self, place: int) -> torch.Tensor:
        """uint8 (C, h, w) on the CPU; what is not a number becomes black."""
        with torch.no_grad():
            picture = self._decode(self._free[place : place + 1])[0]
        return (picture.nan_to_num(0).clamp(0, 1) * 255).round().byte().cpu()

    def _finished(self, sketch: _Sketch) -> bool:
        """Whether all steps are taken, or there is nothing to climb, or no number left."""
        given_up = sketch.restarted and self._shut_for_long(sketch)
        return sketch.age >= self._recipe.steps or given_up or not sketch.finite

    def _shut_for_long(self, sketch: _Sketch) -> bool:
        return sketch.blocked and sketch.age >= max(1, self._recipe.patience)

    # ------------------------------------------------------------------ a step

    def _step(self, held: dict[int, _Sketch]) -> None:
        places, sketches = list(held), list(held.values())
        for place, sketch in held.items():
            if self._shut_for_long(sketch) and not sketch.restarted:
                sketch.restarted = True
                sketch.from_exemplar = sketch.job.exemplar is not None
                self._begin(place, sketch)
        moves = draw_moves([sketch.movements for sketch in sketches])
        free = self._free[places].requires_grad_()
        values = self._value(free, moves, sketches)
        (gradient,) = torch.autograd.grad(values.sum(), free)
        shut = (gradient == 0).flatten(1).all(1)
        early = [sketch.age < self._recipe.patience for sketch in sketches]
        redirected = shut & torch.tensor(early, device=shut.device)
        if redirected.any():
            gradient[redirected] = self._redirected(free, moves, sketches)[redirected]
        broken = ~(torch.isfinite(gradient).flatten(1).all(1) & torch.isfinite(values))
        gradient[broken] = 0
        # Where nothing is seen yet, there is nothing to be careful of.
        hurry = LONGEST / self._recipe.pace
        shares = [
            self._recipe.falling(sketch.age) * (hurry if one else 1)
            for sketch, one in zip(sketches, redirected.tolist(), strict=True)
        ]
        self._ascent.step(places, gradient, shares)
        for sketch, value, was_shut, was_broken in zip(
            sketches, values.tolist(), shut.tolist(), broken.tolist(), strict=True
        ):
            sketch.age += 1
            sketch.steps += 1
            sketch.blocked &= was_shut
            sketch.finite &= not was_broken
            sketch.values.append(value)
            self._settle(sketch)

    def _settle(self, sketch: _Sketch) -> None:
        """Takes a picture that no longer rises to the falling rate."""
        recent, falls = sketch.values[-WINDOW:], int(FALL * self._recipe.steps)
        if (
            self._together is not None
            or sketch.blocked
            or not 2 * WINDOW <= sketch.age < falls
            or sketch.age % WINDOW
        ):
            return
        now, before = sum(recent), sum(sketch.values[-2 * WINDOW : -WINDOW])
        if now - before < self._recipe.settled * abs(now):
            sketch.age = falls

    def _value(
        self, free: torch.Tensor, moves: torch.Tensor, sketches: Sequence[_Sketch]
    ) -> torch.Tensor:
        if self._together is None:
            free, moves = _evened(free, self._least), _evened(moves, self._least)
        pictures = self._decode(free)
        size, movement = self._size, self._recipe.movement
        seen = self._input.normalise(pictures)  # fewer pixels than when enlarged
        if movement:
            seen = move(seen, moves, movement, size, beyond=self._grey)
        else:
            seen = enlarged(seen, size).contiguous(memory_format=torch.channels_last)
        jobs = [sketch.job for sketch in sketches]
        found = self._network(seen)
        activations = {name: found[actual] for name, actual in self._names.items()}
        return _values(activations, pictures, jobs, self._together)

    def _redirected(
        self, free: torch.Tensor, moves: torch.Tensor, sketches: Sequence[_Sketch]
    ) -> torch.Tensor:
        """The gradient that the free numbers would have if shut ReLUs let it through."""
        with self._network.redirected():
            values = self._value(free, moves, sketches)
            (gradient,) = torch.autograd.grad(values.sum(), free)
        return gradient


def _sketch(job: Job, number: int, *, from_exemplar: bool = False) -> _Sketch:
    generator = torch.Generator().manual_seed(job.seed)
    movements = movements_of(job.seed)
    return _Sketch(job, number, generator, movements, from_exemplar, restarted=from_exemplar)


def _held(picture: torch.Tensor | None) -> torch.Tensor:
    if picture is None:
        raise RuntimeError("a picture was asked for before it was drawn")
    return picture


def _values(
    activations: dict[str, torch.Tensor],
    pictures: torch.Tensor,
    jobs: Sequence[Job],
    together: Objective | None,
) -> torch.Tensor:
    """(N,): every picture's own objective, or one of the whole batch.

    Args:
        activations: (M, ...) by layer; M is at least N, and rows beyond the jobs count for nothing.
        pictures: (M, C, h, w).
        jobs: N of them.
        together: in place of the jobs' own.
    """
    if together is not None:
        return together(activations, pictures)
    alone = {name: output.split(1) for name, output in activations.items()}
    own = pictures.split(1)
    return torch.cat(
        [
            job.objective({name: rows[n] for name, rows in alone.items()}, own[n])
            for n, job in enumerate(jobs)
        ]
    )


def _evened(rows: torch.Tensor, least: int) -> torch.Tensor:
    """The rows, and copies of the last one without gradients up to `least` or the next power of two.

    The libraries of the arithmetic keep what they have compiled by the number of pictures: with every
    number from 1 to 8, as pictures are finished, that was 20 MB and a tenth of a second for each.
    """
    lacking = max(least, 1 << (len(rows) - 1).bit_length()) - len(rows)
    if not lacking:
        return rows
    return torch.cat([rows, rows[-1:].detach().expand(lacking, *rows.shape[1:])])


def _better(first: Drawn, again: Drawn, numbers: Sequence[int]) -> Drawn:
    """`first` with the rows `numbers` from `again` where those reached more; steps are added."""
    names = ("canvases", *FIGURES)
    fields = {name: getattr(first, name).clone() for name in names}
    for row, number in enumerate(numbers):
        steps = first.steps[number] + again.steps[row]
        climbed = again.finite[row] and not again.blocked[row]
        if climbed and again.activation[row] > first.activation[number]:
            for name in names:
                fields[name][number] = getattr(again, name)[row]
        fields["steps"][number] = steps
    return Drawn(size=first.size, **fields)
