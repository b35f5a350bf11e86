"""An ONNX graph with 8-bit integers in place of most of its arithmetic: ranges, biases, sensitive layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transferscope.errors import InputError
from transferscope.exports.tracing import FAMILIARITY, INPUT, OUTPUTS, quiet

Array = NDArray[np.float32]
Model = Any
"""An `onnx.ModelProto`."""

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Operators that have weights: the layers that are quantized, one by one."""

PASSING = ("Add", "Clip", "Relu", "MaxPool")
"""Operators between them that are quantized where what they work on is."""

SAMPLES = 40_000
"""Values of a tensor, about, that its range is chosen by."""

_OBSERVED = 4  # pictures at a time: all their activations are in memory
_LEVELS = 255
_SHRUNK = np.linspace(1, 0.4, 13)  # ends of a range that are tried, as shares of the extremes


@dataclass(frozen=True, eq=False)
class Observed:
    """What calibration pictures make of a tensor.

    Attributes:
        low, high: of all values.
        mean: (C,), of every channel; what has no channels has one.
        sample: some `SAMPLES` of the values, evenly spaced.
    """

    low: float
    high: float
    mean: NDArray[np.float64]
    sample: Array

    def range(self) -> tuple[float, float]:
        """The ends, around 0, between which 8 bits keep the sample with the least squared error.

        What lies outside is cut off: it is what percentiles are chosen for, measured instead.
        """
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if high - low < 1e-6:
            return low, low + 1e-6
        lows = [low * share for share in _SHRUNK] if low < 0 else [0.0]
        highs = [high * share for share in _SHRUNK] if high > 0 else [0.0]
        pairs = [(a, b) for a in lows for b in highs]
        return min(pairs, key=lambda pair: _rounding_error(self.sample, *pair))


def _rounding_error(values: Array, low: float, high: float) -> float:
    """Mean squared error of 8 bits between two ends."""
    step = (high - low) / _LEVELS
    zero = round(-low / step)
    kept = (np.clip(np.round(values / step) + zero, 0, _LEVELS) - zero) * step
    return float(np.square(kept - values).mean())


