"""What a local server gives out: the manifest's files to this machine's browser, and not one other byte."""

from __future__ import annotations

import asyncio
import functools
import random
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from transferscope.errors import RunError
from transferscope.report.live.site import with_live_links
from transferscope.workflows.serve import serve
from transferscope.workflows.served_files import HEADERS, Guard, own_hosts, served_files
from transferscope.workflows.served_run import ServedRun

PORT, SECRET = 8765, b"the secret"
OWN = [("host", f"127.0.0.1:{PORT}")]


async def answer(app, method, target, headers=OWN, body=b""):
    """What an ASGI application answers to a request as uvicorn hands it on: (status, headers, body)."""
    raw, _, query = target.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "server": ("127.0.0.1", PORT),
        "client": ("127.0.0.1", 1),
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    known = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], known, b"".join(one.get("body", b"") for one in sent[1:])


def ask(app, method, target, headers=OWN, body=b""):
    return asyncio.run(answer(app, method, target, headers, body))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An unfinished run whose atlas is a few files, with secrets wherever a request might reach for one."""
    run = tmp_path_factory.mktemp("served") / "run"
    files = {
        "index.html": b"<html><nav></nav>the index</html>",
        "units/blocks-6-1.html": b"<nav></nav>a unit",
        "images/pictures/a b.webp": b"RIFFxxxxWEBP",
        "assets/atlas.css": b"body {}",
        "assets/index.js": b"window.atlasIndex = [];",
        "assets/caf\u00e9.svg": b"<svg/>",
    }
    for name, data in files.items():
        (run / "atlas" / name).parent.mkdir(parents=True, exist_ok=True)
        (run / "atlas" / name).write_bytes(data)
    hidden = ["atlas/.transferscope", "atlas/.hidden/a.html", "atlas/notes.txt", "atlas/units/x.py"]
    for name in [*hidden, "secret.html", "split.csv", "atlas-other/index.html"]:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(SECRET)
    (run / "atlas/link.html").symlink_to(run / "secret.html")
    (run / "atlas/linked").symlink_to(run / "atlas-other")
    (run / "started.json").write_text("{}")
    return run


class _Kept:
    """In place of `ServedAtlas`: nothing is written."""

    writing, error = False, ""

    def __init__(self, files):
        self.files = files

    def refresh(self):
        pass


@pytest.fixture(scope="module")
def guarded(folder) -> Guard:
    served = ServedRun(folder)
    served.atlas = _Kept(served_files(folder / "atlas"))
    return Guard(served.app(), PORT)


def test_the_manifest_has_neither_links_nor_hidden_files(folder):
    assert sorted(served_files(folder / "atlas")) == [
        "/assets/atlas.css",
        "/assets/café.svg",
        "/assets/index.js",
        "/images/pictures/a b.webp",
        "/index.html",
        "/units/blocks-6-1.html",
    ]


@functools.cache
def url_forms() -> list[str]:
    """2,000 different ways to ask for files that are there, and for those that must not be given."""
    known = ["index.html", "units/blocks-6-1.html", "images/pictures/a b.webp", "assets/index.js"]
    others = [
        *("../secret.html", "../../secret.html", ".transferscope", ".hidden/a.html", "link.html"),
        *("linked/index.html", "notes.txt", "units/x.py", "../split.csv", "../run.json"),
        *(
            "../atlas-other/index.html",
            "units",
            "images/pictures",
            "",
            "etc/passwd",
            "../started.json",
        ),
        *("/etc/passwd", "~/.ssh/id_rsa", "proc/self/environ", "con", "index.html::$DATA"),
    ]
    ups = [
        "",
        "./",
        "../",
        "..;/",
        "units/../",
        "units/../../",
        "x/../",
        "//",
        "\\",
        "..\\",
        "C:/",
        "C:\\",
    ]
    heads = [
        "/",
        "//",
        "/\\",
        "\\",
        "",
        "http://127.0.0.1:8765/",
        "http://evil.example/",
        "file:///",
        "/%2e/",
    ]
    tails = [
        "",
        "/",
        "?",
        "?x=../secret.html",
        "#a",
        "%00",
        "%00.html",
        "%20",
        ".",
        ";a",
        "/.",
        "%0a",
        "%2e",
    ]
    ways = [
        lambda t: t,
        lambda t: quote(t),
        lambda t: quote(t, safe=""),
        lambda t: quote(quote(t, safe=""), safe=""),
        lambda t: t.replace(".", "%2e"),
        lambda t: t.replace(".", "%252e").replace("/", "%252f"),
        lambda t: t.replace("/", "%2F"),
        lambda t: t.replace("/", "%5c"),
        lambda t: t.replace(".", "%c0%ae").replace("/", "%c0%af"),
        lambda t: t.replace(".", "%ef%bc%8e").replace("/", "%ef%bc%8f"),
        lambda t: t.replace("i", "%69").replace("e", "%65"),
        lambda t: t.upper(),
        lambda t: t.replace("/", "//"),
    ]
    draw = random.Random(0)
    forms = {f"/{name}": None for name in known}
    while len(forms) < 2000:
        head, tail, way = (
            draw.choice(part) if draw.random() < 0.5 else part[0] for part in (heads, tails, ways)
        )
        up, name = draw.choice(ups), draw.choice(known + others)
        forms[head + way(f"{up}{name}{tail}")] = None
    return list(forms)


def host_headers() -> list[list[str]]:
    """50 different sets of Host headers; the first five are this server's own."""
    own = [
        f"127.0.0.1:{PORT}",
        f"localhost:{PORT}",
        f"[::1]:{PORT}",
        f"LOCALHOST:{PORT}",
        f"LocalHost:{PORT}",
    ]
    foreign = [
        *("evil.example", f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}", "127.0.0.1"),
        *(
            "localhost",
            "[::1]",
            f"127.0.0.1:{PORT + 1}",
            "localhost:80",
            f"0.0.0.0:{PORT}",
            "",
            " ",
        ),
        *(f"127.0.0.2:{PORT}", f"127.1:{PORT}", f"2130706433:{PORT}", f"0x7f.0.0.1:{PORT}"),
        *(f"017700000001:{PORT}", f"localhost.:{PORT}", f"localhost:{PORT}.", f"localhost:0{PORT}"),
        *(
            f"a@localhost:{PORT}",
            f"localhost:{PORT}@evil.example",
            f"localhost:{PORT}/",
            f"::1:{PORT}",
        ),
        *(f"localhost:{PORT},evil.example", f"evil.example,localhost:{PORT}", f"localhost:{PORT}#"),
        *(
            f"http://localhost:{PORT}",
            f"localhost:{PORT}\\",
            f"localhost%00:{PORT}",
            f"localhost\t:{PORT}",
        ),
        *(f" localhost:{PORT}", f"localhost:{PORT} ", f"[::ffff:127.0.0.1]:{PORT}", f"[::]:{PORT}"),
        *(
            f"[::1%25lo]:{PORT}",
            f"sub.localhost:{PORT}",
            f"localhost:{PORT}:{PORT}",
            f"localhost:+{PORT}",
        ),
        *(f"ⅼocalhost:{PORT}", f"xn--localhost:{PORT}", f"*:{PORT}", f"null:{PORT}"),
    ]
    several = [[], [own[0], own[0]], [own[0], "evil.example"]]
    found = [[host] for host in own] + [[host] for host in foreign] + several
    return found[:50]


