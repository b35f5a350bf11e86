"""Targeted PGD at 4/255, verified from PNG, on correctly recognised test pictures; foolbox at equal budget.

    python benchmarks/attacks.py --data clothing/ --run runs/clothing [--pictures 100] [--foolbox PYTHON]

Prints the processor's flags, and one JSON line. `--foolbox` is the Python of an environment that has foolbox
(3.3.4) beside what this one has; without it the oracle is left out. Each picture gets a target drawn at random
among the other classes. foolbox's success is counted in floating point, where it optimises, and from PNG.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from transferscope.acceleration.memory import reuse_memory
from transferscope.adversarial.attacked import Attacked
from transferscope.adversarial.attacks import png_of
from transferscope.adversarial.budgets import Budget
from transferscope.adversarial.projected_gradient import MARGIN, Goal, pgd
from transferscope.adversarial.robustness import balanced
from transferscope.images import as_float
from transferscope.workflows.run import Run, files_of, labels_of

EPSILON, STEPS = 4 / 255, 40


def chosen(run: Run, data: str | None, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n correctly recognised test pictures, uint8, and a target for each."""
    files, listed = files_of(run, "test", data)
    labels = labels_of(listed)
    attacked = Attacked(run.classifier.eval())
    kept, truth = [], []
    for row in np.random.default_rng(0).permutation(balanced(labels.tolist(), 2 * n)).tolist():
        picture = run.classifier.input.load(files[row])
        if int(attacked.exact(picture[None]).argmax()) == int(labels[row]):
            kept.append(picture)
            truth.append(int(labels[row]))
        if len(kept) == n:
            break
    classes = len(run.classifier.classes)
    shifts = np.random.default_rng(1).integers(1, classes, len(truth))
    return torch.stack(kept), torch.tensor((np.array(truth) + shifts) % classes)


def from_png(attacked: Attacked, pictures: torch.Tensor, targets: torch.Tensor) -> int:
    """How many pictures in [0, 1] are taken for their targets once they are in a file."""
    load = attacked.classifier.input.load
    bytes_ = (pictures * 255).round().to(torch.uint8)
    files = torch.stack([load(io.BytesIO(png_of(one))) for one in bytes_])
    return int((attacked.exact(files).argmax(1) == targets).sum())


def ours(attacked: Attacked, pictures: torch.Tensor, targets: torch.Tensor) -> dict[str, object]:
    began = time.perf_counter()
    goal = Goal(targets, targeted=True, aim=MARGIN)
    found = pgd(attacked, as_float(pictures), goal, Budget("linf", EPSILON), steps=STEPS)
    seconds = time.perf_counter() - began
    return {
        "from_png": from_png(attacked, found.pictures, targets),
        "with_margin": int((found.leads >= MARGIN).sum()),
        "seconds": round(seconds, 1),
    }


def noise(attacked: Attacked, pictures: torch.Tensor, targets: torch.Tensor) -> int:
    """The control: pictures taken for their target under random noise of the same size."""
    signs = [torch.Generator().manual_seed(row) for row in range(len(pictures))]
    made = Budget("linf", EPSILON).corner(as_float(pictures), signs)
    return from_png(attacked, made, targets)


def oracle(run: Run, folder: Path, batch: int = 10) -> dict[str, object]:
    """foolbox's targeted PGD with as many steps; runs in the environment that has it."""
    import foolbox

    stored = np.load(folder / "pictures.npz")
    pictures, targets = torch.from_numpy(stored["pictures"]), torch.from_numpy(stored["targets"])
    attacked = Attacked(run.classifier.eval())
    model = foolbox.PyTorchModel(run.classifier.eval(), bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / STEPS, steps=STEPS)
    made = []
    began = time.perf_counter()
    for rows in torch.arange(len(pictures)).split(batch):
        criterion = foolbox.criteria.TargetedMisclassification(targets[rows])
        _, clipped, _ = attack(model, as_float(pictures[rows]), criterion, epsilons=EPSILON)
        made.append(clipped)
    seconds = time.perf_counter() - began
    found = torch.cat(made)
    return {
        "in_float": int((attacked.exact(found).argmax(1) == targets).sum()),
        "from_png": from_png(attacked, found, targets),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--foolbox", help="Python of an environment with foolbox")
    parser.add_argument("--oracle-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    reuse_memory()
    run = Run(options.run)
    if options.oracle_in:
        print(json.dumps(oracle(run, options.oracle_in)))
        return
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split("flags", 1)[-1].split("\n")[0].split() if cpu.exists() else []
    print("flags:", *(one for one in flags if one.startswith(("avx", "amx", "fma"))))
    pictures, targets = chosen(run, options.data, options.pictures)
    attacked = Attacked(run.classifier.eval())
    report: dict[str, object] = {
        "pictures": len(pictures),
        "epsilon": "4/255",
        "steps": STEPS,
        "ours": ours(attacked, pictures, targets),
        "noise_from_png": noise(attacked, pictures, targets),
    }
    print(json.dumps(report), file=sys.stderr, flush=True)  # kept, should the oracle fail
    if options.foolbox:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            np.savez(
                Path(folder, "pictures.npz"), pictures=pictures.numpy(), targets=targets.numpy()
            )
            # fmt: off
            command = [options.foolbox, __file__, "--run", str(options.run), "--oracle-in", folder]
            # fmt: on
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report["foolbox"] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())
