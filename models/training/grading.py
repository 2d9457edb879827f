"""Fit the ordinal heads on lesion summaries, calibrate them and choose thresholds, all out of fold.

A score must rest on what survives a poorer camera. So beside the ridge penalty the weights w pay for what
a degraded version of a photograph changes in its score: invariance · E[(w·Δ)²], where Δ is the difference of
the standardised features. Everything else comes from the photographs themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn
from torch.nn import functional

from models.networks.classifier import OrdinalHead
from models.training.losses import ordinal_loss

_FAR = 30.0
"""Beyond every score, in logits."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
REFERABLE = 2
"""Lowest grade that is referable (ICDR 2, moderate non-proliferative retinopathy)."""
OEDEMA_RISKS = 2
"""Highest risk of macular oedema: exudates within one disc diameter of the fovea (1: further away)."""


@dataclass(frozen=True)
class HeadConfig:
    """How the head is fitted.

    Attributes:
        folds: Folds of the cross-validation; look-alikes stay in one fold.
        penalties: Ridge penalties tried; the lowest out-of-fold loss wins.
        sensitivity: Sensitivity for referable disease that the referable threshold reaches out of fold.
        versions: Degraded versions of each photograph (``perturb.degraded``) that tell what does not survive.
        invariance: Weight of what they change in the score.
        seed: Seed of the folds.
    """

    folds: int = 5
    penalties: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    sensitivity: float = 0.9
    versions: int = 2
    invariance: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class FittedHead:
    """The head, its thresholds on cumulative probabilities (k = 1..4), and what was measured out of fold."""

    head: OrdinalHead
    thresholds: tuple[float, float, float, float]
    out_of_fold: dict[str, float]


class _ProportionalOdds(nn.Module):
    """Trainable twin of ``OrdinalHead`` in float64; ascending cuts by construction."""

    def __init__(self, features: int, cuts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, dtype=torch.float64))
        self.first = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))
        self.steps = nn.Parameter(torch.zeros(cuts - 1, dtype=torch.float64))

    def cuts(self) -> Tensor:
        return torch.cat([self.first[None], self.first + functional.softplus(self.steps).cumsum(0)])


def fit_weights(
    features: FloatArray, grades: IntArray, penalty: float, drift: FloatArray | None = None
) -> FloatArray:
    """Weights of the score by penalised maximum likelihood of the proportional-odds model.

    Args:
        features: Standardised, float64 (N, F).
        grades: int64 (N,), 0 up to the highest there is.
        penalty: Factor of the squared norm of the weights.
        drift: Quadratic form that is added to the penalty, float64 (F, F).

    Returns:
        float64 (F,).
    """
    ridge = penalty * np.eye(features.shape[1])
    return _fit(features, grades, ridge if drift is None else ridge + drift)[0]


def fit_calibration(
    scores: FloatArray, grades: IntArray, decisive: int | None = None
) -> tuple[float, FloatArray]:
    """Slope and cut points of P(grade ≥ k) = σ(slope·score − cut_k), from scores the weights did not see.

    Args:
        scores: float64 (N,).
        grades: int64 (N,), 0 up to the number of cuts.
        decisive: The grade whose probability P(grade ≥ decisive) must be calibrated by itself: it alone then
            tells the slope. Proportional odds share one slope among all cuts, which is a compromise: the
            referable probability came out too timid (calibration slope 1.5 to 1.9 out of fold).
    """
    weight, cuts = _fit(scores[:, None], grades, np.zeros((1, 1)))
    if decisive is None:
        return float(weight[0]), cuts
    slope, _ = _fit(scores[:, None], (grades >= decisive).astype(np.int64), np.zeros((1, 1)))
    spread = [
        _fit_cut(float(slope[0]) * scores, grades >= grade) for grade in range(1, int(grades.max()) + 1)
    ]
    return float(slope[0]), np.array(spread)


