"""A simulated camera is one fixed transformation; each parameter does what its name says."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from factories.fundus import Drawing, draw

from models.cameras import CAMERAS, SimulatedCamera, random_camera, simulate
from models.preprocess import find_field, prepare

PERFECT = SimulatedCamera("perfect", exposure_jitter=0.0, jpeg_quality=100)


def _mean(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.array(prepare(picture, 64).mean_rgb)


@pytest.mark.parametrize("name", CAMERAS)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    picture = draw()
    first, again, other = (simulate(picture, CAMERAS[name], seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert first.shape == picture.shape
    assert first.dtype == np.uint8


@pytest.mark.parametrize("name", CAMERAS)
def test_the_field_of_view_stays_where_it_is(name: str) -> None:
    picture = draw(Drawing(notch=True))
    before, after = find_field(picture), find_field(simulate(picture, CAMERAS[name], 0))
    assert after.radius == pytest.approx(before.radius, rel=0.02)
    assert after.centre_x == pytest.approx(before.centre_x, abs=4)


def test_a_perfect_camera_changes_nothing_but_the_compression() -> None:
    picture = draw()
    assert np.abs(simulate(picture, PERFECT, 0).astype(int) - picture).mean() < 2.0


def test_the_mix_and_the_gains_are_applied_per_channel() -> None:
    # Given a camera whose red sensor sees green only, and that halves blue
    camera = dataclasses.replace(
        PERFECT, spectral_response=((0, 1, 0), (0, 1, 0), (0, 0, 1)), gains=(1.0, 1.0, 0.5)
    )
    # When it takes a photograph, then red is green and blue is half of what it was
    before, after = _mean(draw()), _mean(simulate(draw(), camera, 0))
    assert after[0] == pytest.approx(before[1], abs=3)
    assert after[2] == pytest.approx(before[2] / 2, abs=3)


def test_the_tone_curve_is_a_power() -> None:
    after = _mean(simulate(draw(Drawing(vignetting=0)), dataclasses.replace(PERFECT, tone_gamma=2.0), 0))
    assert after[1] == pytest.approx(255 * (85 / 255) ** 2, abs=4)


def test_vignetting_darkens_the_rim_only() -> None:
    picture = draw(Drawing(vignetting=0))
    dark = simulate(picture, dataclasses.replace(PERFECT, vignetting=0.4), 0).astype(float)
    plain = simulate(picture, PERFECT, 0).astype(float)
    rows = slice(130, 140)
    assert dark[rows, 195:205, 0].mean() == pytest.approx(plain[rows, 195:205, 0].mean(), rel=0.02)
    assert dark[rows, 45:55, 0].mean() < 0.75 * plain[rows, 45:55, 0].mean()


def test_haze_lowers_contrast_inside_and_leaves_the_surround_dark() -> None:
    picture = draw(Drawing(lesions=8))
    hazy = simulate(picture, dataclasses.replace(PERFECT, haze=0.4), 0)
    assert (
        prepare(hazy, 64).tensor[16:48, 16:48, 0].std() < prepare(picture, 64).tensor[16:48, 16:48, 0].std()
    )
    assert hazy[:, :20].mean() < 12


def test_blur_and_resolution_take_detail_and_noise_adds_it() -> None:
    def detail(camera: SimulatedCamera) -> float:
        grey = simulate(draw(Drawing(lesions=8)), camera, 0)[60:200, 120:280, 1]
        return float(cv2.Laplacian(grey, cv2.CV_64F).std())

    plain = detail(PERFECT)
    assert detail(dataclasses.replace(PERFECT, blur_px=3.0)) < 0.8 * plain
    assert detail(dataclasses.replace(PERFECT, resolution_px=80)) < 0.8 * plain
    assert detail(dataclasses.replace(PERFECT, read_noise=0.03)) > 1.2 * plain
    assert detail(dataclasses.replace(PERFECT, shot_noise=0.05)) > 1.2 * plain


def test_exposure_varies_a_little_from_image_to_image() -> None:
    camera = dataclasses.replace(PERFECT, exposure_jitter=0.05)
    means = np.array([_mean(simulate(draw(), camera, seed))[1] for seed in range(8)])
    assert 0.01 < means.std() / means.mean() < 0.12


def test_a_picture_without_a_disc_can_be_rendered_too() -> None:
    flat = np.full((60, 80, 3), 90, np.uint8)
    assert simulate(flat, CAMERAS["blue"], 0).shape == flat.shape


def test_names_make_camera_keys() -> None:
    assert {camera.key for camera in CAMERAS.values()} >= {"simulated-blue", "simulated-soft"}
    assert all(name == camera.name for name, camera in CAMERAS.items())


def test_random_cameras_are_physical() -> None:
    for seed in range(20):
        camera = random_camera(seed)
        response = np.array(camera.spectral_response)
        assert (response >= 0).all()
        assert response.sum(axis=1) == pytest.approx(np.ones(3))
        assert camera == random_camera(seed)
