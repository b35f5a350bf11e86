"""Verbs that ask a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferscope.cli.options import (
    Device,
    Json,
    Model,
    Precision,
    Quiet,
    RunPath,
)
from transferscope.cli.talking import app, print_json, table, verb
from transferscope.errors import DataError
from transferscope.terminal import Terminal, plain

if TYPE_CHECKING:
    from transferscope.evaluation import Prediction

CLASSES_SHOWN = 15
"""Classes at either end of a table in the terminal; the report has all."""

FILES_SHOWN = 10


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
    device: Device = None,
    precision: Precision = "fp32",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Figures with their intervals, calibration, errors, probable label errors.

    Everything is in the run's folder evaluation/ too: figures, study.csv, metrics.json. The atlas shows it.
    """
    from transferscope.evaluation.told import figures_told, told
    from transferscope.workflows import Run, evaluate_run

    opened = Run(run)
    result = evaluate_run(
        opened,
        split=split,
        data=data,
        tta=tta,
        against=against,
        device=device,
        precision=precision,
        reporter=Terminal(quiet),
    )
    if json_:
        print_json(result.to_dict())
        return
    pairs = ", ".join("/".join(pair) for pair in opened.config.confusable)
    columns = ("measure", f"-{result.split}, {result.n} pictures", "")
    table(columns, figures_told(result, look_alikes=pairs))
    for sentence in told(result):
        typer.echo(f"\n{plain(sentence)}")
    typer.echo("")
    worst = sorted(result.per_class.items(), key=lambda item: (item[1].accuracy, item[0]))
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
            for name, one in worst
        ],
    )


@app.command()
@verb
def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Files, folders, patterns, or - for a list on stdin."
        ),
    ],
    top: Annotated[int, typer.Option(help="Guesses a picture.")] = 5,
    strip: Annotated[
        int | None, typer.Option(help="Cut each picture into N pieces and read them.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="Abstain where the best guess is less probable, 0 to 1.")
    ] = 0.0,
    csv: Annotated[Path | None, typer.Option(help="Write the guesses to this file too.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw pictures with their guesses: .svg, .png or .pdf.")
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is on pictures. A file that cannot be read gets its own line with the reason.

    The exit code is 0 if at least one picture was read.
    """
    from transferscope.evaluation import predict as predict_pictures
    from transferscope.report.figures.answers import refuse_figure_suffix, write_answer_figure
    from transferscope.storage import write_csv
    from transferscope.workflows import open_model

    if figure:
        refuse_figure_suffix(figure)
    terminal = Terminal(quiet)
    classifier = open_model(model, device=device)
    with terminal.task("predicting") as progress:
        answers = predict_pictures(
            classifier,
            images,
            top=top,
            strip=strip,
            min_confidence=min_confidence,
            precision=precision,
            on_progress=progress,
        )
    if json_:
        print_json([answer.to_dict() for answer in answers])
    else:
        table(
            ("picture", "strip" if strip else "", "guesses"),
            [(a.path, a.strip or "", _said(a)) for a in answers],
        )
    # After the table: what was predicted is not lost if a file cannot be written.
    if csv:
        write_csv(
            csv,
            ("path", "place", "class", "probability", "error", "abstained"),
            [row for answer in answers for row in _csv_rows(answer)],
        )
    if figure:
        shown = write_answer_figure(figure, answers)
        if shown < len(answers):
            terminal.say(f"{figure} shows the first {shown} of {len(answers)} pictures")
    if all(answer.error for answer in answers):
        raise DataError(
            f"not one of the pictures given ({len(answers)}) could be read as asked; the reasons stand "
            "beside their names"
        )


def _said(answer: Prediction) -> str:
    """A prediction as one line."""
    if answer.error:
        return f"error: {answer.error}"
    guesses = ", ".join(f"{g.name} {g.probability:.1%}" for g in answer.top or answer.pieces)
    return f"unsure: {guesses}" if answer.abstained else guesses


def _csv_rows(answer: Prediction) -> list[tuple[str, str, str, str, str, str]]:
    """A row a guess; of a file that could not be read, one with the reason."""
    if answer.error:
        return [(answer.path, "", "", "", answer.error, "")]
    abstained = "yes" if answer.abstained else "no"
    return [
        (answer.path, str(place), guess.name, f"{guess.probability:.6f}", "", abstained)
        for place, guess in enumerate(answer.top or answer.pieces, start=1)
    ]
