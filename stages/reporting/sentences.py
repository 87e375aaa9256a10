"""Numbers as text, and the report's first sentence, which follows from the significance tests."""

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


def standing(
    errors: Mapping[str, int], comparisons: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str], list[str]]:
    """Return the models with the fewest errors, those not significantly worse, and the others.

    Parameters
    ----------
    errors
        Each model's number of test errors.
    comparisons
        As returned by `significance.compare_all`; pairs of other models are left out.
    """
    best = [name for name in errors if errors[name] == min(errors.values())]
    worse = {
        name
        for pair in comparisons
        for name, other in ((pair["a"], pair["b"]), (pair["b"], pair["a"]))
        if other in best and pair["p_holm"] < SIGNIFICANT
    }
    others = [name for name in errors if name not in best]
    return (
        best,
        [name for name in others if name not in worse],
        [name for name in others if name in worse],
    )


def verdict(
    errors: Mapping[str, int], comparisons: Sequence[Mapping[str, Any]], images: int
) -> str:
    """Return one sentence: which model is best, and which ones are significantly worse.

    If only the ensemble is among the best, the sentence also says which single model is.

    Parameters
    ----------
    errors, comparisons
        As for `standing`.
    images
        Size of the test set.
    """
    best, alike, worse = standing(errors, comparisons)
    fewest = errors[best[0]]
    text = (
        f"{listing(best)} {'has' if len(best) == 1 else 'share'} the highest test accuracy, "
        f"{percent((images - fewest) / images)} ({counted(fewest, 'error')} in {images:,} images)"
    )
    p = {frozenset((row["a"], row["b"])): row["p_holm"] for row in comparisons}
    clauses = [_not_worse(best, alike, p)] if alike else []
    if worse:
        values = [p[frozenset((a, b))] for a in best for b in worse]
        values = [value for value in values if value < SIGNIFICANT]
        bound = _bounded(max(values), len(values), "≤")
        subject = "all others" if len(worse) > 1 and not alike else listing(worse)
        start, end = ("but ", "") if alike else ("", " significantly worse")
        clauses.append(f"{start}{subject} {_be(worse)}{end} ({bound})")
    if clauses:
        text += f", and {', '.join(clauses)}"
    if [*best, *alike] == [ENSEMBLE]:
        single = {name: n for name, n in errors.items() if name != ENSEMBLE}
        best, alike, _ = standing(single, comparisons)
        accuracy = percent((images - single[best[0]]) / images)
        text += f"; of the single models, {listing(best)} "
        text += f"{'leads' if len(best) == 1 else 'lead'} with {accuracy}"
        text += f", and {_not_worse(best, alike, p)}" if alike else ""
    return f"{text[0].upper()}{text[1:]}."


def _not_worse(best: Sequence[str], alike: Sequence[str], p: Mapping[frozenset[str], float]) -> str:
    values = [p[frozenset((a, b))] for a in best for b in alike]
    bound = _bounded(min(values), len(values), "≥")
    return f"{listing(alike)} {_be(alike)} not significantly worse ({bound})"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _bounded(p: float, n: int, sign: str) -> str:
    """Return a p-value, or the bound that it is for `n` p-values: `p ≤ 0.01`."""
    return p_text(p).replace("=", sign) if n > 1 and p < 0.995 else p_text(p)
