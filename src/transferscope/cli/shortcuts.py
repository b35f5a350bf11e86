"""The verb `shortcuts`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Json, Quiet, RunPath, Seed
from transferscope.terminal import Terminal
from transferscope.wording import counted

_SHOWN = 20  # cues in the terminal's table


@app.command()
@verb
def shortcuts(
    run: RunPath,
    correct: Annotated[
        bool, typer.Option("--correct", help="Write a run that no longer follows them, as --out.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="With --correct: a new folder.")
    ] = None,
    by: Annotated[
        Literal["direction", "last-layer", "retune"],
        typer.Option(
            help="direction: the cue is projected out of the head, without training; last-layer: "
            "the head is fitted anew, on pictures with their cues changed too; retune: all is tuned again, on "
            "pictures with their cues exchanged at random."
        ),
    ] = "direction",
    data: Annotated[Path | None, typer.Option(help="The data folder, if it has moved.")] = None,
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Cues that the network follows in place of the object: watermarks, borders, colours of one class.

    Cues that tell a class by themselves are moved between held-out pictures; an alarm is one that the
    predictions follow. Everything is in the run's folder shortcuts/ too; the atlas shows it.
    """
    from transferscope.errors import InputError
    from transferscope.workflows.run import Run
    from transferscope.workflows.shortcut_correction import correct_shortcuts
    from transferscope.workflows.shortcuts import shortcuts as find

    if correct != (out is not None):
        raise InputError("--correct and --out go together: the corrected run is written to --out")
    opened, terminal = Run(run), Terminal(quiet)
    if out is None:
        result = find(opened, data=data, seed=seed, reporter=terminal)
    else:
        result = correct_shortcuts(opened, out, by=by, data=data, seed=seed, reporter=terminal)
    if json_:
        print_json(result.to_dict())
        return
    rows = [
        (
            one.label,
            one.cue,
            "ALARM" if one.alarm else "",
            f"{one.given.effect:z.0%} [{one.given.low:z.0%}, {one.given.high:z.0%}]",
            f"{one.taken.effect:z.0%} [{one.taken.low:z.0%}, {one.taken.high:z.0%}]",
            f"{one.q:.2g}",
        )
        for one in result.candidates
    ]
    table(("class", "cue", "", "-given to others", "-taken from it", "-q"), rows[:_SHOWN])
    if len(rows) > _SHOWN:
        typer.echo(f"\nThe {_SHOWN} strongest of {len(rows)} cues; --json has all.")
    typer.echo(f"\n{_summary(len(result.alarms), len(rows))}" if rows else _summary(0, 0))
    if result.corrected is not None:
        typer.echo("")
        before, after = result.corrected.before, result.corrected.after
        lines = [
            (name, str(one.n), f"{one.accuracy:.1%}", f"{after[name].accuracy:.1%}")
            for name, one in before.items()
        ]
        table(("pictures", "-n", "-before", "-after"), lines)
        typer.echo(f"\ncorrected run: {result.corrected.run}")


def _summary(alarms: int, asked: int) -> str:
    """How many cues the network was found to follow, and what none does not mean."""
    if not asked:
        return "no cue that can be moved tells a class beyond chance, so none was asked"
    if not alarms:
        return (
            f"none of {counted(asked, 'cue')} raises an alarm; what so few pictures cannot show may be there "
            "all the same"
        )
    raised, them = ("raises", "it") if alarms == 1 else ("raise", "them")
    return (
        f"{alarms} of {counted(asked, 'cue')} {raised} an alarm: on held-out pictures the probability of the "
        f"class follows {them}"
    )
