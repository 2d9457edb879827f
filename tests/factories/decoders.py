"""Decoder processes that the tests of one run share: each takes a quarter of a second to start."""

from __future__ import annotations

import atexit
from functools import cache

from dicom_io.decoder_pool import DecoderLimits, DecoderPool


class SharedDecoders(DecoderPool):
    """A pool that outlives the runtimes that use it."""

    def close(self) -> None:
        """Do nothing: another test goes on with it."""


@cache
def shared_decoders() -> SharedDecoders:
    """The pool of this test process; its processes end with it."""
    pool = SharedDecoders(DecoderLimits(2))
    atexit.register(DecoderPool.close, pool)
    return pool
