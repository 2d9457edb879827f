"""RLE Lossless (PS3.5 annex G): one run-length coded segment for each byte of each sample."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dicom_io.errors import RefusedPixelsError

_HEADER_BYTES = 64
_MOST_PER_BYTE = 64
"""Two coded bytes stand for at most 128 (PS3.5 G.3.1)."""


def decode_rle(
    stream: bytes, rows: int, columns: int, samples: int, bits_allocated: int
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Samples of one RLE frame.

    Args:
        stream: The frame, from its header on.
        rows: Lines, in pixels.
        columns: Pixels a line.
        samples: Samples per pixel.
        bits_allocated: 8 or 16.

    Returns:
        uint8 or uint16 (rows, columns, samples).

    Raises:
        RefusedPixelsError: PIXELS_UNREADABLE when the frame is damaged, or is too short for that many pixels;
            before memory is taken for them.
    """
    width, pixels = bits_allocated // 8, rows * columns
    bounds = _bounds(stream, samples * width)
    planes = np.empty((samples * width, pixels), np.uint8)
    for number, (start, end) in enumerate(bounds):
        if (end - start) * _MOST_PER_BYTE < pixels:
            detail = f"{end - start} bytes of RLE cannot hold {columns} x {rows} pixels"
            raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
        planes[number] = np.frombuffer(_segment(stream[start:end], pixels), np.uint8)
    if width == 1:
        return np.ascontiguousarray(planes.T).reshape(rows, columns, samples)
    high, low = planes[0::2].astype(np.uint16), planes[1::2]  # most significant byte first (G.2)
    return np.ascontiguousarray(((high << 8) | low).T).reshape(rows, columns, samples)


def _bounds(stream: bytes, segments: int) -> list[tuple[int, int]]:
    """Begin and end of each segment by the frame's header (PS3.5 G.5)."""
    if len(stream) < _HEADER_BYTES:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the RLE frame ends in its header")
    number, *offsets = struct.unpack("<16L", stream[:_HEADER_BYTES])
    if number != segments:
        detail = f"{number} RLE segments, {segments} belong to the stated samples and bits"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
    edges = [*offsets[:segments], len(stream)]
    if edges[0] < _HEADER_BYTES or edges != sorted(edges):
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the RLE frame's offsets are damaged")
    return list(pairwise(edges))


def _segment(coded: bytes, size: int) -> bytearray:
    """`size` bytes out of PackBits (PS3.5 G.3.2); what follows them is padding."""
    plain, at, end = bytearray(), 0, len(coded)
    while len(plain) < size and at + 1 < end:
        control = coded[at]
        if control < 128:
            plain += coded[at + 1 : at + 2 + control]
            at += 2 + control
        elif control > 128:
            plain += coded[at + 1 : at + 2] * (257 - control)
            at += 2
        else:
            at += 1
    if len(plain) < size:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"an RLE segment has {len(plain)} of {size} bytes")
    del plain[size:]
    return plain
