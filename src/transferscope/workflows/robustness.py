"""`robustness`: what the base and the tuned network stand, on the same held-out pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from transferscope.acceleration.precision import find_device
from transferscope.adversarial.attacked import Attacked
from transferscope.adversarial.budgets import Budget
from transferscope.adversarial.projected_gradient import Goal, pgd
from transferscope.adversarial.robustness import (
    Endured,
    Robustness,
    Trial,
    balanced,
    endure,
    robustness_of,
)
from transferscope.backbones.classifier import Classifier
from transferscope.data.scan import Picture
from transferscope.errors import InputError, OutputError, RunError
from transferscope.files import (
    hash_tensors,
    is_writable,
    read_json,
    sha256_bytes,
    write_json,
    write_text,
)
from transferscope.images import as_float
from transferscope.report.figures.robustness import robustness_figure
from transferscope.wording import duration
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run, files_of, labels_of

PICTURES = 100
"""Pictures that are attacked, unless more are asked for."""

FOLDER, RECORD, FIGURE, PARTS = "attacks", "robustness.json", "robustness.svg", "parts"

_VERSION = 1
"""Of what is measured: results of another one are not read."""

_CHUNK = 10
"""Pictures between two savings."""


def robustness(
    run: Run,
    *,
    split: str = "test",
    pictures: int = PICTURES,
    data: str | Path | None = None,
    steps: int = 20,
    restarts: int = 2,
    seed: int = 0,
    device: str | None = None,
    reporter: Reporter = SILENT,
) -> Robustness:
    """Attacks and corrupts held-out pictures, and asks the untuned network with its probe and the tuned one.

    Accuracy against epsilon under PGD, random noise of that size beside it; the smallest Euclidean change by
    DeepFool; margins; noise, blur, JPEG and brightness in five strengths. Killed, it goes on where it was;
    with the same settings and weights it is read, not measured again.

    Args:
        run: a finished one.
        split: of the pictures.
        pictures: how many, drawn evenly over the classes; all where there are fewer.
        data: where the run's pictures are, if they are no longer where they were.
        steps, restarts: of PGD.
        seed: of the draw and of everything random.
        device: None: the best here.
        reporter: told how long it will take, and of the progress.

    Returns:
        What is then in the run's attacks/: robustness.json, and robustness.svg as a figure.

    Raises:
        InputError: an option out of range.
        DataError: the pictures are gone, or were changed.
        OutputError: the run folder cannot be written.
    """
    _refuse_none(pictures=pictures, steps=steps, restarts=restarts)
    folder = run.path / FOLDER
    if not is_writable(folder):
        raise OutputError(f"{str(folder)!r} cannot be written; make it writable, or copy the run")
    files, listed = files_of(run, split, data)
    labels = labels_of(listed)
    rows = balanced(labels.tolist(), pictures, seed=seed)
    trial = Trial(steps=steps, restarts=restarts, seed=seed)
    where = find_device(device)
    networks = {"base": run.base.to(where).eval(), "tuned": run.classifier.to(where).eval()}
    chosen = [listed[row] for row in rows]
    keys = {name: _key(network, chosen, trial) for name, network in networks.items()}
    stored = _stored(folder, split, keys)
    if stored is not None:
        reporter.say(f"read from {str(folder / RECORD)!r}: the same weights, pictures and settings")
        return stored
    began = time.monotonic()
    lasting = _Lasting(folder / PARTS, reporter)
    endured = {
        name: lasting.all_of(
            name,
            networks[name],
            keys[name],
            [files[row] for row in rows],
            labels[rows],
            [one.path for one in chosen],
            trial,
        )
        for name in networks
    }
    result = robustness_of(
        endured["base"],
        endured["tuned"],
        trial=trial,
        split=split,
        of=len(listed),
        classes=len(set(labels[rows].tolist())),
        seconds=time.monotonic() - began,
    )
    write_text(folder / FIGURE, robustness_figure(result))
    write_json(folder / RECORD, {"split": split, "keys": keys, "result": result.to_dict()})
    lasting.remove()
    return result


def _refuse_none(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")


def stored_robustness(run: Path) -> Robustness | None:
    """What was measured of a run last; None where there is nothing that can be read."""
    file = run / FOLDER / RECORD
    if not file.is_file():
        return None
    with suppress(RunError, KeyError, TypeError):
        return Robustness.from_dict(read_json(file)["result"])
    return None


def _stored(folder: Path, split: str, keys: dict[str, str]) -> Robustness | None:
    """The result of the very same weights, pictures and settings."""
    with suppress(RunError, KeyError, TypeError):
        if (folder / RECORD).is_file():
            kept = read_json(folder / RECORD)
            if kept["keys"] == keys and kept["split"] == split and (folder / FIGURE).is_file():
                return Robustness.from_dict(kept["result"])
    return None


def _key(network: Classifier, pictures: Sequence[Picture], trial: Trial) -> str:
    """What a network's results depend on."""
    weights = hash_tensors(dict(network.network.state_dict()))
    shown = "".join(f"{one.sha256} {one.label}\n" for one in pictures)
    settings = f"{weights} {network.input} {trial} {network.device.type} {_VERSION}\n{shown}"
    return sha256_bytes(settings.encode())


