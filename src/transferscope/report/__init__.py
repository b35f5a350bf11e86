"""Records in, figures and pages out; never touches a network.

- `figures`: SVG figures of training, evaluation and comparison.
- `atlas`: the folder of static pages that opens without a server.
"""

from __future__ import annotations

from transferscope.report.atlas import AtlasContent, write_atlas
from transferscope.report.figures import (
    BASE_COLOUR,
    TUNED_COLOUR,
    channel_null_figure,
    confusion_figure,
    history_figure,
    layer_box_plot,
    per_class_figure,
)

__all__ = [
    "BASE_COLOUR",
    "TUNED_COLOUR",
    "AtlasContent",
    "channel_null_figure",
    "confusion_figure",
    "history_figure",
    "layer_box_plot",
    "per_class_figure",
    "write_atlas",
]
