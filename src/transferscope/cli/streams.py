"""Standard input and output as they are met: closed, read by half, full, in any encoding."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO


class Stream:
    """A text stream whose reader may go at any time: what is written then is dropped, and work goes on.

    Everything but writing is the stream's own.

    Args:
        stream: standard output or standard error.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or drops what nobody reads.

        Raises:
            OSError: the stream cannot take it for another reason, such as a full disk.
        """
        if not self._gone:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:
                self._forgive(error)
        return len(text)

    def flush(self) -> None:
        """Flushes, or drops what nobody reads."""
        if not self._gone:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._forgive(error)

    def _forgive(self, error: OSError | ValueError) -> None:
        closed = isinstance(error, ValueError) and "closed file" in str(error)
        if not closed and not (isinstance(error, OSError) and error.errno in _NOBODY_READS):
            raise error
        self._gone = True
        _discard(self._stream)


_NOBODY_READS = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ESHUTDOWN)
"""A closed pipe, a closed descriptor, a terminal that hung up."""


def patient_streams() -> None:
    """Makes standard streams that survive their readers and have room for any name."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            stream = _nowhere(number)
        _with_any_name(stream)
        setattr(sys, name, Stream(stream))
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for the process's whole life
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files as the system has them


def _with_any_name(stream: TextIO) -> None:
    """Names that are not text leave as the bytes they are; letters the encoding lacks as escapes."""
    utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _nowhere(number: int) -> TextIO:
    """A stream that drops everything, in the place of a closed one, which another file would take."""
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    return open(number, "w", encoding="utf-8", closefd=False)


def _discard(stream: TextIO) -> None:
    """Lets what is still in the stream's buffer go nowhere, so that leaving Python says nothing of it."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
