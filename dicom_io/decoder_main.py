"""What runs in a decoder process: frames in, pixels out, until the service closes the channel.

Standard input is a lifeline: when its other end closes, the kernel ends this process, in the middle of a
native loop too. A request is the service's own pickle; an answer is JSON and an anonymous file, because the
service must not trust a process that a stream may have taken over.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from dicom_io.codecs import RgbFrame, decode_frame
from dicom_io.errors import RefusedPixelsError
from dicom_io.frame_layout import MAXIMUM_PIXELS, FrameLayout

Decode = Callable[[bytes, FrameLayout], RgbFrame]

REQUEST = struct.Struct("!QQ")
"""Begin of a request: bytes of the pickled layout, bytes of the stream; both follow."""
READY = b"ready"
OUT_OF_MEMORY = 77
"""Exit status of a process that met its limit of memory."""
_BYTES_A_PIXEL = 4
"""Decoders take memory in pieces of at least one 32-bit plane."""
_SIZES = Path("/proc/self/status")
_SACRIFICE = Path("/proc/self/oom_score_adj")


def main(decode: Decode = decode_frame) -> None:
    """Serve the socket whose number is the first argument, with the memory (MB) of the second.

    Args:
        decode: Makes uint8 RGB (H, W, 3) of a frame, as `codecs.decode_frame`.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    _hold_to_the_lifeline()
    limit_bytes = _limit(int(sys.argv[2]))
    channel.sendall(READY)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what native decoders print belongs into no log
    try:
        serve(channel, decode, limit_bytes)
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)


def serve(channel: socket.socket, decode: Decode, limit_bytes: int) -> None:
    """Answer requests until the channel ends.

    Args:
        channel: A connected Unix stream socket.
        decode: Makes uint8 RGB (H, W, 3) of a frame.
        limit_bytes: Address space that this process may have.

    Raises:
        MemoryError: The limit was met; the process is no use any more.
    """
    while head := _received(channel, REQUEST.size):
        layout_bytes, stream_bytes = REQUEST.unpack(head)
        layout: FrameLayout = pickle.loads(_received(channel, layout_bytes))  # noqa: S301 -- from our parent
        stream = _received(channel, stream_bytes)
        try:
            frame = decode(stream, layout)
        except RefusedPixelsError as error:
            _require_room(limit_bytes, layout, error)
            refusal = {"reason": error.reason_code, "detail": error.detail[:1000]}
            channel.sendall(json.dumps(refusal).encode())
        else:
            _send_frame(channel, frame)


def _require_room(limit_bytes: int, layout: FrameLayout, error: RefusedPixelsError) -> None:
    """Tell a refusal for want of memory apart: decoders call a failed allocation damage too."""
    room = limit_bytes - _size("VmPeak")
    if error.reason_code == "PIXELS_UNREADABLE" and room < layout.rows * layout.columns * _BYTES_A_PIXEL:
        raise MemoryError


def _send_frame(channel: socket.socket, frame: RgbFrame) -> None:
    """Answer with the frame's size, and the descriptor of an anonymous file that holds its bytes."""
    answer = json.dumps({"rows": frame.shape[0], "columns": frame.shape[1]}).encode()
    shared = os.memfd_create("frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        content = frame.data.cast("B")
        while content:
            content = content[os.write(shared, content) :]
        channel.sendmsg([answer], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [shared]))])
    finally:
        os.close(shared)


def _received(channel: socket.socket, count: int) -> bytes:
    """`count` bytes; none when the channel has ended."""
    content = bytearray(count)
    view, at = memoryview(content), 0
    while at < count:
        more = channel.recv_into(view[at:])
        if not more:
            return b""
        at += more
    return bytes(content)


def _hold_to_the_lifeline() -> None:
    """Have the kernel end this process (SIGIO) when standard input closes, and nothing else end it.

    SIGTERM to a whole service is for the service: it may still wait for what is decoded here.
    """
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:  # it closed before the kernel was asked to watch
        sys.exit(0)


def _limit(memory_mb: int) -> int:
    """Bound address space, files and core dumps; return the bytes of address space.

    When the machine's own memory runs out, the kernel takes this process before any other.
    """
    limit = _size("VmSize") + memory_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MAXIMUM_PIXELS, 3 * MAXIMUM_PIXELS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _SACRIFICE.write_text("1000")
    return limit


def _size(name: str) -> int:
    """A size of this process as the kernel names it (proc(5)), in bytes."""
    found = next(line for line in _SIZES.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(found.split()[1]) * 1024
