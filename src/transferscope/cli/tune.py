"""The verb that trains. Its options are those of `training.config`; here they become typer's."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from transferscope.cli.app import app, print_json, source_of, table, verb
from transferscope.cli.options import Data, Json, Quiet, Root
from transferscope.terminal import Terminal
from transferscope.training.config import TuneOptions
from transferscope.training.options import asked_for, choices
from transferscope.training.recipe import Recipe


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb, besides its own parameters, one for every declared option of `tune`."""
    own = dict(inspect.signature(function, eval_str=True).parameters)
    own.pop("options")
    made = {
        name: _parameter(name, flag, field, owner)
        for owner in (TuneOptions, Recipe)
        for name, (flag, field) in asked_for(owner).items()
    }
    first = [own.pop("data"), made.pop("out"), made.pop("dataset"), own.pop("root")]
    parameters = [*first, *made.values(), *own.values()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=keyword) for parameter in parameters]
    )
    function.__annotations__ = {one.name: one.annotation for one in parameters}
    return function


def _parameter(name: str, flag: str, field: FieldInfo, owner: type) -> inspect.Parameter:
    """One option. One of the recipe is None where it is not given: the strategy decides, by the help."""
    extra: Any = field.json_schema_extra
    help_text, default = str(field.description), field.default
    typed: Any = field.annotation
    if typed is bool:
        if default:
            flag, help_text = flag.replace("--", "--no-"), extra["off"]
        default = False
    elif owner is Recipe:
        help_text = (
            f"{help_text.rstrip('.')}; default {default if choices(field) else f'{default:g}'}."
        )
        typed, default = (str if "auto" in (extra["metavar"] or "") else typed) | None, None
    elif get_origin(typed) is tuple:
        several = get_args(typed)[-1] is Ellipsis
        typed, default = (list[str], None) if several else (str, "/".join(map(str, default)))
    option = typer.Option(
        flag,
        help=help_text,
        metavar=extra["metavar"],
        rich_help_panel=extra["panel"] or getattr(owner, "PANEL", None),
        show_default=default is not None and typed is not bool,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else default,
        annotation=Annotated[typed, option],
    )


@app.command()
@verb
@_with_options
def tune(
    data: Data = None,
    root: Root = None,
    json_: Json = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Fine-tune a pretrained network on a folder of pictures."""
    from transferscope.distributed import reports_for_all
    from transferscope.workflows.run import CANDIDATE_COLUMNS
    from transferscope.workflows.tune import tune as run_tune

    for name, (_, field) in asked_for(Recipe).items():
        if field.annotation is bool:  # an option that was given says the opposite of the default
            options[name] = not field.default if options[name] else None
    options["loggers"] = options["loggers"] or ()
    source = source_of(data, options["dataset"], root)
    run = run_tune(source, reporter=Terminal(quiet or not reports_for_all()), **options)
    if not reports_for_all():
        return
    results = run.results
    if json_:
        names = ("strategy", "seconds", "cached", "validation", "candidates", "choice")
        report = {key: results[key] for key in names if key in results}
        print_json({"run": str(run.path), "backbone": run.config.backbone, **report})
        return
    table(CANDIDATE_COLUMNS, run.candidate_rows())
    typer.echo(
        f"\n{run.path}: {results['seconds']} s, features of {results['cached']} pictures were cached; "
        f"next: {shlex.join(('transferscope', 'evaluate', str(run.path)))}"
    )
