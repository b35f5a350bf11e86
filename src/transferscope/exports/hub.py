"""The folder that users of timm and of the Hugging Face Hub expect, written and read without a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferscope.backbones.catalogue import source_classes
from transferscope.backbones.classifier import Classifier
from transferscope.backbones.heads import describe_head
from transferscope.errors import InputError, RunError, WeightsError
from transferscope.evaluation.known_pictures import FILE as STRANGERS
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.exports.description import Description, preprocessing
from transferscope.exports.extras import first_line, require
from transferscope.exports.parity import Parity
from transferscope.exports.tracing import (
    Answers,
    answers_of,
    confirm,
    private_copy,
    quiet,
)
from transferscope.files import hash_tensors, read_json, replaced_folder, write_json, write_text
from transferscope.images import InputSpec

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"

_KEPT = ("license", "origin_url", "paper_ids", "fixed_input_size", "first_conv", "pool_size")
"""What timm's own configuration says that stays true of the tuned network."""

_ID = re.compile(r"(?:hf-hub:)?(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def timm_architecture(classifier: Classifier) -> str | None:
    """The name under which timm builds this very network with this head, or None if it cannot.

    It cannot build torchvision's networks, your own, or one with an MLP head.
    """
    import timm

    network = classifier.network
    config = getattr(network, "pretrained_cfg", None)
    name = str(config.get("architecture", "")) if isinstance(config, Mapping) else ""
    if not isinstance(classifier.head_layer, nn.Linear) or not timm.is_model(name):
        return None
    built = timm.create_model(name, pretrained=False, pretrained_cfg=_pretrained_cfg(classifier))
    same = type(built) is type(network) and _shapes(built) == _shapes(network)
    return name if same else None


def export_hub(
    classifier: Classifier,
    folder: str | Path,
    card: str | None = None,
    *,
    batches: Iterable[torch.Tensor] | None = None,
    known: KnownPictures | None = None,
) -> Parity:
    """Writes a model's folder, and keeps it only if it loads and agrees.

    It holds config.json, model.safetensors, README.md, and with `known` strangers.safetensors.

    Where timm can build the network, `timm.create_model("local-dir:FOLDER", pretrained=True)` gives it, and
    `hf-hub:USER/NAME` once the folder is uploaded. Where it cannot, `architecture` is a name that timm does
    not know, so that it says so, and `load_hub` opens the folder. What timm has no place for
    (temperature, head, exact preprocessing) stands under `transferscope` in config.json.

    Args:
        folder: a new one, an empty one, or an earlier export, which is replaced whole.
        card: text of README.md; None: a few lines on what the folder is.
        classifier, batches, known: see `export_onnx`.

    Returns:
        How closely the answers of the folder, opened by timm or by `load_hub`, are the classifier's.

    Raises:
        WeightsError: its weights are not numbers.
        OutputError: the answers are others, or the folder is not ours to replace. What was there before
            is untouched.
    """
    private = private_copy(classifier)
    architecture = timm_architecture(classifier)
    with replaced_folder(folder) as fresh:
        private.save(fresh / WEIGHTS)
        write_json(fresh / CONFIG, _config(private, architecture))
        write_text(fresh / CARD, plain_card(classifier, architecture) if card is None else card)
        if known is not None:
            known.save(fresh / STRANGERS)
            known = KnownPictures.load(fresh / STRANGERS)
        if architecture:  # as timm opens it, with our normalisation and temperature around it
            network = _built_by_timm(fresh, str(folder), weights=True)
            answers = Answers(private, network, known)
        else:
            again = load_hub(fresh, network=classifier.network)
            answers = Answers(private_copy(again), known=known)
        return confirm(private, answers_of(answers.eval()), batches, known)


def load_hub(
    source: str | Path, *, download: bool = False, network: nn.Module | None = None
) -> Classifier:
    """The classifier in a folder of `export_hub`, or in a folder that timm's users wrote.

    Args:
        source: a folder; else the id of a repository on the Hub (`user/name`, `hf-hub:user/name`, with
            `@revision` if wanted), taken from the Hub's cache on this machine.
        download: permits fetching it from the Hub where it is not in the cache.
        network: for a network of your own, an instance of its architecture (unchanged).

    Returns:
        The classifier in eval mode. A folder of timm's without class names gets those of its number of
        outputs (`source_classes`), and the temperature 1.

    Raises:
        WeightsError: not there, incomplete, damaged, or put together from two exports.
        InputError: huggingface_hub is needed and not installed.
    """
    folder = _folder_of(source, download=download)
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise WeightsError(
            f"{str(source)!r} has no {absent[0]}; a model's folder holds {CONFIG} and {WEIGHTS} "
            "(weights in pickled files are not read)"
        )
    try:
        config = read_json(folder / CONFIG)
    except RunError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise WeightsError(
            f"{CONFIG} of {str(source)!r} names no architecture, so it is not a classifier's of timm or "
            "of Transferscope"
        )
    ours = config.get("transferscope")
    if ours is None:
        return _timms(folder, str(source))
    if network is None and config.get("library_name") == "timm":
        network = _built_by_timm(folder, str(source), weights=False)
    classifier = Classifier.load(folder / WEIGHTS, network=network)
    if ours.get("sha256") != hash_tensors(classifier.network.state_dict()):
        raise WeightsError(
            f"{CONFIG} and {WEIGHTS} of {str(source)!r} are of two exports; export the run again, or "
            "fetch both anew"
        )
    return classifier


def hub_known_pictures(source: str | Path) -> KnownPictures | None:
    """What a folder of `export_hub`, or a repository in the Hub's cache, tells strangers by; None: it has none.

    Raises:
        WeightsError: not there, damaged, or of other weights than the folder's.
        RunError: of another version.
    """
    folder = _folder_of(source, download=False)
    if not (folder / STRANGERS).is_file():
        return None
    known = KnownPictures.load(folder / STRANGERS)
    ours = read_json(folder / CONFIG).get("transferscope", {})
    if known.weights != ours.get("sha256"):
        raise WeightsError(
            f"{STRANGERS} and {WEIGHTS} of {str(source)!r} are of two exports; export the run again"
        )
    return known


def plain_card(classifier: Classifier, architecture: str | None) -> str:
    """A README of what the folder is and how it is opened, without results."""
    opened = (
        'timm.create_model("local-dir:FOLDER", pretrained=True)'
        if architecture
        else 'transferscope.exports.hub.load_hub("FOLDER")'
    )
    return (
        f"---\nlibrary_name: {'timm' if architecture else 'transferscope'}\n"
        f"pipeline_tag: image-classification\ntags:\n- image-classification\n- transferscope\n---\n\n"
        f"# {classifier.backbone} with {len(classifier.classes)} classes\n\n"
        f"`{opened}` opens this folder.\n\n{preprocessing(classifier.input)}\n"
    )


# ---------------------------------------------------------------------------- writing


def _config(classifier: Classifier, architecture: str | None) -> dict[str, Any]:
    """config.json: what timm reads, and what it has no place for under `transferscope`."""
    described = Description.of(classifier).to_dict()
    del described["classes"]  # they are the label_names
    network, head = classifier.network, classifier.head_layer
    features = getattr(network, "num_features", head.in_features)
    return {
        "architecture": architecture or f"transferscope/{classifier.backbone}",
        "library_name": "timm" if architecture else "transferscope",
        "num_classes": len(classifier.classes),
        "num_features": features if isinstance(features, int) else head.in_features,
        "label_names": list(classifier.classes),
        "pretrained_cfg": _pretrained_cfg(classifier),
        "transferscope": {
            **described,
            "head": classifier.head,
            "head_module": describe_head(head),
        },
    }


def _pretrained_cfg(classifier: Classifier) -> dict[str, Any]:
    """timm's name for what a network was trained on; without where its first weights came from."""
    config = getattr(classifier.network, "pretrained_cfg", {})
    spec = classifier.input
    kept = {key: config[key] for key in _KEPT if isinstance(config, Mapping) and key in config}
    return {
        **kept,
        "custom_load": False,
        "input_size": list(spec.shape),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop,
        "crop_mode": "center",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "num_classes": len(classifier.classes),
        "classifier": classifier.head,
    }


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


# ---------------------------------------------------------------------------- reading


def _folder_of(source: str | Path, *, download: bool) -> Path:
    """The folder itself, or that of a repository in the Hub's cache."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    found = _ID.fullmatch(str(source))
    if found is None:
        raise WeightsError(
            f"{str(source)!r} is neither a folder nor the id of a repository; give the folder of a "
            "'transferscope export --format hub', or USER/NAME"
        )
    require("hub", "huggingface_hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # The base is the library's under it: a proxy, a name that is not resolved.
    no_answer: Any = HfHubHTTPError.__bases__[0]
    try:
        path = snapshot_download(
            found["id"],
            revision=found["revision"],
            allow_patterns=[CONFIG, WEIGHTS, CARD, STRANGERS],
            local_files_only=not download,
        )
    except (OSError, ValueError, no_answer) as error:
        raise WeightsError(
            f"{found['id']!r} could not be fetched from the Hub ({first_line(error)}); check its name and "
            "the network, or give a folder"
            if download
            else f"there is no folder {str(source)!r}, and no {found['id']!r} in the Hub's cache on this "
            "machine; download=True permits fetching it, or give the folder of an export"
        ) from error
    return Path(path)


def _built_by_timm(folder: Path, source: str, *, weights: bool) -> nn.Module:
    """The network that config.json describes, with the folder's weights or as it is initialised."""
    import timm

    try:
        with quiet():
            network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=weights)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise WeightsError(
            f"timm cannot build the network of {source!r} ({first_line(error)}); its {CONFIG} and {WEIGHTS} "
            "must be of one architecture that this version of timm knows"
        ) from error
    return network.eval()


def _timms(folder: Path, source: str) -> Classifier:
    """A folder that was not written by us, as timm opens it."""
    network: Any = _built_by_timm(folder, source, weights=True)
    config = network.pretrained_cfg
    channels, *size = config["input_size"]
    ours = {"size": size, "channels": channels, "crop": config["crop_pct"]}
    try:
        spec = InputSpec.from_dict({**config, **ours})
    except InputError as error:
        raise WeightsError(f"{CONFIG} of {source!r} describes no input of ours: {error}") from error
    names = config.get("label_names")
    named = isinstance(names, list | tuple) and len(set(names)) == network.num_classes
    classes = tuple(map(str, names)) if named else source_classes(network.num_classes)
    return Classifier(network, spec, classes, backbone=f"timm/{config['architecture']}")
