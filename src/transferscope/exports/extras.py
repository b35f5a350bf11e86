"""What several formats need: their packages, and other libraries' errors in a line."""

from __future__ import annotations

from importlib.util import find_spec

from transferscope.errors import InputError


def require(extra: str, *packages: str) -> None:
    """Refuses to begin without the packages of an extra.

    Raises:
        InputError: names what is absent and what installs it.
    """
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        raise InputError(
            f"this needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not "
            f"installed; pip install 'transferscope[{extra}]' adds what is missing"
        )


def first_line(error: Exception) -> str:
    """What an error of another library says first, in at most 200 letters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
