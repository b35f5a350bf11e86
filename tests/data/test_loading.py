"""Batches in order, whatever the threads do, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transferscope.data.loading import cores, in_order, load_batches
from transferscope.errors import InputError, PictureError
from transferscope.images import InputSpec

SPEC = InputSpec(size=(24, 32))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    made = []
    for number in range(11):
        height, width = rng.integers(20, 80, 2)
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        made.append(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
        picture.save(made[-1])
    return made


@pytest.mark.parametrize("batch_size", [1, 3, 11, 100])
@pytest.mark.parametrize("workers", [None, 1, 64])
def test_batches_are_the_single_pictures_in_order(
    batch_size: int, workers: int | None, files: list[Path]
) -> None:
    batches = list(load_batches(files, SPEC, batch_size=batch_size, workers=workers))
    sizes = [len(batch) for batch in batches]
    assert sum(sizes) == len(files)
    assert all(size == batch_size for size in sizes[:-1])
    assert all(batch.is_contiguous() and batch.dtype == torch.uint8 for batch in batches)
    assert torch.equal(torch.cat(batches), torch.stack([SPEC.load(file) for file in files]))


def test_grey_batches(files: list[Path]) -> None:
    spec = InputSpec(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))
    assert next(load_batches(files, spec, batch_size=4)).shape == (4, 1, 8, 8)


def test_no_files_give_no_batches() -> None:
    assert list(load_batches([], SPEC)) == []


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}, {"workers": -1}])
def test_impossible_options_are_refused_at_the_call(
    options: dict[str, int], files: list[Path]
) -> None:
    with pytest.raises(InputError, match="at least 1"):
        load_batches(files, SPEC, **options)


def test_an_unreadable_file_is_named_where_it_was_due(files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:100])
    before = threading.active_count()
    batches = load_batches([*files[:5], broken, *files[5:]], SPEC, batch_size=2)
    assert [len(next(batches)) for _ in range(2)] == [2, 2]
    with pytest.raises(PictureError, match=r"broken\.png"):
        next(batches)
    assert threading.active_count() == before


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_loader_closed_early_leaves_no_threads(taken: int, files: list[Path]) -> None:
    before = threading.active_count()
    batches = load_batches(files * 20, SPEC, batch_size=4)
    for _ in range(taken):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_work_is_a_bounded_distance_ahead_and_on_no_more_threads_than_cores() -> None:
    started: list[int] = []
    threads: set[str] = set()

    def work(item: int) -> int:
        started.append(item)
        threads.add(threading.current_thread().name)
        time.sleep(0.001)
        return item

    def endless() -> Iterator[int]:
        item = 0
        while True:
            yield item
            item += 1

    results = in_order(work, endless(), workers=1000, ahead=7)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.05)
    assert max(started) <= 5 + 7
    results.close()  # type: ignore[attr-defined]
    assert 1 <= len(threads) <= cores()


def test_closing_early_drops_what_has_not_begun() -> None:
    started: list[int] = []

    def work(item: int) -> None:
        started.append(item)
        time.sleep(0.005)

    results = in_order(work, range(1000), workers=1, ahead=100)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(started) < 50


def test_results_keep_their_order_when_the_first_is_the_slowest() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item

    assert list(in_order(work, range(20))) == list(range(20))
