"""The cache of features: mapped reads, damage, budget, several processes, sudden death."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import tiny_classifier
from forks import python
from transferscope.errors import InputError, OutputError, TransferscopeError
from transferscope.features import store
from transferscope.features.exemplars import channel_means
from transferscope.features.extraction import (
    POOLED,
    boundary_rows,
    extract,
    mean_of,
    planned_bytes,
)
from transferscope.features.store import FeatureStore, Rows, cache_budget
from transferscope.files import sha256_file
from transferscope.machine import cache_dir

FOLDERS = [str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parent)]
"""Where processes that are started here find the tests' own modules."""

BOUNDARY = "stages.1"


@pytest.fixture
def pictures(tmp_path, make_folder):
    root = make_folder(tmp_path / "pictures", {"a": 9, "b": 8}, seed=3)
    files = sorted(root.rglob("*.png"))
    return files, [sha256_file(file) for file in files]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRANSFERSCOPE_CACHE_BUDGET", raising=False)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("transferscope.features.extraction.SHARD", 4)


@pytest.fixture
def computed(monkeypatch):
    """The hashes that each forward pass over missing pictures was for."""
    from transferscope.features import extraction

    runs: list[list[str]] = []
    fill = extraction._fill

    def noted(classifier, stores, missing, *others):
        runs.append(list(missing))
        fill(classifier, stores, missing, *others)

    monkeypatch.setattr(extraction, "_fill", noted)
    return runs


def shards() -> list[Path]:
    return sorted(cache_dir().rglob("*.safetensors"))


def filled(key: object, pictures: range, row: tuple[int, ...] = (1000,)) -> FeatureStore:
    """A store with one shard of these pictures; a picture's features are its number."""
    target = FeatureStore({"key": key})
    values = torch.tensor(list(pictures), dtype=torch.float32)
    rows = values.reshape(-1, *(1 for _ in row)).expand(-1, *row)
    target.add([str(picture) for picture in pictures], rows)
    return target


# ---------------------------------------------------------------------------- mapped reads


def test_mapped_rows_are_those_of_extract_in_any_order(pictures, small_shards):
    files, hashes = pictures
    classifier = tiny_classifier()
    rows = boundary_rows(classifier, files, hashes, BOUNDARY, batch_size=3)
    assert len(shards()) == 3
    whole = extract(classifier, files, hashes, targets=(BOUNDARY,)).targets[BOUNDARY]
    assert (len(rows), rows.shape, rows.dtype) == (17, tuple(whole.shape), torch.float16)
    order = torch.tensor([16, 0, 5, 5, 11, 3])
    assert torch.equal(rows[order], whole[order])
    assert torch.equal(rows[2:9], whole[2:9])
    assert rows[torch.tensor([], dtype=torch.int64)].shape == (0, *whole.shape[1:])


