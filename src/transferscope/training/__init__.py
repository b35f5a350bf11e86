"""Fine-tuning behind a freeze boundary."""

from transferscope.training.loop import (
    EpochRow,
    FineTuned,
    Recipe,
    fine_tune,
    history_rows,
    plan_boundary,
)

__all__ = ["EpochRow", "FineTuned", "Recipe", "fine_tune", "history_rows", "plan_boundary"]