def test_2000_urls_against_50_hosts_give_no_byte_that_is_not_in_the_manifest(guarded, folder):
    forms, hosts = url_forms(), host_headers()
    assert len(set(forms)) == 2000
    assert len({tuple(one) for one in hosts}) == 50
    manifest = {
        path: with_live_links(file.read_bytes()) if path.endswith(".html") else file.read_bytes()
        for path, file in served_files(folder / "atlas").items()
    }
    manifest["/"] = manifest["/index.html"]
    given = 0

    async def every() -> None:
        nonlocal given
        for place, known in enumerate(hosts):
            own = place < 5
            headers = [("host", host) for host in known]
            for number, target in enumerate(forms):
                if place in (1, 3, 4) and number % 5:  # these are answered as the first
                    continue
                status, sent, body = await answer(guarded, "GET", target, headers)
                assert SECRET not in body, target
                assert all(sent[name.lower()] == value for name, value in HEADERS.items())
                if not own:
                    assert status == (400 if len(known) != 1 else 421), (known, target)
                    continue
                path = unquote(target.partition("?")[0])
                if path in manifest:
                    assert (status, body) == (200, manifest[path]), target
                    given += 1
                elif not path.startswith("/live/"):
                    assert status == 404, target

    asyncio.run(every())
    assert given > 10, "some of the forms are those of files that are there"


