"""The field of view is found by its rim, whatever cuts, darkens or decorates it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from factories.fundus import Drawing, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import NoFieldOfViewError
from models.preprocess import find_field, prepare

TOLERANCE = 0.02  # of the radius


@settings(max_examples=25, deadline=None)
@given(
    radius=st.floats(90, 190),
    shift_x=st.floats(-15, 15),
    shift_y=st.floats(-15, 15),
    vignetting=st.floats(0.0, 0.7),
    notch=st.booleans(),
    text=st.booleans(),
)
def test_the_disc_is_found_wherever_it_lies(
    *, radius: float, shift_x: float, shift_y: float, vignetting: float, notch: bool, text: bool
) -> None:
    # Given a disc that the frame may cut, with a dark rim, a notch and text beside it
    drawing = Drawing(
        radius=radius, shift_x=shift_x, shift_y=shift_y, vignetting=vignetting, notch=notch, text=text
    )
    # When it is looked for
    field = find_field(draw(drawing))
    # Then centre and radius are those that were drawn
    assert (
        np.hypot(field.centre_x - drawing.centre[0], field.centre_y - drawing.centre[1]) < TOLERANCE * radius
    )
    assert field.radius == pytest.approx(radius, rel=TOLERANCE)


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_the_disc_scales_with_the_photograph(scale: float) -> None:
    picture = draw(Drawing(notch=True))
    larger = np.asarray(
        cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), dtype=np.uint8
    )
    assert find_field(larger).radius == pytest.approx(scale * find_field(picture).radius, rel=TOLERANCE)


def test_the_share_of_the_frame_is_measured() -> None:
    # Given a disc that lies wholly in the frame, when it is found, then its share is π·r² of the frame
    field = find_field(draw(Drawing(radius=100)))
    assert field.fraction == pytest.approx(np.pi * 100**2 / (400 * 270), rel=0.03)


def _gradient() -> npt.NDArray[np.uint8]:
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (270, 400, 3)))


def _rectangle() -> npt.NDArray[np.uint8]:
    picture = np.zeros((270, 400, 3), np.uint8)
    picture[40:230, 60:340] = 150
    return picture


NO_FUNDUS = {
    "black": np.zeros((270, 400, 3), np.uint8),
    "white": np.full((270, 400, 3), 255, np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (270, 400, 3)).astype(np.uint8),
    "dark noise": np.random.default_rng(0).integers(0, 12, (270, 400, 3)).astype(np.uint8),
    "gradient": _gradient(),
    "rectangle": _rectangle(),
    "photograph that fills its frame": draw(Drawing(radius=400)),
    "tiny dot": draw(Drawing(radius=12)),
    "one pixel": np.full((1, 1, 3), 200, np.uint8),
}


@pytest.mark.parametrize("name", NO_FUNDUS)
def test_a_picture_without_a_disc_is_refused(name: str) -> None:
    with pytest.raises(NoFieldOfViewError) as refused:
        find_field(NO_FUNDUS[name])
    assert refused.value.reason_code == "NOT_A_FUNDUS_PHOTOGRAPH"


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_what_is_no_rgb_picture_is_a_mistake_of_the_caller(bad: npt.NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        find_field(bad)  # type: ignore[arg-type]  # the point of the test


@settings(max_examples=15, deadline=None)
@given(radius=st.floats(100, 190), shift_y=st.floats(-20, 20), size=st.sampled_from([64, 128, 512]))
def test_nothing_outside_the_field_reaches_the_tensor(radius: float, shift_y: float, size: int) -> None:
    # Given a photograph with text beside a disc that may be cut
    prepared = prepare(draw(Drawing(radius=radius, shift_y=shift_y, text=True)), size)
    # Then the tensor has the contract's form and is 0 outside the mask
    assert prepared.tensor.shape == (size, size, 4)
    assert prepared.tensor.dtype == np.uint8
    assert prepared.tensor.flags.c_contiguous
    alpha = prepared.tensor[..., 3]
    assert set(np.unique(alpha)) == {0, 255}
    assert not prepared.tensor[alpha == 0].any()
    # And inside the mask there is tissue everywhere: no dark surround was let in
    assert prepared.tensor[alpha == 255][:, 0].min() > 30


def test_a_cut_disc_keeps_its_scale() -> None:
    # Given one disc in a frame that holds it and in one that cuts it above and below
    whole, cut = draw(Drawing(height=400)), draw(Drawing(height=270))
    # When both are prepared
    first, second = prepare(whole, 128), prepare(cut, 128)
    # Then what both show lies at the same place, and the cut one is masked where it is missing
    both = (first.tensor[..., 3] > 0) & (second.tensor[..., 3] > 0)
    difference = first.tensor[both][:, :3].astype(int) - second.tensor[both][:, :3].astype(int)
    assert np.abs(difference).mean() < 3.0
    assert second.tensor[..., 3].mean() < 0.95 * first.tensor[..., 3].mean()
    assert not second.tensor[:3, :, 3].any()


def test_the_mean_colour_is_that_of_the_tissue() -> None:
    prepared = prepare(draw(Drawing(vignetting=0.0)), 128)
    assert prepared.mean_rgb == pytest.approx((170, 85, 30), abs=8)


def test_a_small_photograph_is_enlarged() -> None:
    assert prepare(draw(Drawing(width=200, height=136, radius=80)), 512).tensor.shape == (512, 512, 4)
