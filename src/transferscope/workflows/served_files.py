"""What a local server gives out: a manifest of known files, to this machine's own browser alone.

A request names an entry of the manifest or nothing: no path is ever made of what it asks for. Every answer,
a refusal too, carries the same headers: nothing from elsewhere is loaded into a page, and no page of another
origin may embed or read what is given out.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""Media types by ending; files of other endings are not given out."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer. No script of another origin may read a file here by loading it as its own."""

READING, WRITING = ("GET", "HEAD"), "POST"


def served_files(folder: Path) -> dict[str, Path]:
    """The files of a folder by the path that asks for them, such as `/units/blocks-6-181.html`.

    Links, hidden files and files of unknown endings are not among them.
    """
    found = {}
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        plain = not any(part.startswith(".") for part in inside.parts)
        if plain and file.suffix in TYPES and file.is_file() and not _linked(folder, inside):
            found[f"/{inside.as_posix()}"] = file
    return found


def _linked(folder: Path, inside: Path) -> bool:
    """Whether a file, or a folder on the way to it, is a link."""
    return any((folder / part).is_symlink() for part in (inside, *inside.parents[:-1]))


def own_hosts(port: int) -> frozenset[str]:
    """What a browser on this machine calls a server here by: any other name was pointed here by others."""
    names = ("127.0.0.1", "localhost", "[::1]")
    return frozenset(f"{name}:{port}" for name in names) | (
        frozenset(names) if port == 80 else frozenset()
    )


class Guard:
    """The outermost part of a server: refuses foreign hosts and foreign pages, and adds `HEADERS`.

    A page of the web whose name was pointed to this machine (DNS rebinding) comes with its own name as
    `Host`: 421. A request that changes or computes something must say that a page of this server sent it, by
    `Origin` or `Sec-Fetch-Site`: otherwise 403.

    Args:
        app: what answers.
        port: that is listened on.
    """

    def __init__(self, app: ASGIApp, port: int):
        self._app = app
        self.hosts = own_hosts(port)
        self._origins = frozenset(f"http://{host}" for host in self.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        refused = self._refused(scope)
        await (refused or self._app)(scope, receive, with_headers)

    def _refused(self, scope: MutableMapping[str, Any]) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            return PlainTextResponse(f"{len(hosts)} Host headers; send one\n", 400)
        if hosts[0].lower() not in self.hosts:
            own = min(self.hosts)
            return PlainTextResponse(f"this is not the host that was asked for; open {own}\n", 421)
        if scope["method"] not in READING and not self._own_page(headers):
            return PlainTextResponse("only pages of this server may ask for that\n", 403)
        return None

    def _own_page(self, headers: Headers) -> bool:
        """Whether a request says that one of our pages sent it; a browser's cannot be made to lie."""
        origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
        if not origins and not sites:
            return False
        return _all_in(origins, self._origins) and _all_in(sites, ("same-origin",))


def _all_in(values: Iterable[str], allowed: Iterable[str]) -> bool:
    known = frozenset(allowed)
    return all(value in known for value in values)


_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
