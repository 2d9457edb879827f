from __future__ import annotations

import numpy as np
from factories.bundle import tiny_picture

from models.activation import OUTLINED_FROM, SHOWN_FROM, draw_activation, map_colours


def maps(*levels: float, cells: int = 8) -> np.ndarray:
    """One map a level, of which the middle four cells have it."""
    activation = np.zeros((len(levels), cells, cells), np.uint8)
    for plane, level in zip(activation, levels, strict=True):
        plane[3:5, 3:5] = round(level * 255)
    return activation


def test_nothing_is_drawn_where_the_maps_say_nothing() -> None:
    picture = tiny_picture(64)
    assert np.array_equal(draw_activation(picture, maps(0.0, SHOWN_FROM - 0.05)), picture[..., :3])


def test_a_place_is_coloured_where_the_map_is_and_outlined_where_it_is_strong() -> None:
    picture = tiny_picture(64)
    weak, strong = draw_activation(picture, maps(0.4)), draw_activation(picture, maps(0.9))
    (colour,) = map_colours(1)
    for drawn, outlined in ((weak, False), (strong, True)):
        changed = (drawn != picture[..., :3]).any(axis=2)
        assert changed[32, 32]
        assert not changed[:20].any()
        assert not changed[:, 44:].any()
        assert (drawn == colour).all(axis=2).any() == outlined
    assert SHOWN_FROM < OUTLINED_FROM


def test_kinds_have_colours_of_their_own_and_the_later_lies_on_top() -> None:
    drawn = draw_activation(tiny_picture(64), maps(0.0, 0.9))
    first, second = map_colours(2)
    assert first != second
    assert (drawn == second).all(axis=2).any()
    assert not (drawn == first).all(axis=2).any()


def test_outside_the_field_it_stays_black() -> None:
    picture = tiny_picture(64)
    activation = np.full((1, 8, 8), 255, np.uint8)
    drawn = draw_activation(picture, activation)
    assert not drawn[picture[..., 3] == 0].any()
    assert drawn[32, 32].any()
