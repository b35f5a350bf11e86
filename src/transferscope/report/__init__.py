"""Records in, figures and pages out; never touches a network.

- `figures`: SVG figures of evaluation and comparison; `training_figures`: of how a tuning went.
- `loggers`: a tuning's curves in TensorBoard and MLflow.
- `atlas`: the folder of static pages that opens without a server.
- `inspection`: the report on a set of pictures; `data_figures`: its figures.
- `pages`: what all pages share.
"""

from __future__ import annotations

from transferscope.report.atlas import AtlasContent, write_atlas
from transferscope.report.figures import (
    BASE_COLOUR,
    TUNED_COLOUR,
    channel_null_figure,
    confusion_figure,
    layer_box_plot,
    per_class_figure,
)
from transferscope.report.inspection import Finding, findings, opening, write_inspection
from transferscope.report.training_figures import history_figure, lr_figure, search_figure

__all__ = [
    "BASE_COLOUR",
    "TUNED_COLOUR",
    "AtlasContent",
    "Finding",
    "channel_null_figure",
    "confusion_figure",
    "findings",
    "history_figure",
    "layer_box_plot",
    "lr_figure",
    "opening",
    "per_class_figure",
    "search_figure",
    "write_atlas",
    "write_inspection",
]
