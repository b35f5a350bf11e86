"""Witnesses of change: what differs in a channel's responses to the same pictures in two networks.

Each is a function `f(base, tuned, labels)` of responses float (N, C) of both networks to N held-out
pictures and their labels int64 (N,): one value a channel, float64 (C,), 0 where nothing changed. Another
is a file here and an entry in `WITNESSES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from transferscope.comparison.witnesses.best_class import best_class_auc_gain
from transferscope.comparison.witnesses.class_information import class_information_gain
from transferscope.comparison.witnesses.exemplar_turnover import exemplar_turnover
from transferscope.comparison.witnesses.mutual_information import mutual_information_gain
from transferscope.comparison.witnesses.response_change import response_change

__all__ = ["WITNESSES", "Witness", "WitnessFunction"]

WitnessFunction = Callable[
    [NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]
]
"""(N, C) of base, (N, C) of tuned, labels (N,) -> (C,)."""


@dataclass(frozen=True)
class Witness:
    """A witness and what its values are held against.

    Attributes:
        measure: the function.
        margin: a value up to which networks count as equivalent, the null of the test; None: the
            null is what control transfers reach.
    """

    measure: WitnessFunction
    margin: float | None = None


WITNESSES: Mapping[str, Witness] = MappingProxyType(
    {
        "response_change": Witness(response_change, margin=0.01),
        "class_information": Witness(class_information_gain),
        "mutual_information": Witness(mutual_information_gain),
        "best_class_auc": Witness(best_class_auc_gain),
        "exemplar_turnover": Witness(exemplar_turnover),
    }
)
"""Every witness by its name."""
