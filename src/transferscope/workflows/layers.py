"""`describe_layers`: every layer of a network, and what they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from transferscope.activations import layers as layers_of
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.stages import stages_of
from transferscope.copies import still
from transferscope.records import Record


@dataclass(frozen=True)
class LayerRow(Record):
    """One layer of a network, as `transferscope layers` lists it.

    Attributes:
        name: dotted name.
        type: class name.
        stage: the layer that ends its stage; `head` behind the last of them.
        output_shape: of one picture; empty if the output is no single tensor.
        parameters: in it and in all layers inside it.
        trainable: how many of them require gradients.
        signed: whether values below zero come out, so that a channel has two directions.
        container: whether it holds other layers, which are listed too.
        calls: how often one forward pass runs it.
    """

    name: str
    type: str
    stage: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    signed: bool
    container: bool
    calls: int


@dataclass(frozen=True)
class NetworkLayers:
    """Every layer of a network in the order in which a forward pass finishes them, and its totals.

    Attributes:
        layers: as listed.
        parameters: of the whole network, each counted once.
        trainable: how many of them require gradients.
        buffers: values that are kept and not trained, such as BatchNorm's statistics.
        weight_bytes: of parameters and buffers, in the types they have.
        activation_bytes: of the outputs of all layers that hold no others, for one picture in fp32.
        macs: multiply-accumulate operations of one picture, in convolutions and matrix products.
    """

    layers: tuple[LayerRow, ...]
    parameters: int
    trainable: int
    buffers: int
    weight_bytes: int
    activation_bytes: int
    macs: int


def describe_layers(classifier: Classifier) -> NetworkLayers:
    """Lists what a forward pass runs, and adds it up. The network is unchanged."""
    network = classifier.network
    found = layers_of(network, classifier.example())
    order = {layer.name: layer.order for layer in found}
    ends = [(order[end], end) for end in stages_of(classifier)]
    modules = dict(network.named_modules())
    rows = tuple(
        LayerRow(
            name=layer.name,
            type=layer.type,
            stage=next((end for place, end in ends if place >= layer.order), "head"),
            output_shape=layer.output_shape,
            parameters=layer.parameters,
            trainable=layer.trainable,
            signed=layer.signed,
            container=bool([*modules[layer.name].children()]),
            calls=layer.calls,
        )
        for layer in found
    )
    leaves = (row for row in rows if not row.container and row.output_shape)
    parameters, buffers = list(network.parameters()), list(network.buffers())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        still(network)(classifier.example())
    return NetworkLayers(
        layers=rows,
        parameters=sum(value.numel() for value in parameters),
        trainable=sum(value.numel() for value in parameters if value.requires_grad),
        buffers=sum(value.numel() for value in buffers),
        weight_bytes=sum(v.numel() * v.element_size() for v in (*parameters, *buffers)),
        activation_bytes=sum(4 * math.prod(row.output_shape) * row.calls for row in leaves),
        macs=counter.get_total_flops() // 2,
    )
