"""What an exported file says of itself: classes, input, temperature, and which weights it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from transferscope.backbones.classifier import Classifier
from transferscope.errors import WeightsError
from transferscope.evaluation.known_pictures import KnownPictures
from transferscope.files import hash_tensors
from transferscope.images import InputSpec
from transferscope.machine import environment
from transferscope.records import Record

FORMAT = "transferscope-export-1"
"""Version of what travels inside; a file of another one is refused with both named."""


@dataclass(frozen=True)
class Description(Record):
    """What travels inside an exported file, beside the network.

    Attributes:
        classes: K names, in the order of the outputs.
        input: the size and channels of its pictures; normalisation is inside the network.
        temperature: that the logits are divided by inside, before the softmax.
        backbone: the classifier's, by name.
        sha256: of the classifier's weights and buffers, as they were before BatchNorm was folded.
        version: of Transferscope.
        validation: pictures that `familiarity` is a share of; None: there is no such output.
        int8: of a file in int8, how it does beside fp32 (`exports.int8.Int8`); None: it is in fp32.
        format: `FORMAT`.
    """

    classes: tuple[str, ...]
    input: InputSpec
    temperature: float
    backbone: str
    sha256: str
    version: str
    validation: int | None = None
    int8: Mapping[str, Any] | None = None
    format: str = FORMAT

    @classmethod
    def of(cls, classifier: Classifier, known: KnownPictures | None = None) -> Description:
        """The description of a classifier as it is now, and of what strangers are told by."""
        return cls(
            classes=classifier.classes,
            input=classifier.input,
            temperature=classifier.temperature,
            backbone=classifier.backbone,
            sha256=hash_tensors(classifier.network.state_dict()),
            version=environment()["packages"]["transferscope"],
            validation=None if known is None else known.n,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields, and `preprocessing` as a sentence."""
        return {**super().to_dict(), "preprocessing": preprocessing(self.input)}

    def to_text(self) -> dict[str, str]:
        """The same where values must be text: names and sentences as they are, the rest as JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in self.to_dict().items()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], *, source: str = "the file") -> Description:
        """The inverse of `to_dict`.

        Args:
            source: the file, for the errors.

        Raises:
            WeightsError: not what `to_dict` gives, or of another format.
        """
        if fields.get("format") != FORMAT:
            raise WeightsError(
                f"{source!r} is not an export of this version (format {fields.get('format')!r} instead "
                f"of {FORMAT!r}); only what 'transferscope export' wrote is read back"
            )
        try:
            return super().from_dict({**fields, "input": InputSpec.from_dict(fields["input"])})
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"what {source!r} says of itself is damaged ({error!r}); export the run again"
            ) from error

    @classmethod
    def from_text(cls, fields: Mapping[str, str], *, source: str) -> Description:
        """The inverse of `to_text`; fields of others are passed over.

        Raises:
            WeightsError: see `from_dict`.
        """
        values: dict[str, Any] = dict(fields)
        for key in {"classes", "input", "temperature", "validation", "int8"} & values.keys():
            with suppress(ValueError):  # `from_dict` refuses text in place of a value
                values[key] = json.loads(values[key])
        return cls.from_dict(values, source=source)


def preprocessing(spec: InputSpec) -> str:
    """In words, what makes a network's input of a picture file: enough to write it again elsewhere."""
    height, width = spec.size
    colours = "RGB" if spec.channels == 3 else "grey"
    return (
        f"Decode the picture upright (EXIF orientation applied), transparency laid over white, as 8-bit "
        f"{colours}; a JPEG whose shorter side is longer than {spec.least_side} pixels at the smallest of "
        f"1/2, 1/4 and 1/8 that is not shorter (Pillow's draft). If it is exactly {width} x {height} "
        f"pixels (width x height), use it as it is. Else let s = max({width} / its width, "
        f"{height} / its height) / {spec.crop}, resize it with Pillow's {spec.interpolation} filter to "
        f"max({width}, round(s * its width)) x max({height}, "
        f"round(s * its height)) pixels and cut out the central {width} x {height}, left and top rounded "
        f"down. Divide by 255: float32 (N, {spec.channels}, {height}, {width}) in [0, 1]. Normalisation "
        f"(mean {list(spec.mean)}, std {list(spec.std)}) is inside the network: do not normalise again. "
        "The first output is probabilities, with the temperature applied."
    )
