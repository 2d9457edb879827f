from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from worker import memory

FREED_BY_ANOTHER_THREAD = """
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from worker.memory import limit_arenas
assert limit_arenas()
def resident_mb():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) // 1024
def picture(number):
    return np.ones((2 + number % 7) << 20, np.uint8)
def work():
    with ThreadPoolExecutor(16) as pool:
        for kept in [list(pool.map(picture, range(48)))]:
            del kept
work()
before = resident_mb()
for _ in range(6):
    work()
print(before, resident_mb())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_pictures_taken_and_freed_by_many_threads_are_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FREED_BY_ANOTHER_THREAD], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after - before < 30


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not memory.limit_arenas()
