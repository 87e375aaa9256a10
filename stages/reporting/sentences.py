"""Numbers as text, and the report's first sentences, which follow from the significance tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.common.params import ENSEMBLE
from stages.evaluation import SIGNIFICANT

ACRONYM = 4  # letters; names up to this length are written in capitals: CNN, LSTM


def percent(fraction: float) -> str:
    """Return a fraction as `99.49 %`."""
    return f"{100 * fraction:.2f} %"


def in_percent(fraction: float | None) -> str:
    """Return a fraction as `99.49`, for a table column with the unit in its heading."""
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def points(difference: float) -> str:
    """Return a difference of fractions in percentage points: `+0.24`, or `−0.24` (a true minus)."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0: no −0.00


def p_text(p: float) -> str:
    """Return `p = 0.41` or `p < 0.001`. Near 0.05, a third digit shows on which side p lies."""
    digits = 3 if abs(p - SIGNIFICANT) < 0.0005 else 2
    return "p < 0.001" if p < 0.001 else f"p = {p:.{digits}g}" if p < 0.995 else "p = 1"


def counted(n: int, noun: str) -> str:
    """Return `1 error` or `2 errors`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def joined(parts: Sequence[str], last: str = "and") -> str:
    """Return `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def listing(names: Sequence[str], last: str = "and", article: str = "the ") -> str:
    """Return models as `the CNN, the LSTM and the hybrid`."""
    shown = [name.upper() if len(name) <= ACRONYM else name for name in names]
    return joined([f"{article}{name}" for name in shown], last)


def verdict(
    evaluation: Mapping[str, Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]],
    images: int,
) -> list[str]:
    """Return sentences: which model is best, and which differences are significant.

    Parameters
    ----------
    evaluation
        Each model's test ``accuracy`` and number of ``errors``.
    comparisons
        As returned by `significance.compare_all`.
    images
        Size of the test set.
    """
    models = sorted(
        (name for name in evaluation if name != ENSEMBLE), key=lambda m: evaluation[m]["errors"]
    )
    p = {frozenset((row["a"], row["b"])): row["p_holm"] for row in comparisons}
    fewest = evaluation[models[0]]["errors"]
    best = [model for model in models if evaluation[model]["errors"] == fewest]
    verb = "has" if len(best) == 1 else "share"
    accuracy = percent(evaluation[best[0]]["accuracy"])
    sentences = [
        f"{listing(best)} {verb} the highest test accuracy, {accuracy} "
        f"({counted(fewest, 'error')} in {images:,} images)"
    ]
    if len(best) < len(models):
        sentences.append(_against_others(best, models[len(best) :], p))
    if ENSEMBLE in evaluation:
        sentences.append(_ensemble(evaluation, models[0], p))
    return [f"{text[0].upper()}{text[1:]}." for text in sentences]


def _against_others(
    best: Sequence[str], others: Sequence[str], p: Mapping[frozenset[str], float]
) -> str:
    """Say which of the other models are significantly worse than the best, and which are not."""

    def beats(winner: str, loser: str) -> bool:
        return p[frozenset((winner, loser))] < SIGNIFICANT

    alike = [name for name in others if not any(beats(winner, name) for winner in best)]
    leading = [*best, *alike]
    parts = []
    if alike:
        values = [p[frozenset((a, b))] for a in best for b in alike]
        parts.append(
            f"{'it is' if len(best) == 1 else 'they are'} not significantly better than "
            f"{listing(alike, 'or')} ({_bounded(min(values), len(values), '≥')})"
        )
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in others:
        if name not in alike:
            winners = tuple(winner for winner in leading if beats(winner, name))
            groups.setdefault(winners, []).append(name)
    for winners, losers in groups.items():
        subject = listing(winners)
        if list(winners) == list(best):
            subject = "it" if len(best) == 1 else "they"
        elif len(winners) == len(leading):
            subject = "both" if len(winners) == 2 else "all"
        values = [p[frozenset((a, b))] for a in winners for b in losers]
        parts.append(
            f"{subject} {'beats' if len(winners) == 1 else 'beat'} {listing(losers)} "
            f"({_bounded(max(values), len(values), '≤')})"
        )
    return "; ".join(parts)


def _bounded(p: float, n: int, sign: str) -> str:
    """Return a p-value, or the bound that it is for `n` p-values: `p ≤ 0.01`."""
    return p_text(p).replace("=", sign) if n > 1 and p < 0.995 else p_text(p)


def _ensemble(
    evaluation: Mapping[str, Mapping[str, Any]], best: str, p: Mapping[frozenset[str], float]
) -> str:
    errors = evaluation[ENSEMBLE]["errors"]
    difference = evaluation[best]["errors"] - errors
    amount = f"{abs(difference)} {'fewer' if difference > 0 else 'more'} than"
    value = p[frozenset((ENSEMBLE, best))]
    return (
        f"the ensemble (mean of their probabilities) makes {counted(errors, 'error')}, "
        f"{amount if difference else 'as many as'} {listing([best])} "
        f"({'significant' if value < SIGNIFICANT else 'not significant'}, {p_text(value)})"
    )
