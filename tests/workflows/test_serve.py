"""A run in the browser: its atlas, its progress, and pictures that are tried on its networks."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest
import torch
import uvicorn
from PIL import Image
from test_served_files import ask

import transferscope as ts
from chromium import dom_of
from conftest import BACKBONE, command, same_state, state_of
from transferscope.errors import InputError
from transferscope.files import write_json, write_tensors
from transferscope.training.checkpoints import EpochRow, Journal, Progress, Saved
from transferscope.workflows.comparisons import note_planned, planned_comparison
from transferscope.workflows.known_pictures import known_pictures
from transferscope.workflows.predict import predict
from transferscope.workflows.run import Run
from transferscope.workflows.run_progress import run_progress
from transferscope.workflows.serve import listening, serve
from transferscope.workflows.served_files import Guard
from transferscope.workflows.served_run import ServedRun
from transferscope.workflows.tried_pictures import TriedPictures

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = {"<b>猫</b>": 14, "b & c": 12, "d": 12}


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_folder, weights) -> Run:
    """A run whose body has moved a little, evaluated; it and its pictures lie in one folder."""
    home = tmp_path_factory.mktemp("served")
    photos = make_folder(home / "photos", CLASSES)
    made = ts.tune(
        photos,
        out=home / "run",
        backbone=BACKBONE,
        weights=weights,
        strategy="probe",
        progress=False,
    )
    draw = torch.Generator().manual_seed(0)
    moved = made.classifier
    with torch.no_grad():
        for name, weight in moved.network.named_parameters():
            if weight.ndim > 1 and name.startswith("blocks"):
                weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=draw)
    moved.save(made.path / "classifier.safetensors")
    run = Run(made.path)
    run.evaluate()
    return run


@pytest.fixture(scope="module")
def served(run) -> ServedRun:
    found = ServedRun(run.path)
    assert found.atlas.stale
    found.atlas.write()
    return found


@pytest.fixture(scope="module")
def picture(run) -> bytes:
    return next((run.root / "d").glob("*.png")).read_bytes()


@pytest.fixture
def private(tmp_path, monkeypatch) -> Path:
    """Where temporary files lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def told(app, what, body, headers=()):
    status, _, found = ask(app, "POST", f"/live/{what}", list(headers), body)
    return status, json.loads(found)


# ---------------------------------------------------------------------------- the atlas


def test_every_page_of_the_atlas_leads_to_the_live_ones(served):
    app = served.app()
    pages = [path for path in served.atlas.files if path.endswith(".html")]
    assert "/index.html" in pages
    assert "/evaluation.html" in pages
    for path in [*pages, "/"]:
        status, _, body = ask(app, "GET", path)
        assert status == 200
        assert body.count(b'href="/live/try.html"') == 1, path
    page = ask(app, "GET", "/live/try.html")[2].decode()
    assert "&lt;b&gt;猫&lt;/b&gt;" in page
    assert "<b>" not in page
    for asset in ("atlas.css", "live.css", "live.js", "progress.js", "try.js", "progress.html"):
        assert ask(app, "GET", f"/live/{asset}")[0] == 200


