"""Feature visualization: what a channel, a neuron or a class wants to see.

Four things are kept apart, as in lucid: objectives (what to maximise), parametrizations (what is
optimized), transforms (how the picture is moved meanwhile) and the loop.
"""

from transferscope.visualize.dream import (
    Dream,
    DreamRecipe,
    dream,
    layer_energy,
    read_photo,
    refuse_dream_file,
)
from transferscope.visualize.engine import Drawn, Engine, Job
from transferscope.visualize.loop import render, render_channels, render_together
from transferscope.visualize.objectives import (
    LOGITS,
    Objective,
    channel,
    channels,
    logit,
    neuron,
    total_variation,
)
from transferscope.visualize.parametrization import Canvas, Parametrization, fourier, pixel
from transferscope.visualize.recipe import RenderRecipe, make_recipe
from transferscope.visualize.records import Render, Sign, Status
from transferscope.visualize.sweep import Exemplar, Plan, Sweep, WorkUnit, most_informative_first

__all__ = [
    "LOGITS",
    "Canvas",
    "Drawn",
    "Dream",
    "DreamRecipe",
    "Engine",
    "Exemplar",
    "Job",
    "Objective",
    "Parametrization",
    "Plan",
    "Render",
    "RenderRecipe",
    "Sign",
    "Status",
    "Sweep",
    "WorkUnit",
    "channel",
    "channels",
    "dream",
    "fourier",
    "layer_energy",
    "logit",
    "make_recipe",
    "most_informative_first",
    "neuron",
    "pixel",
    "read_photo",
    "refuse_dream_file",
    "render",
    "render_channels",
    "render_together",
    "total_variation",
]