def test_a_path_that_is_joined_would_be_noticed(folder):
    """The control of the test above: what it looks for is found in a server that joins paths."""

    async def joins(scope, receive, send):
        file = folder / "atlas" / scope["path"].lstrip("/")
        body = file.read_bytes() if file.is_file() else b""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def every() -> list[bytes]:
        asked = [target for target in url_forms() if "\0" not in unquote(target)]
        return [(await answer(joins, "GET", target))[2] for target in asked]

    assert sum(SECRET in body for body in asyncio.run(every())) > 20


def test_head_and_other_methods(guarded):
    status, headers, body = ask(guarded, "HEAD", "/assets/atlas.css")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == "7"
    assert headers["content-type"] == "text/css; charset=utf-8"
    own = [*OWN, ("origin", f"http://127.0.0.1:{PORT}")]
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"):
        assert ask(guarded, method, "/index.html")[0] == 403, "not from a page of this server"
        assert ask(guarded, method, "/index.html", own)[0] == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 403),
        ([("origin", "http://evil.example")], 403),
        ([("origin", "null")], 403),
        ([("origin", f"https://127.0.0.1:{PORT}")], 403),
        ([("origin", f"http://127.0.0.1:{PORT + 1}")], 403),
        ([("origin", f"http://127.0.0.1:{PORT}"), ("sec-fetch-site", "cross-site")], 403),
        ([("origin", f"http://127.0.0.1:{PORT}"), ("origin", "http://evil.example")], 403),
        ([("sec-fetch-site", "same-site")], 403),
        ([("sec-fetch-site", "none")], 403),
        ([("origin", f"http://127.0.0.1:{PORT}")], 409),  # the run is not finished
        ([("origin", f"http://localhost:{PORT}"), ("sec-fetch-site", "same-origin")], 409),
        ([("sec-fetch-site", "same-origin")], 409),
    ],
)
def test_only_pages_of_this_server_may_have_a_picture_looked_at(guarded, headers, status):
    assert ask(guarded, "POST", "/live/predict", [*OWN, *headers], b"x")[0] == status


def test_port_80_needs_no_number():
    assert "localhost" in own_hosts(80)
    assert "localhost" not in own_hosts(8080)


def test_an_error_inside_has_the_headers_too():
    async def fails(request):
        raise RuntimeError("inside")

    sent = []

    async def run():
        async def send(message):
            sent.append(message)

        app = Guard(Starlette(routes=[Route("/", fails)]), PORT)
        headers = [(name.encode(), value.encode()) for name, value in OWN]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": headers,
            "query_string": b"",
        }
        with pytest.raises(RuntimeError, match="inside"):
            await app(scope, None, send)

    asyncio.run(run())
    assert sent[0]["status"] == 500
    assert b"nosniff" in dict(sent[0]["headers"]).values()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"run\.json"):
        serve(tmp_path)
