"""The verbs that join several rooms, and the `Run` that they work on."""

from transferscope.training.config import Config
from transferscope.workflows.advise import advise, write_advice
from transferscope.workflows.atlas import write_run_atlas
from transferscope.workflows.demonstration import demo, read_strips
from transferscope.workflows.doctor import diagnose
from transferscope.workflows.drawing import (
    Drawings,
    draw_ideal,
    plan_visualize,
    sweep_folder,
    visualize,
)
from transferscope.workflows.dreaming import dream_file
from transferscope.workflows.exporting import Export, export_run
from transferscope.workflows.inspecting import inspect_data, inspect_run, write_report
from transferscope.workflows.judging import evaluate_run
from transferscope.workflows.looking import activation_sheets, activations_of, describe_layers
from transferscope.workflows.model_card import card_of
from transferscope.workflows.open_model import open_model
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.seeing import compare_run, parse_channels
from transferscope.workflows.tune import tune

__all__ = [
    "Config",
    "Drawings",
    "Export",
    "Reporter",
    "Run",
    "activation_sheets",
    "activations_of",
    "advise",
    "card_of",
    "compare_run",
    "demo",
    "describe_layers",
    "diagnose",
    "draw_ideal",
    "dream_file",
    "evaluate_run",
    "export_run",
    "inspect_data",
    "inspect_run",
    "open_model",
    "parse_channels",
    "plan_visualize",
    "read_strips",
    "sweep_folder",
    "tune",
    "visualize",
    "write_advice",
    "write_report",
    "write_run_atlas",
]
