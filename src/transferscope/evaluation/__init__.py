"""Predictions and what they are worth: figures with intervals, calibration, errors, differences."""
