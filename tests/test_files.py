"""Files are whole or absent, whatever fails in between; locks die with their process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transferscope import files, machine
from transferscope.errors import OutputError, RunError, WeightsError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------------------- writing


def test_a_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "猫 & dog.txt"
    files.write_text(file, "a longer first text")
    files.write_text(file, "第二")
    assert file.read_text(encoding="utf-8") == "第二"
    assert names(file.parent) == ["猫 & dog.txt"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_written_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


class Interrupted(BaseException):
    """Like KeyboardInterrupt, which a test runner would take for its own."""


@pytest.mark.parametrize("failure", [ZeroDivisionError, Interrupted])
def test_a_failure_inside_keeps_the_old_file(failure: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    files.write_text(file, "old")
    with pytest.raises(failure), files.atomic_path(file) as temporary:  # noqa: PT012
        temporary.write_text("new")
        raise failure
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_full_disk_is_an_output_error_and_keeps_the_old_file(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    files.write_text(file, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OutputError, match="No space left on device; what was there before"):
        files.write_text(file, "new")
    monkeypatch.undo()
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_path_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="choose a folder that can be written"):
        files.write_text(tmp_path / "file" / "a.txt", "new")
    with (
        pytest.raises(OutputError, match=r"is a file, not a folder; .*choose a folder that can be"),
        files.replaced_folder(tmp_path / "file" / "a"),
    ):
        pass
    with (
        pytest.raises(OutputError, match="choose a folder that can be written"),
        files.locked(tmp_path / "file" / "a"),
    ):
        pass
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="resource limits are of POSIX systems")
def test_a_file_size_limit_never_leaves_a_short_file(tmp_path: Path) -> None:
    """The nearest thing to a full disk that a test may do: no file may pass 64 KiB."""
    file = tmp_path / "a.bin"
    files.write_bytes(file, b"old")
    code = (
        "import resource, sys\n"
        "from transferscope import files\n"
        "from transferscope.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    files.write_bytes(sys.argv[1], bytes(1 << 20))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


# ---------------------------------------------------------------------------- JSON and CSV


def test_json_survives_and_keeps_its_order(tmp_path: Path) -> None:
    value = {"z": 1, "a": ["猫", None, 0.1, {"</script>": True}]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "猫" in text
    assert text.index('"z"') < text.index('"a"')


def test_json_without_a_meaning_is_refused_and_keeps_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert files.read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_json_is_a_run_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunError, match=r"cannot read .*a\.json"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(RunError, match="is missing"):
        files.read_json(tmp_path / "none.json")


def test_csv_survives_any_text(tmp_path: Path) -> None:
    odd = ['<b>猫 & "狗"</b>', "a,b", "line\nbreak", "carriage\rreturn", "both\r\n", " ", "", "'"]
    files.write_csv(tmp_path / "a.csv", ("number", "text"), list(enumerate(odd)))
    rows = files.read_csv(tmp_path / "a.csv")
    assert [row["text"] for row in rows] == odd
    assert [row["number"] for row in rows] == [str(number) for number in range(len(odd))]


def test_csv_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("path,class\r\n1.jpg,é\r\n".encode("utf-8-sig"))
    assert files.read_csv(tmp_path / "a.csv") == [{"path": "1.jpg", "class": "é"}]


def test_unreadable_csv_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path,class\n\xff\xfe,b\n")
    with pytest.raises(RunError, match="as CSV"):
        files.read_csv(tmp_path / "a.csv")
    with pytest.raises(RunError, match="as CSV"):
        files.read_csv(tmp_path)
    with pytest.raises(RunError, match="is missing"):
        files.read_csv(tmp_path / "none.csv")


# ---------------------------------------------------------------------------- tensors


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weights": torch.randn(5, 7, generator=generator),
        "strided": torch.randn(4, 6, generator=generator).T,
        "half": torch.randn(3, generator=generator).bfloat16(),
        "labels": torch.arange(4),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }


def test_tensors_and_metadata_survive_bit_for_bit(tmp_path: Path) -> None:
    metadata = {"classes": ["猫", "dog"], "temperature": 1.5, "none": None}
    files.write_tensors(tmp_path / "a.safetensors", tensors(), metadata)
    read, header = files.read_tensors(tmp_path / "a.safetensors")
    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert header == {**metadata, "sha256": files.hash_tensors(tensors())}


def test_tied_tensors_are_written_separately(tmp_path: Path) -> None:
    shared = torch.ones(2)
    files.write_tensors(tmp_path / "a.safetensors", {"a": shared, "b": shared}, {})
    assert files.read_tensors(tmp_path / "a.safetensors")[0]["b"].tolist() == [1, 1]


def test_every_kind_of_damage_is_a_weights_error(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    files.write_tensors(file, tensors(), {})
    data = file.read_bytes()
    flipped = bytearray(data)
    flipped[-9] ^= 1
    for damaged in (b"", data[:4], data[:100], data[:-1], bytes(flipped), b"x" * 500):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            files.read_tensors(file)
    file.write_bytes(bytes(flipped))
    with pytest.raises(WeightsError, match="do not have the checksum"):
        files.read_tensors(file)
    with pytest.raises(WeightsError, match="does not exist"):
        files.read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError):
        files.read_tensors(tmp_path)


def test_safetensors_of_other_writers_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"format": "pt"})
    read, header = files.read_tensors(tmp_path / "a.safetensors")
    assert read["a"].tolist() == [1, 1]
    assert header == {"format": "pt"}
    save_file({"a": torch.ones(2)}, tmp_path / "b.safetensors")
    assert files.read_tensors(tmp_path / "b.safetensors")[1] == {}


def test_hashes_see_names_dtypes_shapes_and_bits() -> None:
    one = torch.arange(6, dtype=torch.float32)
    digests = {
        files.hash_tensors(value)
        for value in (
            {"a": one},
            {"b": one},
            {"a": one.double()},
            {"a": one.reshape(2, 3)},
            {"a": one + 1e-7},
            {"a": one, "b": one},
            {},
        )
    }
    assert len(digests) == 7
    assert files.hash_tensors({"a": one, "b": -one}) == files.hash_tensors({"b": -one, "a": one})


def test_hashes_of_files_and_values(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_file(tmp_path / "a") == files.sha256_bytes(b"abc") == expected
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 1.5})


# ---------------------------------------------------------------------------- whole folders


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for number in (1, 2):
        with files.replaced_folder(folder) as fresh:
            assert names(fresh) == []
            (fresh / f"{number}.txt").write_text("x")
    assert names(folder) == [files.FOLDER_MARK, "2.txt"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [ZeroDivisionError, Interrupted, OSError])
def test_a_failure_inside_keeps_the_old_folder(
    failure: type[BaseException], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    with files.replaced_folder(folder) as fresh:
        (fresh / "old.txt").write_text("x")
    expected = OutputError if failure is OSError else failure
    with pytest.raises(expected), files.replaced_folder(folder) as fresh:  # noqa: PT012
        (fresh / "new.txt").write_text("x")
        raise failure
    assert names(folder) == [files.FOLDER_MARK, "old.txt"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), Interrupted()])
def test_a_failure_between_the_two_renames_brings_the_old_folder_back(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    with files.replaced_folder(folder) as fresh:
        (fresh / "old.txt").write_text("x")
    rename, calls = os.replace, []

    def fail_second(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise failure
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_second)
    with pytest.raises((OutputError, Interrupted)), files.replaced_folder(folder):
        pass
    assert names(folder) == [files.FOLDER_MARK, "old.txt"]
    assert names(tmp_path) == ["out"]


KILLED = """
import os, sys
from transferscope import files
rename, calls = os.replace, []
def replace(source, target):
    calls.append(source)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    rename(source, target)
