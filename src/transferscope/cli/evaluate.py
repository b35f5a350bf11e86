"""The verb `evaluate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Device, Json, Precision, Quiet, RunPath
from transferscope.terminal import Terminal, plain

if TYPE_CHECKING:
    from transferscope.evaluation.metrics import Evaluation
    from transferscope.workflows.run import Run

_SHOWN, _SPARE = 40, 10  # classes in the terminal's table; so many more are no reason to cut it


@app.command()
@verb
def evaluate(
    run: RunPath,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The data folder, if it has moved; or another set with the same classes."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    tta: Annotated[
        int, typer.Option(help="Average over N views of each picture; says gain and cost.")
    ] = 0,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN2", help="Compare with another run, picture by picture."),
    ] = None,
    strangers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures of none of the classes: how many are told."),
    ] = None,
    false_alarms: Annotated[
        float, typer.Option(help="Share of the classes' pictures that may be taken for strangers.")
    ] = 0.05,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Accuracy by group: a table's column, folder:1, a pattern in paths, EXIF's camera or year.",
        ),
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Figures with their intervals, calibration, errors, probable label errors.

    Everything is in the run's folder evaluation/ too: figures, study.csv, metrics.json. The atlas shows it.
    """
    from transferscope.workflows.evaluate import evaluate_run
    from transferscope.workflows.run import Run

    opened = Run(run)
    result = evaluate_run(
        opened,
        split=split,
        data=data,
        tta=tta,
        against=against,
        strangers=strangers,
        false_alarms=false_alarms,
        by=by,
        device=device,
        precision=precision,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(result.to_dict())
        return
    _print(opened, result, by)
    compared = (opened.path / "comparison" / "comparison.json").is_file()
    following = "atlas" if compared or opened.untuned else "compare"
    typer.echo(f"\nnext: {shlex.join(('transferscope', following, str(run)))}")


def _print(run: Run, result: Evaluation, by: str | None) -> None:
    """The measures, sentences, classes, strangers and groups as tables."""
    from transferscope.evaluation.detection import SCORE_COLUMNS, score_rows
    from transferscope.evaluation.groups import group_rows
    from transferscope.evaluation.sentences import measure_rows, summary_sentences

    pairs = ", ".join("/".join(pair) for pair in run.config.confusable)
    columns = ("measure", f"-{result.split}, {result.n} pictures", "")
    table(columns, measure_rows(result, look_alikes=pairs))
    for sentence in summary_sentences(result):
        typer.echo(f"\n{plain(sentence)}")
    typer.echo("")
    _print_classes(result)
    if result.strangers:
        typer.echo("")
        table(SCORE_COLUMNS, score_rows(result.strangers))
    if result.groups:
        rows = group_rows(result.groups)
        typer.echo("")
        title = ("-pictures", "-right", "-95% interval", "-against the rest", "-95% interval", "")
        table((by or "group", *title), rows[:_SHOWN])
        if len(rows) > _SHOWN:
            typer.echo(f"\nThe {_SHOWN} worst of {len(rows)} groups; --json has all.")


def _print_classes(result: Evaluation) -> None:
    """The classes recognised worst."""
    worst = sorted(result.per_class.items(), key=lambda item: (item[1].accuracy, item[0]))
    shown = worst if len(worst) <= _SHOWN + _SPARE else worst[:_SHOWN]
    table(
        ("class", "-pictures", "-right", "-95% interval", "-precision", "-F1", "-trained on"),
        [
            (
                name,
                str(one.n),
                f"{one.accuracy:.1%}",
                f"{one.interval[0]:.0%} to {one.interval[1]:.0%}",
                "-" if one.precision is None else f"{one.precision:.1%}",
                f"{one.f1:.3f}",
                "-" if one.training is None else str(one.training),
            )
            for name, one in shown
        ],
    )
    if len(shown) < len(worst):
        typer.echo(
            f"\nThe {len(shown)} classes recognised worst, of {len(worst)}; --json has all, the atlas too."
        )
