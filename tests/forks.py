"""Whole Python processes without the seconds that torch takes to import.

`python()` is a command that takes what `python` takes (-c code, -m module or a file, and arguments),
with streams, environment, working folder, exit code and signals of its own. What it asks for runs
in a fork of one process that has imported everything, computed nothing and used none of its streams; the
interpreter of that one is started anew, in the surroundings that are named. Where there is no Linux, it
is plain `python`.
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    import tempfile

HEADER = 8
"""Bytes that say how long a request is."""


def ask(address: str, arguments: list[str]) -> int:
    """Have `arguments` run with the streams of this process; its wait status."""
    # Asked before the socket takes the number of a closed one.
    streams = [number for number in (0, 1, 2) if is_open(number)]
    request = json.dumps(
        {
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "streams": streams,
        }
    ).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(request).to_bytes(HEADER, "big")], streams)
        connection.sendall(request)
        return int(connection.recv(64) or b"256")  # it ended without an answer: 1


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def serve(address: str) -> dict[str, object]:
    """Fork for everyone who asks, until stdin ends. Returns in the forks, with what each is to run."""
    import gc
    import select

    watchers = 0
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        gc.collect()
        gc.freeze()
        os.write(1, b"ready\n")
        while True:
            asked = select.select([door, 0], [], [])[0]
            while watchers and os.waitpid(-1, os.WNOHANG)[0]:
                watchers -= 1
            if 0 in asked:
                os._exit(0)
            connection, _ = door.accept()
            if os.fork():
                connection.close()
                watchers += 1
                continue
            header, given, *_ = socket.recv_fds(connection, HEADER, 3)
            body = b""
            while len(body) < int.from_bytes(header, "big"):
                body += connection.recv(1 << 20)
            process = os.fork()
            if process:
                watch(connection, process)
            request = json.loads(body)
            numbers = request["streams"]
            for number in (0, 1, 2):
                if number in numbers:
                    os.dup2(given[numbers.index(number)], number)
                else:
                    os.close(number)
            for other in (*given, connection.fileno()):
                os.close(other)
            connection.detach()
            return request


def watch(connection: socket.socket, process: int) -> None:
    """Tell how `process` ended; it ends with whoever asked for it."""
    import select
    import signal

    ended = os.pidfd_open(process)
    if connection in select.select([connection, ended], [], [])[0]:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    try:
        connection.sendall(str(status).encode())
    finally:
        os._exit(0)


def prepare() -> None:
    """Import what a command line or a test's script may."""
    import importlib

    for module in (
        *("pytest", "timm", "torch.distributed.run", "matplotlib.backends.backend_svg"),
        *("transferscope.cli", "transferscope.workflows.layers", "transferscope.workflows.predict"),
        *("transferscope.workflows.tune", "transferscope.visualize.units"),
    ):
        importlib.import_module(module)


def become(request: dict[str, object]) -> list[str]:
    """Take on the surroundings of whoever asked; the arguments."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = opened(number, getattr(sys, name)) if number in request["streams"] else None
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if "OMP_NUM_THREADS" in os.environ:  # read when torch is loaded
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return request["arguments"]


def opened(number: int, like: io.TextIOWrapper) -> io.TextIOWrapper:
    """A standard stream as an interpreter opens it: in the encoding that this one chose at its start, if
    the environment names no other."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    errors = like.errors if number == 2 or not encoding else errors or "strict"
    return io.TextIOWrapper(
        open(number, "rb" if number == 0 else "wb", closefd=False),
        encoding=encoding or like.encoding,
        errors=errors,
        line_buffering=number == 2 or os.isatty(number),
    )


def python(locale: str = "C.UTF-8") -> list[str]:
    """The command, in an interpreter that started with this locale."""
    if not sys.platform.startswith("linux"):
        return ["env", f"LC_ALL={locale}", sys.executable]
    if locale not in _started:
        import atexit
        import subprocess
        import tempfile

        folder = tempfile.TemporaryDirectory(prefix="forks-")
        address = str(Path(folder.name, "door"))
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", address],
            # BLAS threads that are started at import would not be in a fork.
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": "1",
                "GOMP_SPINCOUNT": "2000",
                "LC_ALL": locale,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        atexit.register(end, process, folder)
        assert process.stdout.readline() == b"ready\n"
        _started[locale] = process, [sys.executable, "-I", "-S", __file__, address]
    return _started[locale][1]


def end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    with folder, process:  # which closes its streams, and waits
        pass


_started: dict[str, tuple[subprocess.Popen[bytes], list[str]]] = {}

if __name__ == "__main__":
    if sys.argv[1] != "--serve":
        status = ask(sys.argv[1], sys.argv[2:])
        if os.WIFSIGNALED(status):
            os.kill(os.getpid(), os.WTERMSIG(status))
        os._exit(os.WEXITSTATUS(status))
    prepare()
    what, *rest = become(serve(sys.argv[2]))
    import runpy
    import types

    if what == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif what == "-m":
        sys.argv, sys.path[0] = rest, str(Path.cwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [what, *rest], str(Path(what).parent)
        runpy.run_path(what, run_name="__main__")
