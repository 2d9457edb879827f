"""Processes that run the decoders: a stream that makes one crash, hang or swell costs one image.

::

    decode(stream, layout)
      ├── an answer: a frame, or the refusal that the decoder itself came to
      ├── the process crashed, hung, or met its limit of memory     RefusedPixelsError DECODER_FAILED
      ├── somebody else killed it: the kernel, for want of memory   DecoderLostError, retryable
      └── the pool was closed                                       DecoderPoolClosedError, retryable
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from dicom_io.codecs import RgbFrame
from dicom_io.decoder_process import DecoderDiedError, DecoderProcess
from dicom_io.errors import DecoderLostError, DecoderPoolClosedError, RefusedPixelsError
from dicom_io.frame_layout import FrameLayout

log = structlog.get_logger(__name__)

PROGRAM = "from dicom_io.decoder_main import main; main()"


@dataclass(frozen=True)
class DecoderLimits:
    """Limits of a pool.

    Attributes:
        processes: Decoders at once, at least 1.
        memory_mb: Megabytes of address space that one may take beyond what it has at its start.
        timeout_s: Seconds for one frame.
    """

    processes: int
    memory_mb: int = 3000
    timeout_s: float = 120.0


class DecoderPool:
    """Decodes frames in other processes; any number of threads may use it, and a process that was forked.

    Processes start when they are needed and stay until `close`; one that died is replaced by the next frame.
    They end with this process, however it ends.

    Args:
        limits: How many, and what each may take.
        program: Python that the processes run.
    """

    def __init__(self, limits: DecoderLimits, program: str = PROGRAM) -> None:
        self._limits = limits
        self._program = program
        self._closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Without any process: the children of a process that forked are not ours."""
        self._owner = os.getpid()
        self._idle: list[DecoderProcess] = []
        self._busy: set[DecoderProcess] = set()
        self._taken = 0
        self._changed = threading.Condition()

    def decode(self, stream: bytes, layout: FrameLayout) -> RgbFrame:
        """Decode one compressed frame, as `codecs.decode_frame` does.

        A death is put down to the frame only when it is the first one that the process read.

        Returns:
            uint8 RGB (H, W, 3), C-contiguous, writable; nothing else refers to its memory.

        Raises:
            RefusedPixelsError: As `decode_frame`, and DECODER_FAILED when the decoder crashed, took too long
                or took too much memory.
            DecoderLostError: Somebody else killed the process; it may work later.
            DecoderPoolClosedError: The pool was closed.
            OSError: No process can be started now.
        """
        while True:
            decoder = self._take()
            untried = decoder.answered == 0
            try:
                frame = decoder.decode(stream, layout, self._limits.timeout_s)
            except RefusedPixelsError:
                self._put_back(decoder)
                raise
            except BaseException as error:
                self._drop(decoder)
                if not isinstance(error, DecoderDiedError):
                    raise
                log.error("decoder_died", detail=str(error), closed=self._closed)
                if self._closed:
                    raise DecoderPoolClosedError from None
                if untried or not error.again:
                    raise _verdict(error) from None
            else:
                self._put_back(decoder)
                return frame

    @property
    def process_ids(self) -> list[int]:
        """The processes that run now."""
        with self._changed:
            return [decoder.pid for decoder in (*self._idle, *self._busy) if decoder.alive]

    def close(self) -> None:
        """End every process, those at work too; whoever waits gets `DecoderPoolClosedError`."""
        if self._owner != os.getpid():
            return
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for decoder in self._busy:
                decoder.kill()  # the thread that waits for it lets go of it
            self._changed.notify_all()
        for decoder in idle:
            decoder.end(at_once=False)

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        self.close()

    def _take(self) -> DecoderProcess:
        """A decoder for the caller alone."""
        if self._owner != os.getpid():
            self._start_afresh()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._taken < self._limits.processes)
            if self._closed:
                raise DecoderPoolClosedError
            self._taken += 1
            found = self._idle.pop() if self._idle else None
            if found is not None and found.alive:
                self._busy.add(found)
                return found
        try:
            if found is not None:
                found.end(at_once=True)
            decoder = DecoderProcess(self._program, self._limits.memory_mb)
        except BaseException:
            self._free_place()
            raise
        with self._changed:
            if not self._closed:
                self._busy.add(decoder)
                return decoder
        self._drop(decoder)
        raise DecoderPoolClosedError

    def _put_back(self, decoder: DecoderProcess) -> None:
        with self._changed:
            if not self._closed:
                self._busy.discard(decoder)
                self._idle.append(decoder)
                self._taken -= 1
                self._changed.notify()
                return
        self._drop(decoder)

    def _drop(self, decoder: DecoderProcess) -> None:
        with self._changed:
            self._busy.discard(decoder)
        decoder.end(at_once=True)
        self._free_place()

    def _free_place(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify()


def _verdict(error: DecoderDiedError) -> Exception:
    """What a death means for the image."""
    if error.lost:
        return DecoderLostError(f"the decoder {error}")
    return RefusedPixelsError("DECODER_FAILED", f"the decoder {error}")
