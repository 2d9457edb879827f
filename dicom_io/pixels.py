"""Pixels of a fundus photograph as RGB arrays; anything doubtful is refused with a reason.

Every size is checked against the limits before memory is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from dicom_io.codecs import CODECS, RgbFrame, Samples, decode_frame, finished, without_unused_bits
from dicom_io.colour_model import expand_422, ybr_to_rgb
from dicom_io.dataset import ParsedObject, parse_object
from dicom_io.errors import RefusedPixelsError, UnreadableObjectError
from dicom_io.frame_layout import LAYOUT_TAGS, MAXIMUM_PIXELS, UNCOMPRESSED, FrameLayout, read_layout
from dicom_io.header import FundusHeader
from dicom_io.sequences import UNDEFINED_LENGTH

__all__ = ["MAXIMUM_PIXELS", "Decode", "RgbFrame", "frames"]

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
    if layout.transfer_syntax_uid in CODECS:
        yield from _compressed_frames(parsed, layout, decode)
    else:
        swapped = layout.bits_allocated == 8 and not parsed.little_endian and element[0][4:6] == b"OW"
        yield from _raw_frames(_in_order(parsed) if swapped else parsed, layout, element[1])


def _compressed_frames(parsed: ParsedObject, layout: FrameLayout, decode: Decode) -> Iterator[RgbFrame]:
    """Frames of encapsulated pixels (PS3.5 A.4)."""
    decoded = 0
    for stream in _streams(parsed, layout.frames):
        yield decode(stream, layout)
        decoded += 1
    if decoded != layout.frames:
        detail = f"{decoded} of {layout.frames} frames are there"
        raise RefusedPixelsError("PIXELS_UNREADABLE" if decoded else "PIXELS_MISSING", detail)


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
