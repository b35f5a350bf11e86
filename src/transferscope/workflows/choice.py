"""Which of a tuning's candidates is kept: by which number, and how the others are seen."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from transferscope.evaluation.intervals import wilson_interval
from transferscope.evaluation.sentences import evidence_sentence
from transferscope.training.config import TuneOptions
from transferscope.training.fit import calibrated_loss, loss_and_top1
from transferscope.training.options import asked_for
from transferscope.training.recipe import Recipe
from transferscope.workflows.candidates import Candidate

By = Literal["strategy", "top1", "calibrated_loss"]

_OF_THE_CALL = {
    "out",
    "strategy",
    "split_from",
    "ratio",
    "boundary",
    "unfreeze",
    "resume",
    "loggers",
}


@dataclass(frozen=True)
class Choice:
    """What was kept of a tuning, and why.

    Attributes:
        kept: the candidate's name.
        by: the number that decided: accuracy on validation; where that is equal, the loss at the
            temperature that makes it least, which the classifier is given. `strategy`: it was asked for.
        sentence: the same in words.
        other: the command that keeps the other candidate, on the same split; None where there is none.
    """

    kept: str
    by: By
    sentence: str
    other: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return asdict(self)


def scores_of(
    candidates: Mapping[str, Candidate], labels: torch.Tensor
) -> dict[str, dict[str, float]]:
    """`top1`, `loss` (nats, at temperature 1) and `calibrated_loss` on validation, by candidate."""
    scores = {}
    for name, one in candidates.items():
        loss, top1 = loss_and_top1(one.logits, labels)
        calibrated = calibrated_loss(one.logits, labels)
        scores[name] = {"top1": top1, "loss": loss, "calibrated_loss": calibrated}
    return scores


def choose(
    options: TuneOptions,
    candidates: Mapping[str, Candidate],
    scores: Mapping[str, Mapping[str, float]],
    n: int,
    *,
    advised: str | None = None,
) -> Choice:
    """The candidate to keep: the one asked for, or of `auto` the better on n validation pictures.

    Args:
        options: of the call.
        candidates, scores: what was fitted, by name.
        n: validation pictures.
        advised: the strategy that measurements chose, where they did.
    """
    if options.strategy != "auto" or len(scores) == 1:
        kept = options.strategy if options.strategy in scores else next(iter(scores))
        return Choice(kept, "strategy", _asked(options, kept, advised, scores[kept], n))
    order = sorted(
        scores, key=lambda name: (-scores[name]["top1"], scores[name]["calibrated_loss"])
    )
    kept, other = order[0], order[1]
    by: By = "top1" if scores[kept]["top1"] != scores[other]["top1"] else "calibrated_loss"
    best, next_best = scores[kept], scores[other]
    if by == "top1":
        why = f"{best['top1']:.1%} right on {_pictures(n)} against {next_best['top1']:.1%}"
    else:
        why = (
            f"both {best['top1']:.1%} right on {_pictures(n)}, so by the loss after calibration, "
            f"{best['calibrated_loss']:.4f} against {next_best['calibrated_loss']:.4f}"
        )
    command = command_for(options, other, candidates[other].boundary)
    sentence = f"kept: {kept}, not {other}: {why}. The other is kept by: {command}"
    if kept == "probe":
        sentence += ". The body is untuned, so 'compare' has nothing to show"
    return Choice(kept, by, _with_evidence(sentence, n), command)


def command_for(options: TuneOptions, strategy: str, boundary: str | None) -> str:
    """What to type to tune by another strategy, on the split of the run and with its other options."""
    values: dict[str, Any] = {"strategy": strategy, "split_from": options.out}
    if strategy == "partial" and boundary is not None:
        values["boundary"] = boundary
    out = options.out.with_name(f"{options.out.name}-{strategy}")
    words = ["transferscope", "tune"]
    words += ["--root" if options.dataset else "", options.data, "--out", str(out)]
    for owner, held in ((TuneOptions, options), (Recipe, options.recipe)):
        for name, (flag, field) in asked_for(owner).items():
            if name in values:
                words += [flag, str(values[name])]
            elif name not in _OF_THE_CALL and (owner is TuneOptions or name in options.given):
                value = getattr(held, name)
                if owner is Recipe or value != field.default:
                    words += _typed(flag, value)
    return shlex.join(word for word in words if word)


def _typed(flag: str, value: Any) -> list[str]:
    """An option as it is typed; a list of pairs has none."""
    if isinstance(value, bool):
        return [flag.replace("--", "--no-") if not value else flag]
    if value is None or isinstance(value, tuple):
        return []
    return [flag, f"{value:g}" if isinstance(value, float) else str(value)]


def _asked(
    options: TuneOptions, kept: str, advised: str | None, score: Mapping[str, float], n: int
) -> str:
    why, tunes = "as it was asked for", "--strategy partial"
    if options.strategy == "auto":
        why = "as advised"
    if options.minutes is not None and kept == "probe" != (advised or options.strategy):
        why, tunes = f"as --minutes {options.minutes:g} left no time to tune", "more --minutes"
    sentence = (
        f"kept: {kept}, {why}: {score['top1']:.1%} right on {_pictures(n)}{_between(score, n)}"
    )
    if kept == "probe":
        other = "the body is untuned, so 'compare' has nothing to show"
        sentence += f"; {other} ({tunes}, with another --out, tunes it)"
    return _with_evidence(sentence, n)


def _pictures(n: int) -> str:
    return f"{n:,} validation picture{'s' * (n != 1)}"


def _between(score: Mapping[str, float], n: int) -> str:
    """The interval of the accuracy, where it rests on little."""
    if evidence_sentence(n) is None:
        return ""
    low, high = wilson_interval(round(score["top1"] * n), n)
    return f" (95% interval {low:.0%} to {high:.0%})"


def _with_evidence(sentence: str, n: int) -> str:
    """The sentence, and how little it rests on where that is so."""
    little = evidence_sentence(n)
    return sentence if little is None else f"{sentence}. {little}"
