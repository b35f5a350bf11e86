"""The field's words in plain ones: one list for the atlas, the documentation and `--help`."""

from __future__ import annotations

TERMS: tuple[tuple[str, str], ...] = (
    (
        "backbone",
        "A network that was trained on a large set of pictures (mostly ImageNet's 1.28 million) "
        "and is taken over.",
    ),
    (
        "base",
        "The backbone as it was before tuning, with a linear probe for a head: the fair before.",
    ),
    (
        "calibration",
        "A classifier is calibrated where it is right as often as it says. The calibration error "
        "is the mean gap between what it says and how often it is right.",
    ),
    (
        "channel",
        "One feature detector of a layer; it answers every place of a picture with a number.",
    ),
    (
        "CKA",
        "Centred kernel alignment: how alike two networks' layers arrange the same pictures, all "
        "channels at once; 1: alike up to rotation and scale, 0: not at all (Kornblith et al. "
        "2019).",
    ),
    (
        "class information",
        "The share of the variance of a channel's responses to held-out pictures that lies "
        "between the classes, less what chance alone would explain (epsilon squared): 0 where "
        "it knows nothing about them, 1 where it knows all.",
    ),
    (
        "control",
        "A transfer by the run's own recipe from shuffled training labels. What it gains, any "
        "tuning gains; what is more was learned.",
    ),
    (
        "cross-entropy",
        "The mean of minus the logarithm of the probability that was given to the right class: 0 "
        "is perfect, and sure mistakes cost most. Also called the loss.",
    ),
    (
        "exemplar",
        "A real picture that excites a channel most.",
    ),
    (
        "false discovery rate",
        "Of the things that are called found, the share that is expected to be chance; 5% here "
        "(Benjamini and Hochberg 1995). Of many channels some seem to have learned by chance alone.",
    ),
    (
        "freeze boundary",
        "The layer up to which nothing is trained.",
    ),
    (
        "head",
        "The last layer, which turns features into one number a class.",
    ),
    (
        "interval",
        "How far a figure of so few pictures may be off: 95 of 100 such intervals hold the figure"
        " of all pictures like these.",
    ),
    (
        "layer",
        "One step of the network's computation, by its dotted name; 'transferscope layers' lists "
        "them.",
    ),
    (
        "learned",
        "Said of a channel that gained class information, more than the controls and more "
        "than none.",
    ),
    (
        "logit",
        "The number that the head gives a class, before it becomes a probability.",
    ),
    (
        "looks different",
        "Said of a channel whose drawings in the two networks differ by more than one network's "
        "drawings from other seeds do.",
    ),
    (
        "matters",
        "Said of a channel whose replacement by base's makes the true class less probable.",
    ),
    (
        "moved",
        "Said of a channel that answers held-out pictures differently than before. Any tuning "
        "moves channels.",
    ),
    (
        "nats",
        "The unit of the cross-entropy with natural logarithms: 0.69 nats is as unsure as a coin,"
        " 2.3 as ten classes drawn by lot.",
    ),
    (
        "probe",
        "A linear head that is fitted to the untouched features of a backbone: the cheapest "
        "classifier, and a measure of what the features hold.",
    ),
    (
        "render",
        "A picture that was made from noise, step by step, to excite a channel as much as "
        "possible.",
    ),
    (
        "retuning",
        "The run tuned again from another seed, with true labels: how well a gain comes back.",
    ),
    (
        "stage",
        "A group of layers between two changes of resolution or width; networks are frozen and "
        "tuned by stages.",
    ),
    (
        "temperature",
        "One number by which the logits are divided, fitted on validation pictures, so that "
        "probabilities mean what they say. It changes no answer, only how sure it is.",
    ),
    (
        "top-1, top-5",
        "The share of pictures whose class is the most probable one, or among the five most "
        "probable.",
    ),
    (
        "validation",
        "Pictures on which everything that is chosen was chosen; the test pictures are looked at "
        "once, at the end.",
    ),
)
"""(term, what it means), in alphabetic order."""


def as_markdown() -> str:
    """The list as a page of the documentation."""
    lines = ["# Glossary", "", "Words that the program, its pages and these documents use.", ""]
    lines += [f"- **{term}**: {words}" for term, words in TERMS]
    return "\n".join(lines) + "\n"
