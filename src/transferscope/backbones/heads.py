"""What may stand where a network's last linear layer stood: a linear head or a small MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from transferscope.activations import find_layer
from transferscope.errors import InputError, WeightsError


class MLPHead(nn.Module):
    """One hidden layer between pooled features and logits: Linear, ReLU, Dropout, Linear.

    Args:
        in_features: D, of the pooled features.
        out_features: K, of the logits.
        hidden: units of the layer between.
        dropout: share of them that training sets to zero, in [0, 1).

    Raises:
        InputError: a size below 1, or a dropout outside [0, 1).

    Reference: the classic transfer recipe for VGG-16 (Simonyan & Zisserman 2015), with its hidden layer
    cut to 256 units.
    """

    def __init__(
        self, in_features: int, out_features: int, *, hidden: int = 256, dropout: float = 0.4
    ):
        super().__init__()
        if min(in_features, out_features, hidden) < 1:
            raise InputError(
                f"an MLP head of {in_features} features, {hidden} hidden units and {out_features} "
                "logits cannot be; each must be at least 1"
            )
        if not 0 <= dropout < 1:
            raise InputError(f"the head's dropout is {dropout}; it must be in [0, 1)")
        self.hidden = nn.Linear(in_features, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(hidden, out_features)

    @property
    def in_features(self) -> int:
        """D, as `nn.Linear` calls it."""
        return self.hidden.in_features

    @property
    def out_features(self) -> int:
        """K, as `nn.Linear` calls it."""
        return self.logits.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) of pooled features (N, D)."""
        result: torch.Tensor = self.logits(self.dropout(self.relu(self.hidden(features))))
        return result


Head: TypeAlias = nn.Linear | MLPHead
"""Pooled features (N, D) to logits (N, K), with `in_features` and `out_features`."""


def describe_head(head: Head) -> dict[str, Any] | None:
    """JSON-able: what `make_head` needs besides the sizes; None for a linear head."""
    if isinstance(head, nn.Linear):
        return None
    return {"kind": "mlp", "hidden": head.hidden.out_features, "dropout": head.dropout.p}


def make_head(description: object, in_features: int, classes: int) -> Head:
    """An untrained head as `describe_head` described it.

    Raises:
        InputError: the description is not one of ours.
    """
    if description is None:
        return nn.Linear(in_features, classes)
    if isinstance(description, Mapping) and description.get("kind") == "mlp":
        hidden, dropout = description.get("hidden"), description.get("dropout")
        if isinstance(hidden, int) and isinstance(dropout, int | float):
            return MLPHead(in_features, classes, hidden=hidden, dropout=float(dropout))
    raise InputError(
        f"the description {description!r} is damaged or of a newer version; expected "
        '{"kind": "mlp", "hidden": units, "dropout": share}, or none for a linear head'
    )


def head_at(network: nn.Module, name: str) -> Head:
    """The head that stands at this dotted name.

    Raises:
        UnknownName: there is no such layer.
        InputError: it is something other than a head.
    """
    module = find_layer(network, name)
    if isinstance(module, nn.Linear | MLPHead):
        return module
    raise InputError(
        f"layer {name!r} is a {type(module).__name__}; a head must be a Linear layer or an MLPHead"
    )


def put_head(network: nn.Module, name: str, description: object, classes: int) -> None:
    """Replaces the head of a network, in place, by the untrained one that stored weights need.

    A head that is of this kind and size already stays.

    Raises:
        WeightsError: the network has no head there, or the description cannot be read.
    """
    try:
        old = head_at(network, name)
        if old.out_features != classes or describe_head(old) != description:
            new = make_head(description, old.in_features, classes)
            network.set_submodule(name, new.train(old.training))
    except InputError as error:
        raise WeightsError(
            f"the head of these weights does not fit the architecture {type(network).__name__}: {error}"
        ) from error
