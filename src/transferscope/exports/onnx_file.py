"""One ONNX file that holds the network, its normalisation, its temperature and what it needs to be used."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, OutputError, WeightsError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.exports.description import Description
from transferscope.exports.extras import first_line, require
from transferscope.exports.parity import Parity
from transferscope.exports.tracing import (
    FAMILIARITY,
    INPUT,
    OUTPUTS,
    Exported,
    Outputs,
    confirm,
    private_copy,
    traced,
    untraceable,
)
from transferscope.files import atomic_path

OPSET = 18
"""Version of ONNX's operators: read by ONNX Runtime 1.14 (2023) and later."""

MOST_BYTES = 2_000_000_000
"""Weights that fit into one file: its format, protobuf, ends at 2 GiB."""


def export_onnx(
    classifier: Classifier,
    path: str | Path,
    *,
    batches: Iterable[torch.Tensor] | None = None,
    known: KnownPictures | None = None,
) -> Parity:
    """Writes one ONNX file, and keeps it only if ONNX Runtime answers with it as the classifier does.

    Its input `pictures` is float32 (N, C, H, W) in [0, 1], N free; its outputs are `probabilities`
    and `logits` (before the temperature), (N, K) each, and with `known` `familiarity`, (N,). The file's
    metadata is a `Description`.

    Args:
        classifier: unchanged.
        path: the file.
        batches: pictures to check it on, uint8 or float in [0, 1]; None: seeded noise.
        known: what strangers are told by; None: the file does not say how familiar a picture is.

    Returns:
        How closely the file's answers are the classifier's.

    Raises:
        InputError: the packages are not installed, the network has more than 2 GB, or it cannot be
            written as one graph.
        WeightsError: its weights are not numbers.
        OutputError: the file's answers are others, or it cannot be written. What was there before is
            untouched.
    """
    require("onnx", "onnx", "onnxscript", "onnxruntime")
    size = sum(4 * value.numel() for value in classifier.network.state_dict().values())  # as fp32
    if size > MOST_BYTES:
        raise InputError(
            f"the weights of this {classifier.backbone} take {size / 1e9:.1f} GB and one ONNX file holds "
            f"{MOST_BYTES / 1e9:.1f} GB; use --format torch"
        )
    private = private_copy(classifier)
    description = Description.of(classifier, known)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_serialised(private, description, known))
        exported, _ = load_onnx(temporary)
        return confirm(private, exported, batches, known)


def load_onnx(path: str | Path) -> tuple[Exported, Description]:
    """The network of a file that `export_onnx` wrote, run by ONNX Runtime, and its description.

    Raises:
        InputError: ONNX Runtime is not installed.
        WeightsError: missing, damaged, or not written by `export_onnx`.
    """
    require("onnx", "onnxruntime")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    refused = (states.Fail, states.InvalidArgument, states.InvalidProtobuf, states.NoSuchFile)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except (*refused, states.NotImplemented, states.InvalidGraph, RuntimeError) as error:
        raise WeightsError(
            f"{str(path)!r} is not an ONNX file that ONNX Runtime opens ({first_line(error)}); export it again"
        ) from error
    metadata = session.get_modelmeta().custom_metadata_map
    description = Description.from_text(metadata, source=str(path))

    names = [one.name for one in session.get_outputs()]

    def run(pictures: torch.Tensor) -> Outputs:
        values = pictures.detach().cpu().float().numpy()
        try:
            answers = session.run(names, {INPUT: values})
        except (*refused, RuntimeError) as error:
            raise OutputError(
                f"ONNX Runtime cannot run {str(path)!r} on pictures {tuple(pictures.shape)}: "
                f"{first_line(error)}"
            ) from error
        return tuple(torch.from_numpy(one) for one in answers)

    return run, description


def _serialised(
    private: Classifier, description: Description, known: KnownPictures | None
) -> bytes:
    """The file's bytes."""
    program = traced(private, known)
    with untraceable(private):
        exported: Any = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=[*OUTPUTS, *([] if known is None else [FAMILIARITY])],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    return finished(exported.model_proto, description)


def finished(model: Any, description: Description) -> bytes:
    """The bytes of an `onnx.ModelProto`, with its description in it."""
    import onnx

    model.producer_name, model.producer_version = "transferscope", description.version
    del model.graph.value_info[:]  # what a reader infers again from the shapes below
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.helper.set_model_props(model, description.to_text())
    serialised: bytes = model.SerializeToString()
    return serialised
