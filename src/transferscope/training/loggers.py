"""A tuning's parameters, epochs, figures and results in TensorBoard or MLflow.

The fit loop reports every epoch from the start again when a run is resumed, and neither tool may show
one twice. TensorBoard's file is written from scratch on every opening; MLflow's run is continued, and
is asked which epochs it has. Nothing leaves the machine unless `MLFLOW_TRACKING_URI` says so.
"""

from __future__ import annotations

import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard, cast, get_args

import numpy as np
from PIL import Image

from transferscope.errors import InputError, OutputError
from transferscope.files import read_json, sha256_bytes, write_json

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from torch.utils.tensorboard import SummaryWriter

LoggerName = Literal["tensorboard", "mlflow"]
Value = str | int | float | bool | None
Row = Mapping[str, float | None]
"""An epoch's columns of history.csv; None where it has none, as the start has no training loss."""

EXPERIMENT = "transferscope"
"""MLflow's experiment, where `MLFLOW_EXPERIMENT_NAME` names no other."""

_PARTS = ("train", "validation")
_NOT_MEASURED = ("epoch", "best")  # the step itself; a mark that only the whole history has


class Logger(AbstractContextManager["Logger"], ABC):
    """What a tuning tells an experiment tracker; leaving the block closes it."""

    _last = -1  # the last epoch that is there

    def epoch(self, row: Row) -> None:
        """A row of the history; its `epoch` is the step. One that is there already is passed over."""
        step = int(row["epoch"] or 0)
        if step <= self._last:
            return
        measured = {name: value for name, value in row.items() if name not in _NOT_MEASURED}
        with self._writing():
            self._epoch(step, {n: float(v) for n, v in measured.items() if v is not None})
        self._last = step

    @abstractmethod
    def figure(self, name: str, path: Path) -> None:
        """A picture file, under a name."""

    def finish(self, results: Mapping[str, Value]) -> None:
        """The results, numbers as numbers and the rest as text; the run is complete."""
        with self._writing():
            for name, value in results.items():
                self._result(name, value, max(self._last, 0))

    @abstractmethod
    def _epoch(self, step: int, measured: Mapping[str, float]) -> None: ...

    @abstractmethod
    def _result(self, name: str, value: Value, step: int) -> None: ...

    @abstractmethod
    def _writing(self) -> AbstractContextManager[None]:
        """The tool's own errors become an `OutputError`."""


def open_logger(
    name: LoggerName, folder: Path, *, run_name: str, parameters: Mapping[str, Value]
) -> Logger:
    """A logger that writes below `folder`, or for MLflow to `MLFLOW_TRACKING_URI` where it is set.

    Args:
        name: tensorboard writes `folder/tensorboard`; mlflow a database and files in `folder/mlflow`.
        run_name: how the tool's pages call it.
        parameters: what the tuning was asked for.

    Raises:
        InputError: no such logger, or its package is not installed.
        OutputError: it cannot write.
    """
    refuse_unknown((name,))
    kind = _TensorBoard if name == "tensorboard" else _MLflow
    return kind(folder / name, run_name, parameters)


def refuse_unknown(names: Sequence[str]) -> tuple[LoggerName, ...]:
    """Loggers' names, each known and with its package installed.

    Raises:
        InputError: otherwise.
    """
    for name in names:
        if name not in get_args(LoggerName):
            raise InputError(f"no logger {name!r}; there are {' and '.join(get_args(LoggerName))}")
        if find_spec(name) is None:
            raise _missing(name)
    return cast(tuple[LoggerName, ...], tuple(names))


def _missing(package: str) -> InputError:
    return InputError(
        f"{package} is not installed; install it with pip install 'transferscope[loggers]', or leave "
        "the logger out"
    )


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Value) -> str:
    return "none" if value is None else str(value)


# ---------------------------------------------------------------------------- TensorBoard


class _TensorBoard(Logger):
    """Events in a folder of their own, which this class alone fills and empties."""

    def __init__(self, folder: Path, run_name: str, parameters: Mapping[str, Value]):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard") from None
        self._folder = folder
        lines = [f"| {name} | {_cell(value)} |" for name, value in parameters.items()]
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer: SummaryWriter = SummaryWriter(str(folder))
            self._writer.add_text("run", _cell(run_name), 0)
            table = "\n".join(["| parameter | value |", "| --- | --- |", *lines])
            self._writer.add_text("parameters", table, 0)

    def _epoch(self, step: int, measured: Mapping[str, float]) -> None:
        """Scalars such as loss/train and loss/validation, so that the parts share a chart's group."""
        for name, value in measured.items():
            part, _, measure = name.partition("_")
            tag = f"{measure}/{part}" if part in _PARTS and measure else name
            self._writer.add_scalar(tag, value, step)

    def figure(self, name: str, path: Path) -> None:
        """A picture of pixels; of an SVG, which TensorBoard cannot show, where it lies."""
        with self._writing():
            if path.suffix.lower() == ".svg":
                self._writer.add_text(name, f"`{path.name}` in the run folder", 0)
                return
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image(name, pixels, 0, dataformats="HWC")

    def _result(self, name: str, value: Value, step: int) -> None:
        if _is_number(value):
            self._writer.add_scalar(f"results/{name}", value, step)
        else:
            self._writer.add_text(f"results/{name}", _cell(value), 0)

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
            self._writer.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write TensorBoard's events in {str(self._folder)!r}: "
                f"{error.strerror or error}; make room there, or leave the logger out"
            ) from error


