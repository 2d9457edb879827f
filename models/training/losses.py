"""The equations that training minimises, each a pure function of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def residual_cycle_loss(
    residual_12: Tensor, residual_21_of_fake2: Tensor, residual_21: Tensor, residual_12_of_fake1: Tensor
) -> Tensor:
    """The residual cycle loss and its mirror: mean |r12(x1) + r21(x̂2)| + mean |r21(x2) + r12(x̂1)|.

    With x̂2 = x1 + r12(x1) and x̂1 = x2 + r21(x2). CN111753908A claim 1: the cycle loss is the sum of the
    residuals there and back. Minimised by both generators; the discriminators have no part in it.

    Args:
        residual_12: r12(x1), float (N, 3, H, W).
        residual_21_of_fake2: r21(x̂2), same shape.
        residual_21: r21(x2), float (M, 3, H, W).
        residual_12_of_fake1: r12(x̂1), same shape.

    Returns:
        Scalar, ≥ 0; 0 exactly where the residuals cancel both ways.
    """
    return cycle_loss(residual_12, residual_21_of_fake2) + cycle_loss(residual_21, residual_12_of_fake1)


def cycle_loss(residual_12: Tensor, residual_21_of_fake: Tensor) -> Tensor:
    """Residual cycle term, one direction: mean |r12(x1) + r21(x̂2)| with x̂2 = x1 + r12(x1).

    CN111753908A, the cycle loss as the sum of residuals; arXiv 2007.15874, cycle-consistency on residuals.
    It is zero exactly when the way back undoes the way there: x̂2 + r21(x̂2) = x1. The mirror term is the
    same of r21(x2) and r12(x̂1).

    Args:
        residual_12: r12(x1), float (N, 3, H, W).
        residual_21_of_fake: r21(x1 + r12(x1)), same shape.

    Returns:
        Scalar, ≥ 0.
    """
    return (residual_12 + residual_21_of_fake).abs().mean()


def picture_cycle_loss(picture: Tensor, picture_and_back: Tensor) -> Tensor:
    """Cycle term of a plain CycleGAN, one direction: mean |G21(G12(x1)) − x1| (Zhu et al. 2017, eq. 2).

    An ablation: for residual generators it is the same number as ``cycle_loss``, since then
    G21(G12(x1)) − x1 = r12(x1) + r21(x̂2).

    Args:
        picture: x1, float (N, 3, H, W).
        picture_and_back: G21(G12(x1)), same shape.

    Returns:
        Scalar, ≥ 0.
    """
    return (picture_and_back - picture).abs().mean()


def identity_loss(residual_of_own_style: Tensor) -> Tensor:
    """Mean |r12(x2)|: a picture that already has the target style needs no residual (Zhu et al. 2017, 5.2).

    Args:
        residual_of_own_style: r12(x2) or r21(x1), or G12(x2) − x2 of a plain generator, float (N, 3, H, W).

    Returns:
        Scalar, ≥ 0.
    """
    return residual_of_own_style.abs().mean()


def paired_loss(made: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """Mean |x̂2 − x2| over the pixels and colours of the field: the bound's loss, for true pairs only.

    Args:
        made: x̂2, float (N, 3, H, W).
        truth: x2, same shape.
        inside: Mask of the field in both, 0..1, float (N, 1, H, W).

    Returns:
        Scalar, ≥ 0.
    """
    return ((made - truth).abs() * inside).sum() / (made.shape[1] * inside.sum()).clamp_min(1.0)


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Adversarial loss, the discriminator's side: ½·E[(D(real) − 1)²] + ½·E[D(fake)²], minimised by D1, D2.

    CN111753908A claim 1, adversarial loss; least-squares form of Mao et al. 2017, eq. 2 with a = 0,
    b = c = 1; averaged over the discriminator's score maps.

    Args:
        real: Score maps of pictures of the style, float (N, 1, ·, ·).
        fake: Score maps of pictures translated to it.

    Returns:
        Scalar, ≥ 0.
    """
    terms = [
        0.5 * (r - 1.0).square().mean() + 0.5 * f.square().mean() for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Adversarial loss, the generator's side: E[(D(x̂) − 1)²], mean over score maps; minimised by G12, G21.

    The only term in which generators and discriminators oppose each other. Least-squares form as above.
    """
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
