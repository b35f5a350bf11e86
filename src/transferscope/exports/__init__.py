"""The classifier as a file for other programs: ONNX, a `torch.export` program, a folder for the Hub."""

from transferscope.exports.description import Description, preprocessing
from transferscope.exports.hub import export_hub, load_hub, timm_architecture
from transferscope.exports.onnx_file import export_onnx, load_onnx
from transferscope.exports.parity import Parity, check_parity, measure_parity
from transferscope.exports.program import export_program, load_program

__all__ = [
    "Description",
    "Parity",
    "check_parity",
    "export_hub",
    "export_onnx",
    "export_program",
    "load_hub",
    "load_onnx",
    "load_program",
    "measure_parity",
    "preprocessing",
    "timm_architecture",
]
