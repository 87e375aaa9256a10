"""The report's first sentences, made from the figures and their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.common.params import ENSEMBLE
from stages.evaluation import SIGNIFICANT


def p_text(p: float) -> str:
    """Return `p = 0.41` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def listing(names: Sequence[str]) -> str:
    """Return `the a, the b and the c`."""
    named = [f"the {name}" for name in names]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def errors(n: int) -> str:
    return "1 error" if n == 1 else f"{n} errors"


def verdict(
    evaluation: Mapping[str, Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]],
    images: int,
) -> list[str]:
    """Return who won, by how much, and whether that is more than luck.

    Parameters
    ----------
    evaluation, comparisons
        As returned by `scores.summary` and `significance.compare_all`.
    images
        Size of the test set.
    """
    models = sorted(
        (name for name in evaluation if name != ENSEMBLE), key=lambda m: evaluation[m]["errors"]
    )
    p = {frozenset((row["a"], row["b"])): row["p_holm"] for row in comparisons}
    fewest = evaluation[models[0]]["errors"]
    best = [model for model in models if evaluation[model]["errors"] == fewest]
    figures = f"{evaluation[best[0]]['accuracy']:.2%} ({errors(fewest)} in {images:,} images)"
    if len(best) == 1:
        sentences = [f"the {best[0]} has the highest test accuracy, {figures}"]
    else:
        sentences = [f"{listing(best)} share the highest test accuracy, {figures}"]
    if len(models) > 1:
        sentences.append(_told_apart(models, p))
    if ENSEMBLE in evaluation:
        sentences.append(_ensemble(evaluation, models[0], p))
    return [sentence(text) for text in sentences]


def _told_apart(models: Sequence[str], p: Mapping[frozenset[str], float]) -> str:
    """Say which models the test set cannot tell from the best, and which those beat."""
    best, others = models[0], models[1:]
    alike = [name for name in others if p[frozenset((best, name))] >= SIGNIFICANT]
    beaten = [name for name in others if name not in alike]
    parts = []
    if alike:
        least = min(p[frozenset((best, name))] for name in alike)
        several = "≥ " if len(alike) > 1 and least < 0.995 else ""
        shown = p_text(least).replace("= ", several) if several else p_text(least)
        parts.append(f"{listing([best])} is not distinguishable from {_or(alike)} "
                     f"on this test set ({shown})")  # fmt: skip
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in beaten:
        winners = [w for w in (best, *alike) if p[frozenset((w, name))] < SIGNIFICANT]
        groups.setdefault(tuple(winners), []).append(name)
    for winners, losers in groups.items():
        largest = max(p[frozenset((w, name))] for w in winners for name in losers)
        both = len(winners) == 2 and len(alike) == 1
        verb = "beats" if len(winners) == 1 else "beat"
        parts.append(
            f"{'both' if both else listing(winners)} {verb} {listing(losers)} ({p_text(largest)})"
        )
    return "; ".join(parts)


def _or(names: Sequence[str]) -> str:
    return listing(names).replace(" and the ", " or the ")


def _ensemble(
    evaluation: Mapping[str, Mapping[str, Any]], best: str, p: Mapping[frozenset[str], float]
) -> str:
    difference = evaluation[best]["errors"] - evaluation[ENSEMBLE]["errors"]
    value = p[frozenset((ENSEMBLE, best))]
    amount = (
        f"{abs(difference)} {'fewer' if difference > 0 else 'more'} than the {best}"
        if difference
        else f"as many as the {best}"
    )
    judged = "more than luck" if value < SIGNIFICANT else "not distinguishable"
    return (
        f"the mean of their probabilities makes {errors(evaluation[ENSEMBLE]['errors'])}, "
        f"{amount} ({judged}, {p_text(value)})"
    )
