"""Fine-tune a pretrained vision network and see, unit by unit, what the transfer changed.

The public map: names are loaded when they are first used, so that `import transferscope` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferscope.activations import TruncatedForward, capture
    from transferscope.backbones import Classifier, load_backbone
    from transferscope.comparison import Comparison
    from transferscope.data import Inspection, Scan, Split, make_split, scan
    from transferscope.data.augmentation import augmentation
    from transferscope.errors import TransferscopeError
    from transferscope.evaluation import Evaluation, Predictions, predict
    from transferscope.exports import load_hub
    from transferscope.images import InputSpec
    from transferscope.training.advice import Advice
    from transferscope.training.recipe import Recipe
    from transferscope.visualize import (
        Dream,
        DreamRecipe,
        Objective,
        Render,
        RenderRecipe,
        blend,
        blur,
        caricature,
        caricature_target,
        channel,
        channels,
        direction,
        diversity,
        dream,
        fourier,
        from_image,
        high_frequency,
        high_frequency_energy,
        interpolate,
        l1,
        l2,
        layer_energy,
        logit,
        logits,
        maco,
        neuron,
        neurons,
        pixel,
        render,
        render_channels,
        render_together,
        spectrum_of,
        total_variation,
    )
    from transferscope.visualize.ideal import ideal
    from transferscope.visualize.movement import Movement
    from transferscope.workflows import Run, activation_sheets, activations_of
    from transferscope.workflows import compare_run as compare
    from transferscope.workflows import export_run as export
    from transferscope.workflows import inspect_data as inspect
    from transferscope.workflows import write_run_atlas as write_atlas
    from transferscope.workflows.advise import advise
    from transferscope.workflows.tune import tune

_HOMES = {
    "Advice": "training.advice",
    "Classifier": "backbones",
    "Comparison": "comparison",
    "Dream": "visualize",
    "DreamRecipe": "visualize",
    "Evaluation": "evaluation",
    "InputSpec": "images",
    "Inspection": "data",
    "Movement": "visualize.movement",
    "Objective": "visualize",
    "Predictions": "evaluation",
    "Recipe": "training.recipe",
    "Render": "visualize",
    "RenderRecipe": "visualize",
    "Run": "workflows",
    "Scan": "data",
    "Split": "data",
    "TransferscopeError": "errors",
    "TruncatedForward": "activations",
    "activation_sheets": "workflows",
    "activations_of": "workflows",
    "advise": "workflows",
    "augmentation": "data.augmentation",
    "blend": "visualize",
    "blur": "visualize",
    "capture": "activations",
    "caricature": "visualize",
    "caricature_target": "visualize",
    "channel": "visualize",
    "channels": "visualize",
    "compare": "workflows:compare_run",
    "direction": "visualize",
    "diversity": "visualize",
    "dream": "visualize",
    "export": "workflows:export_run",
    "fourier": "visualize",
    "from_image": "visualize",
    "high_frequency": "visualize",
    "high_frequency_energy": "visualize",
    "ideal": "visualize.ideal",
    "inspect": "workflows:inspect_data",
    "interpolate": "visualize",
    "l1": "visualize",
    "l2": "visualize",
    "layer_energy": "visualize",
    "load_backbone": "backbones",
    "load_hub": "exports",
    "logit": "visualize",
    "logits": "visualize",
    "maco": "visualize",
    "make_split": "data",
    "neuron": "visualize",
    "neurons": "visualize",
    "pixel": "visualize",
    "predict": "evaluation",
    "render": "visualize",
    "render_channels": "visualize",
    "render_together": "visualize",
    "scan": "data",
    "spectrum_of": "visualize",
    "total_variation": "visualize",
    "tune": "workflows",
    "write_atlas": "workflows:write_run_atlas",
}

__all__ = [
    "Advice",
    "Classifier",
    "Comparison",
    "Dream",
    "DreamRecipe",
    "Evaluation",
    "InputSpec",
    "Inspection",
    "Movement",
    "Objective",
    "Predictions",
    "Recipe",
    "Render",
    "RenderRecipe",
    "Run",
    "Scan",
    "Split",
    "TransferscopeError",
    "TruncatedForward",
    "activation_sheets",
    "activations_of",
    "advise",
    "augmentation",
    "blend",
    "blur",
    "capture",
    "caricature",
    "caricature_target",
    "channel",
    "channels",
    "compare",
    "direction",
    "diversity",
    "dream",
    "export",
    "fourier",
    "from_image",
    "high_frequency",
    "high_frequency_energy",
    "ideal",
    "inspect",
    "interpolate",
    "l1",
    "l2",
    "layer_energy",
    "load_backbone",
    "load_hub",
    "logit",
    "logits",
    "maco",
    "make_split",
    "neuron",
    "neurons",
    "pixel",
    "predict",
    "render",
    "render_channels",
    "render_together",
    "scan",
    "spectrum_of",
    "total_variation",
    "tune",
    "write_atlas",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'transferscope' has no attribute {name!r}")
    room, _, original = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f"transferscope.{room}"), original or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
