"""Measure exported graphs on held-out photographs: what a camera breaks, and what its adapter gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from models.decision import grade_from_cumulative
from models.training.grading import REFERABLE, quadratic_kappa

FloatArray = npt.NDArray[np.float64]
Figures = dict[str, float]
BATCH = 4
_CALIBRATIONS = 300
"""Bootstrap resamples of the calibration line, each a fit."""


@dataclass(frozen=True)
class Scores:
    """The classifier's answers: cumulative float64 (N, 4) and quality float64 (N,)."""

    cumulative: FloatArray
    quality: FloatArray


@dataclass(frozen=True)
class OperatingPoint:
    """The bundle's thresholds on cumulative probabilities and its minimum quality."""

    thresholds: tuple[float, float, float, float]
    minimum_quality: float


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU; ``threads`` 0 leaves the number to ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def classify(path: Path, pictures: npt.NDArray[np.uint8]) -> Scores:
    """Run ``classifier.onnx`` over uint8 (N, S, S, 4)."""
    graph = session(path)
    parts = [
        graph.run(["cumulative", "quality"], {"image": pictures[start : start + BATCH]})
        for start in range(0, len(pictures), BATCH)
    ]
    cumulative, quality = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    return Scores(cumulative.astype(np.float64), quality[:, 0].astype(np.float64))


def adapt(path: Path, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Run an adapter over uint8 (N, S, S, 4)."""
    graph = session(path)
    parts = [
        graph.run(["adapted"], {"image": pictures[start : start + BATCH]})[0]
        for start in range(0, len(pictures), BATCH)
    ]
    return np.concatenate(parts)


def referable_figures(scores: Scores, grades: npt.NDArray[np.int64], point: OperatingPoint) -> Figures:
    """AUC, decisions at the fixed threshold, kappa and calibration of the referable probability.

    Sensitivity and specificity are over graded photographs; ``graded`` says how many those are.
    """
    referable, probability = grades >= REFERABLE, scores.cumulative[:, 1]
    graded = scores.quality >= point.minimum_quality
    positive = probability >= point.thresholds[1]
    stated = np.array([grade_from_cumulative(row, point.thresholds) for row in scores.cumulative])
    slope, intercept = calibration_line(probability, referable)
    return {
        "auc": float(roc_auc_score(referable, probability)),
        "sensitivity": float(positive[referable & graded].mean()),
        "specificity": float((~positive)[~referable & graded].mean()),
        "quadratic_kappa": quadratic_kappa(grades, stated),
        "brier": float(np.mean((probability - referable) ** 2)),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "graded": float(graded.mean()),
    }


def flipped(scores: Scores, oracle: Scores, point: OperatingPoint) -> npt.NDArray[np.bool_]:
    """Whether each referable decision differs from that on the unshifted picture, or was not given."""
    threshold = point.thresholds[1]
    differs = (scores.cumulative[:, 1] >= threshold) != (oracle.cumulative[:, 1] >= threshold)
    return np.asarray(differs | (scores.quality < point.minimum_quality), dtype=np.bool_)


def calibration_line(probability: FloatArray, outcome: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of logit P(outcome) on logit(probability), by likelihood; ideal 1 and 0."""
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    logit, sign = np.log(clipped / (1 - clipped)), np.where(outcome, 1.0, -1.0)

    def loss(line: FloatArray) -> float:
        return float(np.logaddexp(0.0, -sign * (line[0] * logit + line[1])).sum())

    slope, intercept = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return float(slope), float(intercept)


def bootstrap(
    count: int, statistic: Callable[[npt.NDArray[np.int64]], float], seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of resampled indices (1,000 resamples)."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, count, count)) for _ in range(1000)]
    low, high = np.quantile([value for value in values if np.isfinite(value)], [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: FloatArray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    return bootstrap(len(values), lambda chosen: float(values[chosen].mean()))


def auc_interval(scores: Scores, grades: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % bootstrap interval of the referable AUC."""
    referable, probability = grades >= REFERABLE, scores.cumulative[:, 1]

    def statistic(chosen: npt.NDArray[np.int64]) -> float:
        both = 0 < referable[chosen].sum() < len(chosen)
        return float(roc_auc_score(referable[chosen], probability[chosen])) if both else float("nan")

    return bootstrap(len(grades), statistic)


def calibration_intervals(scores: Scores, grades: npt.NDArray[np.int64]) -> Figures:
    """95 % bootstrap intervals of slope and intercept of the referable probability's calibration."""
    referable, probability = grades >= REFERABLE, scores.cumulative[:, 1]
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(_CALIBRATIONS):
        chosen = rng.integers(0, len(grades), len(grades))
        if 0 < referable[chosen].sum() < len(chosen):
            lines.append(calibration_line(probability[chosen], referable[chosen]))
    (slope_low, intercept_low), (slope_high, intercept_high) = np.quantile(lines, [0.025, 0.975], axis=0)
    return {
        "calibration_slope_low": float(slope_low),
        "calibration_slope_high": float(slope_high),
        "calibration_intercept_low": float(intercept_low),
        "calibration_intercept_high": float(intercept_high),
    }


def camera_figures(
    oracle: Scores,
    shifted: Scores,
    adapted: Scores | None,
    grades: npt.NDArray[np.int64],
    point: OperatingPoint,
) -> dict[str, Figures]:
    """Figures without adapter and, if there is one, with it; each with flips against ``oracle``."""
    found: dict[str, Figures] = {}
    for name, scores in (("unadapted", shifted), ("adapted", adapted)):
        if scores is None:
            continue
        flips = flipped(scores, oracle, point).astype(np.float64)
        low, high = mean_interval(flips)
        measured = referable_figures(scores, grades, point)
        graded = scores.quality >= point.minimum_quality
        found[name] = {
            **measured,
            "flipped": float(flips.mean()),
            "flipped_low": low,
            "flipped_high": high,
            # Without the refusals: where a grade was given, how often it was another decision.
            "decided_otherwise": float(flips[graded].mean()) if graded.any() else 0.0,
        }
    return found
