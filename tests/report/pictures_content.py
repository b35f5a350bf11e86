"""Pictures with pages of their own, made up: one of which all is known, and one of which nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from transferscope.evaluation.answers import Guess
from transferscope.evaluation.known_pictures import Neighbour
from transferscope.explain.records import DecidingChannels
from transferscope.explain.unit_effects import UnitEffect
from transferscope.report.pages.content import (
    KeptAttack,
    KeptIdeal,
    PictureMaps,
    ShownPicture,
    ShownPictures,
)

OF = 372


def shown(root: Path, paths: Sequence[str], classes: Sequence[str]) -> ShownPictures:
    """A wrong picture that was explained, compared and attacked; two right ones, the last without anything."""
    first, second, third, *_ = classes
    wrong = ShownPicture(
        path=paths[1],
        label=second,
        reason="wrong",
        before=(Guess(second, 0.61), Guess(first, 0.3)),
        after=(Guess(third, 0.998), Guess(first, 0.0015), Guess(second, 0.0005)),
        known=False,
        familiarity=0.02,
        nearest=(Neighbour(paths[5], third, 0.91), Neighbour(paths[6], second, 0.9)),
        maps=maps(third),
        units=units(paths[1], third, second),
        attacks=(attack(root.with_name(root.name + "-attacked"), third, first),),
    )
    right = ShownPicture(
        paths[5], second, "right", (Guess(first, 0.7),), (Guess(second, 0.8),), maps=maps(second)
    )
    bare = ShownPicture(paths[4], first, "right", (), (Guess(first, 0.8),))
    return ShownPictures((wrong, right, bare), OF, "test", "Only 2 maps were made in 10 seconds.")


def maps(target: str) -> PictureMaps:
    """Of the left half in base, of the right half in tuned."""
    left = np.zeros((24, 24), np.uint8)
    left[:, :12] = 255
    heat = {"base": left, "tuned": left[:, ::-1]}
    return PictureMaps("grad_cam", target, None, heat, False, "failed the check: <nowhere>")


def units(path: str, target: str, against: str) -> DecidingChannels:
    """One with a page, and one in its layer's table."""
    effects = {
        network: tuple(
            UnitEffect("blocks.4.2", channel, 1.0, lost, 0.5)
            for channel, lost in ((3, value), (11, -value))
        )
        for network, value in (("base", 0.25), ("tuned", 1.5))
    }
    return DecidingChannels(path, target, against, "blocks.4.2", {}, effects, "units.png")


def attack(folder: Path, source: str, target: str) -> KeptAttack:
    """With its three pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("original", "adversarial", "difference")):
        Image.new("RGB", (24, 24), (40 * number, 90, 60)).save(folder / f"{name}.png")
    return KeptAttack(
        folder, source, 0.998, target, 0.93, "2/255 of any value", "pgd", f"{source} 98.0%"
    )


def ideals(folder: Path, name: str) -> dict[str, dict[str, KeptIdeal]]:
    """Of one class, in both networks."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, network in enumerate(("base", "tuned")):
        Image.new("RGB", (32, 32), (90, 60 * number, 30)).save(folder / f"{network}.png")
        found[network] = KeptIdeal(folder / f"{network}.png", 0.5 + 0.4 * number)
    return {name: found}
