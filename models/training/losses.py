"""The equations that training minimises, each a pure function of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def cycle_loss(residual_12: Tensor, residual_21_of_fake: Tensor) -> Tensor:
    """Residual cycle term, one direction: mean |r12(x1) + r21(x̂2)| with x̂2 = x1 + r12(x1).

    CN111753908A, the cycle loss as the sum of residuals; arXiv 2007.15874, cycle-consistency on residuals.
    It is zero exactly when the way back undoes the way there: x̂2 + r21(x̂2) = x1. Call it a second time with
    r21(x2) and r12(x̂1) for the mirror term.

    Args:
        residual_12: r12(x1), float (N, 3, H, W).
        residual_21_of_fake: r21(x1 + r12(x1)), same shape.

    Returns:
        Scalar, ≥ 0.
    """
    return (residual_12 + residual_21_of_fake).abs().mean()


def identity_loss(residual_of_own_style: Tensor) -> Tensor:
    """Mean |r12(x2)|: a picture that already has the target style needs no residual. Scalar, ≥ 0."""
    return residual_of_own_style.abs().mean()


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least-squares adversarial term of a discriminator: ½·E[(D(real) − 1)²] + ½·E[D(fake)²].

    Mao et al. 2017, eq. 2 with a = 0, b = c = 1; averaged over the discriminator's score maps.
    """
    terms = [
        0.5 * (r - 1.0).square().mean() + 0.5 * f.square().mean() for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Least-squares adversarial term of a generator: E[(D(x̂) − 1)²], averaged over score maps."""
    return torch.stack([(f - 1.0).square().mean() for f in fake]).mean()


def lesion_loss(logits: Tensor, masks: Tensor, positive_weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy plus soft Dice, for maps of rare lesions.

    Args:
        logits: float (N, K, H, W).
        masks: Share of each pixel that a lesion covers, 0..1, same shape.
        positive_weight: Weight of lesion pixels per kind, (K, 1, 1).

    Returns:
        Scalar.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, pos_weight=positive_weight)
    probability = logits.sigmoid()
    overlap = (probability * masks).sum((0, 2, 3))
    total = probability.sum((0, 2, 3)) + masks.sum((0, 2, 3))
    return entropy + (1.0 - (2.0 * overlap + 1.0) / (total + 1.0)).mean()


def ordinal_loss(score: Tensor, cuts: Tensor, grades: Tensor) -> Tensor:
    """Negative log-likelihood of the proportional-odds model, P(grade ≥ k) = σ(score − cut_k).

    McCullagh 1980. Class probabilities are differences of neighbouring cumulative ones.

    Args:
        score: float (N,).
        cuts: Ascending cut points, float (4,).
        grades: int64 (N,), 0 to 4.

    Returns:
        Mean over N, scalar.
    """
    cumulative = torch.sigmoid(score[:, None] - cuts[None])
    ones = torch.ones_like(score)[:, None]
    edges = torch.cat([ones, cumulative, torch.zeros_like(ones)], 1)
    classes = (edges[:, :-1] - edges[:, 1:]).clamp_min(1e-7)
    return -classes.gather(1, grades[:, None]).log().mean()
