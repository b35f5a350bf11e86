"""A made-up record of how well strangers are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transferscope.evaluation.detection import Detection, Example, Told
from transferscope.evaluation.strangers import DEFAULT_SCORE, SCORES


def result(
    root: Path = Path("strange"), paths: Sequence[str] = ("a/0.png",), *, caught: float | None = 0.9
) -> Detection:
    """Of 40 strangers and 60 pictures of the classes; without a threshold where `caught` is None."""

    def told(auroc: float) -> Told:
        if caught is None:
            return Told(auroc, (auroc - 0.1, auroc + 0.02), None, None, None, None)
        spread = (caught - 0.1, caught + 0.05)
        return Told(auroc, (auroc - 0.1, auroc + 0.02), caught, spread, 0.05, (0.02, 0.14))

    scores = {name: told(0.97 - 0.05 * place) for place, name in enumerate(SCORES)}
    main = scores[DEFAULT_SCORE]
    wrong = Example(paths[0], "<羊>", 0.97, 0.4, "b & c", paths[0])
    return Detection(
        name="<strange>",
        root=str(root),
        n=40,
        own=60,
        split="test",
        allowed=0.05,
        validation=99 if caught is not None else 9,
        range=(0.02, 0.1) if caught is not None else None,
        score=DEFAULT_SCORE,
        auroc=main.auroc,
        auroc_interval=main.auroc_interval,
        caught=main.caught,
        caught_interval=main.caught_interval,
        false_alarms=main.false_alarms,
        false_alarms_interval=main.false_alarms_interval,
        scores=scores,
        called={"<羊>": 30, "b": 10},
        missed=(wrong,),
        alarmed=(wrong,),
        familiarity_strangers=tuple(np.linspace(0.01, 0.3, 40).tolist()),
        familiarity_own=tuple(np.linspace(0.01, 1, 60).tolist()),
        seen=2,
    )
