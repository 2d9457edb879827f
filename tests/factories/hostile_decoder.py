"""A decoder that does to its process what damaged streams do to native decoders: the stream says what."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_io.codecs import decode_frame
from dicom_io.decoder_main import READY, REQUEST, Decode, main
from dicom_io.decoder_pool import DecoderLimits, DecoderPool
from dicom_io.errors import RefusedPixelsError
from dicom_io.frame_layout import FrameLayout

LAYOUT = FrameLayout("1.2.840.10008.1.2.4.90", "RGB", 3, 0, 1, 4, 5, 8, 8, 7)
"""Of 4 lines of 5 pixels."""
_FOLDER = Path(__file__).parent.parent
PROGRAM = f"import sys; sys.path.insert(0, {str(_FOLDER)!r}); from factories import hostile_decoder as it; "


def hostile_pool(*, processes: int = 1, memory_mb: int = 300, timeout_s: float = 30) -> DecoderPool:
    """A pool of such decoders."""
    return DecoderPool(DecoderLimits(processes, memory_mb, timeout_s), PROGRAM + "it.main(it.decode)")


def pool_that_dies_of(act: str, rows: int) -> DecoderPool:
    """A pool with the true decoders, which frames of so many rows make do `act`."""
    return DecoderPool(DecoderLimits(2, 300, 30), PROGRAM + f"it.main(it.all_but({rows}, {act!r}))")


def all_but(rows: int, act: str) -> Decode:
    """The true decoders, except for frames of so many rows."""

    def either(stream: bytes, layout: FrameLayout) -> npt.NDArray[np.uint8]:
        return ACTS[act]("", layout) if layout.rows == rows else decode_frame(stream, layout)

    return either


def lying_pool(answer: str) -> DecoderPool:
    """A pool whose processes send the bytes of `answer`, an expression, whatever they are asked."""
    return DecoderPool(DecoderLimits(1, 300, 30), PROGRAM + f"it.lie({answer})")


def decode(stream: bytes, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    """Do what `stream` says; "pid" gives the process's number in the first four samples."""
    what, _, argument = stream.decode().partition(" ")
    return ACTS[what](argument, layout)


def lie(answer: bytes, shared: bytes | None = None) -> None:
    """Answer one request with `answer`, and with a file that holds `shared`."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.sendall(READY)
    layout_bytes, stream_bytes = REQUEST.unpack(channel.recv(REQUEST.size, socket.MSG_WAITALL))
    pickle.loads(channel.recv(layout_bytes, socket.MSG_WAITALL))  # noqa: S301 -- from the test
    channel.recv(stream_bytes, socket.MSG_WAITALL)
    if shared is None:
        channel.sendall(answer)
    else:
        file = os.memfd_create("frame", os.MFD_ALLOW_SEALING)
        os.write(file, shared)
        socket.send_fds(channel, [answer], [file])
    time.sleep(60)


def size(rows: int, columns: int) -> bytes:
    """The answer that announces a frame."""
    return json.dumps({"rows": rows, "columns": columns}).encode()


def _ramp(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    number = layout.rows * layout.columns * 3
    return (np.arange(number) % 251).astype(np.uint8).reshape(layout.rows, layout.columns, 3)


def _pid(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    frame = np.zeros((2, 1, 3), np.uint8)
    frame.reshape(-1)[:4] = np.frombuffer(os.getpid().to_bytes(4, "little"), np.uint8)
    return frame


def _crash(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    ctypes.string_at(0)
    raise AssertionError("memory at address 0 can be read")


def _hang(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    """A native loop that never lets Python run: no signal handler, no other thread."""
    if argument:
        Path(argument).write_text(str(os.getpid()))
    sum(itertools.repeat(0))
    raise AssertionError("the loop ended")


def _swell(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    kept = [np.ones(10_000_000, np.uint8) for _ in range(1000)]
    raise AssertionError(f"{len(kept)} pieces were given")


def _refuse_allocation(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    """As native decoders do: a piece that was not given is called damage."""
    try:
        _swell(argument, layout)
    except MemoryError:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "damaged") from None
    raise AssertionError


def _refuse(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    raise RefusedPixelsError("NOT_COLOUR", argument)


def _leave(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    os._exit(int(argument))


def _abort(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    os.abort()


def _fail(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    raise KeyError(argument)


def _second(argument: str, layout: FrameLayout) -> npt.NDArray[np.uint8]:
    """Crash, but in a process that has decoded before: as after an earlier stream damaged its memory."""
    if "used" in globals():
        _crash(argument, layout)
    globals()["used"] = True
    return _pid(argument, layout)


ACTS: dict[str, Callable[[str, FrameLayout], npt.NDArray[np.uint8]]] = {
    "ramp": _ramp,
    "pid": _pid,
    "crash": _crash,
    "hang": _hang,
    "swell": _swell,
    "allocate": _refuse_allocation,
    "refuse": _refuse,
    "leave": _leave,
    "abort": _abort,
    "fail": _fail,
    "second": _second,
}

__all__ = [
    "LAYOUT",
    "all_but",
    "decode",
    "hostile_pool",
    "lie",
    "lying_pool",
    "main",
    "pool_that_dies_of",
    "size",
]