def test_mapped_rows_are_read_by_several_threads(pictures, small_shards):
    files, hashes = pictures
    rows = boundary_rows(tiny_classifier(), files, hashes, BOUNDARY)
    whole, wrong = rows[:], []

    def read(seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for _ in range(50):
            order = torch.randint(len(rows), (6,), generator=draw)
            if not torch.equal(rows[order], whole[order]):
                wrong.append(order)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_shards_of_both_dtypes_are_read_as_the_wider_one():
    target = FeatureStore({"key": 0})
    target.add(["a", "b"], torch.tensor([[1.0], [2.0]]).half())
    target.add(["c"], torch.tensor([[1e6]]))
    rows = target.rows(["c", "a", "b"])
    assert rows.dtype == torch.float32
    assert rows[:].flatten().tolist() == [1e6, 1.0, 2.0]
    assert target.rows(["b", "a"]).dtype == torch.float16


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the process's own memory")
def test_reading_a_set_needs_no_more_memory_than_a_batch():
    parts = [filled("large", range(k, k + 16), (1 << 20,)) for k in range(0, 64, 16)]  # 256 MB

    def own_memory() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024

    names = [str(k) for k in range(64)]
    del parts
    before = own_memory()
    rows = FeatureStore({"key": "large"}).rows(names)
    most = 0
    for order in torch.randperm(64, generator=torch.Generator().manual_seed(0)).split(4):
        assert torch.equal(rows[order][:, 7].long(), order)
        most = max(most, own_memory())
    assert most - before < 64 * 2**20


# ---------------------------------------------------------------------------- never stale, never half


def test_other_weights_input_view_or_layer_have_other_rows(pictures, computed):
    files, hashes = pictures
    for classifier in (tiny_classifier(0), tiny_classifier(1)):
        for layer in ("stages.0", BOUNDARY):
            boundary_rows(classifier, files, hashes, layer)
            boundary_rows(classifier, files, hashes, layer)
    assert computed == [hashes] * 4


@pytest.mark.parametrize("damage", ["flipped", "cut", "header", "empty"])
def test_a_damaged_shard_is_computed_again(pictures, small_shards, computed, damage):
    files, hashes = pictures
    classifier = tiny_classifier()
    wanted = boundary_rows(classifier, files, hashes, BOUNDARY, batch_size=4)[:]
    boundary_rows(classifier, files, hashes, BOUNDARY)  # verified, and remembered as such
    victim = shards()[1]
    whole = victim.read_bytes()
    flipped = whole[:-4] + bytes(byte ^ 1 for byte in whole[-4:])
    victim.write_bytes(
        {"flipped": flipped, "cut": whole[:-100], "header": b"\x00" * 50, "empty": b""}[damage]
    )
    again = boundary_rows(classifier, files, hashes, BOUNDARY, batch_size=4)
    assert torch.equal(again[:], wanted)
    assert [len(run) for run in computed] == [17, len(computed[1])]
    assert len(computed[1]) in (1, 4)
    assert victim.read_bytes() != flipped


def test_a_shard_is_hashed_once_as_long_as_it_stays_the_same(monkeypatch):
    filled("once", range(5))
    hashed = []
    digest = store.hashlib.file_digest
    monkeypatch.setattr(
        store.hashlib, "file_digest", lambda *given: hashed.append(1) or digest(*given)
    )
    for _ in range(3):
        assert FeatureStore({"key": "once"}).rows(["3"])[:][0, 0] == 3
    assert len(hashed) == 1
    (shard,) = shards()
    os.utime(shard, ns=(1, 1))
    assert FeatureStore({"key": "once"}).rows(["3"]) is not None
    assert len(hashed) == 2


def test_a_shard_that_vanishes_after_the_listing_is_computed_again(
    pictures, small_shards, computed, monkeypatch
):
    files, hashes = pictures
    classifier = tiny_classifier()
    wanted = boundary_rows(classifier, files, hashes, BOUNDARY, batch_size=4)[:]
    map_rows, taken = FeatureStore.rows, []

    def evicted_first(self, wanted):
        if not taken:
            taken.append(shards()[0])
            taken[0].unlink()
        return map_rows(self, wanted)

    monkeypatch.setattr(FeatureStore, "rows", evicted_first)
    rows = boundary_rows(classifier, files, hashes, BOUNDARY, batch_size=4)
    assert torch.equal(rows[:], wanted)
    assert [len(run) for run in computed] == [17, len(computed[1])]
    assert taken


def test_a_cache_that_never_stays_is_an_error_not_a_loop(pictures, monkeypatch):
    files, hashes = pictures
    monkeypatch.setattr(FeatureStore, "rows", lambda *_: None)
    with pytest.raises(OutputError, match="3 times"):
        boundary_rows(tiny_classifier(), files, hashes, BOUNDARY)


def test_removed_files_stay_readable_while_they_are_mapped():
    rows = filled("mapped", range(4)).rows(["2", "0"])
    for shard in shards():
        shard.unlink()
    assert rows[:][:, 0].tolist() == [2, 0]


# ---------------------------------------------------------------------------- the budget


@pytest.mark.parametrize("said", ["much", "0", "-1", "nan", "inf"])
def test_a_budget_that_is_no_size_is_refused(monkeypatch, said):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", said)
    with pytest.raises(InputError, match=r"_BUDGET is .* positive number of GB"):
        cache_budget()


def test_the_budget_is_what_was_said_or_at_most_half_of_the_disk(monkeypatch):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", "0.25")
    assert cache_budget() == 250_000_000
    monkeypatch.delenv("TRANSFERSCOPE_CACHE_BUDGET")
    filled("held", range(1000))
    held = sum(shard.stat().st_size for shard in shards())
    usage = store.shutil.disk_usage(cache_dir())
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    assert cache_budget() == (10**6 + held) // 2
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage._replace(free=10**12))
    assert cache_budget() == 20 * 10**9


