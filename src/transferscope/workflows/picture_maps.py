"""Where both networks of a run look in pictures: what `explain` has kept, and maps that are made in seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from transferscope.comparison.records import NETWORKS
from transferscope.errors import InputError, TransferscopeError, WeightsError
from transferscope.explain.attribution import METHODS, attribute
from transferscope.explain.records import Explanation, Verdicts
from transferscope.files import is_writable, read_tensors, sha256_json, write_tensors
from transferscope.machine import cache_dir
from transferscope.report.figures.explanations import is_grainy, shared_heat
from transferscope.report.pages.content import KeptExplanation, PictureMaps
from transferscope.workflows.reporter import Reporter
from transferscope.workflows.run import Run
from transferscope.workflows.verdicts import methods_to_draw, verdict_words

Heat = NDArray[np.uint8]

SECONDS = 10.0
"""That maps may take in all; those left over are made the next time."""

_CHUNK = 20  # at a time: each call copies the network
_VERSION = 1  # of what is kept in the cache


@dataclass(frozen=True)
class Asked:
    """A picture and the class that its maps are of.

    Attributes:
        path: relative to the data folder.
        file: where it is.
        sha256: of its bytes.
        target: name of the class.
    """

    path: str
    file: Path
    sha256: str
    target: str


def kept_maps(one: KeptExplanation, verdicts: Verdicts | None) -> PictureMaps | None:
    """Base's and tuned's maps of a kept explanation by the first of its methods that did not fail.

    None where it was made of other networks, or all its maps failed or are gone.
    """
    for told in sorted(one.maps, key=lambda told: told.passed is False):
        with suppress(WeightsError):
            maps, _ = read_tensors(one.folder / told.maps)
            if set(NETWORKS) <= set(maps) and told.method in METHODS:
                return _told(told, {name: maps[name].numpy() for name in NETWORKS}, verdicts)
    return None


def _told(
    told: Explanation, maps: Mapping[str, NDArray[np.float32]], verdicts: Verdicts | None
) -> PictureMaps:
    support = METHODS[told.method].support
    heat = {name: heat_of(told.method, support(values)) for name, values in maps.items()}
    passed, words = verdict_words(verdicts, told.method)
    return PictureMaps(told.method, told.target, told.against, heat, passed, words, kept=True)


def made_maps(
    run: Run,
    asked: Sequence[Asked],
    verdicts: Verdicts | None,
    reporter: Reporter,
    *,
    seconds: float = SECONDS,
) -> tuple[dict[str, PictureMaps], str]:
    """Maps by path, from the cache or made by the quick method that deserves belief, and why some lack.

    Only methods that look at one layer are quick: a forward pass and the gradient of what follows the layer.

    Args:
        run: its networks are unchanged.
        asked: pictures that are there.
        verdicts: by which the method is chosen.
        reporter: hears of the progress.
        seconds: after which no more are begun.
    """
    try:
        (method,) = methods_to_draw((), verdicts)
    except InputError:
        return {}, "No method of attribution passed the checks on this network."
    if not METHODS[method].layer:
        return {}, f"{METHODS[method].title} takes long, and the quick methods failed the checks."
    home, of = cache_dir() / "maps", run.networks_hash
    files = {
        one.path: home
        / f"{sha256_json([_VERSION, of, method, one.sha256, one.target])}.safetensors"
        for one in asked
    }
    found: dict[str, dict[str, Heat]] = {}
    for path, file in files.items():
        with suppress(WeightsError):
            tensors, _ = read_tensors(file)
            found[path] = {name: tensors[name].numpy() for name in NETWORKS}
    lacking = [one for one in asked if one.path not in found]
    why = ""
    try:
        made = _make(run, lacking, method, seconds, reporter)
    except TransferscopeError as error:
        reporter.say(f"no maps for the pictures' pages: {error}")
        made, why = {}, "Not both networks could be asked for a map."
    for path, heat in made.items():
        if is_writable(cache_dir()):
            write_tensors(files[path], {n: torch.from_numpy(one) for n, one in heat.items()}, {})
    found |= made
    if len(found) < len(asked) and not why:
        why = f"Only {len(found)} maps were made in {seconds:.0f} seconds; the next atlas makes others."
    passed, words = verdict_words(verdicts, method)
    targets = {one.path: one.target for one in asked}
    return {
        path: PictureMaps(method, targets[path], None, heat, passed, words)
        for path, heat in found.items()
    }, why


def _make(
    run: Run, asked: Sequence[Asked], method: str, seconds: float, reporter: Reporter
) -> dict[str, dict[str, Heat]]:
    """A few pictures at a time, as long as another few would end in time."""
    found: dict[str, dict[str, Heat]] = {}
    if not asked:
        return found
    networks = dict(zip(NETWORKS, (run.base, run.classifier), strict=True))
    began = time.perf_counter()
    with reporter.task("where both networks look") as progress:
        for begin in range(0, len(asked), _CHUNK):
            each = (time.perf_counter() - began) / max(begin, 1)
            if begin and (begin + _CHUNK) * each > seconds:
                break
            part = asked[begin : begin + _CHUNK]
            maps = {
                name: attribute(
                    classifier,
                    [one.file for one in part],
                    method=method,
                    target=[classifier.classes.index(one.target) for one in part],
                )
                for name, classifier in networks.items()
            }
            for row, one in enumerate(part):
                found[one.path] = {
                    name: heat_of(method, several[row].support) for name, several in maps.items()
                }
            progress(begin + len(part), len(asked))
    return found


def heat_of(method: str, support: NDArray[np.float32]) -> Heat:
    """What speaks for a class as uint8, 255 where it is most; smoothed where it is of single pixels."""
    (heat,) = shared_heat([support], grainy=is_grainy(method))
    found: Heat = (255 * heat).round().astype(np.uint8)
    return found
