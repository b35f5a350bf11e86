"""Cats and dogs: the ideal cat, the adversarial cat, and what is neither.

    python examples/04_cats_dogs.py

The lesson draws the features of one picture, puts a classifier on frozen ones, draws the ideal cat from
noise, with and without total variation, and changes a dog's photograph until the network calls it a cat. Its
lab are the Oxford pets, of which it counts 35 breeds; its challenge is a set unlike anything that the network
was trained on.

Here the photograph is a cat that scikit-image ships, and becomes a dog. Such a set are characters: how far
frozen features reach is measured on the same pictures as tuning, and what belongs to none of the classes, a
letter that was not taught or a photograph, is refused. `--data DIR` takes your pictures, `--original` VGG-16
and the Oxford pets.
"""

from __future__ import annotations

from _lesson import Lesson, photographs, start

# isort: split

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transferscope as ts
from transferscope.adversarial.budgets import epsilon_said
from transferscope.backbones.stages import default_layers, stages_of
from transferscope.data.demo import CHARACTERS, write_demo_set
from transferscope.errors import InputError
from transferscope.evaluation.detection import Detection
from transferscope.images import read_picture
from transferscope.report.figures.answers import write_answer_figure
from transferscope.report.figures.strangers import strangers_figure
from transferscope.workflows.activations import activation_sheets
from transferscope.workflows.attack import attack
from transferscope.workflows.ideal import draw_ideal
from transferscope.workflows.known_pictures import known_pictures
from transferscope.workflows.run import files_of, labels_of

CATS, DOGS = range(281, 286), range(151, 269)
"""Of ImageNet's 1,000 classes in their order: five domestic cats, 118 breeds of dogs."""

CAT, DOG = "tiger cat", "golden retriever"

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "motorcycle_left.png")
"""Of scikit-image: colour photographs of things, of which the package has the files itself."""

PHOTOGRAPH = "a photograph that scikit-image ships"

TAUGHT = CHARACTERS[10:22]
"""Twelve letters; the other characters are strangers to the network that is tuned on these."""

MISTAKES = (
    "The Oxford pets are 37 breeds, 12 of cats and 25 of dogs, not 35.",
    "The ideal cat is shown as what the network knows of cats. From pixels alone the network is as sure of a "
    "picture of noise: certainty by itself is no sign that there is something to see.",
    "Neither classifier can say that a picture is none of its classes: a dog's photograph that becomes a cat "
    "is one case, any picture of something else is another.",
)


def main(told: Lesson) -> None:
    """One photograph, what a class wants, what deceives; then a set of another kind, and strangers."""
    source = told.source(
        dataset="pets",
        backbone="torchvision/vgg16",
        characters=TAUGHT[:4] if told.fast else TAUGHT,
        train=10 if told.fast else 25,
        validation=6 if told.fast else 10,
        test=3 if told.fast else 10,
        strips=0,
    )
    told.mistake(*MISTAKES)
    network = ts.load_backbone(source.get("backbone", "efficientnet_lite0"), download=told.original)
    cat = shipped(PHOTOGRAPHS[:1])[0]
    features(told, network, cat)
    for name in (CAT, DOG):
        ideal(told, network, name)
    adversarial(told, network, cat, DOG, "a cat's photograph", PHOTOGRAPH)
    run = frozen_and_tuned(told, source)
    files, pictures = files_of(run, "test", None)
    other = run.classifier.classes[1 - int(labels_of(pictures)[0] == 1)]
    adversarial(told, run.classifier, files[0], other, "a picture of the set", told.data)
    refused(told, run, files)