def test_the_least_recently_used_are_removed_and_never_those_in_use(monkeypatch):
    keys = ["a", "b", "c", "d"]
    for age, key in enumerate(keys):
        os.utime(filled(key, range(10)).folder / ".used", (1000 + age, 1000 + age))
    size = shards()[0].stat().st_size
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", str(4.5 * size / 1e9))
    oldest = FeatureStore({"key": "a"})  # opening it makes it the most recently used
    in_use = FeatureStore({"key": "b"}).files(["3"])
    os.utime(FeatureStore({"key": "b"}).folder / ".used", (1, 1))
    store.make_room(2 * size, in_use)
    left = {key for key in keys if FeatureStore({"key": key}).pictures}
    assert left == {"a", "b"}
    assert oldest.rows(["3"]) is not None
    assert not list(cache_dir().rglob("*.verified")) or len(shards()) == 2
    before = shards()
    with pytest.raises(OutputError, match="TRANSFERSCOPE_CACHE_BUDGET"):
        store.make_room(4 * size, in_use)
    assert shards() == before


def test_a_fill_keeps_the_cache_within_its_budget(pictures, small_shards, monkeypatch):
    files, hashes = pictures
    classifier = tiny_classifier()
    planned = planned_bytes(classifier, BOUNDARY, len(files))
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", str(2.5 * planned / 1e9))
    for layer in ("stages.0", "stages.1", "stages.2"):
        rows = boundary_rows(classifier, files, hashes, layer, batch_size=4)
        assert sum(shard.stat().st_size for shard in shards()) <= cache_budget()
        assert len(rows) == len(files)
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", str(0.5 * planned / 1e9))
    before = shards()
    with pytest.raises(OutputError, match="set TRANSFERSCOPE_CACHE_BUDGET to a larger number"):
        boundary_rows(tiny_classifier(seed=1), files, hashes, BOUNDARY)
    assert shards() == before


def test_pictures_of_another_set_make_room_in_the_same_store(pictures, small_shards, monkeypatch):
    files, hashes = pictures
    classifier = tiny_classifier()
    half = planned_bytes(classifier, BOUNDARY, 8)
    boundary_rows(classifier, files[:8], hashes[:8], BOUNDARY, batch_size=4)
    monkeypatch.setenv("TRANSFERSCOPE_CACHE_BUDGET", str(1.5 * half / 1e9))
    boundary_rows(classifier, files[8:16], hashes[8:16], BOUNDARY, batch_size=4)
    assert sum(shard.stat().st_size for shard in shards()) <= cache_budget()


def test_planned_bytes_are_those_written(pictures):
    files, hashes = pictures
    classifier = tiny_classifier()
    for target in (BOUNDARY, POOLED, mean_of(BOUNDARY)):
        before = sum(shard.stat().st_size for shard in shards())
        extract(classifier, files, hashes, targets=(target,))
        written = sum(shard.stat().st_size for shard in shards()) - before
        assert 0.8 < planned_bytes(classifier, target, len(files)) / written < 1.1


def test_what_a_killed_writer_left_is_removed_after_an_hour():
    target = filled("litter", range(3))
    old, new = target.folder / ".x.safetensors.1.tmp", target.folder / ".x.safetensors.2.tmp"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    store.make_room(1, set())
    assert (old.exists(), new.exists()) == (False, True)


