from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.backoff import backoff_s


@pytest.mark.parametrize(
    ("attempt", "highest"),
    [(1, 2.0), (2, 4.0), (3, 8.0), (9, 512.0), (10, 600.0), (10_000, 600.0)],
)
def test_the_upper_bound_doubles_up_to_the_maximum(attempt: int, highest: float) -> None:
    assert backoff_s(attempt, 2, 600, draw=lambda: 1.0) == highest
    assert backoff_s(attempt, 2, 600, draw=lambda: 0.25) == highest / 4
    assert backoff_s(attempt, 2, 600, draw=lambda: 0.0) == 0


@given(st.integers(1, 10**9), st.floats(1e-6, 1e6), st.floats(1, 1e6), st.floats(0, 1))
def test_it_is_always_within_its_bounds(attempt: int, base_s: float, factor: float, drawn: float) -> None:
    assert 0 <= backoff_s(attempt, base_s, base_s * factor, draw=lambda: drawn) <= base_s * factor


def test_it_is_random_unless_told_otherwise() -> None:
    assert len({backoff_s(3, 2, 600) for _ in range(20)}) > 1


@pytest.mark.parametrize(("attempt", "base_s", "max_s"), [(0, 1, 2), (1, 0, 2), (1, 3, 2)])
def test_impossible_arguments_are_refused(attempt: int, base_s: float, max_s: float) -> None:
    with pytest.raises(ValueError, match="attempt"):
        backoff_s(attempt, base_s, max_s)