def _fit_cut(logits: FloatArray, reached: npt.NDArray[np.bool_]) -> float:
    """The likeliest cut c of σ(logit − c): that at which its mean is the outcome's frequency.

    An outcome that all or none have gets the frequency of half a photograph less, or more.
    """
    half = 0.5 / len(reached)
    frequency = float(np.clip(reached.mean(), half, 1.0 - half))

    def excess(cut: float) -> float:
        return float(expit(logits - cut).mean() - frequency)

    return float(brentq(excess, logits.min() - _FAR, logits.max() + _FAR))


def _fit(features: FloatArray, grades: IntArray, penalty: FloatArray) -> tuple[FloatArray, FloatArray]:
    inputs, targets = torch.from_numpy(features), torch.from_numpy(grades)
    form = torch.from_numpy(penalty)
    model = _ProportionalOdds(features.shape[1], int(grades.max()))
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = ordinal_loss(inputs @ model.weight, model.cuts(), targets)
        loss = loss + model.weight @ form @ model.weight
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss.item()

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return model.weight.detach().numpy(), model.cuts().detach().numpy()


def out_of_fold_scores(
    features: FloatArray,
    grades: IntArray,
    groups: Sequence[int] | IntArray,
    penalty: float,
    config: HeadConfig,
) -> FloatArray:
    """Score of each photograph by weights fitted on the other folds.

    Args:
        features: float64 (V, N, F); version 0 is the photograph itself, the others are degraded.
        grades: int64 (N,).
        groups: Look-alike group of each photograph.
        penalty: Ridge penalty.
        config: Settings.

    Returns:
        float64 (N,).
    """
    scores = np.empty(len(grades))
    folds = StratifiedGroupKFold(config.folds, shuffle=True, random_state=config.seed)
    for seen, unseen in folds.split(features[0], grades, np.asarray(groups)):
        mean, scale, weights = _standardised_fit(features[:, seen], grades[seen], penalty, config.invariance)
        scores[unseen] = (features[0, unseen] - mean) / scale @ weights
    return scores


@dataclass(frozen=True)
class CalibratedHead:
    """A fitted head, the penalty that was chosen and the out-of-fold scores that calibrated it."""

    head: OrdinalHead
    penalty: float
    scores: FloatArray


def fit_calibrated(
    features: FloatArray,
    grades: IntArray,
    groups: Sequence[int] | IntArray,
    config: HeadConfig,
    decisive: int | None = None,
) -> CalibratedHead:
    """Fit weights on all photographs given; choose the penalty and calibrate on out-of-fold scores.

    Args:
        features: float64 (V, N, F) of training and validation photographs; never of the held-out test.
        grades: int64 (N,), 0 up to the number of cuts.
        groups: Look-alike group of each photograph.
        config: Settings.
        decisive: As in ``fit_calibration``.
    """
    trials = {
        penalty: out_of_fold_scores(features, grades, groups, penalty, config) for penalty in config.penalties
    }
    losses = {penalty: _calibrated_loss(scores, grades) for penalty, scores in trials.items()}
    penalty = min(losses, key=lambda trial: losses[trial])
    slope, cuts = fit_calibration(trials[penalty], grades, decisive)
    mean, scale, weights = _standardised_fit(features, grades, penalty, config.invariance)
    head = OrdinalHead(features.shape[2], len(cuts))
    head.mean.copy_(torch.from_numpy(mean))
    head.scale.copy_(torch.from_numpy(scale))
    head.weight.copy_(torch.from_numpy(weights))
    head.slope.fill_(slope)
    head.cuts.copy_(torch.from_numpy(cuts))
    return CalibratedHead(head, penalty, trials[penalty])


