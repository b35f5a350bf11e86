"""A picture that somebody tries on a run's networks: predicted, explained before and after, attacked.

The networks are opened once; one picture is worked on at a time. Its bytes lie in a private folder under a
name of ours while they are needed, and nowhere afterwards.
"""

from __future__ import annotations

import base64
import io
import shlex
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from transferscope.acceleration.precision import find_device
from transferscope.adversarial.sentences import attack_sentences
from transferscope.backbones.classifier import Classifier
from transferscope.errors import InputError, TransferscopeError
from transferscope.evaluation.known_pictures import FILE, KnownPictures
from transferscope.evaluation.strangers import allowance
from transferscope.explain.attribution import METHODS
from transferscope.explain.records import Explanation
from transferscope.images import to_picture
from transferscope.wording import percent, signed
from transferscope.workflows.attack import attack
from transferscope.workflows.explain import MapQuestion, explain
from transferscope.workflows.explanations import explanation_words
from transferscope.workflows.known_pictures import known_pictures
from transferscope.workflows.predict import predict
from transferscope.workflows.run import Run

MOST_BYTES = 32 * 2**20
"""Of a picture's file."""

TOP, FALSE_ALARMS = 5, 0.05
"""Classes that are named, and the share of pictures of the classes that may be called strangers, as `predict`
has them where nothing else is asked for."""


class TriedPictures:
    """Asks a run's networks about pictures; any thread may ask, one is answered at a time.

    Args:
        run: a finished run.
        device: None: the best here.
    """

    def __init__(self, run: Run, *, device: str | None = None):
        self._run = run
        self._device = device
        self.lock = threading.Lock()
        """Held while a picture is worked on."""
        self._networks: dict[str, Classifier] | None = None
        self._without_base = self._without_known = ""
        self._known: KnownPictures | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the run's network."""
        return tuple(self._run.record["classes"])

    def predict(self, data: bytes) -> dict[str, Any]:
        """What both networks say of a picture.

        Args:
            data: the bytes of its file, in any format that is read.

        Returns:
            `seen`: the picture as the network is given it, a data URL; `answers`: by network, `base` and
            `tuned`, what `predict` says: `top`, `known` and `familiarity`; `note`: what is missing and why, or
            empty.

        Raises:
            PictureError: it cannot be read.
            TransferscopeError: a network cannot be opened.
        """
        with self.lock, _held(data) as file:
            networks = self._opened()
            seen = to_picture(networks["tuned"].input.load(file))
            answers = {}
            for name, classifier in networks.items():
                known = self._known if name == "tuned" else None
                (said,) = predict(
                    classifier, [file], top=TOP, known=known, false_alarms=FALSE_ALARMS
                )
                told = said.to_dict()
                answers[name] = {key: told[key] for key in ("top", "known", "familiarity")}
            note = f"{self._without_base} {self._without_known}".strip()
            return {"seen": _url(seen), "answers": answers, "note": note}

    def explain(self, data: bytes, target: int | None = None) -> dict[str, Any]:
        """Where the answer comes from, before and after transfer.

        Args:
            data: see `predict`.
            target: index of the class; None: the one that the tuned network answers.

        Returns:
            `figures`: by method its picture as a data URL, `words` below it and its `alt` text; `note`: see
            `predict`.

        Raises:
            As `predict`; InputError: no such class.
        """
        question = MapQuestion(target="predicted" if target is None else self._name(target))
        with self.lock, _held(data) as file:
            networks = self._opened()
            networks["tuned"].input.load(file)  # refuses what cannot be read in its own words
            against = "base" if "base" in networks else None
            made = explain(
                self._run,
                [file],
                out=file.parent / "explained",
                question=question,
                against=against,
                device=self._device,
            )
            figures = [
                {
                    "picture": _file_url(made.folder / one.figure),
                    "words": _explained_words(one),
                    "alt": f"{METHODS[one.method].title}: what speaks for {one.target}",
                }
                for one in made.explanations
            ]
            return {"figures": figures, "note": self._without_base}

    def attack(self, data: bytes, target: int | None = None) -> dict[str, Any]:
        """The picture changed so little that nobody sees it, until the tuned network answers another class.

        Args:
            data: see `predict`.
            target: index of the class to be taken for; None: any other than now.

        Returns:
            `figure` and `adversarial`: data URLs; `words`.

        Raises:
            As `predict`; AttackError: no picture was found that fools; InputError: no such class, or the
            picture is of it already.
        """
        to = None if target is None else self._name(target)
        with self.lock, _held(data) as file:
            tuned = self._opened()["tuned"]
            made = attack(tuned, file, to=to, out=file.parent / "attacked", called="tuned")
            assert made.file is not None
            return {
                "figure": _file_url(Path(made.file).parent / "attack.png"),
                "adversarial": _file_url(Path(made.file)),
                "words": " ".join(attack_sentences(made)),
            }

    def _opened(self) -> dict[str, Classifier]:
        if self._networks is None:
            place = find_device(self._device)
            found = {}
            try:
                found["base"] = self._run.base.to(place).eval()
            except TransferscopeError as error:
                self._without_base = f"The untuned network is not shown: {error}"
            tuned = found["tuned"] = self._run.classifier.to(place).eval()
            self._tell_strangers(tuned)
            self._networks = found
        return self._networks

    def _tell_strangers(self, tuned: Classifier) -> None:
        """Opens what strangers are told by, if the run has it: to make it would take minutes."""
        if (self._run.path / FILE).is_file():
            self._known = known_pictures(self._run, classifier=tuned)
        if self._known is None:
            self._without_known = (
                "Whether it is a stranger is not told: the run lacks what that rests on, which "
                f"'transferscope predict {shlex.quote(str(self._run.path))} PICTURE' makes once."
            )
        elif (rests := allowance(FALSE_ALARMS, self._known.n)).range is None:
            self._without_known = rests.sentence

    def _name(self, index: int) -> str:
        if not 0 <= index < len(self.classes):
            raise InputError(
                f"class {index} was asked for; there are {len(self.classes)}, from 0 on: choose one of them"
            )
        return self.classes[index]


@contextmanager
def _held(data: bytes) -> Iterator[Path]:
    """The bytes as a file in a private folder, which is removed with all that was written there."""
    with tempfile.TemporaryDirectory(prefix="transferscope-") as folder:
        file = Path(folder, "picture")
        file.write_bytes(data)
        yield file


def _explained_words(one: Explanation) -> str:
    """Class and method, each network's logit and probability, and what stands under the figure."""
    known = [
        f"{n.network}: logit {signed(n.logit)}, {percent(n.probability)}" for n in one.networks
    ]
    words = explanation_words(one)
    said = f"{one.target}, {METHODS[one.method].title}. {'; '.join(known)}."
    return f"{said} {words[0].upper()}{words[1:]}." if words else said


def _url(picture: Image.Image) -> str:
    held = io.BytesIO()
    picture.save(held, "PNG")
    return _png_url(held.getvalue())


def _file_url(file: Path) -> str:
    return _png_url(file.read_bytes())


def _png_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
