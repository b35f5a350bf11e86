"""Pretrained networks and the `Classifier` that owns one."""

from transferscope.acceleration.depthwise import phased
from transferscope.acceleration.folding import folded
from transferscope.acceleration.precision import (
    Precision,
    autocast,
    fast_bf16,
    find_device,
    training_precision,
)
from transferscope.backbones.catalogue import (
    DEFAULT_BACKBONE,
    EMBEDDED,
    Backbone,
    catalogue_table,
    default_layers,
    embedded_weights,
    find_backbone,
    load_backbone,
    stages_of,
)
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.heads import Head, MLPHead

__all__ = [
    "DEFAULT_BACKBONE",
    "EMBEDDED",
    "Backbone",
    "Classifier",
    "Head",
    "MLPHead",
    "Precision",
    "autocast",
    "catalogue_table",
    "default_layers",
    "embedded_weights",
    "fast_bf16",
    "find_backbone",
    "find_device",
    "folded",
    "load_backbone",
    "phased",
    "stages_of",
    "training_precision",
]
