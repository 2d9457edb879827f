"""Pixels of a fundus photograph as RGB arrays; anything doubtful is refused with a reason.

Every size is checked against the limits before memory is taken for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from pydicom.encaps import generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from dicom_io.colour_model import expand_422, samples_are_ybr, ybr_to_rgb
from dicom_io.dataset import UNDEFINED_LENGTH, ParsedObject, parse_object
from dicom_io.elements import integer_string, text, unsigned
from dicom_io.errors import RefusedPixelsError, UnreadableObjectError
from dicom_io.header import MAXIMUM_FRAMES, FundusHeader
from dicom_io.jpeg_markers import JpegColour, read_jpeg_header

RgbFrame = npt.NDArray[np.uint8]

MAXIMUM_PIXELS = 100_000_000
"""Pixels of one frame; the largest fundus cameras and montages have under half of it."""

MAXIMUM_SIDE = 32_767
_UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_NO_TRANSFORM = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_EIGHT_BIT_PROCESSES = (0xC0, 0xC1, 0xC2)
_TAGS = (0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101)


@dataclass(frozen=True)
class _Layout:
    """Image Pixel attributes (PS3.3 C.7.6.3)."""

    transfer_syntax_uid: str
    photometric: str
    samples_per_pixel: int
    planar_configuration: int
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int

    @property
    def stated_ybr(self) -> bool:
        return self.photometric.startswith("YBR")


def frames(data: bytes, header: FundusHeader | None = None) -> Iterator[RgbFrame]:
    """Decode every frame of a DICOM object.

    Args:
        data: The whole DICOM file (PS3.10).
        header: Its header where it was read already; spares reading it again.

    Yields:
        uint8 RGB (H, W, 3), C-contiguous, one per frame, in order.

    Raises:
        RefusedPixelsError: PIXELS_MISSING, PIXELS_UNREADABLE, UNSUPPORTED_TRANSFER_SYNTAX, NOT_COLOUR
            or IMAGE_TOO_LARGE; before the first frame for anything that the header tells.
    """
    try:
        parsed = parse_object(BytesIO(data), _TAGS)
    except UnreadableObjectError as error:
        raise RefusedPixelsError("PIXELS_UNREADABLE", str(error)) from error
    layout = _layout(parsed, header)
    _check_layout(layout)
    element = parsed.pixel_element()
    if element is None or element[1] == 0:
        raise RefusedPixelsError("PIXELS_MISSING", "the object has no pixel data")
    if layout.transfer_syntax_uid == JPEGBaseline8Bit:
        yield from _jpeg_frames(parsed, layout)
    else:
        yield from _raw_frames(parsed, layout, element[1])


def _layout(parsed: ParsedObject, header: FundusHeader | None) -> _Layout:
    """Attributes of the pixels, from the header record or the data set."""
    ds = parsed.dataset
    if header is None:
        return _Layout(
            transfer_syntax_uid=parsed.transfer_syntax_uid,
            photometric=text(ds, 0x00280004).upper(),
            samples_per_pixel=unsigned(ds, 0x00280002, 0),
            planar_configuration=unsigned(ds, 0x00280006, 0),
            frames=max(integer_string(ds, 0x00280008, 1), 1),
            rows=unsigned(ds, 0x00280010, 0),
            columns=unsigned(ds, 0x00280011, 0),
            bits_allocated=unsigned(ds, 0x00280100, 0),
            bits_stored=unsigned(ds, 0x00280101, 0),
        )
    return _Layout(
        transfer_syntax_uid=parsed.transfer_syntax_uid,
        photometric=header.photometric,
        samples_per_pixel=header.samples_per_pixel,
        planar_configuration=header.planar_configuration,
        frames=header.number_of_frames,
        rows=header.rows,
        columns=header.columns,
        bits_allocated=header.bits_allocated,
        bits_stored=header.bits_stored,
    )


def _check_layout(layout: _Layout) -> None:
    """Refuse what the attributes alone exclude."""
    if layout.photometric.startswith("MONOCHROME"):
        raise RefusedPixelsError("NOT_COLOUR", "the pixels are monochrome")
    if layout.transfer_syntax_uid not in (JPEGBaseline8Bit, *_UNCOMPRESSED):
        name = UID(layout.transfer_syntax_uid).name
        raise RefusedPixelsError("UNSUPPORTED_TRANSFER_SYNTAX", f"{name} cannot be decoded")
    if layout.photometric == "PALETTE COLOR":
        raise RefusedPixelsError("PIXELS_UNREADABLE", "palette colour cannot be decoded")
    if layout.samples_per_pixel == 1:
        raise RefusedPixelsError("NOT_COLOUR", "there is one sample per pixel")
    if layout.frames > MAXIMUM_FRAMES:
        raise RefusedPixelsError("IMAGE_TOO_LARGE", f"{layout.frames} frames, allowed are {MAXIMUM_FRAMES}")
    _check_size(layout.rows, layout.columns)


def _check_size(rows: int, columns: int) -> None:
    """Refuse a frame without extent, or beyond the limits."""
    if rows < 1 or columns < 1:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"{rows} rows of {columns} pixels")
    if rows * columns > MAXIMUM_PIXELS or max(rows, columns) > MAXIMUM_SIDE:
        detail = f"{columns} x {rows} pixels, allowed are {MAXIMUM_PIXELS} in all"
        raise RefusedPixelsError("IMAGE_TOO_LARGE", detail)


def _jpeg_frames(parsed: ParsedObject, layout: _Layout) -> Iterator[RgbFrame]:
    """Frames of encapsulated JPEG (PS3.5 A.4)."""
    decoded = 0
    for stream in _streams(parsed, layout.frames):
        yield _decode_jpeg(stream, layout)
        decoded += 1
    if decoded != layout.frames:
        detail = f"{decoded} of {layout.frames} frames are there"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)


def _streams(parsed: ParsedObject, number: int) -> Iterator[bytes]:
    """The JPEG stream of each frame."""
    try:
        yield from generate_frames(parsed.stream, number_of_frames=number)
    except RefusedPixelsError:
        raise
    except Exception as error:  # the item structure is damaged; the library has many ways to say so
        detail = f"the encapsulated pixel data is damaged ({type(error).__name__})"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail) from error


def _decode_jpeg(stream: bytes, layout: _Layout) -> RgbFrame:
    """Decode one JPEG stream; its own markers tell the colour space, not the header's label."""
    jpeg = read_jpeg_header(stream)
    if jpeg.process not in _EIGHT_BIT_PROCESSES or jpeg.precision != 8:
        detail = f"JPEG process 0x{jpeg.process:02X} with {jpeg.precision} bits is not baseline"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
    if len(jpeg.component_ids) == 1:
        raise RefusedPixelsError("NOT_COLOUR", "the JPEG stream has one component")
    if len(jpeg.component_ids) != 3:
        detail = f"the JPEG stream has {len(jpeg.component_ids)} components"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
    _check_size(jpeg.rows, jpeg.columns)
    if jpeg.colour is JpegColour.UNSTATED and not layout.stated_ybr:
        raw = _decompress(stream[:2] + _NO_TRANSFORM + stream[2:])
        return ybr_to_rgb(raw) if samples_are_ybr(raw, stated_ybr=False) else raw
    return _decompress(stream)


