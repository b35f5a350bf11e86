"""What may stand where a network's last linear layer stood: a linear head or a small MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from transferscope.activations import find_layer, layers
from transferscope.copies import copied, still
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


# ---------------------------------------------------------------------------- which layer is the head


def known_heads(network: nn.Module) -> tuple[str, ...]:
    """Names of the heads that timm says a network of its own has: none, one or two."""
    if not callable(ask := getattr(network, "get_classifier", None)):
        return ()
    try:
        answer = ask()
    except (
        AttributeError,
        NotImplementedError,
        TypeError,
    ):  # a network of the user's own with such a method
        return ()
    heads = answer if isinstance(answer, tuple | list) else (answer,)
    names = {module: name for name, module in network.named_modules() if name}
    return tuple(names[head] for head in heads if isinstance(head, nn.Module) and head in names)


def refuse_headless(network: nn.Module) -> None:
    """Refuses a network in which nothing could be the head.

    Raises:
        InputError: it has no Linear layer and no `MLPHead`.
    """
    if not any(isinstance(module, nn.Linear | MLPHead) for module in network.modules()):
        raise InputError(
            f"this {type(network).__name__} has no Linear layer, so it has no head to fit; "
            "add one that maps its pooled features to logits"
        )


def find_head(network: nn.Module, example: torch.Tensor) -> str:
    """Dotted name of the Linear, or `MLPHead`, that makes the logits.

    That is the one whose outputs are the network's when another stands in its place: first of those that
    timm names, then of those that run, from the last. Where none is (two heads, something behind the
    head), the last that runs is named; `head_fault` says why it cannot be replaced.

    Raises:
        InputError: the network runs no Linear layer.
    """
    modules = dict(network.named_modules())
    ran = [one.name for one in layers(network, example)]
    found = [name for name in ran if isinstance(modules[name], nn.Linear | MLPHead)]
    if not found:
        raise InputError(
            f"no Linear layer of this {type(network).__name__} is run, so it has no head to fit; "
            "add one that maps its pooled features to logits"
        )
    with torch.no_grad():
        count = still(network)(example).shape[-1]
    last = [name for name in reversed(found) if head_at(network, name).out_features == count]
    known = [name for name in known_heads(network) if name in found]
    for name in list(dict.fromkeys([*known, *last]))[:_TRIED]:
        if _is_head(network, name, example):
            return name
    return (known or last or found[::-1])[0]  # an MLPHead completes after the Linears inside it


_TRIED = 4
"""Layers that are tried for the head, at most."""


def head_fault(network: nn.Module, name: str, example: torch.Tensor, backbone: str) -> str | None:
    """Why the layer of this name cannot be replaced by another head, in a sentence; None: it can."""
    if _is_head(network, name, example):
        return None
    others = [
        one.name
        for one in layers(network, example)
        if isinstance(module := network.get_submodule(one.name), nn.Linear)
        and module.out_features == head_at(network, name).out_features
        and one.name != name
    ]
    heads = known_heads(network)
    heads = heads if len(heads) > 1 else (name, *others[-1:])
    if len(heads) > 1:
        what = f"has {len(heads)} heads ({', '.join(heads)}), whose outputs are combined"
    else:
        what = f"does something to the outputs of its head ({name}) before it returns them"
    plain = backbone.replace("_distilled", "").replace("_dist_", "_")
    other = f", such as {plain}" if plain != backbone else ""
    return (
        f"{backbone if backbone != 'custom' else f'this {type(network).__name__}'} {what}, so no single "
        f"head can be fitted in their place; choose a network whose last linear layer gives its logits{other}"
    )


class _Stand(nn.Module):
    """In the place of a head: gives other outputs, and counts how it is called."""

    def __init__(self, head: Head):
        super().__init__()
        self.in_features, self.out_features = head.in_features, head.out_features + 1
        self.given = torch.linspace(-1, 2, self.out_features)
        self.inputs: list[int] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.inputs.append(features.numel())
        return self.given.to(features).expand(*features.shape[:-1], -1).clone()


def _is_head(network: nn.Module, name: str, example: torch.Tensor) -> bool:
    """Whether what stands at this name is given one vector and makes the network's output of it."""
    trial = copied(network, shared=True).eval()
    stand = _Stand(head_at(network, name))
    trial.set_submodule(name, stand)
    try:
        with torch.no_grad():
            output = trial(example)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
    ):  # of outputs of two sizes
        return False
    return (
        isinstance(output, torch.Tensor)
        and stand.inputs == [stand.in_features]
        and output.shape == (1, stand.out_features)
        and torch.allclose(output, stand.given.to(output)[None])
    )
