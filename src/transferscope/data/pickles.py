"""A reader for sets that are distributed as pickles: it knows plain values and arrays of bytes alone.

A pickle may call any function by its name. Here no function is found: NumPy's own are not let in
either, as `numpy.ndarray`, called with a buffer and a type object, would take any bytes for pointers.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

_STOOD_FOR = (
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
)


class PickledArray:
    """Stands for an array of bytes, or for its type: keeps what describes it."""

    def __init__(self, *_: object):
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def values(self) -> np.ndarray:
        """The array, uint8."""
        _, shape, _, _, data = self._state
        return np.frombuffer(
            data.encode("latin1") if isinstance(data, str) else data, np.uint8
        ).reshape(shape)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], name: str):
        super().__init__(file, encoding="latin1")  # Python 2 wrote them
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for an array; every other name is refused."""
        if f"{module}.{name}" not in _STOOD_FOR:
            raise pickle.UnpicklingError(
                f"{self._name} asks for {module}.{name}, which no picture needs: it may be an attack"
            )
        return PickledArray


def unpickled(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle, each array of bytes in it as a `PickledArray`.

    Raises:
        OSError: no such file.
        UnpicklingError: not a pickle, or one that asks for anything but values and arrays.
        ValueError: no dictionary.
    """
    with open(path, "rb") as file:
        content = _Unpickler(file, path.name).load()
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no dictionary")
    return content