def fit_head(
    features: FloatArray, grades: IntArray, groups: Sequence[int] | IntArray, config: HeadConfig
) -> FittedHead:
    """The retinopathy head with its thresholds; arguments as ``fit_calibrated``, grades 0 to 4."""
    fitted = fit_calibrated(features, grades, groups, config, REFERABLE)
    head, scores = fitted.head, fitted.scores
    levels = choose_levels(scores, grades, config.sensitivity)
    slope, cuts = float(head.slope), head.cuts.numpy()
    thresholds = [float(expit(slope * level - cut)) for cut, level in zip(cuts, levels, strict=True)]
    referable, stated = grades >= REFERABLE, np.searchsorted(levels, scores, side="right")
    figures = {
        "penalty": fitted.penalty,
        "auc_referable": float(roc_auc_score(referable, scores)),
        "sensitivity": float((scores[referable] >= levels[1]).mean()),
        "specificity": float((scores[~referable] < levels[1]).mean()),
        "quadratic_kappa": quadratic_kappa(grades, stated),
    }
    return FittedHead(head, (thresholds[0], thresholds[1], thresholds[2], thresholds[3]), figures)


def fit_oedema(
    features: FloatArray, risks: IntArray, groups: Sequence[int] | IntArray, config: HeadConfig
) -> tuple[OrdinalHead, dict[str, float]]:
    """The macular-oedema head and its out-of-fold figures.

    Args:
        features: float64 (V, N, F).
        risks: Risk of macular oedema, int64 (N,), 0 to ``OEDEMA_RISKS``.
        groups: Look-alike group of each photograph.
        config: Settings.
    """
    fitted = fit_calibrated(features, risks, groups, config)
    return fitted.head, {
        "penalty": fitted.penalty,
        "auc_any": float(roc_auc_score(risks >= 1, fitted.scores)),
        "auc_high": float(roc_auc_score(risks >= OEDEMA_RISKS, fitted.scores)),
    }


def _standardised_fit(
    features: FloatArray, grades: IntArray, penalty: float, invariance: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean and scale of the photographs' features, and weights that rest on what degradation leaves."""
    photographs = features[0]
    mean, scale = photographs.mean(axis=0), np.maximum(photographs.std(axis=0), 1e-3)
    change = ((features[1:] - photographs) / scale).reshape(-1, photographs.shape[1])
    drift = invariance * change.T @ change / max(1, len(change))
    return mean, scale, fit_weights((photographs - mean) / scale, grades, penalty, drift)


def choose_levels(scores: FloatArray, grades: IntArray, sensitivity: float) -> FloatArray:
    """Ascending levels of the score at which grade ≥ 1..4 is stated, float64 (4,).

    The second is the highest one that reaches ``sensitivity`` for referable disease; the others maximise the
    quadratic kappa around it. As they ascend, referable ⇔ stated grade ≥ 2.
    """
    referable = np.sort(scores[grades >= REFERABLE])
    second = float(referable[int(np.floor((1.0 - sensitivity) * len(referable)))])
    candidates = np.unique(np.quantile(scores, np.linspace(0.02, 0.98, 49)))
    below, above = candidates[candidates <= second], candidates[candidates >= second]
    best, found = -2.0, np.full(4, second)
    for first in [*below, second]:
        for third, fourth in itertools.combinations_with_replacement(above, 2):
            levels = np.array([first, second, third, fourth])
            kappa = quadratic_kappa(grades, np.searchsorted(levels, scores, side="right"))
            if kappa > best:
                best, found = kappa, levels
    return found


def quadratic_kappa(grades: IntArray, stated: IntArray) -> float:
    """Cohen's kappa with quadratic weights, 1 − E[(g − s)²] / E[(g − s)²] if g and s were independent."""
    observed = np.square(grades - stated).mean()
    expected = grades.var() + stated.var() + (grades.mean() - stated.mean()) ** 2
    return float(1.0 - observed / expected) if expected > 0 else 1.0


def _calibrated_loss(scores: FloatArray, grades: IntArray) -> float:
    slope, cuts = fit_calibration(scores, grades)
    return float(
        ordinal_loss(torch.from_numpy(slope * scores), torch.from_numpy(cuts), torch.from_numpy(grades))
    )
