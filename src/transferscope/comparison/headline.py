"""A comparison in sentences: what was learned, where, how sure, and what the controls show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferscope.comparison.change import LEARNED, LOOKS_DIFFERENT, MATTERS, MOVED
from transferscope.comparison.drawings import pooled_sentence
from transferscope.comparison.sign_flips import ALPHA
from transferscope.wording import counted, number, percent, series

if TYPE_CHECKING:
    from transferscope.comparison.records import Comparison

KINDS = ("base", "tuned", "controls", "retunings")
"""Networks whose class information a comparison may have."""

_NAMED = 4  # frozen layers that are named one by one


def headline(found: Comparison) -> str:
    """All sentences, one after another."""
    return " ".join(sentences(found))


def sentences(found: Comparison) -> list[str]:
    """What was learned, against which controls, what would be missed, what the drawings show."""
    tested = [layer.layer for layer in found.layers if not layer.identical]
    words = []
    if tested:
        words += _learned(found, tested) if found.controls else [_not_asked(found)]
        words += _moved(found)
        words += _matters(found)
        words += _drawings(found)
    return words + _frozen(found)


def layer_table(found: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]], str]:
    """Columns and rows of a table of the layers, and what its figures of class information are, or nothing.

    Columns of numbers begin with a dash.
    """
    kinds = [kind for kind in KINDS if any(kind in one.information for one in found.layers)]
    rows = []
    for name, layer in found.to_dict()["layers"].items():
        known = layer["class_information"]
        answers = [layer[key] for key in ("moved", "learned", "matters", "looks_different")]
        said = ["–" if value is None else f"{value:,}" for value in answers]
        said[-1] += f" of {layer['drawn']}" if said[-1] != "–" else ""
        rows.append(
            (
                name,
                f"{layer['channels']:,}",
                *(["identical", "", "", ""] if layer["identical"] else said),
                *(number(known.get(kind)) for kind in kinds),
                number(layer["cka"], 3),
            )
        )
    asked = ("-channels", "-moved", "-learned", "-matter", "-look different")
    columns = ("layer", *asked, *(f"-{kind}" for kind in kinds), "-CKA")
    note = (
        f"{', '.join(kinds)}: class information of the median channel, the share of its responses' variance "
        "that lies between classes"
    )
    return columns, rows, note if kinds else ""


def _learned(found: Comparison, tested: list[str]) -> list[str]:
    learned, of = found.found(LEARNED), found.tested
    measured = f"{found.pictures:,} {found.split} pictures"
    controls = f"{found.controls} control transfers (the same recipe on shuffled labels)"
    rate = f"at a false discovery rate of {percent(found.fdr, 0)}"
    if not learned:
        return [
            f"No channel of {series(tested)} was found to have learned: on {measured}, none of {of:,} tells "
            f"the {found.classes} classes apart better than before by more than {controls} do, {rate}. That is "
            "what these pictures and controls can show, not proof that nothing was learned.",
            *_checked(found),
        ]
    words = [
        f"{len(learned):,} of {of:,} channels of {series(tested)} learned: on {measured} they tell the "
        f"{found.classes} classes apart better than before, by more than {controls} do, {rate}."
    ]
    by_layer = {name: len(found.found(LEARNED, name)) for name in tested}
    if len(tested) > 1:
        totals = {name: len(found.of_witness(LEARNED, name)) for name in tested}
        most = max(tested, key=lambda name: by_layer[name] / max(1, totals[name]))
        words.append(f"Most of {most}: {by_layer[most]:,} of {totals[most]:,}.")
    return words + _checked(found) + _reproduced(found, len(learned))


def _not_asked(found: Comparison) -> str:
    first, second = found.pair
    asked = found.of_witness(LEARNED)
    unknown = (
        f"whether {second} learned anything was not asked: without control transfers there is nothing to hold "
        "a gain of class information against"
    )
    if not asked:
        return f"{first} and {second} have no channels in common: only layers are compared."
    more = sum(row.q <= found.fdr and row.low > 0 for row in asked)
    return (
        f"{more:,} of {len(asked):,} channels tell the {found.classes} classes of {found.pictures:,} "
        f"{found.split} pictures apart better in {second} than in {first}; {unknown}."
    )


def _checked(found: Comparison) -> list[str]:
    """The negative control of the first sentence."""
    false = found.false_in_controls
    if not false:
        return []
    counts = series([f"{count:,}" for count in false])
    return [f"Each control asked the same against the others seems to have learned {counts}."]


def _reproduced(found: Comparison, learned: int) -> list[str]:
    if not found.reproduced:
        return []
    counts = series([f"{count:,}" for count in found.reproduced])
    seeds = "another seed" if len(found.reproduced) == 1 else "other seeds"
    return [f"Tuned again from {seeds}, {counts} of these {learned:,} learned again."]


def _moved(found: Comparison) -> list[str]:
    asked = found.of_witness(MOVED)
    if not asked:
        return []
    return [
        f"{len(found.found(MOVED)):,} of {len(asked):,} answer held-out pictures differently, which a network "
        "tuned on shuffled labels does too."
    ]


def _matters(found: Comparison) -> list[str]:
    asked = found.of_witness(MATTERS)
    if not asked:
        return []
    count = len(found.found(MATTERS))
    return [
        f"{count:,} of {len(asked):,} would be missed: with {found.pair[0]}'s activations in their place the "
        "true class becomes less probable. So would channels of a network tuned on shuffled labels, the rest "
        "of which has been tuned to what they give."
        if count
        else f"None of {len(asked):,} was found to be missed with {found.pair[0]}'s activations in its place."
    ]


def _drawings(found: Comparison) -> list[str]:
    if not found.drawings:
        return []
    drawn, seeds = len(found.drawings), len(found.seeds)
    different = len(found.found(LOOKS_DIFFERENT))
    words = f"{counted(drawn, 'channel')} {'was' if drawn == 1 else 'were'} drawn"
    if different:
        words += f"; {different} of them {'looks' if different == 1 else 'look'} different"
    if drawn > different:
        rest = "the others" if different else "it" if drawn == 1 else "they"
        words += (
            f"; {rest} could not be told apart from drawing one network twice with "
            f"{counted(seeds, 'seed')}"
        )
    together = [
        pooled_sentence(layer.drawings)
        for layer in found.layers
        if layer.drawings is not None
        and layer.drawings.p is not None
        and (layer.drawings.p <= ALPHA or layer.drawings.detectable is not None)
    ]
    return [f"{words}.", *together]


def _frozen(found: Comparison) -> list[str]:
    frozen = [layer.layer for layer in found.layers if layer.identical]
    if not frozen:
        return []
    names = series(frozen)
    if len(frozen) > _NAMED:
        names = f"{len(frozen)} layers, up to {frozen[-1]},"
    return [
        f"{names} {'is' if len(frozen) == 1 else 'are'} bit-identical in both networks, as frozen."
    ]
