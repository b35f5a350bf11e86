"""The verb `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Device, Json, Model, Precision, Quiet
from transferscope.errors import DataError, InputError
from transferscope.terminal import Terminal
from transferscope.wording import percent

if TYPE_CHECKING:
    from transferscope.backbones.classifier import Classifier
    from transferscope.evaluation.answers import Prediction
    from transferscope.report.figures.answers import Overlay

_COLUMNS = ("path", "place", "class", "probability", "error", "abstained", "known", "familiarity")


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
    false_alarms: Annotated[
        float,
        typer.Option(
            help="Share of pictures of the classes that may be called strangers, of none of them."
        ),
    ] = 0.05,
    csv: Annotated[Path | None, typer.Option(help="Write the guesses to this file too.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw pictures with their guesses: .svg, .png or .pdf.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="In --figure, show where each best guess comes from."),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The run's data folder, if it has moved: a run from before learns from it what is known."
        ),
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is on pictures. A file that cannot be read gets its own line with the reason.

    The exit code is 0 if at least one picture was read.
    """
    from transferscope.data.exclusions import say
    from transferscope.evaluation.strangers import allowance
    from transferscope.files import write_csv
    from transferscope.workflows.known_pictures import known_pictures
    from transferscope.workflows.open_model import open_model
    from transferscope.workflows.predict import predict as predict_pictures

    _refuse_wrong_files(csv, figure, explain=explain, strip=strip)
    terminal = Terminal(quiet)
    classifier = open_model(model, device=device)
    known = known_pictures(model, classifier=classifier, data=data, reporter=terminal)
    excluded: list[tuple[str, str]] = []
    with terminal.task("predicting") as progress:
        answers = predict_pictures(
            classifier,
            images,
            top=top,
            strip=strip,
            min_confidence=min_confidence,
            known=known,
            false_alarms=false_alarms,
            precision=precision,
            on_progress=progress,
            on_excluded=excluded.extend,
        )
    say(excluded, terminal.say)
    if known is not None:
        terminal.say(allowance(false_alarms, known.n).sentence)
    _print(answers, excluded, strip=strip, json_=json_)
    if csv:  # after the table: what was predicted is not lost if a file cannot be written
        write_csv(csv, _COLUMNS, [row for answer in answers for row in _csv_rows(answer)])
    if figure:
        _draw(figure, model if explain else None, classifier, answers, terminal)
    _refuse_nothing(answers)


def _refuse_nothing(answers: Sequence[Prediction]) -> None:
    if all(answer.error for answer in answers):
        raise DataError(
            f"not one of the pictures given ({len(answers)}) could be read as asked; the reasons stand "
            "beside their names"
        )


def _refuse_wrong_files(
    csv: Path | None, figure: Path | None, *, explain: bool, strip: int | None
) -> None:
    """Before the work."""
    from transferscope.files import refuse_name
    from transferscope.report.figures.answers import refuse_figure_suffix

    if explain and (figure is None or strip is not None):
        raise InputError(
            "--explain shows maps in the figure of whole pictures; give --figure FILE, and leave --strip out"
        )
    if figure:
        refuse_figure_suffix(figure)
    for file in (csv, figure):
        if file:
            refuse_name(file)


def _print(
    answers: Sequence[Prediction],
    excluded: Sequence[tuple[str, str]],
    *,
    strip: int | None,
    json_: bool,
) -> None:
    """A row a picture; in JSON the files that were passed over too."""
    from transferscope.evaluation.answers import Prediction

    if json_:
        taken = [{**answer.to_dict(), "excluded": False} for answer in answers]
        others = [Prediction(path, error=reason).to_dict() for path, reason in excluded]
        print_json([*taken, *({**other, "excluded": True} for other in others)])
    else:
        told = any(answer.familiarity is not None for answer in answers)
        table(
            ("picture", "strip" if strip else "", "-familiarity" if told else "", "guesses"),
            [(a.path, a.strip or "", _share(a.familiarity), _said(a)) for a in answers],
        )


def _share(familiarity: float | None) -> str:
    return "" if familiarity is None else percent(familiarity)


def _draw(
    figure: Path,
    explained: str | None,
    classifier: Classifier,
    answers: Sequence[Prediction],
    terminal: Terminal,
) -> None:
    """The figure of the answers; with the maps of a model that is explained."""
    from transferscope.report.figures.answers import SHOWN, write_answer_figure
    from transferscope.workflows.explained_answers import overlays_of

    overlays: dict[str, Overlay] = {}
    said = ""
    if explained is not None:
        drawn = [answer for answer in answers[:SHOWN] if answer.top]
        with terminal.task("explaining") as progress:
            overlays, said = overlays_of(explained, classifier, drawn, on_progress=progress)
    shown = write_answer_figure(figure, answers, overlays=overlays, overlay_words=said)
    if shown < len(answers):
        terminal.say(f"{figure} shows the first {shown} of {len(answers)} pictures")


def _said(answer: Prediction) -> str:
    """A prediction as one line."""
    if answer.error:
        return f"error: {answer.error}"
    guesses = ", ".join(f"{g.name} {g.probability:.1%}" for g in answer.top or answer.pieces)
    if answer.known is False:
        return f"none of these classes; if it had to be one: {guesses}"
    return f"unsure: {guesses}" if answer.abstained else guesses


def _csv_rows(answer: Prediction) -> list[tuple[str, ...]]:
    """A row a guess; of a file that could not be read, one with the reason."""
    if answer.error:
        return [(answer.path, "", "", "", answer.error, "", "", "")]
    words = {True: "yes", False: "no", None: ""}
    share = "" if answer.familiarity is None else f"{answer.familiarity:.6f}"
    rest = ("", words[answer.abstained], words[answer.known], share)
    return [
        (answer.path, str(place), guess.name, f"{guess.probability:.6f}", *rest)
        for place, guess in enumerate(answer.top or answer.pieces, start=1)
    ]
