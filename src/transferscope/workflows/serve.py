"""`serve`: a run in the browser of this machine, with what needs its networks."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from transferscope.errors import InputError
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.served_files import Guard
from transferscope.workflows.served_run import ServedRun

ADDRESS = "127.0.0.1"
"""The machine's own: nothing from elsewhere reaches it."""

_AT_ONCE = 64  # connections
_GRACE = 2  # seconds that answers have when it is stopped


def serve(
    run: str | Path,
    *,
    port: int | None = None,
    device: str | None = None,
    reporter: Reporter = SILENT,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serves a run to this machine's browser until it is interrupted.

    The atlas is written first where there is none, or where the run knows more than it shows. A run that is
    being tuned or compared is followed, and its atlas written when that is finished.

    Args:
        run: the folder of a run, finished or begun.
        port: to listen on; None: a free one.
        device: for pictures that are tried; None: the best here.
        reporter: hears of an atlas that is written.
        on_start: given the address when it can be opened.

    Raises:
        RunError: not the folder of a run.
        InputError: the port is in use, or not to be had.
    """
    path = Path(run)
    if not (path / "started.json").is_file():
        Run(path)  # refuses what is no run
    with listening(port) as listener:
        served = ServedRun(path, device=device, reporter=reporter)
        try:
            if served.atlas is not None and served.atlas.stale:
                served.atlas.write()
            number = listener.getsockname()[1]
            if on_start is not None:
                on_start(f"http://{ADDRESS}:{number}/")
            _until_interrupted(served, listener, number)
        finally:
            served.close()


def listening(port: int | None) -> socket.socket:
    """A socket on this machine's own address.

    Raises:
        InputError: the port is in use, or not to be had.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port or 0))
        listener.listen()
    except OSError as error:
        listener.close()
        busy = error.errno == errno.EADDRINUSE
        raise InputError(
            f"--port {port} {'is in use' if busy else f'is not to be had ({error.strerror})'}; give another, "
            "or leave it out for a free one"
        ) from error
    return listener


def _until_interrupted(served: ServedRun, listener: socket.socket, port: int) -> None:
    config = uvicorn.Config(
        Guard(served.app(), port),
        lifespan="off",
        ws="none",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=_GRACE,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # the way to end it
        return
