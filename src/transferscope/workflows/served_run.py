"""A run as a small web application: its atlas, how far its work is, and pictures to try."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from transferscope.errors import InputError, PictureError, TransferscopeError, WeightsError
from transferscope.files import is_writable, json_text, read_tensors
from transferscope.report.live.site import HOME, PROGRESS, live_files, with_live_links
from transferscope.workflows.atlas import write_atlas
from transferscope.workflows.model_card import run_title
from transferscope.workflows.reporter import SILENT, Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.run_progress import drawn_files, run_progress
from transferscope.workflows.served_files import TYPES, served_files
from transferscope.workflows.tried_pictures import MOST_BYTES, TriedPictures

STATE, DRAWINGS = f"{HOME}state.json", f"{HOME}drawings/"
ACTIONS = ("predict", "explain", "attack")

_WAITING = 4  # pictures that are worked on or wait; more are sent away
_SOURCES = (
    "run.json",
    "evaluation/metrics.json",
    "comparison/comparison.json",
    "comparison/shown.json",
)


class ServedAtlas:
    """The atlas of a run as a manifest of files; written anew when the run knows more than it shows.

    Args:
        run: finished.
        lock: held while it is written: figures are drawn by one thread at a time.
        reporter: hears of it.
    """

    def __init__(self, run: Run, lock: threading.Lock, reporter: Reporter):
        self._run, self._lock, self._reporter = run, lock, reporter
        self._private: tempfile.TemporaryDirectory[str] | None = None
        if is_writable(run.path) or (run.path / "atlas/index.html").is_file():
            self.folder = run.path / "atlas"
        else:
            self._private = tempfile.TemporaryDirectory(prefix="transferscope-")
            self.folder = Path(self._private.name, "atlas")
        self._shows = self._written_at()
        self._beginning = threading.Lock()
        self._writer: threading.Thread | None = None
        self.error = ""
        self.files = served_files(self.folder) if self._shows else {}

    def _written_at(self) -> int:
        try:
            return (self.folder / "index.html").stat().st_mtime_ns
        except OSError:
            return 0

    @property
    def stale(self) -> bool:
        """Whether the run has changed since the atlas was written, or since that was tried."""
        return self._newest() > self._shows and is_writable(self.folder.parent)

    def _newest(self) -> int:
        files = (self._run.path / name for name in _SOURCES)
        return max((file.stat().st_mtime_ns for file in files if file.is_file()), default=0)

    def write(self) -> None:
        """Writes it, without pictures if it had none; what goes wrong is kept in `error`."""
        self._shows = self._newest()
        pictures = not self.files or any(
            name.startswith("/images/pictures/") for name in self.files
        )
        try:
            with self._lock:
                write_atlas(self._run, out=self.folder, pictures=pictures, reporter=self._reporter)
            self.error = ""
            self.files = served_files(self.folder)
        except TransferscopeError as error:
            self.error = str(error)
        except Exception as error:  # noqa: BLE001 - in a thread of its own nobody else would hear of it
            self.error = f"this is not meant to happen: {type(error).__name__}: {error}"
        if self.error:
            self._reporter.say(self.error)

    def refresh(self) -> None:
        """Begins to write it in a thread where it is stale."""
        with self._beginning:
            if not self.writing and self.stale:
                self._shows = self._newest()  # what is being written is not stale
                self._writer = threading.Thread(target=self.write)
                self._writer.start()

    @property
    def writing(self) -> bool:
        """Whether it is being written."""
        return self._writer is not None and self._writer.is_alive()

    def close(self) -> None:
        """Waits for what is being written."""
        if self.writing and self._writer is not None:
            self._reporter.say("the atlas is being written; waiting for it")
            self._writer.join()
        if self._private is not None:
            self._private.cleanup()


class ServedRun:
    """What is answered for the folder of a run, which need not be finished.

    Args:
        path: of the run.
        device: for pictures that are tried; None: the best here.
        reporter: hears of an atlas that is written.
    """

    def __init__(self, path: Path, *, device: str | None = None, reporter: Reporter = SILENT):
        self.path, self._device, self._reporter = path, device, reporter
        self.atlas: ServedAtlas | None = None
        self._tried: TriedPictures | None = None
        self._opening = threading.Lock()
        self._waiting = 0
        self._live = live_files(path.resolve().name, (), most_bytes=MOST_BYTES)
        self._drawings: dict[str, Path] = {}
        self._open()

    def _open(self) -> None:
        """Opens the run as soon as it is finished."""
        with self._opening:
            if self.atlas is not None or not (self.path / "run.json").is_file():
                return
            run = Run(self.path)
            self._tried = TriedPictures(run, device=self._device)
            self._live = live_files(run_title(run), self._tried.classes, most_bytes=MOST_BYTES)
            self.atlas = ServedAtlas(run, self._tried.lock, self._reporter)

    def close(self) -> None:
        """Lets go of what was opened."""
        if self.atlas is not None:
            self.atlas.close()

    def app(self) -> Starlette:
        """The routes."""
        asked = [Route(f"{HOME}{name}", self._try, methods=["POST"]) for name in ACTIONS]
        app = Starlette(routes=[*asked, Route("/{path:path}", self._get, methods=["GET"])])
        app.router.redirect_slashes = False
        return app

    # ------------------------------------------------------------------ files

    async def _get(self, request: Request) -> Response:
        path = request.scope["path"]
        found = await run_in_threadpool(self._found, path)
        if found is None:
            return Response("there is no such page\n", 404, media_type="text/plain")
        kind, body = found
        headers = {"content-length": str(len(body))}
        sent = b"" if request.method == "HEAD" else body
        return Response(sent, media_type=kind, headers=headers)

    def _found(self, path: str) -> tuple[str, bytes] | None:
        """Media type and bytes of what is asked for; None where the manifest has no such entry."""
        if path == STATE:
            return TYPES[".json"], json_text(self.state(), indent=None).encode()
        if path == "/" or path.endswith(".html"):
            self._open()
            if self.atlas is not None:
                self.atlas.refresh()
        files = self.atlas.files if self.atlas is not None else {}
        if path == "/":
            path = "/index.html" if "/index.html" in files else PROGRESS
        if path in self._live:
            return TYPES[path[path.rindex(".") :]], self._live[path]
        if (drawing := self._drawings.get(path)) is not None:
            return _drawing(drawing)
        if (file := files.get(path)) is None:
            return None
        try:
            body = file.read_bytes()
        except OSError:  # the atlas is being replaced at this moment
            return None
        return TYPES[file.suffix], with_live_links(body) if file.suffix == ".html" else body

    def state(self) -> dict[str, Any]:
        """How far the run is: `progress`, and of the `atlas` whether it is there, or being written."""
        self._open()
        atlas = self.atlas
        if atlas is not None:
            atlas.refresh()
        progress = run_progress(self.path)
        shown = (key for unit in progress.units for key in unit.keys.values())
        self._drawings |= {
            f"{DRAWINGS}{key}.webp": file
            for key, file in drawn_files(self.path / "sweep", shown).items()
        }
        return {
            "progress": progress.to_dict(),
            "atlas": {
                "there": bool(atlas and atlas.files),
                "writing": bool(atlas and atlas.writing),
                "error": atlas.error if atlas else "",
            },
        }

    # ------------------------------------------------------------------ pictures

    async def _try(self, request: Request) -> Response:
        action = request.scope["path"].removeprefix(HOME)
        if self._tried is None:
            return _refused(409, "the run is not finished, so there is no tuned network yet")
        if self._waiting >= _WAITING:
            return _refused(
                503, f"{_WAITING} pictures are being worked on; wait for an answer first"
            )
        self._waiting += 1
        try:
            data = await _body(request)
            if data is None:
                return _refused(413, f"the file has more than {MOST_BYTES:,} bytes; scale it down")
            if not data:
                return _refused(422, "no picture was sent; choose a file")
            ask: Callable[..., dict[str, Any]] = getattr(self._tried, action)
            arguments = () if action == "predict" else (_class_asked(request),)
            found = await run_in_threadpool(ask, data, *arguments)
            return Response(json_text(found, indent=None), media_type="application/json")
        except PictureError as error:
            return _refused(422, f"the picture cannot be read: {error.reason}")
        except TransferscopeError as error:
            return _refused(422, str(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the page is told in a sentence
            return _refused(500, f"this is not meant to happen: {type(error).__name__}: {error}")
        finally:
            self._waiting -= 1


async def _body(request: Request) -> bytes | None:
    """What was sent; None where it is more than a picture may have."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _class_asked(request: Request) -> int | None:
    given = request.query_params.get("class")
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 8):
        raise InputError(f"class is {given[:20]!r}; give its number")
    return int(given)


def _refused(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)


def _drawing(file: Path) -> tuple[str, bytes] | None:
    try:
        tensors, _ = read_tensors(file)
        return TYPES[".webp"], tensors["picture"].numpy().tobytes()
    except (WeightsError, KeyError):
        return None
