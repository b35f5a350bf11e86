"""Weights files as others write them: which of their entries are a network's weights, under which names."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transferscope.backbones.heads import known_heads
from transferscope.errors import WeightsError
from transferscope.files import read_tensors

_UNLOADABLE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What `torch.load` raises for files that are damaged, of another kind, or would run code."""

_HARMLESS: list[Any] = [
    argparse.Namespace,
    collections.defaultdict,
    pathlib.PosixPath,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
]
"""What training scripts store beside the weights (their options, the best score), and what holds no code."""

_INSIDE = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Names that wrappers of torch put between others."""

_COUNTER = "num_batches_tracked"
"""BatchNorm's count of batches, which plays no part where its momentum is fixed; older files lack it."""

_LITTER = ("n_averaged", "total_ops", "total_params", _COUNTER)
"""Last parts of entries that are no weights: of `AveragedModel`, of a FLOP counter, of BatchNorm."""


@dataclass(frozen=True)
class Weights:
    """What was found for a network in a file.

    Attributes:
        state: a tensor for every entry of the network, the head's perhaps of another size.
        note: what was taken, renamed, dropped and filled in, in one line; empty: all was as it should be.
    """

    state: dict[str, torch.Tensor]
    note: str


def read_content(path: str | Path) -> Any:
    """What a weights file holds; no code in it is run.

    Its first bytes say whether it is a safetensors file, whatever its ending.

    Raises:
        WeightsError: missing, damaged, or something that only code could read.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"weights file {str(path)!r} does not exist; give a .safetensors or .pth"
        )
    if path.suffix.lower() == ".safetensors" or _is_safetensors(path):
        return read_tensors(path)[0]
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNLOADABLE as error:
        raise WeightsError(
            f"{str(path)!r} is not a plain state dict ({type(error).__name__}); files that need "
            "code to be run are refused: save `network.state_dict()` and give that"
        ) from error


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        begin = file.read(9)
    return len(begin) == 9 and begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < 10**8


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors by name of a file that holds one state dict, also inside of a training checkpoint.

    Raises:
        WeightsError: see `read_content`; or it holds no tensors by name.
    """
    content = read_content(path)
    found = list(_groups(content))
    if not found:
        raise WeightsError(f"{str(path)!r} holds a {type(content).__name__}, not a state dict")
    return dict(max(found, key=lambda one: len(one.entries)).entries)


def head_entries(network: nn.Module) -> set[str]:
    """State dict entries of the head: the one that timm names, or the last Linear by definition order."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    known = [name for name in known_heads(network) if name in linear]
    name = known[0] if known else linear[-1] if linear else None
    state = network.state_dict()
    return {key for key in (f"{name}.weight", f"{name}.bias") if key in state}


def weights_of(content: Any, network: nn.Module, *, source: str, name: str) -> Weights:
    """The entries of a file's content that are a network's weights, every name and shape held against it.

    Names may lie behind prefixes (`model.`, `module.`, `_orig_mod.`), and the state dict inside of a
    checkpoint's other contents. Of weights and their moving average the average is taken, as timm does. The
    head may differ in size or be missing, and so may BatchNorm's counters.

    Raises:
        WeightsError: names the file, the architecture and the first entries that do not fit; or two sets of
            weights fit equally well.
    """
    wanted = network.state_dict()
    head = head_entries(network)
    chosen, others = _chosen(list(_groups(content)), wanted, head, source)
    state = {key.removeprefix(chosen.prefix): value for key, value in chosen.inside.items()}
    missing = [
        key for key in wanted if key not in state and key not in head and not _is_litter(key)
    ]
    unknown = [key for key in state if key not in wanted and not _may_drop(key, network, head)]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and not _fits(state[key], wanted[key], key in head)
    ]
    if missing or unknown or shapes:
        details = [
            f"{len(found)} {what} (first: {found[0]})"
            for what, found in (
                ("missing", missing),
                ("unknown", unknown),
                ("of another shape", shapes),
            )
            if found
        ]
        raise WeightsError(
            f"{source!r} is not a state dict of {name}: entries {'; '.join(details)}; "
            "give the weights of that architecture, or the --backbone that they belong to"
        )
    filled = _head_filled(state, wanted, head)
    result = {
        key: (state.get(key, filled.get(key, torch.zeros_like(wanted[key])))).to(wanted[key].dtype)
        for key in wanted
    }
    dropped = [key for key in chosen.entries if key not in chosen.inside] + [
        f"{chosen.prefix}{key}" for key in state if key not in wanted
    ]
    added = [key for key in wanted if key not in state]
    return Weights(result, _note(source, chosen, others, dropped, added, head, result, wanted))


# ---------------------------------------------------------------------------- which entries


@dataclass(frozen=True)
class _Group:
    """Tensors by name in one place of a file, of which those with a prefix are a network's.

    Attributes:
        place: keys that lead there.
        entries: all of them.
        prefix: of those that are meant.
    """

    place: tuple[str, ...]
    entries: Mapping[str, torch.Tensor]
    prefix: str = ""

    @property
    def inside(self) -> dict[str, torch.Tensor]:
        """Those that have the prefix."""
        return {key: value for key, value in self.entries.items() if key.startswith(self.prefix)}

    @property
    def called(self) -> str:
        """Where they lie, for a sentence."""
        return repr(
            "/".join((*self.place, self.prefix.rstrip("."))).strip("/") or "the file itself"
        )

    @property
    def averaged(self) -> bool:
        """Whether its name says that these are a moving average."""
        words = re.split(r"[^a-z0-9]+|_", "/".join((*self.place, self.prefix)).lower())
        return bool({"ema", "swa", "averaged"} & set(words)) or "n_averaged" in self.entries


def _groups(content: Any, place: tuple[str, ...] = ()) -> Iterator[_Group]:
    """Every mapping of names to tensors in a file's content, down to the third level."""
    if not isinstance(content, Mapping):
        return
    tensors = {
        _INSIDE.sub("", key): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
    if tensors:
        yield _Group(place, tensors)
    for key, value in content.items():
        if len(place) < 3 and isinstance(key, str) and "optim" not in key.lower():
            yield from _groups(value, (*place, key))


def _chosen(
    groups: Sequence[_Group], wanted: Mapping[str, torch.Tensor], head: set[str], source: str
) -> tuple[_Group, list[_Group]]:
    """The group that the network's entries are in, and others in which they are as well."""
    if not groups:
        raise WeightsError(f"{source!r} holds no tensors by name, so it is not a state dict")
    body = {key for key in wanted if key not in head and not _is_litter(key)}
    rated = [
        (count, _Group(group.place, group.entries, prefix))
        for group in groups
        for prefix, count in _prefixes(group.entries, wanted, body)
    ]
    most = max((count for count, _ in rated), default=0)
    if not most:
        return max(groups, key=lambda group: len(group.entries)), []
    best = [group for count, group in rated if count == most]
    different = [best[0], *(one for one in best[1:] if not _same(one, best[0], body))]
    averaged = [group for group in different if group.averaged]
    if len(different) > 1 and len(averaged) != 1:
        called = ", ".join(group.called for group in different)
        raise WeightsError(
            f"{source!r} holds {len(different)} sets of weights that fit equally well ({called}); save the "
            "one that is meant in a file of its own and give that"
        )
    kept = averaged[0] if len(different) > 1 else different[0]
    return kept, [group for group in different if group is not kept]


def _prefixes(
    entries: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], body: set[str]
) -> list[tuple[str, int]]:
    """What stands before the network's names, with how many of them it stands before, in the right shape."""
    counts: Counter[str] = Counter()
    for key, value in entries.items():
        parts = key.split(".")
        for begin in range(len(parts)):
            name = ".".join(parts[begin:])
            if name in body and value.shape == wanted[name].shape:
                counts[key[: len(key) - len(name)]] += 1
    return list(counts.items())


