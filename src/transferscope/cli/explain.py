"""The verb `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Device, Json, Model, Quiet, Seed
from transferscope.terminal import Terminal
from transferscope.wording import number, percent, signed

if TYPE_CHECKING:
    from transferscope.explain.records import Explanation, Verdicts
    from transferscope.workflows.explain import Explained
    from transferscope.workflows.unit_explanations import UnitQuestion

ClassName = Annotated[
    str,
    typer.Option(
        "--class",
        help="Name, index, predicted, expected, or contrast: expected against predicted.",
    ),
]


@app.command()
@verb
def explain(
    model: Model,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...", help="Files, folders or patterns; with --check and a run: none."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for figures; default: explanations/ of the run.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated; default: grad_cam, or what passed the checks."),
    ] = None,
    name: ClassName = "predicted",
    versus: Annotated[
        str | None, typer.Option(help="A class whose logit is subtracted, or runner-up.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="base (of a run, with its probe), another model, or none.")
    ] = "base",
    random_head: Annotated[
        bool, typer.Option("--random-head", help="Also base with a random head, as a control.")
    ] = False,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="A file a picture, white on the object: how much lies on it."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Whose map grad_cam and layer_cam take.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Find which methods deserve belief on this network.")
    ] = False,
    units: Annotated[
        bool,
        typer.Option("--units", help="The channels that decide between --class and --versus."),
    ] = False,
    units_layer: Annotated[
        str | None, typer.Option(help="Whose channels; default: one that was drawn, or the last.")
    ] = None,
    accentuate: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER:CHANNEL", help="Exaggerate what a channel answers to in the picture."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show where in pictures an answer comes from, before and after transfer, and what to believe."""
    from transferscope.workflows.explain import MapQuestion
    from transferscope.workflows.explain import explain as explain_pictures

    terminal = Terminal(quiet)
    done = explain_pictures(
        model,
        images or [],
        out=out,
        question=MapQuestion(tuple(method or ()), name, versus, layer, seed),
        against=None if against == "none" else against,
        random_head=random_head,
        masks=mask or [],
        check=check,
        units=_units(units, units_layer, accentuate, seed),
        device=device,
        reporter=terminal,
    )
    if json_:
        print_json(done.to_dict())
        return
    _print(done, checked=check)
    for path, reason in done.failures:
        terminal.say(f"{path}: {reason}")


def _units(
    wanted: bool, layer: str | None, accentuate: str | None, seed: int
) -> UnitQuestion | None:
    """What is asked of single channels, if anything is."""
    from transferscope.workflows.unit_explanations import UnitQuestion, channel_of

    channel = None if accentuate is None else channel_of(accentuate)
    if not wanted and channel is None:
        return None
    return UnitQuestion(6 if wanted else 0, layer or (channel or (None,))[0], channel, seed)


def _print(done: Explained, *, checked: bool) -> None:
    """Verdicts where they were asked for, a row a figure and network, and what stands under the figures."""
    if checked and done.verdicts is not None:
        _say_verdicts(done.verdicts)
    if done.explanations:
        table(
            ("picture", "method", "class", "network", "-logit", "-probability", "figure"),
            [row for one in done.explanations for row in _rows(one, done.folder)],
        )
        for line in dict.fromkeys(map(_said, done.explanations)):
            if line:
                typer.echo(line)
    for one_units in done.units:
        for found in (one_units["units"], one_units["accentuated"]):
            if found is not None:
                typer.echo(str(done.folder / one_units["folder"] / found["figure"]))


def _rows(one: Explanation, folder: Path) -> list[tuple[str, ...]]:
    versus = f" against {one.against}" if one.against else ""
    return [
        (
            Path(one.picture).name if place == 0 else "",
            one.method if place == 0 else "",
            f"{one.target}{versus}" if place == 0 else "",
            network.network,
            signed(network.logit),
            percent(network.probability),
            str(folder / one.figure) if place == 0 else "",
        )
        for place, network in enumerate(one.networks)
    ]


def _said(one: Explanation) -> str:
    from transferscope.workflows.explanations import explanation_words

    words = explanation_words(one)
    return f"{Path(one.picture).name}, {one.method}: {words}" if words else ""


_OUTCOMES = {True: "passed", False: "failed", None: "open"}


def _say_verdicts(verdicts: Verdicts) -> None:
    """A row a method, a column a check: figure, and whether that is enough."""
    from transferscope.explain.records import CHECK_TITLES, CHECK_WORDS

    rows = []
    for one in verdicts.methods:
        found = {check.name: check for check in one.checks}
        cells = [
            f"{number(found[name].figure)} {_OUTCOMES[found[name].passed]}"
            if name in found
            else "–"
            for name in CHECK_TITLES
        ]
        verdict = "refused" if one.refused else _OUTCOMES[one.passed]
        rows.append((one.method, verdict, *cells))
    table(("method", "verdict", *CHECK_TITLES.values()), rows)
    typer.echo(f"\n{verdicts.pictures} recognised pictures: {verdicts.source}. {CHECK_WORDS}")
    for one in verdicts.methods:
        if one.passed is False:
            typer.echo(f"- {one.said}")
