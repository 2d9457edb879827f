from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.commands.wording import age, many, moment, since, size

NOON = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, ""),
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (7_800, "2 h 10 min"),
        (86_400 * 5 + 3 * 3_600 + 59, "5 d 3 h"),
        (86_400 * 5 + 59 * 60, "5 d"),
    ],
)
def test_an_age_has_its_two_largest_units(seconds: float | None, expected: str) -> None:
    assert age(seconds) == expected


def test_a_moment_is_utc_to_the_second() -> None:
    assert moment(NOON) == "2026-03-01 12:00:00Z"
    assert moment(None) == ""


def test_since_says_moment_and_age() -> None:
    assert since(NOON, NOON + timedelta(minutes=3)) == "2026-03-01 12:00:00Z (3 min ago)"
    assert since(None, NOON) == ""


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 MB"), (511_600_000, "512 MB"), (82_940_000_000, "82.9 GB")]
)
def test_sizes_are_decimal(count: int, expected: str) -> None:
    assert size(count) == expected


def test_nouns_follow_their_number() -> None:
    assert [many(1, "image"), many(2, "image")] == ["1 image", "2 images"]
    assert many(2, "delivery", "deliveries") == "2 deliveries"
