"""From calibrated probabilities to a grade: pure arithmetic, the same in training and serving."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

REFERABLE_GRADE: Final = 2
"""The lowest referable grade: more than mild retinopathy on the international clinical scale."""


def grade_from_cumulative(cumulative: Sequence[float], thresholds: Sequence[float]) -> int:
    """The stated grade, decided so that it is at least 2 exactly when the picture is referable.

    Referable is the decision that matters and has its own operating point, so it is taken first:
    P(grade ≥ 2) ≥ thresholds[1]. Only then is it refined, downwards between 0 and 1, or upwards as far as
    P(grade ≥ 3) and then P(grade ≥ 4) reach their thresholds. Where no threshold is lower than the one
    before, this is the number of leading k with P(grade ≥ k) ≥ thresholds[k - 1].

    Args:
        cumulative: P(grade ≥ k) for k = 1 … 4.
        thresholds: the probability at which each counts as reached, k = 1 … 4.

    Returns:
        The grade, 0 to 4.
    """
    mild, referable, severe, proliferative = (p >= t for p, t in zip(cumulative, thresholds, strict=True))
    if not referable:
        return 1 if mild else 0
    if not severe:
        return REFERABLE_GRADE
    return 4 if proliferative else 3


def probabilities_from_cumulative(cumulative: Sequence[float]) -> tuple[float, ...]:
    """P(grade = 0) … P(grade = 4) from P(grade ≥ k), k = 1 … 4, non-increasing: the differences."""
    edges = (1.0, *cumulative, 0.0)
    return tuple(upper - lower for upper, lower in pairwise(edges))
