"""`compare --plan`: what a comparison has still to do, and how long that takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transferscope.backbones.classifier import Classifier
from transferscope.comparison.geometry import frozen_up_to
from transferscope.comparison.shortlist import shortlist
from transferscope.machine import cache_dir
from transferscope.records import Record
from transferscope.visualize.plan import Plan
from transferscope.visualize.units import Sweep
from transferscope.wording import duration
from transferscope.workflows.compare import Question, Work
from transferscope.workflows.controls import tails_left
from transferscope.workflows.pair import open_pair
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.shortlist_drawings import Shortlist


@dataclass(frozen=True)
class ComparisonPlan(Record):
    """What a comparison has still to do.

    Attributes:
        layers: that it asks.
        tails: control transfers and retunings.
        tails_left: of these, those that are still to be made.
        tail_seconds: that one took to train when the run itself was tuned.
        drawings: of all channels, networks and seeds.
        drawing_seconds: that all of them take, as measured on a few now.
        disk_mb: that all of them take.
    """

    layers: tuple[str, ...]
    tails: int
    tails_left: int
    tail_seconds: float
    drawings: int
    drawing_seconds: float
    disk_mb: float

    @property
    def seconds(self) -> float:
        """Of all that is left."""
        return self.tails_left * self.tail_seconds + self.drawing_seconds

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {**super().to_dict(), "seconds": self.seconds}

    def sentences(self) -> list[str]:
        """The same in words."""
        return [
            f"layers: {', '.join(self.layers)}",
            f"{self.tails_left} of {self.tails} control transfers and retunings are to be made, "
            f"about {duration(self.tail_seconds)} each as the run itself took",
            f"{self.drawings} drawings at most, {duration(self.drawing_seconds)}, {self.disk_mb:.1f} MB",
            f"about {duration(self.seconds)} in all",
        ]


def plan_compare(
    run: Run,
    second: Run | Classifier | str | Path | None = None,
    *,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
    **options: object,
) -> ComparisonPlan:
    """What `compare` with the same arguments has still to do, measured on a few drawings; nothing is kept.

    Which channels are drawn is known only when the controls are made, so channels at random stand for them.
    """
    asked = Question(**options)  # type: ignore[arg-type]  # checked by its own __post_init__
    run = run.at(data)
    pair = open_pair(run, second, weights=weights, device=device)
    names = Work(run, asked, pair, device, reporter).layers()
    behind = [name for name in names if not frozen_up_to(*pair.both, name)]
    tails = asked.controls + asked.retunings if behind and pair.of_run else 0
    left = 0
    if tails:
        left = tails_left(run, "control", asked.controls)
        left += tails_left(run, "retuning", asked.retunings)
    epochs = [float(row["seconds"]) for row in run.history if int(row["epoch"])]
    kept = next((int(row["epoch"]) for row in run.history if row["best"] == "1"), 0)
    channels, seed = pair.channels("tuned"), run.config.seed
    chosen = {name: shortlist((), name, channels[name], asked.draw, seed=seed) for name in behind}
    sweep = Sweep(cache_dir() / "sweep", kept=run.path / "sweep")
    drawn = Shortlist(
        pair.networks, chosen, tuple(range(asked.seeds)), (), (), {}, sweep, asked.steps
    )
    plans = []
    for network, classifier in pair.networks.items():
        units = [unit for name, unit in drawn.units() if name == network]
        with reporter.task(f"drawing a few, to measure: {network}"):
            plans.append(Plan.of(sweep, classifier, units))
    return ComparisonPlan(
        layers=names,
        tails=tails,
        tails_left=left,
        tail_seconds=round(sum(epochs[:kept]), 1),
        drawings=sum(plan.pictures for plan in plans),
        drawing_seconds=round(sum(plan.seconds for plan in plans), 1),
        disk_mb=round(sum(plan.disk_mb for plan in plans), 1),
    )
