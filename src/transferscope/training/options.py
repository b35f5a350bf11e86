"""Options declared once: the fields of a dataclass, each with its type, default, limits and help.

Python's arguments are checked by them, the command line's options and a JSON schema are generated from
them. Light to import: `transferscope --help` does it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from transferscope.errors import InputError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

ONLY_DECLARED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of the dataclasses of options: a field that is not declared is refused, and a number that is not finite."""

_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_KINDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    tuple: "a tuple of the right length",
}


def setting(default: Any, help: str, *, derived: bool = False, **limits: float) -> Any:
    """A field that is no option of the command line.

    Args:
        default: `...`: it must be given.
        help: one sentence, which the JSON schema has too.
        derived: it follows from other arguments, and is none itself.
        limits: gt, ge, lt, le.
    """
    extra = {"derived": True} if derived else None
    return Field(default, description=help, json_schema_extra=extra, **limits)  # type: ignore[call-overload]


def option(
    default: Any,
    help: str,
    panel: str | None = None,
    *,
    name: str | None = None,
    metavar: str | None = None,
    off: str | None = None,
    **limits: float,
) -> Any:
    """A field that is an option of the command line too.

    Args:
        default, help, limits: see `setting`.
        panel: of the verb's help; None: the class's `PANEL`, if it has one.
        name: of the option, without dashes, where it is not the field's.
        metavar: what the help shows for the value.
        off: help of the option that sets False, of a field that is True by default.
    """
    extra: dict[str, Any] = {"option": name, "panel": panel, "metavar": metavar, "off": off}
    return Field(default, description=help, json_schema_extra=extra, **limits)  # type: ignore[call-overload]


def declared(owner: type) -> dict[str, FieldInfo]:
    """The fields of a class of options, by name."""
    fields: dict[str, FieldInfo] = vars(owner)["__pydantic_fields__"]
    return fields


def asked_for(owner: type) -> dict[str, tuple[str, FieldInfo]]:
    """The options of the command line among them: by field, the option's name and the field."""
    return {
        name: (f"--{extra['option'] or name.replace('_', '-')}", field)
        for name, field in declared(owner).items()
        if isinstance(extra := field.json_schema_extra, dict) and "option" in extra
    }


def choices(field: FieldInfo) -> tuple[Any, ...]:
    """The values that a field may have, where they are listed."""
    annotation = field.annotation
    for one in (annotation, *get_args(annotation)):
        if get_origin(one) is Literal:
            return get_args(one)
    return ()


def takes(*owners: type) -> Callable[[F], F]:
    """Decorator of a function whose `**options` are declared fields: its signature and help name them.

    A field of the second class and later ones is None where it is not given.
    """

    def described(function: F) -> F:
        signature = inspect.signature(function)
        own = {n: p for n, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}
        kind, lines = inspect.Parameter.KEYWORD_ONLY, []
        for owner in owners:
            for name, field in declared(owner).items():
                derived = isinstance(extra := field.json_schema_extra, dict) and "derived" in extra
                if derived or name in own:
                    continue
                lines.append(f"        {name}: {field.description}")
                default = field.default if owner is owners[0] else None
                own[name] = inspect.Parameter(
                    name, kind, default=default, annotation=field.annotation
                )
        doc = str(function.__doc__).replace("        options: by name.", "\n".join(lines))
        function.__doc__ = doc
        function.__signature__ = signature.replace(parameters=[*own.values()])  # type: ignore[attr-defined]
        return function

    return described


def refusing(owner: type[T]) -> type[T]:
    """Decorator of a pydantic dataclass: refuses with an InputError, and documents the fields."""
    build: Callable[..., None] = owner.__init__
    lines = [f"        {name}: {field.description}" for name, field in declared(owner).items()]
    owner.__doc__ = "\n".join([f"{owner.__doc__}\n    Attributes:", *lines])

    @functools.wraps(build)
    def init(self: T, *args: Any, **values: Any) -> None:
        try:
            build(self, *args, **values)
        except ValidationError as error:
            raise _refusal(error.errors()[0], owner) from None

    owner.__init__ = init  # type: ignore[method-assign, assignment]
    return owner


def _refusal(problem: ErrorDetails, owner: type) -> InputError:
    """What pydantic found, as value, expectation and remedy."""
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    name, kind, value = str(problem["loc"][0]), problem["type"], problem["input"]
    fields = declared(owner)
    if name not in fields:
        what = getattr(owner, "VERB", f"a {owner.__name__.lower()}")
        known = ", ".join(sorted(fields))
        return InputError(f"{what} has no {name!r}; it has {known}")
    if kind.startswith("missing") and len(problem["loc"]) == 1:
        return InputError(f"{name.replace('_', ' ')} is not given; it has no default")
    plain = isinstance(value, str | int | float | list | tuple | None)
    found = repr(value) if plain else f"a {type(value).__name__}"
    options = asked_for(owner) if hasattr(owner, "VERB") else {}
    label = options[name][0] if name in options else name.replace("_", " ")
    expected = _expected(fields[name])
    if kind == "finite_number":
        expected = expected.replace("a number", "a finite number")
    return InputError(f"{label} is {found}; it must be {expected}")


def _expected(field: FieldInfo) -> str:
    """What may stand in a field, in words."""
    if known := choices(field):
        return f"one of {', '.join(map(str, known))}"
    words = [
        f"{word} {getattr(limit, key):.12g}"
        for limit in field.metadata
        for key, word in _LIMITS.items()
        if hasattr(limit, key)
    ]
    kinds = (get_origin(field.annotation), field.annotation, *get_args(field.annotation))
    kind = next((_KINDS[one] for one in kinds if one in _KINDS), "of another type")
    return f"{kind} {' and '.join(words)}".strip()