os.replace = replace
with files.replaced_folder(sys.argv[1]) as fresh:
    (fresh / "new.txt").write_text("x")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX systems")
@pytest.mark.parametrize("rename", [1, 2], ids=["before", "between"])
def test_a_killed_process_leaves_the_old_folder_whole_or_none(rename: int, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with files.replaced_folder(folder) as fresh:
        (fresh / "old.txt").write_text("x")
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(rename)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert folder.exists() == (rename == 1)
    assert rename == 2 or names(folder) == [files.FOLDER_MARK, "old.txt"]
    with files.replaced_folder(folder) as fresh:
        (fresh / "2.txt").write_text("x")
    assert names(folder) == [files.FOLDER_MARK, "2.txt"]


def test_of_two_that_replace_a_folder_at_once_the_last_one_stays(tmp_path: Path) -> None:
    with files.replaced_folder(tmp_path / "out") as fresh:
        with files.replaced_folder(tmp_path / "out") as other:
            (other / "other.txt").write_text("x")
        (fresh / "mine.txt").write_text("x")
    assert names(tmp_path / "out") == [files.FOLDER_MARK, "mine.txt"]
    assert names(tmp_path) == ["out"]


def test_foreign_folders_and_files_are_never_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "mine.jpg").write_text("x")
    with pytest.raises(OutputError, match="would be lost"), files.replaced_folder(foreign):
        pass
    assert names(foreign) == ["mine.jpg"]
    with (
        pytest.raises(OutputError, match="is a file"),
        files.replaced_folder(foreign / "mine.jpg"),
    ):
        pass
    assert names(foreign) == ["mine.jpg"]


