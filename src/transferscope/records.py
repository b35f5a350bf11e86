"""Results that write themselves as plain values and read themselves back: frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, ClassVar, Self, cast

from transferscope.errors import RunError


class Record:
    """A frozen dataclass whose fields are plain values, tuples, mappings or other records.

    A subclass whose JSON holds more than its fields overrides `to_dict`; `from_dict` passes over what it
    does not know.

    Attributes:
        made_by: the command that makes such a record again, for messages.
    """

    made_by: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every subclass is a dataclass

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also after JSON has made lists of tuples.

        Raises:
            RunError: fields are missing or of another kind, as in what another version wrote.
        """
        from pydantic import ValidationError

        try:
            found: Self = _reader(cast(Any, cls)).validate_python(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "it"
            remedy = f"; {cls.made_by!r} makes it again" if cls.made_by else ""
            raise RunError(
                f"the stored {cls.__name__} is incomplete or of another version ({place}: "
                f"{first['msg'].lower()}){remedy}"
            ) from error
        return found


@cache
def _reader(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)
