"""Negatives of every kind can be drawn in any photograph's field, and differ from what they replace."""

from __future__ import annotations

import numpy as np
import pytest
from factories.fundus import Drawing, draw

from models.preprocess import Uint8Image, prepare
from models.training.negatives import RUINS, SCENES, Ruin, Scene, negative_of, random_negative
from models.training.ruins import blurred, emptied, inverted, posterised, recoloured, shuffled, tiled
from models.training.scenes import texture

KINDS = tuple(dict.fromkeys((*RUINS, *SCENES)))


@pytest.fixture(scope="module")
def photograph() -> Uint8Image:
    return prepare(draw(Drawing(seed=1, lesions=4)), 128).tensor


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_every_kind_keeps_the_field_and_nothing_outside_it(
    make: Ruin | Scene, photograph: Uint8Image
) -> None:
    for seed in range(3):
        made = negative_of(make, photograph, np.random.default_rng(seed))
        assert made.kind == make.__name__
        assert np.array_equal(made.picture[..., 3], photograph[..., 3])
        assert not made.picture[photograph[..., 3] == 0].any()
        inside = photograph[..., 3] > 0
        changed = np.abs(made.picture[inside].astype(int) - photograph[inside].astype(int))[:, :3]
        assert changed.mean() > 1.0


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("make", dict.fromkeys(SCENES), ids=lambda make: make.__name__)
def test_every_scene_can_be_drawn_at_any_size(make: Scene, size: int) -> None:
    picture = make(size, np.random.default_rng(size))
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.float32
    assert np.isfinite(picture).all()


def test_the_same_seed_draws_the_same_and_another_seed_another(photograph: Uint8Image) -> None:
    first, again, other = (random_negative(photograph, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.kind == again.kind
    assert np.array_equal(first.picture, again.picture)
    assert not np.array_equal(first.picture, other.picture)


def test_random_negatives_are_ruins_and_scenes(photograph: Uint8Image) -> None:
    rng = np.random.default_rng(0)
    ruins = {make.__name__ for make in RUINS}
    share = np.mean([random_negative(photograph, rng).kind in ruins for _ in range(60)])
    assert 0.2 < share < 0.7


def test_ruins_do_what_they_say(photograph: Uint8Image) -> None:
    picture = photograph[..., :3].astype(np.float32) / np.float32(255)
    rng = np.random.default_rng(0)
    inside = photograph[..., 3] > 0

    def detail(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image[..., 1], axis=1))[40:90, 40:90].mean())

    # Defocus leaves less detail, an empty field less than defocus
    assert detail(emptied(picture, rng)) < detail(picture)
    assert detail(blurred(picture, rng)) < 0.7 * detail(picture)
    # In a wrong order of channels, blue is brighter than red
    red, _, blue = recoloured(picture, rng)[inside].mean(axis=0)
    assert blue > red
    # A negative anticorrelates with its original
    turned = inverted(picture, rng)[inside].mean(axis=1)
    assert np.corrcoef(turned, picture[inside].mean(axis=1))[0, 1] < -0.9
    assert len(np.unique(posterised(picture, rng))) <= 5


def test_a_contact_sheet_repeats_and_a_shuffle_keeps_the_pieces() -> None:
    rng = np.random.default_rng(0)
    picture = np.asarray(rng.uniform(0.2, 1.0, (96, 96, 3)), dtype=np.float32)
    sheet = tiled(picture, np.random.default_rng(0))
    period = next(side for side in (48, 32, 24, 20, 16) if np.array_equal(sheet[:, :-side], sheet[:, side:]))
    assert period >= 16
    mixed = shuffled(picture, rng)
    assert not np.array_equal(mixed, picture)
    assert np.isin(mixed, picture).all()


def test_texture_spans_its_range() -> None:
    drawn = texture(64, np.random.default_rng(0))
    assert (drawn.shape, drawn.min(), drawn.max()) == ((64, 64, 1), 0.0, 1.0)
