"""Every error that Transferscope raises on purpose.

    TransferscopeError
    ├── InputError        (ValueError)   an argument, an option or a combination of them
    │   └── UnknownName   (LookupError)  a layer, backbone, class or method that does not exist
    ├── PictureError      (ValueError)   one picture file that cannot be decoded
    ├── DataError         (ValueError)   a set of pictures that cannot be trained on
    ├── WeightsError      (ValueError)   a weights file that does not fit, or is not to be had
    ├── RunError          (ValueError)   a run folder that exists, is incomplete or is not one
    ├── AttackError       (ValueError)   an attack whose file does not fool the network
    └── OutputError       (OSError)      something that could not be written

Each states the value found, what was expected and what to do about it. The command line prints the
sentence and exits with 1; it never shows a traceback for one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TransferscopeError(Exception):
    """Base of all errors raised on purpose; `str()` is one sentence for a person."""


class InputError(TransferscopeError, ValueError):
    """An argument or option has a value that cannot be used."""


class UnknownName(InputError, LookupError):
    """A name that is not in the collection it was looked up in; names the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str, remedy: str):
        names = list(known)
        near = [known for known in names if known.casefold() == name.casefold()][:1]
        near = near or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        near = near or [known for known in names if name and known.startswith(name)][:1]
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        super().__init__(f"no {kind} {name!r} in {where}{hint} {remedy}")
        self.name = name
        self.nearest = near[0] if near else None

    def __str__(self) -> str:  # LookupError subclasses may quote their argument
        return str(self.args[0])


class PictureError(TransferscopeError, ValueError):
    """One picture could not be decoded.

    Attributes:
        path: the file, as given.
        reason: why, without the path.
    """

    def __init__(self, path: object, reason: str):
        super().__init__(f"cannot read {str(path)!r}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # crosses process borders in loaders
        return type(self), (self.path, self.reason)


class DataError(TransferscopeError, ValueError):
    """A set of pictures cannot be trained on or evaluated."""


class WeightsError(TransferscopeError, ValueError):
    """A weights file does not fit the architecture, is damaged or is not available."""


class RunError(TransferscopeError, ValueError):
    """A run folder exists already, is incomplete, or is not a run folder."""


class AttackError(TransferscopeError, ValueError):
    """An attack did not find a picture that fools, or its file does not."""


class OutputError(TransferscopeError, OSError):
    """Something could not be written; what was there before is untouched."""

    def __str__(self) -> str:
        return str(self.args[0])