def shipped(names: Sequence[str]) -> list[Path]:
    """Photographs in scikit-image's folder.

    Raises:
        InputError: it is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "the photographs come from scikit-image, which is not installed; pip install '.[examples]' adds it"
        )
    return [Path(next(iter(found.submodule_search_locations)), "data", name) for name in names]


# ---------------------------------------------------------------------------- one photograph


def features(told: Lesson, network: ts.Classifier, cat: Path) -> None:
    """What the untuned network says of the cat, and what its layers make of it."""
    (answer,) = ts.predict(network, [cat], top=len(network.classes))
    share = {guess.name: guess.probability for guess in answer.top}
    for what, places in (("cat", CATS), ("dog", DOGS)):
        told.row(
            f"the cat's photograph is a {what}",
            ours=f"{sum(share[network.classes[place]] for place in places):.1%}",
            note=f"the untuned network, over ImageNet's {len(places)} classes of {what}s",
        )
    write_answer_figure(told.folder / "cat.svg", ts.predict(network, [cat]))
    told.figure("cat.svg", None, "The cat, and the five likeliest classes.", data=PHOTOGRAPH)
    middle, *_, last = default_layers(network)
    names = (stages_of(network)[0], middle, last)
    for sheet in activation_sheets(network, cat, out=told.folder / "features", layers=names):
        page = Path(sheet.pages[0]).relative_to(told.folder)
        told.figure(page.as_posix(), None, f"What {sheet.layer} makes of the cat.", data=PHOTOGRAPH)


def ideal(told: Lesson, network: ts.Classifier, name: str) -> None:
    """A class from noise: pixels alone, with total variation, with the full recipe."""
    home = f"ideal-{name.replace(' ', '-')}"
    steps = 4 if told.fast else None
    bare, smooth, full = draw_ideal(network, name, out=told.folder / home, steps=steps)
    told.figure(
        f"{home}/ideal.png",
        None,
        f"The ideal {name} from noise: pixels alone, with total variation penalised, the full recipe.",
        data="no pictures",
    )
    told.row(
        f"probability of the ideal {name}",
        ours=f"{bare['probability']:.1%}, {smooth['probability']:.1%} and {full['probability']:.1%}",
        note="pixels alone, with total variation penalised, the full recipe",
    )
    told.row(
        f"total variation of the ideal {name}",
        ours=f"{bare['total_variation']:.3f}, {smooth['total_variation']:.3f} and "
        f"{full['total_variation']:.3f}",
        note="mean difference of neighbouring pixels; the same three",
    )


def adversarial(
    told: Lesson, network: ts.Classifier, picture: Path, to: str, what: str, data: str
) -> None:
    """A picture is changed until the network takes its file for another class."""
    home = f"attack-{what.split()[-1]}"
    called = "the untuned network" if data == PHOTOGRAPH else "the tuned network"
    made = attack(network, picture, to=to, out=told.folder / home, epsilon="4/255", called=called)
    told.figure(
        f"{home}/attack.png",
        None,
        f"{what[0].upper()}{what[1:]} becomes {made.target} for the network, and for nobody else.",
        data=data,
    )
    told.row(
        f"{what} taken for another class",
        ours=f"{made.source} {made.source_probability:.1%}, then {made.target} {made.probability:.1%}",
        note=f"no value changed by more than {epsilon_said(made.distance, made.norm)}; random noise of that "
        f"size: {made.noise_answer} {made.noise_probability:.1%}",
    )


# ---------------------------------------------------------------------------- a set of another kind


def frozen_and_tuned(told: Lesson, source: dict[str, Any]) -> ts.Run:
    """The lesson's classifier on frozen features, and tuned stages, on the same test pictures."""
    run = ts.tune(**source, **told.recipe(), out=told.folder / "run")
    told.setting = {**told.recipe(), "training_pictures": run.results["pictures"]["train"]}
    found = run.evaluate("test")
    told.row(
        "breeds of the Oxford pets; classes here",
        lesson="35",
        ours=str(len(run.classifier.classes)),
        note="" if told.original else f"the set has 37; here {told.data}",
    )
    ends = found.intervals["top1"]
    told.row(
        "top-1 on test, tuned",
        ours=f"{found.top1:.1%} ({ends.low:.1%} to {ends.high:.1%})",
        note=f"{found.n} pictures",
    )
    if found.gain is not None:
        gain = found.gain
        told.row("top-1 on test, a classifier on frozen features", ours=f"{gain.second_top1:.1%}")
        told.row(
            "tuned less a classifier on frozen features, percentage points",
            ours=f"{100 * gain.difference:.1f} ({100 * gain.interval[0]:.1f} to {100 * gain.interval[1]:.1f})",
            note=f"on the same pictures, p {gain.p:.2g}: what frozen features lack for {told.data}",
        )
    return run


def refused(told: Lesson, run: ts.Run, files: Sequence[Path]) -> None:
    """Strangers of two kinds: characters that were not taught, and photographs."""
    write_demo_set(
        told.folder / "strangers",
        characters="".join(one for one in CHARACTERS if one not in run.classifier.classes),
        train=1,
        validation=1,
        test=1 if told.fast else 4,
        strips=0,
    )
    letters = told.folder / "strangers" / "characters" / "test"
    things = told.folder / "photographs"
    things.mkdir()
    mine = told.own is None and not told.original  # a cat may well be one of a reader's classes
    for file in (*shipped(PHOTOGRAPHS[0 if mine else 1 :]), *photographs().values()):
        read_picture(file).save(things / f"{file.stem}.png")
    for kind, folder in (("characters that were not taught", letters), ("photographs", things)):
        found = run.evaluate("test", strangers=folder).strangers
        assert found is not None
        told.row(f"refused: {kind}", ours=_share(found, strangers=True), note=f"of {found.n}")
        if folder is letters:
            told.row(
                "refused: test pictures of the classes",
                ours=_share(found, strangers=False),
                note=f"of {found.own}; {found.allowed:.0%} are allowed",
            )
            told.figure(
                "strangers.svg",
                strangers_figure(found),
                "How many characters that were not taught are refused, for every share of false alarms.",
            )
            _certain(told, run, sorted(folder.rglob("*.png")))
    shown = [*files[:: max(1, len(files) // 2)][:2], *sorted(letters.rglob("*.png"))[::9][:2]]
    answers = ts.predict(
        run.classifier, [*shown, *sorted(things.iterdir())[:2]], known=known_pictures(run)
    )
    write_answer_figure(told.folder / "answers.svg", answers)
    told.figure(
        "answers.svg",
        None,
        "Two test pictures, two characters that were not taught and two photographs: answered or refused.",
    )


def _share(found: Detection, *, strangers: bool) -> str:
    """A share with its interval; of few validation pictures none is called a stranger."""
    share = found.caught if strangers else found.false_alarms
    ends = found.caught_interval if strangers else found.false_alarms_interval
    if share is None or ends is None:
        return f"not decided on {found.validation} validation pictures"
    return f"{share:.1%} ({ends[0]:.1%} to {ends[1]:.1%})"


def _certain(told: Lesson, run: ts.Run, files: Sequence[Path]) -> None:
    """Why the classifier's own certainty is no way to refuse."""
    answers = ts.predict(run.classifier, files, top=1)
    sure = sum(one.top[0].probability > 0.9 for one in answers)
    told.finding(
        f"Of {len(answers)} characters that were not taught, {sure} are given one of the classes with more "
        "than 90%: the classifier's certainty does not tell strangers."
    )


if __name__ == "__main__":
    sys.exit(start(main, __file__))
