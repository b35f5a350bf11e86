"""Predictions and what they are worth: figures with intervals, calibration, errors, differences."""

from transferscope.evaluation.abstaining import (
    Abstention,
    Operating,
    abstention_of,
    threshold_for,
)
from transferscope.evaluation.answers import STDIN, Guess, Prediction, predict
from transferscope.evaluation.calibration import (
    BINS,
    Bin,
    Calibration,
    calibration_of,
    chance_band,
    expected_calibration_error,
    fit_temperature,
)
from transferscope.evaluation.intervals import Interval, wilson_interval
from transferscope.evaluation.metrics import (
    ClassResult,
    Confusion,
    Evaluation,
    confusion_counts,
    evaluate,
)
from transferscope.evaluation.mistakes import (
    Doubt,
    ErrorStudy,
    count_label_errors,
    error_study,
    label_suspicion,
    write_study,
)
from transferscope.evaluation.paired import (
    Disagreement,
    PairedDifference,
    paired_difference,
    paired_interval,
)
from transferscope.evaluation.predictions import (
    Predictions,
    predict_files,
    refuse_other_classes,
)
from transferscope.evaluation.trend import SizeTrend, size_trend
from transferscope.evaluation.views import ViewsGain, refuse_views, views_gain

__all__ = [
    "BINS",
    "STDIN",
    "Abstention",
    "Bin",
    "Calibration",
    "ClassResult",
    "Confusion",
    "Disagreement",
    "Doubt",
    "ErrorStudy",
    "Evaluation",
    "Guess",
    "Interval",
    "Operating",
    "PairedDifference",
    "Prediction",
    "Predictions",
    "SizeTrend",
    "ViewsGain",
    "abstention_of",
    "calibration_of",
    "chance_band",
    "confusion_counts",
    "count_label_errors",
    "error_study",
    "evaluate",
    "expected_calibration_error",
    "fit_temperature",
    "label_suspicion",
    "paired_difference",
    "paired_interval",
    "predict",
    "predict_files",
    "refuse_other_classes",
    "refuse_views",
    "size_trend",
    "threshold_for",
    "views_gain",
    "wilson_interval",
    "write_study",
]
