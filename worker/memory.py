"""Keeps resident memory flat over months in a process of many threads.

glibc gives each thread an arena of its own and, once a large block was freed, serves such blocks from an
arena instead of mapping them: picture buffers of changing sizes, freed by other threads than took them, then
leave holes that are never returned. Two arenas and a fixed threshold avoid that; mallopt(3) describes both.
"""

from __future__ import annotations

import ctypes
import platform

import structlog

log = structlog.get_logger(__name__)
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Parameters of mallopt(3), from malloc.h."""
_ARENAS = 2
_MAPPED_FROM_BYTES = 1 << 20
"""Blocks from this size on (a decoded picture, a tensor) are mapped, and unmapped when freed."""


def limit_arenas() -> bool:
    """Set up the allocator; to be called before threads start.

    Returns:
        False where the C library is not glibc, or does not take the parameters: nothing is changed then.
    """
    if platform.libc_ver()[0] != "glibc":
        log.debug("allocator_not_glibc")
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    parameters = ((_M_ARENA_MAX, _ARENAS), (_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES))
    return all([mallopt(parameter, value) == 1 for parameter, value in parameters])  # noqa: C419 - set both