@pytest.mark.parametrize("added", ["notes.txt", "deep/er/né\n.txt", "link"])
def test_what_was_added_to_a_folder_of_ours_is_not_lost(added: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with files.replaced_folder(folder) as fresh:
        (fresh / "deep").mkdir()
        (fresh / "deep" / "1.txt").write_text("x")
    (folder / added).parent.mkdir(parents=True, exist_ok=True)
    if added == "link":
        (folder / added).symlink_to(tmp_path)
    else:
        (folder / added).write_text("mine")
    with (
        pytest.raises(OutputError, match="did not write and which would be lost"),
        files.replaced_folder(folder),
    ):
        pass
    assert (folder / added).is_symlink() or (folder / added).read_text() == "mine"
    (folder / added).unlink()
    (folder / "deep" / "1.txt").unlink()  # what is ours may go
    with files.replaced_folder(folder) as fresh:
        (fresh / "2.txt").write_text("x")
    assert names(folder) == [files.FOLDER_MARK, "2.txt"]


@pytest.mark.parametrize("made", [True, False], ids=["ours", "empty"])
def test_what_a_file_manager_leaves_is_no_users_file(made: bool, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    if made:
        with files.replaced_folder(folder) as fresh:
            (fresh / "1.txt").write_text("x")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    with files.replaced_folder(folder) as fresh:
        (fresh / "2.txt").write_text("x")
    assert names(folder) == [files.FOLDER_MARK, "2.txt"]


def test_a_folder_of_an_earlier_version_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "1.txt").write_text("x")
    (folder / files.FOLDER_MARK).write_text("written by transferscope; replaced as a whole\n")
    with files.replaced_folder(folder) as fresh:
        (fresh / "2.txt").write_text("x")
    assert names(folder) == [files.FOLDER_MARK, "2.txt"]


def test_a_folder_whose_list_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with files.replaced_folder(folder) as fresh:
        (fresh / "1.txt").write_text("x")
    mark = folder / files.FOLDER_MARK
    mark.write_text(mark.read_text()[:-4])
    with pytest.raises(OutputError, match="would be lost"), files.replaced_folder(folder):
        pass
    assert names(folder) == [files.FOLDER_MARK, "1.txt"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with files.replaced_folder(tmp_path / "out") as fresh:
        (fresh / "a").write_text("x")
    assert names(tmp_path / "out") == [files.FOLDER_MARK, "a"]


# ---------------------------------------------------------------------------- lock


def test_a_lock_is_exclusive_and_is_given_back(tmp_path: Path) -> None:
    with files.locked(tmp_path / "run"):
        with pytest.raises(RunError, match="in use by another"), files.locked(tmp_path / "run"):
            pass
        with files.locked(tmp_path / "other"):
            pass
    with pytest.raises(ZeroDivisionError), files.locked(tmp_path / "run"):
        raise ZeroDivisionError
    with files.locked(tmp_path / "run"):
        pass


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is of POSIX systems")
def test_a_killed_process_gives_its_lock_back(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from transferscope import files\n"
        "with files.locked(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunError, match="in use"), files.locked(tmp_path):
                pass
        finally:
            holder.kill()
            holder.wait()
    with files.locked(tmp_path):
        pass


# ---------------------------------------------------------------------------- record


def test_the_cache_moves_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "c"))
    assert machine.cache_dir() == tmp_path / "c"
    monkeypatch.delenv("TRANSFERSCOPE_CACHE")
    assert machine.cache_dir().name in ("transferscope", "cache")


def test_the_environment_record_is_json_and_names_no_place() -> None:
    record = machine.environment()
    text = json.dumps(record)
    assert record["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert str(Path.cwd()) not in text


# ---------------------------------------------------------------------------- file systems of other kinds


@pytest.mark.skipif(os.name == "nt", reason="a folder has no handle there")
@pytest.mark.parametrize("fails", ["fsync", "open"])
def test_a_file_system_that_cannot_flush_a_folder_takes_writes(tmp_path, monkeypatch, fails):
    """SMB and FUSE refuse it, after the file has taken its name."""
    real = getattr(os, fails)

    def refused(target, *rest, **options):
        folder = target if fails == "open" else f"/proc/self/fd/{target}"
        if Path(folder).is_dir():
            raise OSError(22, "Invalid argument")
        return real(target, *rest, **options)

    monkeypatch.setattr(os, fails, refused)
    files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    with files.replaced_folder(tmp_path / "out") as folder:
        (folder / "b.txt").write_text("new")
    assert (tmp_path / "out" / "b.txt").read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="no umask there")
def test_files_are_no_more_open_than_the_users_umask(tmp_path):
    before = os.umask(0o077)
    try:
        files.write_json(tmp_path / "a.json", {})
        with files.locked(tmp_path / "run"):
            pass
        with files.replaced_folder(tmp_path / "out") as folder:
            (folder / "b.txt").write_text("new")
        files.same_file(tmp_path / "a.json", tmp_path / "b.json")
    finally:
        os.umask(before)
    open_ = [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077]
    assert not open_


def test_a_file_has_two_names_or_a_copy(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a", "one")
    files.same_file(tmp_path / "a", tmp_path / "b")
    files.write_text(tmp_path / "b", "two")  # replaced, not written through
    assert (tmp_path / "a").read_text() == "one"

    def refused(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    files.same_file(tmp_path / "a", tmp_path / "sub" / "c")
    assert (tmp_path / "sub" / "c").read_text() == "one"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c", "sub"]
