"""`demo`: the whole job on generated pictures, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transferscope.data.demo import CONFUSABLE, demo_fonts, write_demo_set
from transferscope.errors import RunError
from transferscope.files import read_csv, write_json
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.compare import compare
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.predict import predict
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.tune import tune

DEMO_UNFREEZE, DEMO_EPOCHS, DEMO_RATE = 4, 3, 5e-4
"""Chosen on the validation fonts: four stages, as characters are far from photographs."""

DEMO_DRAWN, DEMO_SEEDS, DEMO_PATCHED = 3, 2, 64
"""Fewer than `compare` takes by itself, so that all of the demo ends within eight minutes."""


def demo(
    out: str | Path = "demo",
    *,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    reporter: Reporter = SILENT,
) -> Run:
    """The whole job on generated pictures: 36 characters in fonts that training has not seen.

    Writes the pictures, tunes, evaluates characters and four-character strips, compares and
    publishes the atlas, all in the one run folder `out`.

    Raises:
        RunError: `out` holds a run and `resume` was not asked for.
        InputError: the fonts that the pictures are drawn with are not installed.
    """
    out = Path(out)
    if out.exists() and not resume and any(p.name != ".lock" for p in out.iterdir()):
        raise RunError(
            f"{str(out)!r} holds a demo or other files already; --resume continues it, another --out "
            "starts a new one"
        )
    if not (out / "data").is_dir():
        demo_fonts()
        reporter.say("drawing 36 characters in fonts of three disjoint sets of families")
        write_demo_set(out / "data", seed=seed)
    run = tune(
        out / "data" / "characters",
        out=out,
        strategy="partial",
        unfreeze=DEMO_UNFREEZE,
        epochs=DEMO_EPOCHS,
        lr=DEMO_RATE,
        augment="none",
        seed=seed,
        device=device,
        confusable=CONFUSABLE,
        resume=resume,
        reporter=reporter,
    )
    if not (out / "evaluation" / "metrics.json").is_file():
        evaluate_run(run, device=device, reporter=reporter)
    if not (out / "evaluation" / "strips.json").is_file():
        write_json(out / "evaluation" / "strips.json", read_strips(run, reporter=reporter))
    if not (out / "comparison" / "comparison.json").is_file():
        compare(
            run,
            device=device,
            reporter=reporter,
            draw=DEMO_DRAWN,
            seeds=DEMO_SEEDS,
            patch=DEMO_PATCHED,
        )
    if not (out / "atlas" / "index.html").is_file():
        write_atlas(run, title="36 characters", reporter=reporter)
    return run


def read_strips(run: Run, *, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Reads the demo's strips: n, right, share, and the same with look-alikes counted as one."""
    folder = Path(run.config.data).parent
    if not (folder / "strips.csv").is_file():  # the run and its pictures were moved together
        folder = run.root.parent
    rows = read_csv(folder / "strips.csv")
    strips = [folder / row["path"] for row in rows]
    with reporter.task("reading strips") as progress:
        answers = predict(run.classifier, strips, strip=4, on_progress=progress)
    twins = {second: first for first, second in run.config.confusable}

    def merged(text: str | None) -> str:
        return "".join(twins.get(character, character) for character in text or "")

    right = sum(a.strip == row["text"] for a, row in zip(answers, rows, strict=True))
    alike = sum(
        merged(a.strip) == merged(row["text"]) for a, row in zip(answers, rows, strict=True)
    )
    n = len(rows)
    return {
        "n": n,
        "right": right,
        "share": right / n,
        "right_with_lookalikes_merged": alike,
        "share_with_lookalikes_merged": alike / n,
    }
