"""How many channels a transfer taught something, and how many each of its controls seems to have learned.

    python benchmarks/learned.py --run runs/photos [--controls 3] [--all-witnesses] [--rows FILE]

Class information gained on held-out pictures, in the default layers behind the freeze boundary, against control
transfers: `learned` of the run against all of its controls, and of each control, taken as the tuned network,
against the others, where whatever is found is false. `any` is the share of controls of which anything is.
Prints one JSON line; times are of this process and include what it had to make.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.backbones.stages import default_layers, stages_of
from transferscope.comparison.change import (
    Responses,
    Witnessed,
    learned_channels,
    save_rows,
    witnessed_channels,
)
from transferscope.comparison.witnesses import WITNESSES
from transferscope.comparison.witnesses.class_information import class_information
from transferscope.features.extraction import boundary_rows
from transferscope.features.responses import resumed_responses
from transferscope.workflows.controls import control_tails, load_tail
from transferscope.workflows.run import Run, files_of, labels_of

ONE = {"class_information": WITNESSES["class_information"]}


def counts_by_layer(rows: tuple[Witnessed, ...]) -> dict[str, Any]:
    """Counts by layer of channels that learned, gained over base, or lie beyond the controls."""
    asked = [row for row in rows if row.witness == "class_information"]

    def counts(chosen: list[Witnessed]) -> dict[str, int]:
        return dict(Counter(row.layer for row in chosen))

    return {
        "learned": counts(list(learned_channels(rows))),
        "beyond": counts([row for row in asked if row.q <= 0.05]),
        "gain": counts([row for row in asked if row.low > 0]),
        "tested": counts(asked),
    }


def responses_of(run: Run, count: int) -> tuple[dict[str, Responses], np.ndarray, dict[str, float]]:
    """Responses of base, tuned and controls to the test pictures, their labels, and seconds taken."""
    began = time.perf_counter()
    tails = control_tails(run, count)
    seconds = {"controls": round(time.perf_counter() - began, 1)}
    boundary = run.results["boundary"]
    assert boundary, "a run that was tuned behind a boundary is needed"
    began = time.perf_counter()
    files, pictures = files_of(run, "test", None)
    rows = boundary_rows(run.base, files, [p.sha256 for p in pictures], boundary)
    stages = stages_of(run.base)
    layers = [
        one for one in default_layers(run.base) if one in stages[stages.index(boundary) + 1 :]
    ]
    networks = {"base": run.base, "tuned": run.classifier}
    networks |= {tail.file.stem: load_tail(run, tail) for tail in tails}
    found: dict[str, Responses] = {
        name: {
            layer: values.double().numpy()
            for layer, values in resumed_responses(one, boundary, rows, layers).items()
        }
        for name, one in networks.items()
    }
    seconds["responses"] = round(time.perf_counter() - began, 1)
    return found, labels_of(pictures).numpy(), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--controls", type=int, default=3)
    parser.add_argument("--all-witnesses", action="store_true")
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    networks, labels, seconds = responses_of(Run(given.run), given.controls)
    base, tuned = networks.pop("base"), networks.pop("tuned")
    began = time.perf_counter()
    rows = witnessed_channels(
        base,
        tuned,
        list(networks.values()),
        labels,
        witnesses=WITNESSES if given.all_witnesses else ONE,
    )
    seconds["witnesses"] = round(time.perf_counter() - began, 1)
    if given.rows:
        save_rows(rows, given.rows)
    false = {}
    if given.controls > 2:
        for name, control in networks.items():
            others = [values for other, values in networks.items() if other != name]
            false[name] = counts_by_layer(
                witnessed_channels(base, control, others, labels, witnesses=ONE)
            )
    channels = sum(values.shape[1] for values in base.values())
    shares = [sum(one["learned"].values()) / channels for one in false.values()]
    every = {"base": base, "tuned": tuned, **networks}
    print(
        json.dumps(
            {
                "pictures": len(labels),
                "channels": channels,
                "controls": given.controls,
                **counts_by_layer(rows),
                "medians": {
                    name: {
                        layer: round(float(np.median(class_information(values, labels))), 3)
                        for layer, values in one.items()
                    }
                    for name, one in every.items()
                },
                "false": false,
                "false_share": round(float(np.mean(shares)), 4) if shares else None,
                "any": round(float(np.mean(np.array(shares) > 0)), 2) if shares else None,
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
