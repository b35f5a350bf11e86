"""The command line where its surroundings are odd: closed or full streams, names in no encoding, no home."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import command
from forks import python
from transferscope import machine
from transferscope.backbones.weights import load_backbone
from transferscope.cli.app import app, sentence_of
from transferscope.errors import OutputError
from transferscope.files import json_text, read_csv, read_json, write_csv, write_json
from transferscope.machine import cache_dir

STRANGE = os.fsdecode(b"caf\xe9.png")
"""A file name that is not UTF-8, as Python holds it."""


def shell(line: str, python: list[str]) -> subprocess.CompletedProcess[bytes]:
    """What bash makes of `line`, in which T is the command line in a process of `python`."""
    call = f'T() {{ {shlex.join(python)} -m transferscope "$@"; }}'
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {call}; {line}"], capture_output=True, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("T layers efficientnet_lite0 | head -n 1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
        ("T layers efficientnet_lite0 --json | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
        ("T layers efficientnet_lite0 >&-", 0),
        ("T layers efficientnet_lit0 2>&-", 2),
        ("T layers efficientnet_lit0 >&- 2>&- <&-", 2),
        ("T layers efficientnet_lit0 2> >(exec 0<&-); exit $?", 2),
    ],
)
def test_closed_streams_change_no_exit_code_and_say_nothing(line, code):
    ends_quietly(line, code, python())


def ends_quietly(line: str, code: int, interpreter: list[str]) -> None:
    done = shell(line, interpreter)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_nor_do_they_where_the_interpreter_started_without_any():
    ends_quietly("T layers efficientnet_lit0 >&- 2>&- <&-", 2, [sys.executable])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_stdout_is_one_sentence():
    done = shell("T layers efficientnet_lite0 > /dev/full", python())
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"error:") == 1
    assert b"No space left on device" in done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there are text")
@pytest.mark.parametrize(
    ("locale", "encoding"),
    [("C.UTF-8", "utf-8:strict"), ("C", "utf-8:strict"), ("C", "ascii")],
)
def test_names_that_are_no_text_go_in_by_stdin_and_out_everywhere(
    tmp_path, locale, encoding, monkeypatch
):
    pixels = np.zeros((48, 48, 3), np.uint8)
    for name in ("a.png", STRANGE):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "list").write_bytes(b"caf\xe9.png\na.png\n")
    line = f"cd '{tmp_path}'; T predict efficientnet_lite0 - --quiet --top 1 --csv o.csv"
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    interpreter = python(locale)
    done = shell(f"{line} < list", interpreter)
    assert done.returncode == 0, done.stderr
    if encoding == "ascii":
        return
    assert b"caf\xe9.png" in done.stdout  # the bytes that the file system has
    done = shell(f"{line} --json < list", interpreter)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.decode("utf-8"))  # JSON is UTF-8, whatever the names are
    assert [one["path"] for one in told] == [STRANGE, "a.png"]
    assert [row["path"] for row in read_csv(tmp_path / "o.csv")] == [r"caf\udce9.png", "a.png"]


def test_json_and_tables_take_names_that_are_no_text(tmp_path):
    write_json(tmp_path / "a.json", {STRANGE: "猫"})
    assert read_json(tmp_path / "a.json") == {STRANGE: "猫"}
    assert "猫" in json_text("猫")
    write_csv(tmp_path / "a.csv", ("path",), [(STRANGE,)])
    assert read_csv(tmp_path / "a.csv") == [{"path": r"caf\udce9.png"}]


# ---------------------------------------------------------------------------- home


def test_without_a_home_folder_the_cache_is_a_private_temporary_one(tmp_path, monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TRANSFERSCOPE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(machine.Path, "home", homeless)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = cache_dir()
    assert folder.parent == tmp_path
    assert folder == cache_dir()
    if os.name == "posix":
        assert folder.stat().st_mode & 0o077 == 0
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(OutputError, match="TRANSFERSCOPE_CACHE"):
        cache_dir()


def test_a_home_that_cannot_be_written_is_as_none(tmp_path, monkeypatch):
    monkeypatch.delenv("TRANSFERSCOPE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(machine.Path, "home", lambda: tmp_path / "file" / "home")
    (tmp_path / "file").write_text("no folder can be made below it")
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    assert cache_dir().parent == tmp_path


# ---------------------------------------------------------------------------- the outermost layer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("x"), r"KeyError: 'x'; this is not meant to happen: TRANSFERSCOPE_DEBUG=1"),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("CUDA out of memory. Tried"), "there is not enough memory"),
        (OSError(36, "File name too long", "x" * 400), "File name too long; give another path"),
        (OutputError("as it is"), "as it is"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
)
def test_what_is_left_is_one_sentence(error, said):
    sentence = sentence_of(error)
    assert said in sentence
    assert "\n" not in sentence
    assert len(sentence) < 500


def test_the_traceback_is_shown_where_it_is_asked_for(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("transferscope.workflows.doctor.diagnose", broken)
    done = command("doctor")
    assert done.exit_code == 1
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    monkeypatch.setenv("TRANSFERSCOPE_DEBUG", "1")
    done = command("doctor")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert "in broken" in done.stderr
    assert app is not None


# ---------------------------------------------------------------------------- ranges and names


@pytest.mark.parametrize(("seed", "bound"), [(-1, "0"), (2**32, "4294967295")])
@pytest.mark.parametrize(
    "line",
    [
        "tune x --out y",
        "inspect x",
        "advise x",
        "demo --out y",
        "visualize efficientnet_lite0 --layer blocks.0 --channels 0 --out y",
        "ideal efficientnet_lite0 --class tabby --out y",
        "dream efficientnet_lite0 x.png --layer blocks.0 --out y.png",
    ],
)
def test_a_seed_out_of_range_is_refused_before_the_work(line, seed, bound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*line.split(), "--seed", seed)
    assert done.exit_code == 2
    assert f"equal to {bound}" in done.stderr or f" {bound}\n" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "predict efficientnet_lite0 x.png --csv LONG.csv",
        "predict efficientnet_lite0 x.png --figure LONG.svg",
        "predict LONG x.png",
        "tune . --out LONG",
        "tune LONG --out y",
        "inspect LONG",
        "evaluate LONG",
        "layers LONG",
        "visualize efficientnet_lite0 --layer blocks.0 --channels 0 --out LONG",
        "visualize efficientnet_lite0 --layer LONG --channels 0 --out y",
        "ideal efficientnet_lite0 --class tabby --out LONG",
        "dream efficientnet_lite0 x.png --layer blocks.0 --out LONG.png",
        "export LONG --format torch --out y",
        "atlas LONG",
        "compare LONG",
    ],
)
def test_names_of_three_hundred_letters_are_told_before_the_work(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*line.replace("LONG", "x" * 300).split())
    assert done.exit_code in (1, 2)
    assert done.stderr.count("error:") == 1
    assert "not meant to happen" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_random_weights_by_name_are_the_same_every_time(make_folder, tmp_path):
    """A run from random weights is judged against its own start, which is drawn again."""
    first, again = (load_backbone("timm/test_efficientnet", weights="random") for _ in range(2))
    other = load_backbone("timm/test_efficientnet", weights="random", seed=1)
    assert first.body_hash() == again.body_hash() != other.body_hash()
    data = make_folder(tmp_path / "set", {"a": 8, "b": 8})
    out = tmp_path / "run"
    options = ("--backbone", "timm/test_efficientnet", "--weights", "random", "--strategy", "probe")
    assert command("tune", data, "--out", out, "--quiet", *options).exit_code == 0
    done = command("evaluate", out, "--quiet", "--json")
    assert done.exit_code == 0, done.stderr
    shown = command("layers", "timm/test_efficientnet", "--weights", "random", "--json")
    assert shown.exit_code == 0


def test_a_read_only_run_is_told_before_the_work_and_read_by_the_rest(
    make_folder, tmp_path, monkeypatch
):
    data = make_folder(tmp_path / "set", {"a": 8, "b": 8})
    out = tmp_path / "run"
    options = ("--backbone", "timm/test_efficientnet", "--weights", "random", "--strategy", "probe")
    assert command("tune", data, "--out", out, "--quiet", *options).exit_code == 0
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    for room in ("files", "workflows.atlas", "workflows.evaluate"):
        monkeypatch.setattr(
            f"transferscope.{room}.is_writable",
            lambda folder: out not in (Path(folder), *Path(folder).parents),
        )
    done = command("evaluate", out)
    assert done.exit_code == 0
    assert "cannot be written: the figures are told and not kept" in done.stderr
    done = command("atlas", out)
    assert done.exit_code == 1
    assert "say with --out where the atlas is to be" in done.stderr
    assert command("predict", out, data / "a" / "000.png").exit_code == 0
    drawn = ("--layer", "blocks.0", "--channels", "0", "--steps", "1")
    assert command("visualize", out, *drawn, "--out", tmp_path / "v").exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_the_console_script_ends_with_one_sentence():
    script = textwrap.dedent(
        """
        import sys
        from transferscope.cli import app, main
        import transferscope.cli as cli
        def broken():
            raise OSError(28, "No space left on device")
        cli.app = broken
        main()
        """
    )
    done = subprocess.run([*python(), "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device")
