"""The atlas's page on cues that the predictions follow in place of the object."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image

from transferscope.explain.shortcut_records import Candidate
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.registry import Section, page
from transferscope.report.pages.site import PagePicture, Site

_ALARMS = 12  # shown with their pictures
_ROWS = 24  # of the table
_SIDE = 224  # of a mean map, in pixels


@page("shortcuts", title="Shortcuts", order=38)
def shortcuts(content: AtlasContent, site: Site) -> Section | None:
    """Alarms with their exemplars and mean maps; everything asked; before and after a correction."""
    found = content.shortcuts
    if found is None:
        return None
    alarms = found.alarms[:_ALARMS]
    return Section(
        {
            "found": found,
            "alarms": [
                (one, [site.thumbnail(path) for path in one.pictures], _map(site, one, place))
                for place, one in enumerate(alarms)
            ],
            "asked": found.candidates[:_ROWS],
        }
    )


def _map(site: Site, one: Candidate, place: int) -> PagePicture | None:
    """The mean map, in colours; None where the layer has none."""
    if not one.heat:
        return None
    heat = np.array(one.heat)
    scaled = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    colours = (255 * colormaps["magma"](scaled)[..., :3]).round().astype(np.uint8)
    picture = Image.fromarray(colours).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    words = f"where {one.cue} of {one.label} is seen, mean over its exemplars"
    return site.save(picture, f"images/shortcuts/map-{place}.webp", words, quality=85)
