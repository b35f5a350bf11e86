"""What the loggers wrote is read back with the tools' own readers, and no epoch is there twice."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from transferscope.errors import InputError, OutputError
from transferscope.training.loggers import open_logger

PARAMETERS: dict[str, Any] = {"backbone": "lite0", "lr": 3e-4, "flip": True, "weights": None}
RESULTS: dict[str, Any] = {"top1": 0.875, "strategy": "partial", "cached": False}


def row(epoch: int) -> dict[str, float | None]:
    """The start has no steps, so no training loss either."""
    return {
        "epoch": epoch,
        "train_loss": 2 / (epoch + 1) if epoch else None,
        "train_top1": 0.5 if epoch else None,
        "validation_loss": 2.5 / (epoch + 1),
        "validation_top1": 0.6,
        "learning_rate": 1e-3,
        "seconds": 1.5,
        "best": False,
    }


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (20, 10), (200, 30, 90)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'wandb'.*tensorboard and mlflow"):
        open_logger("wandb", tmp_path, run_name="run", parameters={})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tensorboard", "torch.utils.tensorboard"),
        ("mlflow", "mlflow.tracking"),
        ("mlflow", "sqlalchemy"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'transferscope\[loggers\]'"):
        open_logger(name, tmp_path / "run", run_name="run", parameters={})
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------- TensorBoard


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return read


def test_tensorboard_reads_back_what_a_tuning_told(tmp_path: Path, picture: Path) -> None:
    with open_logger("tensorboard", tmp_path, run_name="run", parameters=PARAMETERS) as logger:
        for epoch in range(3):
            logger.epoch(row(epoch))
        logger.figure("start", picture)
        logger.figure("history", tmp_path / "history.svg")
        logger.finish(RESULTS)
    read = events(tmp_path)
    losses = [(point.step, point.value) for point in read.Scalars("loss/validation")]
    assert losses == [(0, 2.5), (1, 1.25), (2, pytest.approx(2.5 / 3))]
    assert set(read.Tags()["scalars"]) == {
        "loss/train",
        "top1/train",
        "loss/validation",
        "top1/validation",
        "learning_rate",
        "seconds",
        "results/top1",
    }
    assert (read.Images("start")[0].width, read.Images("start")[0].height) == (20, 10)
    text = read.Tensors("parameters/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| lr | 0.0003 |" in text
    assert "| weights | none |" in text
    assert read.Tensors("results/strategy/text_summary")


def test_tensorboard_has_each_epoch_once_after_a_resume(tmp_path: Path) -> None:
    with open_logger("tensorboard", tmp_path, run_name="run", parameters={}) as logger:
        for epoch in (0, 1, 1, 0):
            logger.epoch(row(epoch))
    with open_logger("tensorboard", tmp_path, run_name="run", parameters={}) as logger:
        for epoch in range(4):  # the loop repeats what it had reported
            logger.epoch(row(epoch))
    assert [point.step for point in events(tmp_path).Scalars("learning_rate")] == [0, 1, 2, 3]


def test_tensorboard_shows_an_epoch_before_the_next_is_done(tmp_path: Path) -> None:
    with open_logger("tensorboard", tmp_path, run_name="run", parameters={}) as logger:
        logger.epoch(row(0))
        assert [point.step for point in events(tmp_path).Scalars("loss/validation")] == [0]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "notes.txt").write_text("mine")
    with open_logger("tensorboard", tmp_path, run_name="run", parameters={}):
        pass
    assert (tmp_path / "tensorboard" / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(OutputError, match="TensorBoard's events"):
        open_logger("tensorboard", tmp_path, run_name="run", parameters={})


# ---------------------------------------------------------------------------- MLflow

needs_mlflow = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # of what MLflow is built on: SQLAlchemy, pydantic
    "ignore::ResourceWarning",  # it leaves its connections to the garbage collector
)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database: its tables take seconds to make, so the tests copy it."""
    pytest.importorskip("mlflow", reason="the extra 'loggers' is not installed")
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        with open_logger("mlflow", folder, run_name="template", parameters={}):
            pass
    database = folder / "mlflow" / "mlflow.db"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("transferscope")
    client.rename_experiment(experiment.experiment_id, "template")
    return database


