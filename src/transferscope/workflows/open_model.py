"""MODEL of the command line: a run folder, an export for the Hub, a classifier's file or a backbone."""

from __future__ import annotations

import sys
from pathlib import Path

from transferscope.acceleration.precision import find_device
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.weights import load_backbone
from transferscope.errors import InputError, RunError
from transferscope.exports.hub import CONFIG as HUB_CONFIG
from transferscope.exports.hub import load_hub
from transferscope.workflows.run import Run


def open_model(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    download: bool = False,
    device: str | None = None,
) -> Classifier:
    """The classifier of a run folder, of an export for the Hub, of a file, or a backbone's own classes.

    Args:
        model: which.
        weights: for a backbone by name, see `load_backbone`.
        download: permits fetching its weights.
        device: None: the best here.

    What of a weights file was renamed, dropped or filled in is said on standard error.

    Raises:
        TransferscopeError: neither a folder of a run nor the name of a backbone, or weights for what
            has its own.
    """
    if not str(model):
        raise InputError("MODEL is empty; give a run folder or the name of a backbone")
    path = Path(model)
    if weights is not None and (path.exists() or str(model).startswith("hf-hub:")):
        raise InputError(
            f"--weights is {str(weights)!r}, and {str(model)!r} has its own; leave --weights out, or give "
            "the name of a backbone"
        )
    if (path / HUB_CONFIG).is_file() or str(model).startswith("hf-hub:"):
        classifier = load_hub(model)
    elif path.is_dir():
        classifier = Run(path).classifier
    elif path.suffix == ".safetensors" and path.is_file():
        classifier = Classifier.load(path)
    elif path.exists() or _like_a_path(str(model)):
        what = "is neither a run folder nor a classifier" if path.exists() else "is not there"
        raise RunError(
            f"{str(model)!r} {what}; give the --out of a 'transferscope tune', a folder of an export for the "
            "Hub, or the name of a backbone"
        )
    else:
        classifier = load_backbone(str(model), weights=weights, download=download)
        if classifier.weights_note:
            print(classifier.weights_note, file=sys.stderr)
    return classifier.to(find_device(device)).eval()


def _like_a_path(model: str) -> bool:
    """Whether a name that is no file is meant as one: not timm/NAME or torchvision/NAME."""
    library, _, _ = model.rpartition("/")
    return Path(model).is_absolute() or library not in ("", "timm", "torchvision")
