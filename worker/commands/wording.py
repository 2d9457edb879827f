"""How figures are written for people: moments in UTC to the second, ages and sizes in units."""

from __future__ import annotations

from datetime import datetime

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def age(seconds: float | None) -> str:
    """A duration in its two largest units: "42 s", "3 min", "2 h 10 min", "5 d 3 h"; "" for None."""
    if seconds is None:
        return ""
    left = max(0, round(seconds))
    parts = []
    for size, name in _UNITS:
        if left >= size:
            parts.append(f"{left // size} {name}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2]) or f"{left} s"


def moment(value: datetime | None) -> str:
    """UTC to the second: "2026-11-22 18:45:03Z"; "" for None."""
    return "" if value is None else value.strftime("%Y-%m-%d %H:%M:%SZ")


def since(value: datetime | None, at: datetime) -> str:
    """A moment and how long ago that was at `at`."""
    return "" if value is None else f"{moment(value)} ({age((at - value).total_seconds())} ago)"


def size(count: float) -> str:
    """Bytes in decimal units: "512 MB", "82.9 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def many(count: int, one: str, several: str | None = None) -> str:
    """A number and its noun: "1 image", "2 images"."""
    return f"{count} {one if count == 1 else several or one + 's'}"
