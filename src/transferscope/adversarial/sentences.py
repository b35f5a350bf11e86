"""An attack in words: what the command line prints and other readers repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferscope.adversarial.budgets import epsilon_said

if TYPE_CHECKING:
    from transferscope.adversarial.attacks import Perturbation


def attack_sentences(made: Perturbation) -> list[str]:
    """What the picture was and is taken for, by how large a change, and what noise of that size does."""
    size = epsilon_said(made.distance, made.norm)
    change = f"a change of at most {size}" if made.norm == "linf" else f"a change of length {size}"
    before = f"{made.source} {made.source_probability:.1%}"
    if made.verified:
        said = f"{before} is taken for {made.target} {made.probability:.1%} after {change}"
    else:
        said = (
            f"{before} does not become {made.target}: after {change} it is taken for {made.answer}"
        )
    return [f"{said} ({made.method}, {made.norm}).", noise_sentence(made)]


def noise_sentence(made: Perturbation) -> str:
    """The control."""
    return f"Random noise of that size: {made.noise_answer}, {made.noise_probability:.1%}."