@pytest.fixture
def run_folder(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a 100% run"
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    return folder


def stored(database: Path, experiment: str = "transferscope") -> tuple[Any, list[Any]]:
    from mlflow.tracking import MlflowClient

    address = str(database).replace("%", "%25")
    client = MlflowClient(tracking_uri=f"sqlite:///{address}")
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id])


def broken_off(folder: Path, error: BaseException) -> None:
    """A tuning that ends with `error` in its second epoch."""
    with open_logger("mlflow", folder, run_name="run", parameters=PARAMETERS) as logger:
        logger.epoch(row(0))
        logger.epoch({**row(1), "validation_loss": math.nan})
        raise error


@needs_mlflow
def test_mlflow_reads_back_what_a_tuning_told(run_folder: Path, picture: Path) -> None:
    with open_logger("mlflow", run_folder, run_name="flowers", parameters=PARAMETERS) as logger:
        for epoch in range(3):
            logger.epoch(row(epoch))
        logger.figure("start", picture)
        logger.finish(RESULTS)
    client, (run,) = stored(run_folder / "mlflow" / "mlflow.db")
    assert (run.info.run_name, run.info.status) == ("flowers", "FINISHED")
    assert run.data.params == {
        "backbone": "lite0",
        "lr": "0.0003",
        "flip": "True",
        "weights": "none",
    }
    history = client.get_metric_history(run.info.run_id, "validation_loss")
    assert [(point.step, point.value) for point in history] == [(0, 2.5), (1, 1.25), (2, 2.5 / 3)]
    assert run.data.metrics["results.top1"] == 0.875
    assert "best" not in run.data.metrics
    assert run.data.tags["results.strategy"] == "partial"
    (kept,) = (run_folder / "mlflow" / "artifacts").rglob("picture.png")
    assert kept.read_bytes() == picture.read_bytes()
    assert not (run_folder.parent / "mlruns").exists()


@needs_mlflow
def test_mlflow_has_each_epoch_once_after_a_resume(run_folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        broken_off(run_folder, KeyboardInterrupt())
    _, (run,) = stored(run_folder / "mlflow" / "mlflow.db")
    assert run.info.status == "KILLED"
    with open_logger("mlflow", run_folder, run_name="run", parameters=PARAMETERS) as logger:
        for epoch in range(4):
            logger.epoch(row(epoch))
        logger.finish({})
    client, (run,) = stored(run_folder / "mlflow" / "mlflow.db")
    assert run.info.status == "FINISHED"
    steps = [p.step for p in client.get_metric_history(run.info.run_id, "train_loss")]
    assert steps == [1, 2, 3]


@needs_mlflow
def test_a_failed_tuning_is_a_failed_run(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="wrong"):
        broken_off(run_folder, ValueError("wrong"))
    _, (run,) = stored(run_folder / "mlflow" / "mlflow.db")
    assert run.info.status == "FAILED"


@needs_mlflow
def test_mlflow_goes_where_its_variables_say(
    run_folder: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared.db"
    shutil.copy(empty_store, shared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for name in ("one", "two"):
        with open_logger("mlflow", tmp_path / name, run_name=name, parameters={}) as logger:
            logger.epoch(row(0))
            logger.finish({})
    _, runs = stored(shared, "mine")
    assert {run.info.run_name for run in runs} == {"one", "two"}
    assert str(shared) not in (tmp_path / "one" / "mlflow" / "run.json").read_text()


@needs_mlflow
def test_a_store_that_is_none_is_an_error_in_words(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.db").write_text("not a database, only a file of text")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file.db'}")
    with pytest.raises(OutputError, match="MLFLOW_TRACKING_URI"):
        open_logger("mlflow", tmp_path, run_name="run", parameters={})