# ---------------------------------------------------------------------------- every stage in one pass


def test_means_of_every_stage_come_of_one_pass(pictures, computed):
    files, hashes = pictures
    classifier = tiny_classifier()
    stages = ["stages.0", "stages.1", "stages.2"]
    for part in (slice(0, 9), slice(9, None)):
        extract(classifier, files[part], hashes[part], precision="fp32")
    means = tuple(map(mean_of, stages))
    found = extract(classifier, files, hashes, targets=(POOLED, *means), precision="fp32").targets
    outputs = extract(classifier, files, hashes, targets=stages, precision="fp32").targets
    assert len(computed) == 4
    for stage in stages:
        assert found[mean_of(stage)].dtype == torch.float32
        wanted = channel_means(outputs[stage].float())
        torch.testing.assert_close(found[mean_of(stage)], wanted, rtol=1e-3, atol=1e-3)
    again = extract(classifier, files, hashes, targets=means, precision="fp32")
    assert again.cached == len(files)
    assert len(shards()) == 2 + 3 + 3  # the pooled ones were not written again


# ---------------------------------------------------------------------------- processes

WORKER = """
import json, os, sys
from pathlib import Path
sys.path[:0] = {tests!r}
import torch
torch.set_num_threads(1)
from conftest import tiny_classifier
from transferscope import distributed
from transferscope.features import extraction
from transferscope.features.extraction import boundary_rows
from transferscope.files import sha256_file
extraction.SHARD = 4
fill = extraction._fill
def noted(classifier, stores, missing, *others):
    fill(classifier, stores, missing, *others)
    with open(Path(name) / f"{{distributed.rank()}}.json", "w") as file:
        json.dump(list(missing), file)
extraction._fill = noted
files = sorted(Path({root!r}).rglob("*.png"))
with distributed.joined():
    for name in ("whole", "damaged"):
        os.environ["TRANSFERSCOPE_CACHE"] = f"cache of {{name}}"
        if name == "damaged" and distributed.is_first():
            files[1].write_bytes(files[1].read_bytes()[:200])
        distributed.wait_for_all()
        hashes = [sha256_file(f) for f in files]
        rows = boundary_rows(tiny_classifier(), files, hashes, {layer!r})
        torch.save(rows[:], Path(name) / f"{{distributed.rank()}}.pt")
"""


