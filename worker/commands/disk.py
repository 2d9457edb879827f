"""The disk as `status` forecasts it: what the data folder takes, how it grows, how long it lasts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.settings import Settings

GROWTH_DAYS = 7.0
"""The forecast goes by what came in, and went, in so many days."""
_LEAST_DAYS = 1.0
"""Less history says nothing about a day: clinics have hours, and nights."""
_BLOCK_BYTES = 512
"""Unit of `st_blocks` (POSIX leaves it open; on Linux it is this)."""


def disk(settings: Settings, history: Mapping[str, Any]) -> dict[str, Any]:
    """Return space used and free, growth a day, and days until the reserve is reached.

    Growth is what images brought in over the last days, less what the retention removed when `[retention]`
    removes images by itself: what a person removed once will not go on going. None: unknown, as there is
    less than a day of history. `days_until_reserve` is None when growth is unknown or there is none.

    Args:
        settings: The configuration.
        history: What `overview.disk_history` returns.
    """
    free = shutil.disk_usage(settings.data_dir).free
    reserve = settings.spool.reserve_mb * 1_000_000
    days = min(GROWTH_DAYS, history["days"])
    growth = None
    if days >= _LEAST_DAYS:
        steady = settings.retention.images_days > 0
        growth = (history["received_bytes"] - (history["removed_bytes"] if steady else 0)) / days
    left = max(0, free - reserve)
    return {
        "folder": str(settings.data_dir),
        "used_bytes": used_bytes(settings.data_dir),
        "free_bytes": free,
        "reserve_bytes": reserve,
        "received_24h_bytes": history["received_24h_bytes"],
        "growth_bytes_per_day": None if growth is None else round(growth),
        "growth_over_days": None if growth is None else round(days, 1),
        "days_until_reserve": round(left / growth, 1) if growth is not None and growth > 0 else None,
        "reserve_reached": free < reserve,
    }


def used_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk.

    Not counted: what goes meanwhile, and what this user may not read, such as `lost+found`.
    """
    total = 0
    folders = [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += _allocated(entry)
        except (FileNotFoundError, PermissionError):
            continue
    return total


def _allocated(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
    except FileNotFoundError:
        return 0