def _cell(value: Value) -> str:
    """Text for a cell of a Markdown table."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(_text(value).split()))


# ---------------------------------------------------------------------------- MLflow


class _MLflow(Logger):
    """A run of MLflow, whose number a small file keeps for the next opening.

    `run.json` in the folder holds a hash of the store's address, which may contain a password, and
    the run's number. Opened again with the same store, that run goes on; a store that does not know
    it any more gets a new one. A server that does not answer is asked several times by MLflow itself
    (`MLFLOW_HTTP_REQUEST_MAX_RETRIES`) before an error is raised.
    """

    def __init__(self, folder: Path, run_name: str, parameters: Mapping[str, Value]):
        # MLflow reports usage to its makers unless told not to; the user's own setting goes first.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            import alembic  # noqa: F401  # mlflow-skinny does not require what its database needs
            import sqlalchemy  # noqa: F401
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise _missing("mlflow") from None
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self._finished = False
        address = os.environ.get("MLFLOW_TRACKING_URI")
        store = address or _local_store(folder)
        self._store = sha256_bytes(store.encode())
        with self._writing():
            self._client: MlflowClient = MlflowClient(tracking_uri=store)
            self._run = self._opened(folder / "run.json", run_name, local=address is None)
            have = self._client.get_run(self._run).data.params
            for name, value in parameters.items():
                if name not in have:
                    self._client.log_param(self._run, name, _text(value))
            epochs = self._client.get_metric_history(self._run, "epoch")
            self._last = max((point.step for point in epochs), default=-1)

    def _epoch(self, step: int, measured: Mapping[str, float]) -> None:
        """Metrics with the names of history.csv's columns, in one transaction."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)  # `epoch` too is one, which `_last` is read from
        metrics = [Metric(n, v, now, step) for n, v in {**measured, "epoch": step}.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def figure(self, name: str, path: Path) -> None:
        """The file itself, below figures/NAME; MLflow's pages show SVG too."""
        with self._writing():
            self._client.log_artifact(self._run, str(path), f"figures/{name}")

    def _result(self, name: str, value: Value, step: int) -> None:
        if _is_number(value):
            self._client.log_metric(self._run, f"results.{name}", value, step=step)
        else:
            self._client.set_tag(self._run, f"results.{name}", _text(value))

    def finish(self, results: Mapping[str, Value]) -> None:
        """Numbers as metrics results.NAME, the rest as tags; the run becomes FINISHED."""
        super().finish(results)
        with self._writing():
            self._client.set_terminated(self._run, "FINISHED")
        self._finished = True

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._finished or isinstance(error, OutputError):
            return
        with self._writing():
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self._client.set_terminated(self._run, status)

    def _opened(self, record: Path, run_name: str, *, local: bool) -> str:
        if (known := self._known(record)) is not None:
            self._client.update_run(known, status="RUNNING")
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        if (found := self._client.get_experiment_by_name(name)) is not None:
            experiment = found.experiment_id
        else:
            files = (record.parent / "artifacts").resolve().as_uri() if local else None
            experiment = self._client.create_experiment(name, artifact_location=files)
        run: str = self._client.create_run(experiment, run_name=run_name).info.run_id
        write_json(record, {"store": self._store, "run_id": run})
        return run

    def _known(self, record: Path) -> str | None:
        """The run of an earlier opening, if this is its store and it is still there."""
        from mlflow.exceptions import MlflowException

        if not record.is_file() or (kept := read_json(record))["store"] != self._store:
            return None
        run: str = kept["run_id"]
        try:
            found = self._client.get_run(run)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if found.info.lifecycle_stage == "active" else None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise OutputError(
                f"MLflow's store does not take the run: {reason}; see to MLFLOW_TRACKING_URI, or to the "
                "folder where it is not set, and resume, or leave the logger out"
            ) from error


def _local_store(folder: Path) -> str:
    """A database's address: the folders that MLflow kept runs in are no longer its default."""
    folder.mkdir(parents=True, exist_ok=True)
    path = str((folder / "mlflow.db").resolve())
    return "sqlite:///" + path.replace("%", "%25").replace("?", "%3F")