def _decompress(stream: bytes) -> RgbFrame:
    """RGB by libjpeg-turbo; a warning, as of a truncated stream, counts as an error."""
    try:
        rgb: RgbFrame = simplejpeg.decode_jpeg(stream, colorspace="RGB", strict=True)
    except ValueError as error:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"the JPEG stream is damaged: {error}") from error
    return np.ascontiguousarray(rgb)


def _raw_frames(parsed: ParsedObject, layout: _Layout, stated_bytes: int) -> Iterator[RgbFrame]:
    """Frames of uncompressed pixels (PS3.5 8.1.1)."""
    if layout.samples_per_pixel != 3 or layout.bits_allocated not in (8, 16):
        detail = f"{layout.samples_per_pixel} samples of {layout.bits_allocated} bits"
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"{detail} per pixel are not supported")
    halved = _is_halved(layout, stated_bytes)
    pixels = layout.rows * layout.columns
    frame_bytes = pixels * 2 if halved else pixels * 3 * layout.bits_allocated // 8
    for number in range(1, layout.frames + 1):
        content = parsed.stream.read(frame_bytes)
        if len(content) != frame_bytes:
            raise RefusedPixelsError("PIXELS_UNREADABLE", f"frame {number} is cut off")
        if halved:
            yield ybr_to_rgb(expand_422(np.frombuffer(content, np.uint8), layout.rows, layout.columns))
        else:
            yield _full_frame(content, layout, parsed.little_endian)


def _is_halved(layout: _Layout, stated_bytes: int) -> bool:
    """Whether the chrominance is halved, by the byte count; refuses a count that fits neither.

    Padding of less than one line is allowed at the end.
    """
    pixels = layout.frames * layout.rows * layout.columns
    line = layout.columns * 3
    if 0 <= stated_bytes - pixels * 3 * layout.bits_allocated // 8 < line:
        return False
    even = layout.bits_allocated == 8 and layout.columns % 2 == 0 and layout.planar_configuration == 0
    if layout.photometric == "YBR_FULL_422" and even and 0 <= stated_bytes - pixels * 2 < line:
        return True
    length = "no length" if stated_bytes == UNDEFINED_LENGTH else f"{stated_bytes} bytes"
    detail = f"{length} for {layout.frames} frames of {layout.columns} x {layout.rows} pixels"
    raise RefusedPixelsError("PIXELS_UNREADABLE", detail)


def _full_frame(content: bytes, layout: _Layout, little_endian: bool) -> RgbFrame:
    """One frame with three samples for each pixel, as 8-bit RGB."""
    samples = np.frombuffer(content, _sample_type(layout, little_endian))
    if layout.planar_configuration == 1:
        planes = samples.reshape(3, layout.rows, layout.columns)
        samples = np.moveaxis(planes, 0, 2)
    else:
        samples = samples.reshape(layout.rows, layout.columns, 3)
    if layout.bits_allocated == 16:
        samples = np.minimum(samples >> max((layout.bits_stored or 16) - 8, 0), 255)
    eight_bit = np.array(samples, np.uint8, order="C")
    if samples_are_ybr(eight_bit, stated_ybr=layout.stated_ybr):
        return ybr_to_rgb(eight_bit)
    return eight_bit


def _sample_type(layout: _Layout, little_endian: bool) -> str:
    """NumPy's name for one stored sample."""
    if layout.bits_allocated == 8:
        return "u1"
    return "<u2" if little_endian else ">u2"
