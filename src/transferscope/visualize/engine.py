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
from dataclasses import dataclass

import torch
from torch import nn

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


class _Sketch:
    """A picture in its place; pictures are uint8 (C, h, w), empty until they are there."""

    def __init__(self, job: Job, *, from_exemplar: bool = False):
        self.job = job
        self.generator = torch.Generator().manual_seed(job.seed)
        self.movements = movements_of(job.seed)
        self.from_exemplar = self.restarted = from_exemplar
        self.age = self.steps = 0
        self.blocked = self.finite = True
        self.started = self.picture = torch.empty(0, dtype=torch.uint8)
        self.values: list[float] = []


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
        if self.size != classifier.input.size and not self._network.takes(self.size):
            height, width = classifier.input.size  # of most vision transformers
            raise InputError(
                f"the size is {self.size[0]} x {self.size[1]}, and this {classifier.backbone} takes "
                f"pictures of {height} x {width} pixels only; leave --size out"
            )
        self._stop = threading.Event()
        self._workers: list[_Worker] = []

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
        drawn = self._drawn([_Sketch(job) for job in jobs], on_progress)
        stuck = drawn.from_exemplar | drawn.blocked | ~drawn.finite
        below = [
            number
            for number, job in enumerate(jobs)
            if job.exemplar is not None
            and job.best is not None
            and not stuck[number]
            and drawn.activation[number] < job.best
        ]
        if not below:
            return drawn
        again = self._drawn([_Sketch(jobs[number], from_exemplar=True) for number in below], None)
        return _better(drawn, again, below)

    def draw_together(self, objective: Objective, seeds: Sequence[int]) -> Drawn:
        """Pictures that depend on each other, such as those of `diversity`: all in one pass.

        The objective is one of the whole batch, (N,); each seed is a picture's.
        """
        sketches = [_Sketch(Job(objective, seed)) for seed in seeds]
        self._stop.clear()
        _Worker(self, self._network, len(sketches), objective).run(sketches)
        return self._measured(sketches, objective)

    # ------------------------------------------------------------------ workers

    def _drawn(self, sketches: list[_Sketch], on_progress: Progress | None) -> Drawn:
        """Shares the sketches out among the workers, in a fixed way, and waits for them."""
        on_cpu = self.classifier.device.type == "cpu"
        count = min(torch.get_num_threads(), len(sketches)) if on_cpu else 1
        while len(self._workers) < count:
            network = self._network.twin() if self._workers else self._network
            self._workers.append(_Worker(self, network, PLACES if on_cpu else PLACES_GPU, None))
        self._stop.clear()
        with _threads_kept(), ThreadPoolExecutor(count, "render") as pool:
            left = {
                pool.submit(worker.run, sketches[number::count], threads=1 if count > 1 else None)
                for number, worker in enumerate(self._workers[:count])
            }
            try:
                while left:
                    done, left = wait_for(left, timeout=0.2)
                    for future in done:
                        future.result()
                    if on_progress:
                        on_progress(sum(bool(s.picture.numel()) for s in sketches), len(sketches))
            except BaseException:
                self._stop.set()
                raise
        return self._measured(sketches, None)

    # ------------------------------------------------------------------ measuring

    def _measured(self, sketches: Sequence[_Sketch], together: Objective | None) -> Drawn:
        jobs = [sketch.job for sketch in sketches]
        canvases = torch.stack([sketch.picture for sketch in sketches])
        starts = torch.stack([sketch.started for sketch in sketches])
        activation = self.measure(canvases, jobs, together)
        finite = torch.tensor([sketch.finite for sketch in sketches])
        return Drawn(
            canvases=canvases,
            size=self.size,
            activation=activation,
            start=self.measure(starts, jobs, together),
            blocked=torch.tensor([sketch.blocked for sketch in sketches]),
            finite=finite & torch.isfinite(activation),
            steps=torch.tensor([sketch.steps for sketch in sketches]),
            from_exemplar=torch.tensor([sketch.from_exemplar for sketch in sketches]),
        )

    def measure(
        self, canvases: torch.Tensor, jobs: Sequence[Job], together: Objective | None = None
    ) -> torch.Tensor:
        """The objectives of finished pictures on the untouched network, fp32, unmoved: float32 (N,).

        `canvases` are uint8 (N, C, h, w), of one job each; `together` is an objective of the whole batch in
        place of the jobs' own.
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
                exact = self._exact(self.classifier.input.normalise(batch)) if self.names else {}
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
        grey = torch.full((1, self._input.channels, 1, 1), GREY, device=self._device)
        self._grey = self._input.normalise(grey)
        # The transform is slow at other sides.
        height, width = (max(16, 8 * round(side * engine.recipe.detail / 8)) for side in self._size)
        self._shape = self._input.channels, height, width
        canvas = engine.parametrization(
            [torch.Generator().manual_seed(0)], self._shape, device=self._device
        )
        self._decode = canvas.decode
        free = canvas.free.detach()
        self._free = torch.zeros((places, *free.shape[1:]), dtype=free.dtype, device=free.device)
        self._ascent = Ascent(self._free, engine.recipe.pace)

    def run(self, sketches: Sequence[_Sketch], *, threads: int | None = None) -> None:
        """Draws the sketches, the first of which get places first; their pictures and figures are set.

        `threads` says over how many each operation is spread; None: as it is.
        """
        self._least = min(PLACES, 1 << (len(sketches).bit_length() - 1))
        if threads is not None:
            torch.set_num_threads(threads)  # of this thread
        queue = list(reversed(sketches))
        held: dict[int, _Sketch] = {}
        with torch.enable_grad():
            while (queue or held) and not self._stop.is_set():
                for place in range(len(self._free)):
                    if place not in held and queue:
                        held[place] = queue.pop()
                        self._begin(place, held[place])
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
        if not sketch.started.numel():
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
        values, gradient = self._gradient(free, moves, sketches)
        shut = (gradient == 0).flatten(1).all(1)
        early = [sketch.age < self._recipe.patience for sketch in sketches]
        redirected = shut & torch.tensor(early, device=shut.device)
        if redirected.any():
            with self._network.redirected():
                gradient[redirected] = self._gradient(free, moves, sketches)[1][redirected]
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

    def _gradient(
        self, rows: torch.Tensor, moves: torch.Tensor, sketches: Sequence[_Sketch]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The objectives (N,) of free numbers, and their gradient (N, ...)."""
        free = rows
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
        values = _values(activations, pictures, jobs, self._together)
        (gradient,) = torch.autograd.grad(values.sum(), rows)
        return values, gradient


def _values(
    activations: dict[str, torch.Tensor],
    pictures: torch.Tensor,
    jobs: Sequence[Job],
    together: Objective | None,
) -> torch.Tensor:
    """(N,): every picture's own objective, or one of the whole batch.

    Activations and pictures may have more rows than there are jobs; those beyond count for nothing.
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