class _Lasting:
    """Long work in chunks of pictures, each saved when it is done.

    Args:
        folder: of the chunks' files.
        reporter: told how long all of it will take, and of the progress.
    """

    def __init__(self, folder: Path, reporter: Reporter):
        self._folder, self._reporter = folder, reporter
        self._told = False

    def all_of(
        self,
        name: str,
        network: Classifier,
        key: str,
        files: Sequence[Path],
        labels: torch.Tensor,
        paths: Sequence[str],
        trial: Trial,
    ) -> list[Endured]:
        """What one network stands, chunk by chunk."""
        attacked = Attacked(network)
        found: list[Endured] = []
        chunks = -(-len(files) // _CHUNK)
        with self._reporter.task(f"attacking {name}") as progress:
            for number in range(chunks):
                rows = slice(number * _CHUNK, (number + 1) * _CHUNK)
                file = self._folder / f"{name}-{number:04d}.json"
                part = self._kept(file, key)
                if part is None:
                    pictures = torch.stack([network.input.load(one) for one in files[rows]])
                    self._say_how_long(attacked, pictures, labels[rows], trial, 2 * len(files))

                    def heard(done: int, total: int, number: int = number) -> None:
                        progress(number * total + done, chunks * total)

                    part = endure(
                        attacked, pictures, labels[rows], paths[rows], trial, on_progress=heard
                    )
                    write_json(file, {"key": key, "rows": [one.to_dict() for one in part]})
                found += part
        return found

    def _kept(self, file: Path, key: str) -> list[Endured] | None:
        """What an earlier call left of the same work."""
        with suppress(RunError, KeyError, TypeError):
            if file.is_file():
                kept = read_json(file)
                if kept["key"] == key:
                    return [Endured.from_dict(one) for one in kept["rows"]]
        return None

    def _say_how_long(
        self,
        attacked: Attacked,
        pictures: torch.Tensor,
        labels: torch.Tensor,
        trial: Trial,
        n: int,
    ) -> None:
        """Once, from one step of the attack: an estimate, as fooled pictures are attacked no more."""
        if self._told:
            return
        self._told = True
        goal, budget = Goal(labels, targeted=False, aim=1e9), Budget("linf", 1 / 255)
        pgd(attacked, as_float(pictures), goal, budget, steps=1)
        began = time.monotonic()
        pgd(attacked, as_float(pictures), goal, budget, steps=1)
        step = (time.monotonic() - began) / len(pictures) / 2
        most = trial.steps * trial.restarts * (len(trial.epsilons) - 1) + _OTHER_STEPS
        fewest = trial.steps + _OTHER_STEPS
        self._reporter.say(
            f"{n} attacked pictures (base and tuned): about {duration(step * fewest * n)}, at most "
            f"{duration(step * most * n)} if none of them gives way"
        )

    def remove(self) -> None:
        """The chunks are in the result now."""
        for file in self._folder.glob("*.json"):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()


_OTHER_STEPS = 30
"""What DeepFool and the corruptions cost, in steps of PGD."""
