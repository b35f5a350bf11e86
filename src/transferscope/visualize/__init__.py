"""Feature visualization: what a channel, a neuron or a class wants to see.

Kept apart, as in lucid: objectives (what to maximise), the canvas (what is optimized), movement (how
the picture is moved meanwhile) and the engine (which climbs).
"""

from transferscope.visualize.canvas import (
    PARAMETRIZATIONS,
    Canvas,
    Parametrization,
    fourier,
    from_image,
    maco,
    pixel,
    spectrum_of,
)
from transferscope.visualize.dream import (
    Dream,
    DreamRecipe,
    dream,
    read_photo,
    refuse_dream_file,
)
from transferscope.visualize.engine import Engine, Job
from transferscope.visualize.objectives import (
    LOGITS,
    OBJECTIVES,
    PENALTIES,
    Objective,
    blend,
    blur,
    caricature,
    caricature_target,
    channel,
    channels,
    direction,
    diversity,
    high_frequency,
    high_frequency_energy,
    interpolate,
    l1,
    l2,
    layer_energy,
    logit,
    logits,
    neuron,
    neurons,
    total_variation,
)
from transferscope.visualize.plan import Plan, most_informative_first
from transferscope.visualize.recipe import RenderRecipe, make_recipe
from transferscope.visualize.records import Drawn, Render, Sign, Status
from transferscope.visualize.render import render, render_channels, render_together
from transferscope.visualize.units import Exemplar, Sweep, WorkUnit

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
