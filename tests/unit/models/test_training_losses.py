"""The equations, with values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from models.training.losses import (
    cycle_loss,
    discriminator_loss,
    generator_loss,
    identity_loss,
    lesion_loss,
    ordinal_loss,
)


def test_the_cycle_term_is_zero_exactly_when_the_residuals_cancel() -> None:
    residual = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(cycle_loss(residual, -residual)) == 0.0
    off = -residual.clone()
    off[0, 0, 0, 0] += 0.5
    assert float(cycle_loss(residual, off)) == pytest.approx(0.5 / residual.numel())


def test_the_cycle_term_is_the_mean_absolute_sum() -> None:
    # |0.3 + 0.1| = 0.4 and |−0.2 + 0.1| = 0.1: mean 0.25
    assert float(cycle_loss(torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.1]))) == pytest.approx(0.25)


def test_a_way_back_that_undoes_the_way_there_lowers_the_cycle_term() -> None:
    residual, back = torch.tensor([0.3]), torch.tensor([0.0], requires_grad=True)
    cycle_loss(residual, back).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert back.grad is not None
    assert float(back.grad) > 0  # descent makes r21 negative, against r12


def test_the_identity_term_is_the_mean_absolute_residual() -> None:
    assert float(identity_loss(torch.tensor([0.3, -0.1]))) == pytest.approx(0.2)


def test_least_squares_adversarial_terms() -> None:
    # ½(0.5 − 1)² + ½·0.5² = 0.25 for an undecided judge; 0 for a perfect one; (0.5 − 1)² = 0.25 for G
    half, one, zero = (torch.full((1, 1, 2, 2), value) for value in (0.5, 1.0, 0.0))
    assert float(discriminator_loss([half], [half])) == pytest.approx(0.25)
    assert float(discriminator_loss([one], [zero])) == 0.0
    assert float(generator_loss([half])) == pytest.approx(0.25)
    assert float(generator_loss([one])) == 0.0
    # Two branches count alike: (0 + 1) / 2
    assert float(generator_loss([one, zero])) == pytest.approx(0.5)


def test_generators_and_discriminators_pull_opposite_ways() -> None:
    score = torch.tensor([[[[0.4]]]], requires_grad=True)
    (for_generator,) = torch.autograd.grad(generator_loss([score]), score)
    (for_judge,) = torch.autograd.grad(discriminator_loss([torch.ones_like(score)], [score]), score)
    assert float(for_generator) < 0 < float(for_judge)


def test_ordinal_loss_is_the_negative_log_of_the_class_probability() -> None:
    # score 0, cuts −1, 0, 1, 2: P(0) = 1 − σ(1), P(2) = σ(0) − σ(−1)
    cuts = torch.tensor([-1.0, 0.0, 1.0, 2.0])

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = -(math.log(1 - sigma(1)) + math.log(sigma(0) - sigma(-1))) / 2
    assert float(ordinal_loss(torch.zeros(2), cuts, torch.tensor([0, 2]))) == pytest.approx(
        expected, rel=1e-5
    )


def test_ordinal_loss_falls_as_the_score_moves_towards_the_grade() -> None:
    cuts = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    losses = [
        float(ordinal_loss(torch.tensor([score]), cuts, torch.tensor([4]))) for score in (0.0, 2.0, 4.0)
    ]
    assert losses == sorted(losses, reverse=True)


def test_lesion_loss_is_lowest_for_the_right_map() -> None:
    masks = torch.zeros(1, 2, 8, 8)
    masks[:, 0, 2:4, 2:4] = 1.0
    weight = torch.full((2, 1, 1), 4.0)
    right, empty, wrong = ((masks * 2 - 1) * 8, torch.full_like(masks, -8.0), (1 - masks * 2) * 8)
    losses = [float(lesion_loss(logits, masks, weight)) for logits in (right, empty, wrong)]
    assert losses == sorted(losses)
    assert losses[0] < 0.02
