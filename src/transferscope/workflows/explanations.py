"""The explanations that a run keeps, a folder a picture, as they are read again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from transferscope.errors import RunError
from transferscope.explain.records import AccentuatedChannel, DecidingChannels, Explanation
from transferscope.files import read_json
from transferscope.report.pages.content import KeptExplanation
from transferscope.wording import number, percent
from transferscope.workflows.run import Run

HOME = "explanations"
"""The folder of a run that explanations are kept in."""

RECORD = "explanation.json"


def kept_explanations(run: Run) -> tuple[KeptExplanation, ...]:
    """All that a run has kept, by name; what cannot be read is passed over."""
    found = []
    for file in sorted((run.path / HOME).glob(f"*/{RECORD}")):
        with suppress(RunError, KeyError, TypeError):
            found.append(_read(file))
    return tuple(one for one in found if one.maps)


def explanation_words(one: Explanation) -> str:
    """What stands under a figure: how alike the maps are, what is on the object, a verdict that failed."""
    parts = []
    if one.change is not None:
        parts.append(
            f"rank correlation {number(one.change.rank_correlation)}, SSIM {number(one.change.ssim)}"
        )
    if one.identical:
        parts.append("the backbone is bit-identical: nothing below the head was trained")
    inside = [f"{n.network} {percent(n.inside, 0)}" for n in one.networks if n.inside is not None]
    if inside and one.object_share is not None:
        area = percent(one.object_share, 0)
        parts.append(f"on the object: {', '.join(inside)} (its area: {area})")
    if one.passed is False:
        parts.append(one.verdict)
    return "; ".join(parts)


def _read(file: Path) -> KeptExplanation:
    kept = read_json(file)
    units, accentuated = kept.get("units"), kept.get("accentuated")
    return KeptExplanation(
        file.parent,
        tuple(Explanation.from_dict(one) for one in kept["explanations"]),
        None if units is None else DecidingChannels.from_dict(units),
        None if accentuated is None else AccentuatedChannel.from_dict(accentuated),
    )
