"""Feature visualization: what a channel, a neuron or a class wants to see.

Four things are kept apart, as in lucid: objectives (what to maximise), parametrizations (what is
optimized), transforms (how the picture is moved meanwhile) and the loop.
"""

from transferscope.visualize.algebra import LOGITS, Objective, blend, interpolate
from transferscope.visualize.dream import (
    Dream,
    DreamRecipe,
    dream,
    read_photo,
    refuse_dream_file,
)
from transferscope.visualize.engine import Drawn, Engine, Job
from transferscope.visualize.loop import render, render_channels, render_together
from transferscope.visualize.objectives import (
    OBJECTIVES,
    caricature,
    caricature_target,
    channel,
    channels,
    direction,
    diversity,
    layer_energy,
    logit,
    logits,
    neuron,
    neurons,
)
from transferscope.visualize.parametrization import (
    PARAMETRIZATIONS,
    Canvas,
    Parametrization,
    fourier,
    from_image,
    maco,
    pixel,
    spectrum_of,
)
from transferscope.visualize.penalties import (
    PENALTIES,
    blur,
    high_frequency,
    high_frequency_energy,
    l1,
    l2,
    total_variation,
)
from transferscope.visualize.recipe import RenderRecipe, make_recipe
from transferscope.visualize.records import Render, Sign, Status
from transferscope.visualize.sweep import Exemplar, Plan, Sweep, WorkUnit, most_informative_first

__all__ = [
    "LOGITS",
    "OBJECTIVES",
    "PARAMETRIZATIONS",
    "PENALTIES",
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
    "blend",
    "blur",
    "caricature",
    "caricature_target",
    "channel",
    "channels",
    "direction",
    "diversity",
    "dream",
    "fourier",
    "from_image",
    "high_frequency",
    "high_frequency_energy",
    "interpolate",
    "l1",
    "l2",
    "layer_energy",
    "logit",
    "logits",
    "maco",
    "make_recipe",
    "most_informative_first",
    "neuron",
    "neurons",
    "pixel",
    "read_photo",
    "refuse_dream_file",
    "render",
    "render_channels",
    "render_together",
    "spectrum_of",
    "total_variation",
]
