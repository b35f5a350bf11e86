"""A sweep by Ray's workers: on all cores of one machine, or on a cluster's that share the sweep's folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferscope.errors import InputError, TransferscopeError
from transferscope.visualize.units import Sweep, WorkUnit

if TYPE_CHECKING:
    from transferscope.backbones.classifier import Classifier


def run_on_ray(
    sweep: Sweep,
    classifier: Classifier,
    units: Sequence[WorkUnit],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draws what a sweep lacks, a unit a task; a cluster that is running, or that RAY_ADDRESS names, is used.

    A drawing is the same whichever worker makes it. Workers write into the sweep's shared folder alone, so
    all machines must have it under one path; TRANSFERSCOPE_CACHE says where it is.

    Args:
        sweep: as for `Sweep.run`.
        classifier: whose network the units are of; unchanged, copied to every worker once.
        units: of any layers.
        on_progress: called with (pictures done, pictures in all).

    Raises:
        InputError: Ray is not installed.
        OutputError: the folder cannot be written; finished channels are kept.
    """
    left = [unit for unit in units if sweep.missing(unit)]
    total = sum(len(unit.channels) for unit in units)
    done = total - sum(len(unit.channels) for unit in left)
    if left:
        with _cluster() as ray:
            gpus = 1 if classifier.device.type == "cuda" else 0
            task = ray.remote(num_cpus=1, num_gpus=gpus)(_draw)
            shared, folder = ray.put(classifier), sweep.folder.absolute()
            waiting = {task.remote(folder, shared, unit): unit for unit in left}
            while waiting:
                (ready, *_), _ = ray.wait(list(waiting))
                try:
                    ray.get(ready)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, TransferscopeError):
                        raise error.cause from None
                    raise
                done += len(waiting.pop(ready).channels)
                if on_progress:
                    on_progress(done, total)
    sweep.run(
        classifier, units, on_progress=on_progress
    )  # nothing lacks: into the folder of one's own


def _draw(folder: Path, classifier: Classifier, unit: WorkUnit) -> None:
    Sweep(folder).run(classifier, [unit])


def require_ray() -> None:
    """Refuses where it is not installed.

    Raises:
        InputError: it is not.
    """
    if find_spec("ray") is None:
        raise InputError(
            "ray is not installed; install it with pip install 'transferscope[ray]', or draw with "
            "--engine local"
        )


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; what was started for it is ended."""
    require_ray()
    import ray

    running = ray.is_initialized()
    if not running:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        if not running:
            ray.shutdown()