def _same(one: _Group, other: _Group, body: set[str]) -> bool:
    return all(
        torch.equal(one.entries[one.prefix + key], other.entries[other.prefix + key])
        for key in body
        if one.prefix + key in one.entries and other.prefix + key in other.entries
    )


# ---------------------------------------------------------------------------- what may differ


def _is_litter(key: str) -> bool:
    return key.rpartition(".")[2] in _LITTER


def _may_drop(key: str, network: nn.Module, head: set[str]) -> bool:
    """Whether an entry that the network lacks is another's: a counter, a loss, another kind of head.

    Not so within the network's own parts: a deeper network of the same family has all that this one has.
    """
    if _is_litter(key):
        return True
    first = key.partition(".")[0]
    own = {name.partition(".")[0] for name in network.state_dict()}
    heads = {entry.rpartition(".")[0] for entry in head}
    return first not in own or any(key.startswith(f"{name}.") for name in heads)


def _fits(found: torch.Tensor, wanted: torch.Tensor, of_head: bool) -> bool:
    """Whether a tensor has the shape; the head's may have another number of outputs."""
    if of_head and found.ndim == wanted.ndim:
        return found.shape[1:] == wanted.shape[1:]
    return found.shape == wanted.shape


def _head_filled(
    state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], head: set[str]
) -> dict[str, torch.Tensor]:
    """What stands for entries of the head that a file lacks: zeros, which say nothing of any class."""
    weight = next((key for key in head if key.endswith("weight")), None)
    if weight is None:
        return {}
    own, bias = wanted[weight], weight.removesuffix("weight") + "bias"
    found = state.get(weight)
    if found is not None:
        return {bias: torch.zeros(len(found))}
    features = own.shape[0] == own.shape[1] and torch.equal(own, torch.eye(len(own)))
    return {weight: own.clone() if features else torch.zeros_like(own)}


def _note(
    source: str,
    chosen: _Group,
    others: Sequence[_Group],
    dropped: Sequence[str],
    added: Sequence[str],
    head: set[str],
    state: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
) -> str:
    """One line; empty where the file holds the network's entries and nothing else."""
    said = []
    if others:
        left = ", ".join(group.called for group in others)
        said.append(f"taken: the averaged weights {chosen.called}, not {left}")
    elif chosen.place:
        said.append(f"taken: {chosen.called}")
    if chosen.prefix:
        said.append(f"renamed: {len(chosen.inside)} entries without {chosen.prefix!r}")
    if dropped:
        said.append(f"dropped: {_listed(dropped)}")
    if counters := [key for key in added if key not in head]:
        said.append(f"filled in with 0: {_listed(counters)}")
    if lacking := [key for key in added if key in head]:
        weight = any(key.endswith("weight") for key in lacking)
        meaning = ", so that it answers nothing before it is tuned" if weight else ""
        said.append(f"filled in: {_listed(lacking)} of the head{meaning}")
    for key in sorted(head):
        if key.endswith("weight") and len(state[key]) != len(wanted[key]):
            said.append(f"its head has {len(state[key])} outputs, not {len(wanted[key])}")
    return f"{source}: {'; '.join(said)}" if said else ""


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} entries (first: {names[0]})" if len(names) > 1 else repr(names[0])
