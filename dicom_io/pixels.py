"""Pixels of a fundus photograph as RGB arrays; anything doubtful is refused with a reason.

Every size is checked against the limits before memory is taken for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import structlog
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from dicom_io.codecs import CODECS, RgbFrame, Samples, decode_frame, finished, without_unused_bits
from dicom_io.colour_model import expand_422, ybr_to_rgb
from dicom_io.colour_profile import ColourProfile, read_profile
from dicom_io.dataset import ParsedObject, parse_object
from dicom_io.elements import raw_bytes
from dicom_io.errors import ColourProfileError, RefusedPixelsError, UnreadableObjectError
from dicom_io.frame_layout import (
    ICC_PROFILE,
    LAYOUT_TAGS,
    MAXIMUM_PIXELS,
    UNCOMPRESSED,
    FrameLayout,
    read_layout,
)
from dicom_io.header import FundusHeader
from dicom_io.sequences import UNDEFINED_LENGTH

__all__ = ["MAXIMUM_PIXELS", "Decode", "RgbFrame", "frames"]

log = structlog.get_logger(__name__)

_ITEM = bytes.fromhex("FEFF00E0")
_SEQUENCE_END = bytes.fromhex("FEFFDDE000000000")
"""Item and Sequence Delimitation Item of no length, little endian (PS3.5 table A.4-1)."""

Decode = Callable[[bytes, FrameLayout], RgbFrame]
"""Decodes one compressed frame: `codecs.decode_frame`, or `DecoderPool.decode` of the same contract."""


def frames(
    data: bytes, header: FundusHeader | None = None, decode: Decode = decode_frame
) -> Iterator[RgbFrame]:
    """Decode every frame of a DICOM object, one by one.

    Args:
        data: The whole DICOM file (PS3.10).
        header: Its header where it was read already; spares reading it again.
        decode: What decodes compressed frames.

    Yields:
        uint8 RGB (H, W, 3), C-contiguous, one per frame, in order.

    Raises:
        RefusedPixelsError: PIXELS_MISSING, PIXELS_UNREADABLE, UNSUPPORTED_TRANSFER_SYNTAX, NOT_COLOUR
            or IMAGE_TOO_LARGE; before the first frame for anything that the header tells.
    """
    try:
        parsed = parse_object(BytesIO(data), LAYOUT_TAGS)
    except UnreadableObjectError as error:
        raise RefusedPixelsError("PIXELS_UNREADABLE", str(error)) from error
    layout = read_layout(parsed, header)
    if layout.transfer_syntax_uid not in (*CODECS, *UNCOMPRESSED):
        name = UID(layout.transfer_syntax_uid).name
        raise RefusedPixelsError("UNSUPPORTED_TRANSFER_SYNTAX", f"{name} cannot be decoded")
    element = parsed.pixel_element()
    if element is None or element[1] == 0:
        raise RefusedPixelsError("PIXELS_MISSING", "the object has no pixel data")
    profile = _profile(parsed, header)
    for frame in _decoded(parsed, layout, element, decode):
        yield frame if profile is None else profile.to_srgb(frame)


def _profile(parsed: ParsedObject, header: FundusHeader | None) -> ColourProfile | None:
    """Conversion to sRGB by the ICC profile; None without one, and with one that cannot be applied."""
    try:
        return read_profile(raw_bytes(parsed.dataset, ICC_PROFILE))
    except ColourProfileError as error:
        uid = None if header is None else header.sop_instance_uid
        log.warning("colour_profile_not_applied", sop_instance_uid=uid, detail=str(error))
        return None


def _decoded(
    parsed: ParsedObject, layout: FrameLayout, element: tuple[bytes, int], decode: Decode
) -> Iterator[RgbFrame]:
    """Frames in the colours of the camera."""
    if layout.transfer_syntax_uid in CODECS:
        return _compressed_frames(parsed, layout, decode)
    swapped = layout.bits_allocated == 8 and not parsed.little_endian and element[0][4:6] == b"OW"
    return _raw_frames(_in_order(parsed) if swapped else parsed, layout, element[1])


def _compressed_frames(parsed: ParsedObject, layout: FrameLayout, decode: Decode) -> Iterator[RgbFrame]:
    """Frames of encapsulated pixels (PS3.5 A.4)."""
    if not _has_fragment(parsed):
        raise RefusedPixelsError("PIXELS_MISSING", "the encapsulated pixel data holds no frame")
    decoded = 0
    for stream in _streams(parsed, layout.frames):
        yield decode(stream, layout)
        decoded += 1
    if decoded != layout.frames:
        detail = f"{decoded} of {layout.frames} frames are there"
        raise RefusedPixelsError("PIXELS_UNREADABLE" if decoded else "PIXELS_MISSING", detail)


def _has_fragment(parsed: ParsedObject) -> bool:
    """Whether more than the end follows the Basic Offset Table (PS3.5 A.4); the stream stays where it is."""
    start = parsed.stream.tell()
    table = parsed.stream.read(8)
    length = int.from_bytes(table[4:], "little") if table[:4] == _ITEM else 0
    parsed.stream.seek(length, os.SEEK_CUR)
    following = parsed.stream.read(8)
    parsed.stream.seek(start)
    return bool(following) and following != _SEQUENCE_END


def _streams(parsed: ParsedObject, number: int) -> Iterator[bytes]:
    """The compressed stream of each frame."""
    try:
        yield from generate_frames(parsed.stream, number_of_frames=number)
    except RefusedPixelsError:
        raise
    except Exception as error:  # the item structure is damaged; the library has many ways to say so
        detail = f"the encapsulated pixel data is damaged ({type(error).__name__})"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail) from error


def _in_order(parsed: ParsedObject) -> ParsedObject:
    """The object with its 8-bit samples in order: big endian words have the second one first (PS3.5 8.1)."""
    content = parsed.stream.read()
    words = np.frombuffer(content[: len(content) & ~1], ">u2").astype("<u2").tobytes()
    return replace(parsed, stream=BytesIO(words))


def _raw_frames(parsed: ParsedObject, layout: FrameLayout, stated_bytes: int) -> Iterator[RgbFrame]:
    """Frames of uncompressed pixels (PS3.5 8.1.1)."""
    samples = layout.samples_per_pixel or layout.components
    if samples != layout.components or layout.bits_allocated not in (8, 16):
        detail = f"{samples} samples of {layout.bits_allocated} bits"
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"{detail} per pixel are not supported")
    halved = _is_halved(layout, stated_bytes)
    pixels = layout.rows * layout.columns
    frame_bytes = pixels * 2 if halved else pixels * samples * layout.bits_allocated // 8
    for number in range(1, layout.frames + 1):
        content = parsed.stream.read(frame_bytes)
        if len(content) != frame_bytes:
            raise RefusedPixelsError("PIXELS_UNREADABLE", f"frame {number} is cut off")
        if halved:
            yield ybr_to_rgb(expand_422(np.frombuffer(content, np.uint8), layout.rows, layout.columns))
        else:
            yield _full_frame(content, layout, parsed.little_endian)


def _is_halved(layout: FrameLayout, stated_bytes: int) -> bool:
    """Whether the chrominance is halved, by the byte count; refuses a count that fits neither.

    Padding of less than one line is allowed at the end.
    """
    pixels = layout.frames * layout.rows * layout.columns
    line = layout.columns * layout.components
    if 0 <= stated_bytes - pixels * layout.components * layout.bits_allocated // 8 < max(line, 2):
        return False
    even = layout.bits_allocated == 8 and layout.columns % 2 == 0 and layout.planar_configuration == 0
    if layout.photometric == "YBR_FULL_422" and even and 0 <= stated_bytes - pixels * 2 < line:
        return True
    length = "no length" if stated_bytes == UNDEFINED_LENGTH else f"{stated_bytes} bytes"
    detail = f"{length} for {layout.frames} frames of {layout.columns} x {layout.rows} pixels"
    raise RefusedPixelsError("PIXELS_UNREADABLE", detail)


def _full_frame(content: bytes, layout: FrameLayout, little_endian: bool) -> RgbFrame:
    """One frame with every sample of each pixel, as 8-bit RGB."""
    stored: Samples = np.frombuffer(content, _sample_type(layout, little_endian))
    samples = without_unused_bits(stored, layout.significant_bits)
    if layout.planar_configuration == 1:
        planes = samples.reshape(layout.components, layout.rows, layout.columns)
        samples = np.moveaxis(planes, 0, 2)
    else:
        samples = samples.reshape(layout.rows, layout.columns, layout.components)
    return finished(samples, layout.significant_bits, layout, stated_ybr=layout.stated_ybr)


def _sample_type(layout: FrameLayout, little_endian: bool) -> str:
    """NumPy's name for one stored sample."""
    if layout.bits_allocated == 8:
        return "u1"
    return "<u2" if little_endian else ">u2"
