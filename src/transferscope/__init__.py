"""Fine-tune a pretrained vision network and see, unit by unit, what the transfer changed.

The public map: names are loaded when they are first used, so that `import transferscope` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferscope.activations import TruncatedForward as TruncatedForward
    from transferscope.activations import capture as capture
    from transferscope.adversarial.attacks import Perturbation as Perturbation
    from transferscope.adversarial.robustness import Robustness as Robustness
    from transferscope.backbones.classifier import Classifier as Classifier
    from transferscope.backbones.weights import load_backbone as load_backbone
    from transferscope.comparison.records import Comparison as Comparison
    from transferscope.data.augmentation import augmentation as augmentation
    from transferscope.data.inspection import Inspection as Inspection
    from transferscope.data.scan import Scan as Scan
    from transferscope.data.scan import scan as scan
    from transferscope.data.split import Split as Split
    from transferscope.data.split import make_split as make_split
    from transferscope.errors import TransferscopeError as TransferscopeError
    from transferscope.evaluation.metrics import Evaluation as Evaluation
    from transferscope.evaluation.predictions import Predictions as Predictions
    from transferscope.explain.attribution import Attribution as Attribution
    from transferscope.explain.attribution import attribute as attribute
    from transferscope.exports.hub import load_hub as load_hub
    from transferscope.images import InputSpec as InputSpec
    from transferscope.training.advice import Advice as Advice
    from transferscope.training.recipe import Recipe as Recipe
    from transferscope.visualize.accentuation import accentuate as accentuate
    from transferscope.visualize.canvas import fourier as fourier
    from transferscope.visualize.canvas import from_image as from_image
    from transferscope.visualize.canvas import maco as maco
    from transferscope.visualize.canvas import pixel as pixel
    from transferscope.visualize.canvas import spectrum_of as spectrum_of
    from transferscope.visualize.dream import Dream as Dream
    from transferscope.visualize.dream import DreamRecipe as DreamRecipe
    from transferscope.visualize.dream import dream as dream
    from transferscope.visualize.ideal import ideal as ideal
    from transferscope.visualize.movement import Movement as Movement
    from transferscope.visualize.objectives.algebra import Objective as Objective
    from transferscope.visualize.objectives.algebra import blend as blend
    from transferscope.visualize.objectives.algebra import interpolate as interpolate
    from transferscope.visualize.objectives.channels import channel as channel
    from transferscope.visualize.objectives.channels import channels as channels
    from transferscope.visualize.objectives.channels import logit as logit
    from transferscope.visualize.objectives.channels import logits as logits
    from transferscope.visualize.objectives.channels import neuron as neuron
    from transferscope.visualize.objectives.channels import neurons as neurons
    from transferscope.visualize.objectives.directions import caricature as caricature
    from transferscope.visualize.objectives.directions import caricature_target as caricature_target
    from transferscope.visualize.objectives.directions import direction as direction
    from transferscope.visualize.objectives.layers import diversity as diversity
    from transferscope.visualize.objectives.layers import layer_energy as layer_energy
    from transferscope.visualize.objectives.penalties import blur as blur
    from transferscope.visualize.objectives.penalties import high_frequency as high_frequency
    from transferscope.visualize.objectives.penalties import (
        high_frequency_energy as high_frequency_energy,
    )
    from transferscope.visualize.objectives.penalties import l1 as l1
    from transferscope.visualize.objectives.penalties import l2 as l2
    from transferscope.visualize.objectives.penalties import total_variation as total_variation
    from transferscope.visualize.recipe import RenderRecipe as RenderRecipe
    from transferscope.visualize.records import Render as Render
    from transferscope.visualize.render import render as render
    from transferscope.visualize.render import render_channels as render_channels
    from transferscope.visualize.render import render_together as render_together
    from transferscope.workflows.activations import activation_sheets as activation_sheets
    from transferscope.workflows.activations import activations_of as activations_of
    from transferscope.workflows.advise import advise as advise
    from transferscope.workflows.atlas import write_atlas as write_atlas
    from transferscope.workflows.attack import attack as attack
    from transferscope.workflows.compare import compare as compare
    from transferscope.workflows.export import export as export
    from transferscope.workflows.inspect import inspect as inspect
    from transferscope.workflows.known_pictures import known_pictures as known_pictures
    from transferscope.workflows.predict import predict as predict
    from transferscope.workflows.robustness import robustness as robustness
    from transferscope.workflows.run import Run as Run
    from transferscope.workflows.shortcut_correction import correct_shortcuts as correct_shortcuts
    from transferscope.workflows.shortcuts import shortcuts as shortcuts
    from transferscope.workflows.tune import tune as tune

_HOMES = {
    "activations": "TruncatedForward capture",
    "adversarial.attacks": "Perturbation",
    "adversarial.robustness": "Robustness",
    "backbones.classifier": "Classifier",
    "backbones.weights": "load_backbone",
    "comparison.records": "Comparison",
    "data.augmentation": "augmentation",
    "data.inspection": "Inspection",
    "data.scan": "Scan scan",
    "data.split": "Split make_split",
    "errors": "TransferscopeError",
    "evaluation.metrics": "Evaluation",
    "evaluation.predictions": "Predictions",
    "explain.attribution": "Attribution attribute",
    "exports.hub": "load_hub",
    "images": "InputSpec",
    "training.advice": "Advice",
    "training.recipe": "Recipe",
    "visualize.accentuation": "accentuate",
    "visualize.canvas": "fourier from_image maco pixel spectrum_of",
    "visualize.dream": "Dream DreamRecipe dream",
    "visualize.ideal": "ideal",
    "visualize.movement": "Movement",
    "visualize.objectives.algebra": "Objective blend interpolate",
    "visualize.objectives.channels": "channel channels logit logits neuron neurons",
    "visualize.objectives.directions": "caricature caricature_target direction",
    "visualize.objectives.layers": "diversity layer_energy",
    "visualize.objectives.penalties": (
        "blur high_frequency high_frequency_energy l1 l2 total_variation"
    ),
    "visualize.recipe": "RenderRecipe",
    "visualize.records": "Render",
    "visualize.render": "render render_channels render_together",
    "workflows.activations": "activation_sheets activations_of",
    "workflows.advise": "advise",
    "workflows.atlas": "write_atlas",
    "workflows.attack": "attack",
    "workflows.compare": "compare",
    "workflows.export": "export",
    "workflows.inspect": "inspect",
    "workflows.known_pictures": "known_pictures",
    "workflows.predict": "predict",
    "workflows.robustness": "robustness",
    "workflows.run": "Run",
    "workflows.shortcut_correction": "correct_shortcuts",
    "workflows.shortcuts": "shortcuts",
    "workflows.tune": "tune",
}
"""File to its public names."""

_NAMES = {name: home for home, names in _HOMES.items() for name in names.split()}

_LONG = frozenset(
    [
        "activation_sheets",
        "advise",
        "attack",
        "compare",
        "correct_shortcuts",
        "export",
        "inspect",
        "known_pictures",
        "predict",
        "robustness",
        "shortcuts",
        "tune",
        "write_atlas",
    ]
)
"""Functions that show their progress in a terminal or notebook, unless `progress=False` is given."""

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'transferscope' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"transferscope.{_NAMES[name]}"), name)
    if _NAMES[name].startswith("workflows."):
        value = _with_progress(name, value)
    globals()[name] = value
    return value


def _with_progress(name: str, value: Any) -> Any:
    """What works long, with an argument `progress`; `Run.evaluate` too, of whatever run was made here."""
    with_progress = importlib.import_module("transferscope.terminal").with_progress
    evaluate_run = importlib.import_module("transferscope.workflows.evaluate").evaluate_run
    run = importlib.import_module("transferscope.workflows.run").Run
    if run.evaluator is evaluate_run:
        run.evaluator = staticmethod(with_progress(evaluate_run))
    return with_progress(value) if name in _LONG else value


def __dir__() -> list[str]:
    return __all__