class Quantizer:
    """A fp32 graph from pictures to logits, and what calibration pictures make of it.

    Args:
        model: of `export_onnx`; unchanged. What tells strangers is left out.
        calibration: pictures float32 (n, C, H, W) in [0, 1], in batches.

    Attributes:
        layers: names of the nodes with weights that can be quantized, in order; the head and what follows
            the features is always left in fp32, since it costs next to nothing.
        features: name of the tensor that the head sees.

    Raises:
        InputError: there is no layer to quantize.
    """

    def __init__(self, model: Model, calibration: Sequence[Array]):
        import onnx

        self.features = _features(model)
        core = onnx.utils.Extractor(model).extract_model([INPUT], list(OUTPUTS))
        self._model = _prepared(core)
        self._weights = {one.name: one for one in self._model.graph.initializer}
        nodes = [
            node
            for node in before(self._model, OUTPUTS[1])
            if node.name in {one.name for one in before(self._model, self.features)}
        ]
        weighted = [node for node in nodes if node.op_type in WEIGHTED]
        self._layers = {node.name: node for node in weighted if node.input[1] in self._weights}
        if not self._layers:
            raise InputError(
                "the network has no convolution or linear layer before its head, so there is nothing to "
                "make int8; export it without --int8"
            )
        self.layers = tuple(self._layers)
        self._passing = [node.name for node in nodes if node.op_type in PASSING]
        self._observed = _observe(self._model, self._tensors(nodes), calibration)
        self._ranges = {INPUT: (0.0, 1.0)}
        self._ranges |= {name: one.range() for name, one in self._observed.items()}

    def _tensors(self, nodes: Iterable[Any]) -> list[str]:
        """Names of what goes into and comes out of the nodes that may be quantized."""
        found: list[str] = []
        for node in nodes:
            if node.name in self._layers or node.op_type in PASSING:
                given = node.input if node.op_type == "Add" else node.input[:1]
                found += [one for one in (*given, *node.output) if one not in self._weights]
        return list(dict.fromkeys(found))

    def name(self, layer: str) -> str:
        """A layer by the name of its weights in the network, where the graph still has it."""
        return str(self._layers[layer].input[1]).removeprefix("network.").removesuffix(".weight")

    def quantized(self, layers: Collection[str]) -> Model:
        """A graph with these layers in int8, DequantizeLinear before and QuantizeLinear behind each.

        Weights are rounded by output channel, activations by tensor. What the rounding of a convolution's
        weights adds to the mean of its outputs is taken off its bias.

        Reference: Nagel et al. 2019, section 4.2 (from measured means of the inputs, not from BatchNorm's).
        """
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        model = _copy(self._model)
        if not layers:  # which ONNX Runtime would take for all
            return model
        for node in model.graph.node:
            if node.name in layers:
                self._correct(node, model)
        ranges = {
            name: (np.float32(low), np.float32(high)) for name, (low, high) in self._ranges.items()
        }
        with redirect_stdout(StringIO()), quiet():
            quantizer = QDQQuantizer(
                model,
                True,  # by channel
                False,  # all 8 bits
                QuantType.QInt8,
                QuantType.QUInt8,
                TensorsData(CalibrationMethod.MinMax, ranges),
                [*layers, *self._passing],
                [],
                [*WEIGHTED, *PASSING],
                {"QDQOpTypePerChannelSupportToAxis": {"MatMul": 1}},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        result = quantizer.model.model
        _protect(result, set(self.layers) - set(layers))
        return result

    def _correct(self, node: Any, model: Model) -> None:
        """Takes the mean error of a convolution's rounded weights off its bias, in place in its model."""
        from onnx import numpy_helper

        known = node.input[0] in self._observed and node.input[-1] in self._weights
        if node.op_type != "Conv" or len(node.input) < 3 or not known:
            return
        weight = numpy_helper.to_array(self._weights[node.input[1]]).astype(np.float64)
        axes = tuple(range(1, weight.ndim))
        step = np.abs(weight).max(axis=axes, keepdims=True) / 127
        step[step == 0] = 1
        error = (np.round(weight / step) * step - weight).sum(axis=axes[1:])
        mean = self._observed[node.input[0]].mean
        groups = mean.reshape(-1, weight.shape[1])  # (groups, inputs of each)
        of = np.arange(len(weight)) * len(groups) // len(weight)
        shift = (error * groups[of]).sum(axis=1)
        bias = numpy_helper.to_array(self._weights[node.input[2]]) - shift
        node.input[2] = f"{node.name}.bias"
        corrected = numpy_helper.from_array(bias.astype(np.float32), node.input[2])
        model.graph.initializer.append(corrected)


# ---------------------------------------------------------------------------- which layers


def sensitivities(
    quantizer: Quantizer,
    answer: Callable[[Model], Array],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """What every layer alone, in int8, does to the logits.

    Args:
        answer: a graph to the logits (N, K) of some calibration pictures.
        progress: called with (done, total).

    Returns:
        By layer: mean squared error of the centred logits, as a share of their own mean square.
    """
    wanted = _centred(answer(quantizer.quantized(())))
    scale = float(np.square(wanted).mean()) or 1.0
    found = {}
    for done, layer in enumerate(quantizer.layers, 1):
        off = _centred(answer(quantizer.quantized([layer]))) - wanted
        found[layer] = float(np.square(off).mean()) / scale
        progress(done, len(quantizer.layers))
    return found


def _centred(logits: Array) -> Array:
    centred: Array = logits - logits.mean(axis=1, keepdims=True)
    return centred


# ---------------------------------------------------------------------------- the graph


def before(model: Model, output: str) -> list[Any]:
    """All nodes that an output is made by, in order."""
    made = {name: node for node in model.graph.node for name in node.output}
    todo, found = [output], set()
    while todo:
        node = made.get(todo.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            todo.extend(node.input)
    return [node for node in model.graph.node if node.name in found]


def _features(model: Model) -> str:
    """The tensor that the head sees: where what tells strangers begins, else what the last layer is given."""
    body = before(model, OUTPUTS[1])
    if any(one.name == FAMILIARITY for one in model.graph.output):
        names = {node.name for node in body}
        tail = [node for node in before(model, FAMILIARITY) if node.name not in names]
        made = {name for node in body for name in node.output} - {OUTPUTS[1]}
        shared = {name for node in tail for name in node.input} & made
        constant = {name for node in body if not node.input for name in node.output}
        (found,) = shared - constant
        return str(found)
    weighted = [node for node in body if node.op_type in WEIGHTED]
    if not weighted:
        raise InputError(
            "the network has no layer with weights, so there is nothing to make int8; export it without "
            "--int8"
        )
    return str(weighted[-1].input[0])


def _prepared(model: Model) -> Model:
    """With the shapes of all tensors written into it, which the quantizer asks for."""
    import onnx
    from onnxruntime.quantization import quant_pre_process

    with TemporaryDirectory() as folder, quiet():
        file = Path(folder) / "prepared.onnx"
        quant_pre_process(model, file, skip_optimization=True, skip_symbolic_shape=True)
        return onnx.load(file)


def _copy(model: Model) -> Model:
    result = type(model)()
    result.CopyFrom(model)
    return result


def _protect(model: Model, layers: Collection[str]) -> None:
    """Keeps ONNX Runtime from quantizing layers that are left in fp32, in place.

    Between DequantizeLinear and QuantizeLinear it rounds a layer's weights when it opens a file, by tensor
    rather than by channel, if weights and bias are constants to it (its WeightBiasQuantization). A bias in
    32-bit steps, exact to fp32's own rounding, is not.
    """
    from onnx import helper, numpy_helper

    constants = {one.name: one for one in model.graph.initializer}
    for at, node in reversed(list(enumerate(model.graph.node))):
        if node.name not in layers or node.op_type == "MatMul":
            continue
        name = f"{node.name}.bias"
        if len(node.input) < 3:
            turned = {one.name: one.i for one in node.attribute}.get("transB", 0)
            first = node.op_type == "Conv" or turned
            bias = np.zeros(constants[node.input[1]].dims[0 if first else 1], np.float32)
            node.input.append("")
        elif node.input[2] in constants:
            bias = numpy_helper.to_array(constants[node.input[2]])
        else:
            continue
        step = np.float32(np.abs(bias).max() / (2**31 - 129) or 1)
        steps = np.round(bias.astype(np.float64) / step).astype(np.int32)
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(steps, f"{name}.steps"),
                numpy_helper.from_array(np.asarray(step), f"{name}.step"),
            ]
        )
        node.input[2] = f"{node.name}.exact_bias"
        given = [f"{name}.steps", f"{name}.step"]
        model.graph.node.insert(
            at, helper.make_node("DequantizeLinear", given, [node.input[2]], f"{name}.exact")
        )


def _observe(model: Model, names: Sequence[str], batches: Sequence[Array]) -> dict[str, Observed]:
    """What pictures make of tensors.

    ONNX Runtime's own calibrators hold all that is seen in memory, and give no means.
    """
    asked = [name for name in names if name != INPUT]
    run = session(with_output(model, *asked))
    few = [
        one for batch in batches for one in np.split(batch, range(_OBSERVED, len(batch), _OBSERVED))
    ]
    total = sum(map(len, few))
    seen: dict[str, list[tuple[float, float, Array, Array, int]]] = {name: [] for name in asked}
    for pictures in few:
        for name, values in zip(asked, run.run(asked, {INPUT: pictures}), strict=True):
            axes = (0, *range(2, values.ndim))
            flat = values.ravel()
            step = max(1, flat.size * total // (len(pictures) * SAMPLES)) | 1
            seen[name].append(
                (flat.min(), flat.max(), values.mean(axis=axes), flat[::step].copy(), len(pictures))
            )
    return {name: _gathered(parts) for name, parts in seen.items()}


def _gathered(parts: Sequence[tuple[float, float, Array, Array, int]]) -> Observed:
    lows, highs, means, samples, counts = zip(*parts, strict=True)
    mean = np.average(np.stack(means).astype(np.float64), axis=0, weights=counts)
    return Observed(float(min(lows)), float(max(highs)), mean, np.concatenate(samples))


def with_output(model: Model, *names: str) -> Model:
    """A copy that gives these tensors of its graph, too."""
    import onnx

    result = _copy(model)
    there = {one.name for one in result.graph.output}
    for name in names:
        if name not in there:
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            result.graph.output.append(value)
    return result


def session(model: Model) -> Any:
    """ONNX Runtime with a graph, as anyone would open it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
