"""How many cores an engine may use: the machine's physical ones, less what this process is denied."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import psutil

CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")
"""A container's CPU quota (cgroup v2): ``max 100000``, or microseconds allowed and period."""


def usable_cores(cpu_max: Path = CPU_MAX) -> int:
    """Physical cores that this process can keep busy, at least 1.

    The least of the machine's physical cores (two threads of one core share its arithmetic units, so a second
    thread on it costs more than it brings), the processors this process is bound to, and the container's
    quota rounded up.

    Args:
        cpu_max: where the container's quota is read; a missing file means that there is none.
    """
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return max(1, min(physical, len(os.sched_getaffinity(0)), _quota(cpu_max) or physical))


def _quota(cpu_max: Path) -> int | None:
    if not cpu_max.is_file():
        return None
    allowed, period = cpu_max.read_text().split()
    return None if allowed == "max" else math.ceil(int(allowed) / int(period))