def test_the_atlas_is_written_anew_when_the_run_knows_more(run, served, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    copied = tmp_path / "run/atlas"
    shutil.rmtree(copied / "images/pictures")  # as --no-pictures leaves it
    again = ServedRun(tmp_path / "run")
    app, atlas = again.app(), again.atlas
    assert not atlas.stale
    assert any(name.startswith("/images/pictures/") for name in served.atlas.files)
    assert ask(app, "GET", "/")[0] == 200
    assert not atlas.writing, "nothing new is known"
    before = (copied / "index.html").stat().st_mtime
    os.utime(tmp_path / "run/evaluation/metrics.json", (before + 100, before + 100))
    (copied / "index.html").write_text("an old page")
    os.utime(copied / "index.html", (before, before))
    assert ask(app, "GET", "/")[0] == 200, "the old one is shown meanwhile"
    again.close()  # waits for it
    assert not atlas.error
    assert not atlas.stale
    assert ask(app, "GET", "/")[2] != b"an old page"
    assert not any(name.startswith("/images/pictures/") for name in atlas.files)


def test_what_keeps_an_atlas_from_being_written_is_said(run, tmp_path):
    shutil.copytree(
        run.path, tmp_path / "run", ignore=shutil.ignore_patterns("atlas", "evaluation")
    )
    served = ServedRun(tmp_path / "run")
    served.atlas.write()
    state = json.loads(ask(served.app(), "GET", "/live/state.json")[2])
    assert "has nothing to show" in state["atlas"]["error"]
    assert not state["atlas"]["there"]
    assert b"Progress" in ask(served.app(), "GET", "/")[2]


# ---------------------------------------------------------------------------- pictures


def test_a_tried_picture_is_predicted_as_by_the_verb_and_kept_nowhere(
    served, run, picture, private
):
    networks = {"base": run.base, "tuned": run.classifier}
    status, found = told(served.app(), "predict", picture)
    assert status == 200
    file = private / "own.png"
    file.write_bytes(picture)
    for name, classifier in networks.items():
        assert found["answers"][name]["top"] == predict(classifier, [file])[0].to_dict()["top"]
    (own,) = predict(run.classifier, [file], known=known_pictures(run))
    assert own.familiarity is not None
    assert found["answers"]["tuned"]["familiarity"] == own.familiarity
    assert found["answers"]["base"]["familiarity"] is None
    tops = [[one["probability"] for one in answer["top"]] for answer in found["answers"].values()]
    assert tops[0] != tops[1], "the control: two networks that differ answer differently"
    assert opened(found["seen"]).size == run.classifier.input.size[::-1]
    assert [one.name for one in private.iterdir()] == ["own.png"]


@pytest.mark.drawn
def test_a_tried_picture_is_explained_before_and_after(served, picture, private):
    before = state_of(served._tried._opened()["tuned"])
    status, found = told(served.app(), "explain?class=1", picture)
    assert status == 200
    assert found["figures"]
    for one in found["figures"]:
        assert opened(one["picture"]).width > 100
        assert one["words"].startswith("b & c, ")
        assert "base: logit " in one["words"]
        assert "tuned: logit " in one["words"]
        assert "Rank correlation" in one["words"]
    assert same_state(before, state_of(served._tried._opened()["tuned"]))
    assert not list(private.iterdir())


def test_a_tried_picture_is_attacked(served, run, picture, private):
    status, found = told(served.app(), "attack", picture)
    if status == 422:  # a network of random weights may stand out; then it says so
        assert "Give a larger" in found["error"]
        return
    own = predict(run.classifier, [held(private, picture)])[0].top[0].name
    data = base64.b64decode(found["adversarial"].partition(",")[2])
    assert predict(run.classifier, [held(private, data)])[0].top[0].name != own
    assert found["words"].startswith(own)
    assert "Random noise of that size" in found["words"]
    assert [one.name for one in private.iterdir()] == ["held"]


def test_a_run_without_what_strangers_are_told_by_says_so_at_once(run, picture, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run/strangers.safetensors").unlink()
    found = TriedPictures(Run(tmp_path / "run", data=run.root)).predict(picture)
    assert found["answers"]["tuned"]["known"] is None
    assert "Whether it is a stranger is not told" in found["note"]


def held(folder: Path, data: bytes) -> Path:
    (folder / "held").write_bytes(data)
    return folder / "held"


def opened(url: str) -> Image.Image:
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    ("what", "body", "status", "words"),
    [
        ("predict", b"this is text", 422, "cannot be read: "),
        ("explain", b"this is text", 422, "cannot be read: "),
        ("attack", b"\x89PNG\r\n\x1a\n", 422, "cannot be read: "),
        ("predict", b"", 422, "no picture was sent"),
        ("explain?class=99", None, 422, "there are 3"),
        ("attack?class=%00", None, 422, "give its number"),
        ("attack?class=-1", None, 422, "give its number"),
        ("attack?class=" + "9" * 9, None, 422, "give its number"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    served, picture, private, what, body, status, words
):
    found = told(served.app(), what, picture if body is None else body)
    assert found[0] == status
    assert words in found[1]["error"]
    assert str(private) not in found[1]["error"]
    assert not list(private.iterdir())


def test_large_files_are_refused_before_and_while_they_come(served, monkeypatch):
    monkeypatch.setattr("transferscope.workflows.served_run.MOST_BYTES", 1000)
    app = served.app()
    assert told(app, "predict", b"x", [("content-length", "1001")])[0] == 413
    assert told(app, "predict", b"x", [("content-length", "-1")])[0] == 413
    assert told(app, "predict", bytes(1001))[0] == 413
    assert told(app, "predict", bytes(1000))[0] == 422


def test_an_unexpected_error_is_a_sentence_too(served, picture, monkeypatch):
    def fails(data):
        raise RuntimeError("out of paper")

    monkeypatch.setattr(served._tried, "predict", fails)
    status, found = told(served.app(), "predict", picture)
    assert status == 500
    assert "RuntimeError: out of paper" in found["error"]
    assert served._waiting == 0


# ---------------------------------------------------------------------------- progress


def row(epoch: int, top1: float) -> EpochRow:
    return EpochRow(epoch, None if not epoch else 0.5, None, 0.4, top1, 0.4, 1e-3, 2.0)


def test_a_run_that_is_being_tuned_is_followed(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    assert run_progress(folder).phase == "idle"
    write_json(folder / "started.json", {"recipe": {"epochs": 9}})
    assert "features" in run_progress(folder).sentences[0]
    progress = Progress(epoch=3, step=1, history=[row(0, 0.5), row(1, 0.75), row(2, 0.6)], best=1)
    journal = Journal(folder / "checkpoints", {"some": "fit"})
    journal.save(Saved(progress, {"now": {"w": torch.zeros(3)}}, {}), name=7)
    served = ServedRun(folder)
    app = served.app()
    assert b"/live/progress.js" in ask(app, "GET", "/")[2]
    assert b"not finished" in ask(app, "GET", "/live/try.html")[2]
    found = json.loads(ask(app, "GET", "/live/state.json")[2])["progress"]
    assert (found["phase"], found["done"], found["of"]) == ("tuning", 2, 9)
    assert [one["best"] for one in found["epochs"]] == [False, True, False]
    assert found["sentences"] == [
        "Tuning: 2 of at most 9 epochs done. The best so far is epoch 1: 75.0% of validation right."
    ]
    old = 1_000_000_000
    for file in folder.rglob("*"):
        os.utime(file, (old, old))
    assert "Nothing was written for" in run_progress(folder).sentences[1]

    shutil.copytree(run.path, folder, dirs_exist_ok=True)  # now it is finished
    state = json.loads(ask(app, "GET", "/live/state.json")[2])
    served.close()
    assert state["progress"]["phase"] == "idle"
    assert b"<select" in ask(app, "GET", "/live/try.html")[2]


def test_a_comparison_at_work_fills_the_page(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("atlas"))
    home = folder / "comparison"
    note_planned(home, 3, 0)
    (folder / "controls").mkdir()
    (folder / "controls/control-000.safetensors").touch()
    assert run_progress(folder).sentences == ("Comparing: 1 of 3 control transfers made.",)
    rows = [
        {"network": network, "layer": "blocks.3", "channel": channel, "seed": seed, "key": key}
        for number, (channel, network, seed) in enumerate(
            (channel, network, seed)
            for channel in (4, 5)
            for network in ("base", "tuned")
            for seed in (0, 1)
        )
        for key in [f"{number:064x}"]
    ]
    note_planned(home, 3, 0, [*rows, {**rows[0], "key": "../../secret"}])
    (folder / "secret.safetensors").touch()
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "WEBP")
    bits = torch.frombuffer(bytearray(data.getvalue()), dtype=torch.uint8)
    for one in (*rows[:3], rows[4]):  # both of channel 4, one network of channel 5
        write_tensors(folder / "sweep" / f"{one['key']}.safetensors", {"picture": bits}, {})
    found = run_progress(folder)
    assert (found.phase, found.done, found.of) == ("comparing", 4, 9)
    assert found.sentences == ("Comparing: 1 of 3 control transfers made, 4 of 9 drawings done.",)
    assert [(one.channel, one.keys) for one in found.units] == [
        (4, {"base": rows[0]["key"], "tuned": rows[2]["key"]})
    ]
    served = ServedRun(folder)
    served.atlas._shows = served.atlas._newest()  # nothing is to be written here
    app = served.app()
    ask(app, "GET", "/live/state.json")
    place = f"/live/drawings/{rows[0]['key']}.webp"
    assert ask(app, "GET", place)[2] == data.getvalue()
    assert ask(app, "GET", f"/live/drawings/{rows[5]['key']}.webp")[0] == 404
    assert ask(app, "GET", "/live/drawings/../../secret.webp")[0] == 404


def test_what_is_planned_is_read_again(tmp_path):
    note_planned(tmp_path, 2, 1)
    assert planned_comparison(tmp_path) == {"controls": 2, "retunings": 1, "drawings": None}
    (tmp_path / "planned.json").write_text("[1")
    assert planned_comparison(tmp_path) is None


# ---------------------------------------------------------------------------- the server


PROBE = """
(async function () {
  const told = document.documentElement.dataset;
  const seen = async id => {
    const part = document.getElementById(id);
    for (let n = 0; n < 600 && part.hidden; n++) await new Promise(done => setTimeout(done, 50));
    return !part.hidden;
  };
  const bytes = Uint8Array.from(atob("%s"), one => one.charCodeAt(0)), held = new DataTransfer();
  held.items.add(new File([bytes], "<b>x</b>.png"));
  document.getElementById("file").files = held.files;
  document.getElementById("file").dispatchEvent(new Event("change"));
  told.answers = await seen("answers");
  told.networks = document.querySelectorAll("#tables table").length;
  document.getElementById("class").value = "1";
  document.querySelector("[data-ask=explain]").click();
  told.explained = await seen("explained");
  told.figures = document.querySelectorAll("#explained img").length;
})();
"""


@pytest.mark.slow
def test_a_browser_tries_a_picture(run, picture, tmp_path):
    served = ServedRun(run.path)
    served._live["/live/try.js"] += (PROBE % base64.b64encode(picture).decode()).encode()
    with listening(None) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(Guard(served.app(), port), lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            address = f"http://127.0.0.1:{port}/live"
            tried = dom_of(f"{address}/try.html", tmp_path / "a", milliseconds=60_000)
            progress = dom_of(f"{address}/progress.html", tmp_path / "b", milliseconds=1000)
        finally:
            server.should_exit = True
            thread.join()
    for words in ('answers="true"', 'networks="2"', 'explained="true"', 'figures="1"'):
        assert f"data-{words}" in tried
    assert "before (base)" in tried
    assert "Nothing is being tuned or compared in this run." in progress
    assert "Open the atlas" in progress


def test_the_server_answers_until_it_is_interrupted(run, capsys):
    seen: dict[str, object] = {}

    def visit(address: str) -> None:
        host = address.removeprefix("http://").rstrip("/")
        try:
            for name, target, headers in (
                ("index", "/", {}),
                ("absolute", f"{address}index.html", {}),
                ("foreign", "/", {"Host": "evil.example"}),
                ("up", "/../split.csv", {}),
            ):
                connection = http.client.HTTPConnection(host, timeout=60)
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                seen[name] = (answer.status, answer.getheader("server"), answer.read())
                connection.close()
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def started(address: str) -> None:
        threading.Thread(target=visit, args=(address,), daemon=True).start()

    serve(run.path, on_start=started)
    assert seen["index"][0] == 200
    assert b"Try a picture" in seen["index"][2]
    assert seen["absolute"][0] == 404
    assert seen["foreign"][0] == 421
    assert seen["up"][0] == 404
    assert seen["index"][1] is None, "what serves is not told"


def test_a_busy_port_is_named():
    with listening(None) as taken:
        port = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(InputError, match=f"--port {port} is in use; give another"):
            listening(port)


def test_the_command_refuses_what_is_no_run(tmp_path):
    assert command("serve", tmp_path).exit_code == 1
    assert command("serve", tmp_path, "--port", 0).exit_code == 2
