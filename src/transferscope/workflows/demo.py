"""`demo`: the whole job on generated pictures, or on one's own, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transferscope.data.demo import CONFUSABLE, demo_fonts, write_demo_set
from transferscope.errors import RunError
from transferscope.evaluation.mistakes import ErrorStudy
from transferscope.files import read_csv, read_json, write_json
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.compare import compare
from transferscope.workflows.evaluate import evaluate_run
from transferscope.workflows.explain import explain
from transferscope.workflows.predict import predict
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.tune import tune

DEMO_UNFREEZE, DEMO_EPOCHS, DEMO_RATE = 4, 3, 5e-4
"""Chosen on the validation fonts: four stages, as characters are far from photographs."""

DEMO_DRAWN, DEMO_SEEDS, DEMO_PATCHED = 3, 2, 64
"""Fewer than `compare` takes by itself, so that all of the demo ends within eight minutes."""


EXPLAINED = 6
"""Pictures that `demo` explains: the surest errors, then the answers that it was least sure of."""


def demo(
    out: str | Path = "demo",
    *,
    data: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    reporter: Reporter = SILENT,
) -> Run:
    """The whole job: on generated pictures, 36 characters in fonts that training has not seen, or on one's own.

    Tunes, evaluates, compares and publishes the atlas, all in the one run folder `out`. Of the characters
    it writes the pictures first and reads four-character strips too; on one's own pictures part of the
    network is tuned even where the probe would do, each further step is as the verb of its name does it by
    itself, and some answers are explained.

    Args:
        out: the run folder.
        data: pictures as `tune` takes them; None: the generated characters.
        seed: of the pictures and of tuning.
        device: None: the best here.
        resume: goes on where an earlier call was stopped.
        reporter: hears of the progress.

    Raises:
        RunError: `out` holds a run and `resume` was not asked for.
        InputError: the fonts that the characters are drawn with are not installed.
        DataError: `data` cannot be trained on.
    """
    out = Path(out)
    if out.exists() and not resume and any(p.name != ".lock" for p in out.iterdir()):
        raise RunError(
            f"{str(out)!r} holds a demo or other files already; --resume continues it, another --out "
            "starts a new one"
        )
    if data is not None:
        return _of_own(Path(data), out, seed=seed, device=device, resume=resume, reporter=reporter)
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


def _of_own(
    data: Path, out: Path, *, seed: int, device: str | None, resume: bool, reporter: Reporter
) -> Run:
    # `auto` may keep the probe, whose body is untuned: there would be no transfer to look at.
    run = tune(
        data,
        out=out,
        strategy="partial",
        seed=seed,
        device=device,
        resume=resume,
        reporter=reporter,
    )
    if not (out / "evaluation" / "metrics.json").is_file():
        evaluate_run(run, device=device, reporter=reporter)
    if not (out / "comparison" / "comparison.json").is_file():
        compare(run, device=device, reporter=reporter)
    study, home = out / "evaluation" / "study.json", out / "explanations"
    if study.is_file() and not home.is_dir():
        found = ErrorStudy.from_dict(read_json(study))
        doubts = [*found.worst[: EXPLAINED // 2], *found.uncertain]
        paths = list(dict.fromkeys(one.path for one in doubts))[:EXPLAINED]
        if paths:
            explain(run, [run.root / path for path in paths], device=device, reporter=reporter)
    if not (out / "atlas" / "index.html").is_file():
        write_atlas(run, reporter=reporter)
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
