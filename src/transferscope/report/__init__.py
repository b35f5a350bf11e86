"""Records in, figures and pages out; never touches a network.

- `figures`: SVG figures of a comparison; `training_figures`: of how a tuning went;
  `evaluation_figures`: of what a classifier is worth; `answer_figure`: pictures with their guesses.
- `activation_sheet`: every channel of a layer on one picture.
- `loggers`: a tuning's curves in TensorBoard and MLflow.
- `atlas`: the folder of static pages that opens without a server; `evaluation_page`: one of them.
- `model_card`: what a stranger has to know of a classifier, as Markdown and as a page.
- `inspection`: the report on a set of pictures; `data_figures`: its figures.
- `pages`: what all pages share.
"""

from __future__ import annotations

from transferscope.report.activation_sheet import (
    LayerMaps,
    LayerSheet,
    Scale,
    write_sheet,
    write_sheets_page,
)
from transferscope.report.answer_figure import refuse_figure_suffix, write_answer_figure
from transferscope.report.atlas import AtlasContent, write_atlas
from transferscope.report.evaluation_figures import (
    confusion_figure,
    coverage_figure,
    per_class_figure,
    reliability_figure,
    size_trend_figure,
)
from transferscope.report.figures import (
    BASE_COLOUR,
    TUNED_COLOUR,
    channel_null_figure,
    layer_box_plot,
)
from transferscope.report.inspection import write_inspection
from transferscope.report.model_card import ModelCard, model_card_markdown
from transferscope.report.training_figures import history_figure, lr_figure, search_figure

__all__ = [
    "BASE_COLOUR",
    "TUNED_COLOUR",
    "AtlasContent",
    "LayerMaps",
    "LayerSheet",
    "ModelCard",
    "Scale",
    "channel_null_figure",
    "confusion_figure",
    "coverage_figure",
    "history_figure",
    "layer_box_plot",
    "lr_figure",
    "model_card_markdown",
    "per_class_figure",
    "refuse_figure_suffix",
    "reliability_figure",
    "search_figure",
    "size_trend_figure",
    "write_answer_figure",
    "write_atlas",
    "write_inspection",
    "write_sheet",
    "write_sheets_page",
]
