"""What a JPEG stream says about itself, read without decoding it (ITU-T T.81 annex B, T.87 annex C)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_io.errors import RefusedPixelsError

_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_START_OF_IMAGE = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_APP0 = 0xE0
_APP14 = 0xEE
_APPLICATION_DATA = range(0xE0, 0xF0)


class JpegColour(StrEnum):
    """Colour space of a three-component JPEG stream, as far as its own markers tell."""

    RGB = "RGB"
    YCBCR = "YCBCR"
    UNSTATED = "UNSTATED"


@dataclass(frozen=True)
class JpegHeader:
    """Frame header of a JPEG stream.

    Attributes:
        process: SOF marker's low byte: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, 0xC3 lossless,
            0xF7 JPEG-LS.
        precision: Bits a sample.
        rows: Lines, in pixels.
        columns: Samples a line, in pixels.
        component_ids: Identifiers of the components, in order.
        sampling: Horizontal and vertical sampling factor of each component.
        jfif: Whether a JFIF APP0 segment stands in the stream.
        adobe_transform: Colour transform of the Adobe APP14 segment (0 none, 1 YCbCr, 2 YCCK)
            or None.
    """

    process: int
    precision: int
    rows: int
    columns: int
    component_ids: tuple[int, ...]
    sampling: tuple[tuple[int, int], ...]
    jfif: bool
    adobe_transform: int | None

    @property
    def colour(self) -> JpegColour:
        """Colour space by Adobe marker, then JFIF, then component identifiers (libjpeg's own order)."""
        if self.jfif:
            return JpegColour.YCBCR
        if self.adobe_transform is not None:
            return JpegColour.RGB if self.adobe_transform == 0 else JpegColour.YCBCR
        if self.component_ids == tuple(b"RGB"):
            return JpegColour.RGB
        subsampled = len(set(self.sampling)) > 1
        return JpegColour.YCBCR if subsampled else JpegColour.UNSTATED


def read_jpeg_header(stream: bytes) -> JpegHeader:
    """Read the markers of `stream` up to the first scan.

    Args:
        stream: A whole JPEG stream, from SOI on.

    Raises:
        RefusedPixelsError: PIXELS_UNREADABLE when the stream has no SOI, no frame header or no scan.
    """
    if stream[:2] != _START_OF_IMAGE:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the frame does not begin with a JPEG start marker")
    frame: bytes | None = None
    process, jfif, adobe = 0, False, None
    for marker, body in _segments(stream)[0]:
        if marker in _FRAME_HEADERS and frame is None:
            process, frame = marker, body
        elif marker == _APP0 and body[:5] == b"JFIF\x00":
            jfif = True
        elif marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
    if frame is None:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG stream has no frame header")
    return _frame_header(process, frame, jfif, adobe)


def without_application_data(stream: bytes) -> bytes:
    """`stream` without its APPn segments before the first scan: nothing in it states a colour space.

    Raises:
        RefusedPixelsError: PIXELS_UNREADABLE when the stream has no scan.
    """
    kept = [stream[:2]]
    segments, scan = _segments(stream)
    for marker, body in segments:
        if marker not in _APPLICATION_DATA:
            kept.append(bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body)
    return b"".join(kept) + stream[scan:]


def _segments(stream: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Marker segments between SOI and the first scan, as (marker, body), and where that scan begins."""
    segments: list[tuple[int, bytes]] = []
    position = 2
    while position + 1 < len(stream):
        if stream[position] != 0xFF:
            break
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker == _START_OF_SCAN:
            return segments, position
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        body = stream[position + 4 : position + 2 + length]
        if marker == _END_OF_IMAGE or length < 2 or len(body) != length - 2:
            break
        segments.append((marker, body))
        position += 2 + length
    raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG stream ends before its first scan")


def _frame_header(process: int, body: bytes, jfif: bool, adobe: int | None) -> JpegHeader:
    """Frame header from the body of a SOF segment (T.81 B.2.2)."""
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG frame header is too short")
    components = [body[6 + 3 * index : 9 + 3 * index] for index in range(body[5])]
    return JpegHeader(
        process=process,
        precision=body[0],
        rows=int.from_bytes(body[1:3], "big"),
        columns=int.from_bytes(body[3:5], "big"),
        component_ids=tuple(component[0] for component in components),
        sampling=tuple((component[1] >> 4, component[1] & 15) for component in components),
        jfif=jfif,
        adobe_transform=adobe,
    )
