"""Fine-tuning behind a freeze boundary: recipe, loop, checkpoints."""

from transferscope.training.batches import Batches, CachedBatches, FileBatches, Part, frozen_front
from transferscope.training.checkpoints import EpochRow
from transferscope.training.head_fit import FittedHead, class_weights, fit_mlp_head
from transferscope.training.loop import (
    FineTuned,
    calibrated_loss,
    fine_tune,
    history_rows,
    loss_and_top1,
    plan_boundary,
)
from transferscope.training.lr_finder import RateTest, find_rate
from transferscope.training.recipe import (
    Balance,
    OptimizerName,
    Recipe,
    adapted,
    choose_recipe,
)
from transferscope.training.search import (
    HeadName,
    Settings,
    Trial,
    best_trial,
    draw_settings,
    short,
)

__all__ = [
    "Balance",
    "Batches",
    "CachedBatches",
    "EpochRow",
    "FileBatches",
    "FineTuned",
    "FittedHead",
    "HeadName",
    "OptimizerName",
    "Part",
    "RateTest",
    "Recipe",
    "Settings",
    "Trial",
    "adapted",
    "best_trial",
    "calibrated_loss",
    "choose_recipe",
    "class_weights",
    "draw_settings",
    "find_rate",
    "fine_tune",
    "fit_mlp_head",
    "frozen_front",
    "history_rows",
    "loss_and_top1",
    "plan_boundary",
    "short",
]
