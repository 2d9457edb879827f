"""Bootstrap over photographs: one shared set of resamples, every statistic a function of their weights.

A resample of N photographs is a row of N counts that sum to N. A statistic computed from weights gives the
estimate from a row of ones and its replicates from the resamples, by the same code; and as all figures use
the same rows, differences and averages over cameras are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""From weights float64 (R, N) to a value a row, float64 (R,); nan where the row does not define it."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap replicates, float64 (R,)."""

    value: float
    replicates: FloatArray

    @property
    def interval(self) -> tuple[float, float]:
        """95 % percentile interval; nan where no resample defines the figure."""
        defined = self.replicates[np.isfinite(self.replicates)]
        if len(defined) == 0:
            return float("nan"), float("nan")
        low, high = np.quantile(defined, [0.025, 0.975])
        return float(low), float(high)

    def as_json(self) -> dict[str, float | None]:
        """``value``, ``low``, ``high``; None where undefined."""
        low, high = self.interval
        named = {"value": self.value, "low": low, "high": high}
        return {key: float(number) if np.isfinite(number) else None for key, number in named.items()}


class Resamples:
    """Weights of the bootstrap resamples of ``count`` photographs.

    Args:
        count: Photographs N.
        resamples: Resamples R.
        seed: The same arguments give the same weights.
    """

    def __init__(self, count: int, resamples: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, count, (resamples, count))
        self.weights: FloatArray = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(
            np.float64
        )
        self._once = np.ones((1, count))

    def estimate(self, statistic: Statistic) -> Estimate:
        """The statistic of the photographs as they are, and of every resample."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return Estimate(float(statistic(self._once)[0]), statistic(self.weights))

    def mean(self, values: FloatArray) -> Estimate:
        """Mean of a value a photograph, float64 (N,); photographs with nan do not count."""
        return self.ratio(values, np.ones_like(values))

    def ratio(self, numerator: FloatArray, denominator: FloatArray) -> Estimate:
        """Sum of one value over the sum of another; photographs where either is nan do not count."""
        known = np.isfinite(numerator) & np.isfinite(denominator)
        above, below = np.where(known, numerator, 0.0), np.where(known, denominator, 0.0)
        return self.estimate(lambda weights: (weights @ above) / (weights @ below))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of figures (over cameras), resample by resample.

    Raises:
        ValueError: There is none.
    """
    if not estimates:
        raise ValueError("an average needs at least one figure")
    value = float(np.mean([estimate.value for estimate in estimates]))
    return Estimate(value, np.mean([estimate.replicates for estimate in estimates], axis=0))


def weighted_auc(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> Statistic:
    """Area under the ROC curve, P(positive scores higher) + ½ P(equal) (Hanley & McNeil 1982)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    sign = positive[order].astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        sorted_weights = weights[:, order]
        positives = np.add.reduceat(sorted_weights * sign, starts, axis=1)
        negatives = np.add.reduceat(sorted_weights * (1.0 - sign), starts, axis=1)
        below = np.cumsum(negatives, axis=1) - 0.5 * negatives
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        area: FloatArray = (positives * below).sum(axis=1) / pairs
        return area

    return statistic


def weighted_kappa(grades: npt.NDArray[np.int64], stated: npt.NDArray[np.int64]) -> Statistic:
    """Cohen's kappa with quadratic weights, as ``grading.quadratic_kappa``; nan where all grades are one."""
    truth, answer = grades.astype(np.float64), stated.astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=1)
        means = [weights @ values / total for values in (truth, answer)]
        variances = [
            weights @ (values * values) / total - mean**2
            for values, mean in zip((truth, answer), means, strict=True)
        ]
        expected = variances[0] + variances[1] + (means[0] - means[1]) ** 2
        kappa: FloatArray = 1.0 - (weights @ (truth - answer) ** 2 / total) / np.where(
            expected > 0, expected, np.nan
        )
        return kappa

    return statistic


def weighted_calibration(
    probability: FloatArray, outcome: npt.NDArray[np.bool_]
) -> Callable[[FloatArray], FloatArray]:
    """Slope and intercept of logit P(outcome) on logit(probability) (Cox 1958), by likelihood.

    Returns:
        A function from weights float64 (R, N) to float64 (R, 2), by Newton's method over all rows at once;
        nan where a row is separable, so that the likelihood has no maximum.
    """
    clipped = np.clip(probability, 1e-6, 1.0 - 1e-6)
    design = np.stack([np.log(clipped / (1.0 - clipped)), np.ones_like(clipped)], axis=1)
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, 4)
    target = outcome.astype(np.float64)

    def lines(weights: FloatArray) -> FloatArray:
        line, step = np.tile([1.0, 0.0], (len(weights), 1)), np.ones((len(weights), 2))
        for _ in range(50):
            expected = 1.0 / (1.0 + np.exp(-np.clip(line @ design.T, -40.0, 40.0)))
            gradient = (weights * (target - expected)) @ design
            curvature = (weights * expected * (1.0 - expected)) @ products
            damped = curvature.reshape(-1, 2, 2) + 1e-9 * np.eye(2)
            step = np.clip(np.linalg.solve(damped, gradient[..., None])[..., 0], -2.0, 2.0)
            line = line + step
            if np.abs(step).max() < 1e-10:
                break
        found = (np.abs(step).max(axis=1) < 1e-6) & (np.abs(line).max(axis=1) < 50.0)
        return np.where(found[:, None], line, np.nan)

    return lines
