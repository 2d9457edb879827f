"""Figures of the referable decision, each with its bootstrap replicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.decision import grade_from_cumulative
from models.training.benchmark.resampling import (
    Estimate,
    FloatArray,
    Resamples,
    weighted_auc,
    weighted_calibration,
    weighted_kappa,
)
from models.training.evaluate import OperatingPoint, Scores, flipped
from models.training.grading import REFERABLE

LEAST_LOSS = 0.03
"""AUC that a camera must cost before "share recovered" means anything."""


@dataclass(frozen=True)
class Measured:
    """Photographs that all rows share.

    Attributes:
        grades: int64 (N,), 0 to 4.
        point: The bundle's fixed thresholds.
        resamples: Resamples of the N photographs.
    """

    grades: npt.NDArray[np.int64]
    point: OperatingPoint
    resamples: Resamples


def decision_figures(scores: Scores, oracle: Scores, measured: Measured) -> dict[str, Estimate]:
    """AUC, kappa, sensitivity, specificity, flips, Brier score, calibration line, share graded.

    Sensitivity and specificity are over graded photographs, as in ``evaluate.referable_figures``; one that is
    not graded is a flip.
    """
    point, resamples = measured.point, measured.resamples
    referable, probability = measured.grades >= REFERABLE, scores.cumulative[:, 1]
    graded = scores.quality >= point.minimum_quality
    positive = (probability >= point.thresholds[1]).astype(np.float64)
    stated = np.array([grade_from_cumulative(row, point.thresholds) for row in scores.cumulative])
    lines = weighted_calibration(probability, referable)
    return {
        "auc": resamples.estimate(weighted_auc(probability, referable)),
        "quadratic_kappa": resamples.estimate(weighted_kappa(measured.grades, stated)),
        "sensitivity": resamples.ratio(positive * (referable & graded), _number(referable & graded)),
        "specificity": resamples.ratio(
            (1.0 - positive) * (~referable & graded), _number(~referable & graded)
        ),
        "flipped": resamples.mean(_number(flipped(scores, oracle, point))),
        "brier": resamples.mean((probability - referable) ** 2),
        "calibration_slope": resamples.estimate(lambda weights: lines(weights)[:, 0]),
        "calibration_intercept": resamples.estimate(lambda weights: lines(weights)[:, 1]),
        "graded": resamples.mean(_number(graded)),
    }


def recovered(auc: Estimate, unadapted: Estimate, oracle: Estimate) -> Estimate | None:
    """Share of the lost AUC that came back, (auc − unadapted)/(oracle − unadapted).

    Returns:
        None where less than ``LEAST_LOSS`` was lost. Resamples that lost nothing are nan.
    """
    if oracle.value - unadapted.value < LEAST_LOSS:
        return None
    lost = oracle.replicates - unadapted.replicates
    gained = auc.replicates - unadapted.replicates
    shares = np.divide(gained, lost, out=np.full_like(lost, np.nan), where=lost > 0)
    return Estimate((auc.value - unadapted.value) / (oracle.value - unadapted.value), shares)


def roc_curve(scores: Scores, grades: npt.NDArray[np.int64]) -> list[tuple[float, float]]:
    """Points (1 − specificity, sensitivity) of the referable ROC curve, from (0, 0) to (1, 1)."""
    referable, probability = grades >= REFERABLE, scores.cumulative[:, 1]
    levels = np.unique(probability)[::-1]
    points = [(0.0, 0.0)]
    for level in levels:
        stated = probability >= level
        points.append((float(stated[~referable].mean()), float(stated[referable].mean())))
    return points


def reliability(
    scores: Scores, grades: npt.NDArray[np.int64], bins: int = 8
) -> list[tuple[float, float, int]]:
    """Mean probability, share referable and count of groups of equally many photographs."""
    referable, probability = grades >= REFERABLE, scores.cumulative[:, 1]
    groups = np.array_split(np.argsort(probability, kind="stable"), min(bins, len(grades)))
    return [
        (float(probability[group].mean()), float(referable[group].mean()), len(group)) for group in groups
    ]


def _number(flags: npt.NDArray[np.bool_]) -> FloatArray:
    return flags.astype(np.float64)