@pytest.fixture(scope="module")
def two_processes(
    tmp_path_factory, make_folder
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """Pictures, the folder of what two processes made of them, and how they ended: the second time with
    a picture that is damaged by then."""
    home = tmp_path_factory.mktemp("two")
    root = make_folder(home / "pictures", {"a": 9, "b": 8}, seed=3)
    (home / "whole").mkdir()
    (home / "damaged").mkdir()
    (home / "worker.py").write_text(WORKER.format(tests=FOLDERS, root=str(root), layer=BOUNDARY))
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [*python(), "-m", *launch, *python(), "worker.py"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, cwd=home
    )
    return root, home, ended


def test_two_processes_compute_every_picture_once_and_read_the_same(
    two_processes, pictures, tmp_path, monkeypatch
):
    import json

    files, hashes = pictures  # the same, undamaged
    _, home, ended = two_processes
    assert (home / "whole" / "0.pt").is_file(), ended.stderr
    shares = [json.loads((home / "whole" / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == sorted(hashes)
    assert abs(len(shares[0]) - len(shares[1])) <= 1
    found = [torch.load(home / "whole" / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(*found)
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "alone"))
    alone = boundary_rows(tiny_classifier(), files, hashes, BOUNDARY)
    torch.testing.assert_close(found[0], alone[:], rtol=2e-3, atol=2e-3)


def test_an_error_in_one_process_ends_both(two_processes):
    root, home, ended = two_processes
    damaged = sorted(root.rglob("*.png"))[1]
    assert ended.returncode != 0
    assert f"cannot read {str(damaged)!r}" in ended.stderr
    assert "process 1 could not go on" in ended.stderr
    assert not list((home / "damaged").glob("*.pt"))


def test_a_failure_elsewhere_is_raised_here(monkeypatch):
    from transferscope.features import extraction

    monkeypatch.setattr(extraction.distributed, "gathered", lambda own: [own, "the disk is full"])
    with pytest.raises(TransferscopeError, match="process 1 could not go on: the disk is full"):
        extraction._together(lambda: None)


KILLED = """
import os, sys, time
from pathlib import Path
sys.path[:0] = {tests!r}
from conftest import tiny_classifier
from transferscope.features import extraction
from transferscope.features.extraction import boundary_rows
from transferscope.files import sha256_file
extraction.SHARD = 4
write, written = Path.write_bytes, []
replace = os.replace
def slow(source, target):
    if str(target).endswith(".safetensors"):
        written.append(target)
        if len(written) == 3:  # its bytes are there, its name is not
            print("now", flush=True)
            time.sleep(100)
    replace(source, target)
os.replace = slow
files = sorted(Path({root!r}).rglob("*.png"))
boundary_rows(tiny_classifier(), files, [sha256_file(f) for f in files], {layer!r}, batch_size=4)
"""


def test_what_a_killed_fill_has_finished_is_used_and_the_rest_computed(
    pictures, tmp_path, computed, monkeypatch
):
    files, hashes = pictures
    script = KILLED.format(tests=FOLDERS, root=str(files[0].parent.parent), layer=BOUNDARY)
    filling = subprocess.Popen([*python(), "-c", script], stdout=subprocess.PIPE, text=True)
    assert filling.stdout is not None
    with filling, filling.stdout:
        assert filling.stdout.readline() == "now\n"
        filling.send_signal(signal.SIGKILL)
        filling.wait()
    assert len(shards()) == 2
    rows = boundary_rows(tiny_classifier(), files, hashes, BOUNDARY, batch_size=4)
    assert computed == [hashes[8:]]
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "alone"))
    alone = boundary_rows(tiny_classifier(), files, hashes, BOUNDARY, batch_size=4)
    torch.testing.assert_close(rows[:], alone[:], rtol=2e-3, atol=2e-3)


def test_rows_need_at_least_one_picture():
    with pytest.raises(AssertionError, match="no pictures"):
        Rows([], np.zeros(0, np.int64), np.zeros(0, np.int64))


# ---------------------------------------------------------------------------- many shards


_MANY_SHARDS = """
import resource, sys
import torch
from transferscope.features.store import FeatureStore

store = FeatureStore({"set": "many"})
names = [f"{number:064x}" for number in range(300)]
if sys.argv[1] == "write":
    for number, name in enumerate(names):
        store.add([name], torch.full((1, 3), float(number)))
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    rows = FeatureStore({"set": "many"}).rows(names)
    assert rows is not None
    assert torch.equal(rows[:], torch.arange(300.0)[:, None].expand(-1, 3))
    assert torch.equal(rows[torch.tensor([299, 7, 7])][:, 0], torch.tensor([299.0, 7.0, 7.0]))
    print("read")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_more_shards_are_read_than_files_may_be_open(tmp_path):
    environment = {**os.environ, "TRANSFERSCOPE_CACHE": str(tmp_path)}

    def ran(what: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*python(), "-c", _MANY_SHARDS, what],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    written = ran("write")
    assert written.returncode == 0, written.stderr
    found = ran("read")
    assert found.stdout == "read\n", found.stderr


def test_a_machine_that_opens_no_more_files_is_named_as_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path))
    store = FeatureStore({"a": 1})
    store.add(["a" * 64], torch.zeros(1, 2))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        with pytest.raises(OutputError, match=r"Too many open files.*ulimit -n"):
            FeatureStore({"a": 1})
    assert "a" * 64 in FeatureStore({"a": 1})
