"""Disturbed patches and degraded photographs lose what they say they lose, and nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from factories.fundus import Drawing, draw

from models.preprocess import prepare
from models.training.perturb import degraded, perturbed


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return prepare(draw(Drawing(seed=3, lesions=6)), 256).tensor


def detail(picture: np.ndarray) -> np.ndarray:
    """What a Gaussian of 1 px takes away, in green."""
    green = picture[..., 1].astype(np.float32)
    return np.asarray(green - cv2.GaussianBlur(green, (0, 0), 1.0))


def test_there_and_back_keeps_mask_colour_and_light_and_loses_detail(picture: np.ndarray) -> None:
    inside = picture[..., 3] > 0
    core = cv2.erode(inside.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    kept = []
    for seed in range(6):
        version = degraded(picture, np.random.default_rng(seed))
        assert np.array_equal(version[..., 3], picture[..., 3])
        assert not version[~inside][:, :3].any()
        before, after = (
            np.asarray(cv2.GaussianBlur(each[..., :3].astype(np.float32), (0, 0), 8))
            for each in (picture, version)
        )
        # Channels whose highlights are cut off may be off; green is the one that counts
        assert np.abs(before - after)[core][:, 1].mean() < 4.0
        kept.append(float(np.corrcoef(detail(picture)[core], detail(version)[core])[0, 1]))
    assert max(kept) < 0.999
    assert min(kept) > 0.2


def test_the_same_seed_degrades_alike_and_another_one_differently(picture: np.ndarray) -> None:
    first, again, other = (degraded(picture, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_disturbances_of_size_zero_change_nothing_and_others_stay_in_range() -> None:
    patches = np.random.default_rng(0).uniform(-2, 2, (3, 3, 32, 32)).astype(np.float32)
    same = perturbed(patches, np.random.default_rng(1), gain=0.0, channel=0.0, noise=0.0, blur=0.0)
    np.testing.assert_allclose(same, patches, atol=1e-6)
    changed = perturbed(patches, np.random.default_rng(1), gain=0.3, channel=0.2, noise=0.2, blur=1.0)
    assert np.abs(changed).max() <= 2.0
    assert not np.allclose(changed, patches, atol=0.05)
