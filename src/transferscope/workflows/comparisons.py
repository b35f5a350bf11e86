"""Comparisons of a run: one folder a setting, and which of them is shown."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transferscope.comparison.records import Comparison
from transferscope.errors import RunError
from transferscope.files import read_json, sha256_json, write_json

_SHOWN, _PLANNED = "shown.json", "planned.json"
_FILES = ("comparison.csv", "comparison.json")


@dataclass(frozen=True)
class Setting:
    """What a comparison was asked for.

    Attributes:
        layers: dotted names, shallow to deep.
        controls: control transfers.
        retunings: from other seeds.
        draw: channels a layer that were drawn; None: all.
        seeds: drawings of each channel in each network.
        patch: channels that were patched; None: all.
        recipe: of the drawings, as `RenderRecipe.to_dict`, with the precision that was used; empty: nothing
            was drawn.
        second: what the run was held against; None: itself before tuning.
    """

    layers: tuple[str, ...]
    controls: int
    retunings: int
    draw: int | None
    seeds: int
    patch: int | None
    recipe: dict[str, Any]
    second: str | None = None

    @property
    def name(self) -> str:
        """Of its folder: controls, drawn channels and seeds to read, and a digest of all of it."""
        drawn = "all" if self.draw is None else str(self.draw)
        read = f"{self.controls}-controls-{drawn}-drawn-{self.seeds}-seeds"
        return f"{read}-{sha256_json(asdict(self))[:8]}"


def keep_comparison(
    home: Path, setting: Setting, comparison: Comparison, keys: Sequence[dict[str, Any]]
) -> None:
    """Writes a comparison into the folder of its setting, and the fullest of all into `home` itself.

    What was noted as planned is forgotten.

    Args:
        home: comparison/ of a run.
        setting: what was asked for.
        comparison: what was found.
        keys: of its drawings, a row each.
    """
    folder = home / setting.name
    comparison.save(folder)
    write_json(folder / "setting.json", {**asdict(setting), "renders": list(keys)})
    fullest = max(_kept(home), key=lambda one: (_fullness(one), one == folder, one.name))
    for name in _FILES:
        shutil.copyfile(fullest / name, home / name)
    write_json(home / _SHOWN, {"setting": fullest.name, "of": [one.name for one in _kept(home)]})
    (home / _PLANNED).unlink(missing_ok=True)


def note_planned(
    home: Path, controls: int, retunings: int, drawings: Sequence[dict[str, Any]] | None = None
) -> None:
    """Writes what a comparison at work will make, so that others can tell how far it is.

    Args:
        home: comparison/ of a run.
        controls: control transfers.
        retunings: from other seeds.
        drawings: a row each, as `keep_comparison` takes them; None: not known yet.
    """
    rows = None if drawings is None else list(drawings)
    planned = {"controls": controls, "retunings": retunings, "drawings": rows}
    write_json(home / _PLANNED, planned, indent=None)


def planned_comparison(home: Path) -> dict[str, Any] | None:
    """What `note_planned` wrote; None where no comparison is at work, or none was known to be."""
    try:
        planned: dict[str, Any] = read_json(home / _PLANNED)
    except RunError:
        return None
    return planned if isinstance(planned, dict) else None


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


def _fullness(folder: Path) -> tuple[int, ...]:
    """Rows of witnesses, other transfers, drawings, layers; nothing for one that cannot be read."""
    try:
        found = Comparison.load(folder)
    except RunError:
        return (0, 0, 0, 0)
    drawn = len(found.drawings) * len(found.seeds)
    return (len(found.rows), found.controls + found.retunings, drawn, len(found.layers))


def _words(found: Comparison) -> str:
    tested = sum(layer.channels for layer in found.layers if not layer.identical)
    return (
        f"{tested:,} channels of {len(found.layers)} layers, {found.controls} controls, "
        f"{len(found.drawings)} channels drawn"
    )
