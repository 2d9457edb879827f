from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.networks.features import split_rgba
from models.networks.generator import ResidualGenerator
from models.training.initialise import fixed_part, style_statistics

SIZE = 64
Pictures = npt.NDArray[np.uint8]


def textures(seed: int, count: int = 24) -> npt.NDArray[np.float64]:
    """Pictures 0..1 whose colours vary independently and alike everywhere, (N, S, S, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, SIZE // 4, SIZE // 4, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(0.5 + coarse * [0.06, 0.05, 0.03], 0, 1)


def framed(colours: npt.NDArray[np.float64]) -> Pictures:
    """Contract tensors uint8 (N, S, S, 4) with a mask that covers all."""
    levels = np.clip(np.round(colours * 255), 0, 255).astype(np.uint8)
    return np.concatenate([levels, np.full((*levels.shape[:3], 1), 255, np.uint8)], 3)


def test_a_known_symmetric_mix_is_found_again_from_other_pictures() -> None:
    # Given a camera that lowers contrast and mixes red and green, and pictures of other eyes
    mix = np.array([[0.6, 0.15, 0.0], [0.15, 0.5, 0.0], [0.0, 0.0, 0.7]])
    first = framed(textures(1) @ mix.T + 0.1)
    second = framed(textures(2))
    found = fixed_part(style_statistics(first), style_statistics(second))
    # Then A = T − 1 is near the inverse mix less 1 in the middle, within what sampling allows
    transport = found[0, :9, 3:5, 3:5].mean((1, 2)).reshape(3, 3).T.numpy() + np.eye(3)
    assert transport @ mix == pytest.approx(np.eye(3), abs=0.15)


def test_the_same_style_needs_no_residual_and_uneven_light_is_undone_in_place() -> None:
    same = fixed_part(style_statistics(framed(textures(1))), style_statistics(framed(textures(1))))
    assert float(same.abs().max()) < 1e-3
    # Given light that falls off to the right
    light = np.linspace(1.0, 0.5, SIZE)[None, None, :, None]
    first, second = framed(textures(3) * light), framed(textures(4))
    generator = ResidualGenerator(scale=2)
    with torch.no_grad():
        generator.base.copy_(fixed_part(style_statistics(first), style_statistics(second)))
        adapted = generator.translate(*split_rgba(torch.from_numpy(first)))
    before, after = first[..., 1].mean((0, 1)) / 255, adapted[:, 1].mean((0, 1)).numpy()
    assert before[-8:].mean() < 0.6 * before[:8].mean()
    assert after[-8:].mean() == pytest.approx(after[:8].mean(), rel=0.08)


def test_blurred_pictures_get_their_detail_amplified_and_noisy_ones_smoothed() -> None:
    rng = np.random.default_rng(0)
    sharp = textures(5) + 0.02 * rng.normal(size=(24, SIZE, SIZE, 3))
    dull = textures(6) + 0.005 * rng.normal(size=(24, SIZE, SIZE, 3))
    statistics = style_statistics(framed(sharp)), style_statistics(framed(dull))
    assert float(fixed_part(*statistics)[0, 12].mean()) < -0.2
    assert float(fixed_part(*statistics[::-1])[0, 12].mean()) > 0.2
