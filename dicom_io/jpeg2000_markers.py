"""What a JPEG 2000 stream says about itself, read without decoding it (ITU-T T.800 annex A)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_io.errors import RefusedPixelsError

_START = b"\xff\x4f\xff\x51"
"""Markers of start and size, with which every codestream begins."""
_BOXES = b"\x00\x00\x00\x0cjP  "
_LONGEST_BOXES = 1 << 16
_CODING_STYLE, _TILE_PART = 0xFF52, 0xFF90
_MOST_TILES = 4096


@dataclass(frozen=True)
class Jpeg2000Header:
    """Main header of a JPEG 2000 codestream.

    Attributes:
        start: Where the codestream begins; not 0 when a JP2 file was put into the object.
        rows: Lines, in pixels.
        columns: Pixels a line.
        precision: Bits a sample, the same in every component.
        components: Number of components.
        transformed: Whether the stream holds a colour transform (ICT or RCT), which decoding undoes.
    """

    start: int
    rows: int
    columns: int
    precision: int
    components: int
    transformed: bool


def read_jpeg2000_header(stream: bytes) -> Jpeg2000Header:
    """Read the segments of size and coding style (T.800 A.5.1, A.6.1).

    Args:
        stream: A codestream, or a JP2 file with one in it.

    Raises:
        RefusedPixelsError: PIXELS_UNREADABLE when it is none, is cut off, has signed or subsampled
            components, components of unlike depth, an image offset, or absurdly many tiles.
    """
    start = stream.find(_START, 0, _LONGEST_BOXES) if stream[:8] == _BOXES else 0
    size = stream[start + 6 : start + 42] if start >= 0 else b""
    if stream[start : start + 4] != _START or len(size) < 36:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the frame does not begin with a JPEG 2000 header")
    _, right, bottom, left, top, wide, high, tiles_left, tiles_top, number = struct.unpack(">H8LH", size)
    parts = stream[start + 42 : start + 42 + 3 * number]
    if not number or len(parts) < 3 * number:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG 2000 header is cut off")
    if left or top:  # the decoder's binding copies as if there were no offset
        raise RefusedPixelsError("PIXELS_UNREADABLE", "JPEG 2000 with an image offset is not read")
    if any(byte & 0x80 for byte in parts[::3]) or set(parts[1::3] + parts[2::3]) != {1}:
        detail = "JPEG 2000 with signed or subsampled components is not read"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
    if len(set(parts[::3])) != 1:  # the decoder's binding takes the first one's width for all
        raise RefusedPixelsError("PIXELS_UNREADABLE", "JPEG 2000 with components of unlike depth is not read")
    tiles = _tiles(right - tiles_left, wide) * _tiles(bottom - tiles_top, high)
    if not 1 <= tiles <= _MOST_TILES:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"{tiles} JPEG 2000 tiles")
    return Jpeg2000Header(
        start=start,
        rows=bottom,
        columns=right,
        precision=parts[0] + 1,
        components=number,
        transformed=_transformed(stream, start + 2),
    )


def _tiles(extent: int, tile: int) -> int:
    """Tiles along one axis, 0 when there can be none."""
    return -(-extent // tile) if tile and extent > 0 else 0


def _transformed(stream: bytes, position: int) -> bool:
    """Whether COD, a segment of the main header, names a multiple component transform."""
    while position + 4 <= len(stream):
        marker, length = struct.unpack(">HH", stream[position : position + 4])
        if marker == _CODING_STYLE and position + 9 <= len(stream):
            return stream[position + 8] == 1
        if marker == _TILE_PART or length < 2:
            break
        position += 2 + length
    raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG 2000 header has no coding style")
