"""Training-free baselines do what their papers say, inside the field and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from factories.fundus import Drawing, draw

from models.preprocess import prepare
from models.training.benchmark.baselines import (
    SecondStyle,
    baselines,
    fourier,
    local_contrast,
    match_histogram,
    reinhard,
)

SIZE = 96
Picture = npt.NDArray[np.uint8]


def fundus(seed: int) -> Picture:
    drawing = Drawing(width=200, height=136, radius=80, seed=seed, lesions=4)
    return prepare(draw(drawing), SIZE).tensor


def flat(*rgb: int) -> Picture:
    picture = np.zeros((SIZE, SIZE, 4), np.uint8)
    picture[...] = (*rgb, 255)
    return picture


def dimmed(picture: Picture) -> Picture:
    """Half the contrast and another colour cast."""
    taken = picture.copy()
    shifted = np.clip(picture[..., :3] * 0.5 + np.array([20.0, 40.0, 60.0]), 0, 255).astype(np.uint8)
    taken[..., :3] = np.where(picture[..., 3:] > 0, shifted, 0)
    return taken


@pytest.fixture(scope="module")
def style() -> SecondStyle:
    return SecondStyle.of(np.stack([fundus(seed) for seed in range(4)]))


def test_reinhard_gives_the_mean_statistics_of_the_second_style(style: SecondStyle) -> None:
    moved = reinhard(dimmed(fundus(9)), style)
    inside = cv2.cvtColor(moved[..., :3].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[moved[..., 3] > 0]
    assert inside.mean(axis=0) == pytest.approx(style.lab_mean, abs=1.5)
    assert inside.std(axis=0) == pytest.approx(style.lab_deviation, abs=2.5)


def test_histogram_matching_maps_levels_by_their_ranks() -> None:
    # Given a picture of levels 10 and 20, and a style of levels 100 and 200, half each
    picture, target = flat(10, 10, 10), flat(100, 100, 100)
    picture[: SIZE // 2, :, :3], target[: SIZE // 2, :, :3] = 20, 200
    # When it is matched, then the lower level becomes the lower and the higher the higher
    matched = match_histogram(picture, SecondStyle.of(target[None]))
    assert np.unique(matched[: SIZE // 2, :, :3]).tolist() == [200]
    assert np.unique(matched[SIZE // 2 :, :, :3]).tolist() == [100]


def test_fourier_adaptation_swaps_low_amplitudes_and_keeps_phases() -> None:
    # Given a flat picture, whose only amplitude is that of its mean, and fine stripes around another mean
    picture, target = flat(100, 100, 100), flat(150, 130, 90)
    moved = fourier(picture, SecondStyle.of(target[None]), 0.02, 0)
    assert (moved[..., :3] == (150, 130, 90)).all()
    stripes = flat(100, 100, 100)
    stripes[:, ::2, :3] = 120
    # Then the stripes stay as they are, around the mean of the style
    moved = fourier(stripes, SecondStyle.of(target[None]), 0.02, 0).astype(int)
    assert np.unique(moved[:, ::2, 0] - moved[:, 1::2, 0]).tolist() == [20]
    assert moved[..., 0].mean() == pytest.approx(150, abs=0.6)


def test_local_contrast_takes_out_contrast_and_cast(style: SecondStyle) -> None:
    picture = fundus(9)
    core = cv2.erode((picture[..., 3] > 0).astype(np.uint8), np.ones((25, 25))) > 0
    before = np.abs(dimmed(picture)[core].astype(int) - picture[core]).mean()
    moved = [local_contrast(each, style).astype(int) for each in (picture, dimmed(picture))]
    assert before > 20
    assert np.abs(moved[0] - moved[1])[core].mean() < 3


@pytest.mark.parametrize("key", ["reinhard", "histogram", "fourier", "none+local"])
def test_a_picture_of_the_style_itself_hardly_changes(key: str) -> None:
    picture = fundus(3)
    moved = baselines(SecondStyle.of(picture[None]), 0.02, 0)[key](picture, 0)
    assert np.abs(moved[..., :3].astype(int) - picture[..., :3]).mean() < 1.5


def test_baselines_touch_nothing_outside_the_field(style: SecondStyle) -> None:
    picture = dimmed(fundus(9))
    for key, apply in baselines(style, 0.02, 0).items():
        moved = apply(picture, 5)
        assert moved.dtype == np.uint8, key
        assert np.array_equal(moved[..., 3], picture[..., 3]), key
        assert not moved[picture[..., 3] == 0].any(), key
        assert np.array_equal(moved, apply(picture, 5)), key


def test_a_style_without_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SecondStyle.of(np.zeros((0, SIZE, SIZE, 4), np.uint8))
