"""Comparisons of a run: one folder a setting, and which of them is shown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transferscope.comparison.records import Comparison
from transferscope.errors import RunError
from transferscope.files import read_json, sha256_json, write_json
from transferscope.visualize.units import WorkUnit

EARLIER = "earlier"
"""Folder of a comparison that lay in comparison/ itself before there was a folder a setting."""

_SHOWN = "shown.json"
_FILES = ("comparison.csv", "comparison.json")


@dataclass(frozen=True)
class Setting:
    """What a comparison was asked for.

    Attributes:
        layers: dotted names, shallow to deep.
        sample: channels a layer; None: all.
        seeds: renders of each channel in each network.
        recipe: of the renders, as `RenderRecipe.to_dict`, with the precision that was used.
    """

    layers: tuple[str, ...]
    sample: int | None
    seeds: int
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder: channels and seeds to read, and a digest of all of it."""
        channels = "all" if self.sample is None else str(self.sample)
        return f"{channels}-channels-{self.seeds}-seeds-{sha256_json(asdict(self))[:8]}"


def shown_keys(network: str, units: Iterable[WorkUnit]) -> list[dict[str, Any]]:
    """Rows that say under which key a network's renders lie in a sweep."""
    return [
        {
            "network": network,
            "layer": unit.layer,
            "channel": channel,
            "sign": unit.sign,
            "seed": unit.seed,
            "key": key,
        }
        for unit in units
        for channel, key in unit.keys.items()
    ]


def keep_comparison(
    home: Path, setting: Setting, comparison: Comparison, keys: Sequence[dict[str, Any]]
) -> None:
    """Writes a comparison into the folder of its setting, and the fullest of all into `home` itself.

    Args:
        home: comparison/ of a run.
        setting: what was asked for.
        comparison: what was found.
        keys: of its renders, from `shown_keys`.
    """
    earlier = home / EARLIER
    if (home / "comparison.json").is_file() and not (home / _SHOWN).is_file():
        earlier.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            with suppress(FileNotFoundError):
                os.replace(home / name, earlier / name)
    folder = home / setting.name
    comparison.save(folder)
    write_json(folder / "setting.json", {**asdict(setting), "renders": list(keys)})
    fullest = max(_kept(home), key=lambda one: (_fullness(one), one == folder, one.name))
    for name in _FILES:
        shutil.copyfile(fullest / name, home / name)
    write_json(home / _SHOWN, {"setting": fullest.name, "of": [one.name for one in _kept(home)]})


def shown_comparison(home: Path) -> tuple[Comparison | None, str | None]:
    """The fullest comparison of a run, and a sentence on which it is where there are several.

    Raises:
        RunError: not readable.
    """
    if not (home / "comparison.json").is_file():
        return None, None
    comparison = Comparison.load(home)
    shown = _shown(home)
    others = [name for name in shown["of"] if name != shown["setting"]]
    if not others:
        return comparison, None
    return comparison, (
        f"the fullest of {len(others) + 1} comparisons is shown, comparison/{shown['setting']}: "
        f"{_words(comparison)}; the others lie beside it ({', '.join(others)})"
    )


def render_keys(home: Path) -> list[dict[str, Any]]:
    """Keys of the renders of the comparison that is shown; none where it was made before they were kept."""
    setting = home / _shown(home)["setting"] / "setting.json"
    if not setting.is_file():
        return []
    rows: list[dict[str, Any]] = read_json(setting).get("renders", [])
    return rows


def _shown(home: Path) -> dict[str, Any]:
    if not (home / _SHOWN).is_file():
        return {"setting": "", "of": []}
    shown: dict[str, Any] = read_json(home / _SHOWN)
    return shown


def _kept(home: Path) -> list[Path]:
    return sorted(file.parent for file in home.glob("*/comparison.json"))


def _fullness(folder: Path) -> tuple[int, int, int, int]:
    """Channels times seeds, layers, channels, steps; nothing for one that cannot be read."""
    try:
        found = Comparison.load(folder)
    except RunError:
        return (0, 0, 0, 0)
    channels = sum(len(layer.channels) for layer in found.layers)
    return (channels * len(found.seeds), len(found.layers), channels, found.steps)


def _words(found: Comparison) -> str:
    channels = sum(len(layer.channels) for layer in found.layers)
    return f"{channels} channels of {len(found.layers)} layers, {len(found.seeds)} seeds"
