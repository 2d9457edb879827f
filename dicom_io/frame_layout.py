"""What the Image Pixel module says about the frames of an object, and what of that is refused unseen."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from dicom_io.dataset import ParsedObject
from dicom_io.elements import integer_string, text, unsigned
from dicom_io.errors import RefusedPixelsError
from dicom_io.header import MAXIMUM_FRAMES, FundusHeader
from dicom_io.palette import PALETTE_TAGS, Palette, read_palette

MAXIMUM_PIXELS = 100_000_000
"""Pixels of one frame; the largest fundus cameras and montages have under half of it."""

MAXIMUM_SIDE = 32_767

PIXELS_PER_BYTE = 2048
"""A compressed frame that claims more pixels than this for each of its bytes is no photograph.

JPEG cannot hold more than about 170 pixels in a byte, real photographs under 50.
"""

SMALL_FRAME = 1 << 20
"""Frames of at most this many pixels are decoded whatever their stream's length."""

UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)
ICC_PROFILE = 0x00282000
LAYOUT_TAGS = (
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101,
    0x00280102, ICC_PROFILE, *PALETTE_TAGS,
)  # fmt: skip


@dataclass(frozen=True)
class FrameLayout:
    """Image Pixel attributes (PS3.3 C.7.6.3); absent numbers are 0, absent text is "".

    Attributes:
        transfer_syntax_uid: (0002,0010).
        photometric: Photometric Interpretation (0028,0004), upper case.
        samples_per_pixel: (0028,0002).
        planar_configuration: (0028,0006).
        frames: Number of Frames (0028,0008), at least 1.
        rows: (0028,0010), in pixels.
        columns: (0028,0011), in pixels.
        bits_allocated: (0028,0100).
        bits_stored: (0028,0101).
        high_bit: (0028,0102); Bits Stored - 1 when absent or impossible.
        palette: Colours of PALETTE COLOR, None for any other photometric interpretation.
    """

    transfer_syntax_uid: str
    photometric: str
    samples_per_pixel: int
    planar_configuration: int
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    palette: Palette | None = None

    @property
    def stated_ybr(self) -> bool:
        """Whether the label names luminance and chrominance."""
        return self.photometric.startswith("YBR")

    @property
    def significant_bits(self) -> int:
        """Bits of an uncompressed sample, from bit 0 on: those up to High Bit."""
        return self.high_bit + 1 if self.bits_stored else self.bits_allocated

    @property
    def components(self) -> int:
        """Samples that each pixel must have: 1 with a palette, 3 without."""
        return 3 if self.palette is None else 1


def read_layout(parsed: ParsedObject, header: FundusHeader | None) -> FrameLayout:
    """Layout of the frames, checked, from the header record where there is one.

    Args:
        parsed: The object, parsed with `LAYOUT_TAGS`.
        header: Its header where it was read already.

    Raises:
        RefusedPixelsError: NOT_COLOUR, UNSUPPORTED_TRANSFER_SYNTAX, IMAGE_TOO_LARGE or PIXELS_UNREADABLE.
    """
    ds = parsed.dataset
    if header is None:
        photometric, samples = text(ds, 0x00280004).upper(), unsigned(ds, 0x00280002, 0)
        frames = max(integer_string(ds, 0x00280008, 1), 1)
        rows, columns = unsigned(ds, 0x00280010, 0), unsigned(ds, 0x00280011, 0)
        allocated, stored = unsigned(ds, 0x00280100, 0), unsigned(ds, 0x00280101, 0)
        planar = unsigned(ds, 0x00280006, 0)
    else:
        photometric, samples = header.photometric, header.samples_per_pixel
        frames, rows, columns = header.number_of_frames, header.rows, header.columns
        allocated, stored = header.bits_allocated, header.bits_stored
        planar = header.planar_configuration
    _check(parsed.transfer_syntax_uid, photometric, samples, frames)
    check_size(rows, columns)
    high = unsigned(ds, 0x00280102, 0)
    return FrameLayout(
        transfer_syntax_uid=parsed.transfer_syntax_uid,
        photometric=photometric,
        samples_per_pixel=samples,
        planar_configuration=planar,
        frames=frames,
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high if stored <= high + 1 <= allocated else max(stored - 1, 0),
        palette=read_palette(ds, parsed.little_endian) if photometric == "PALETTE COLOR" else None,
    )


def _check(syntax: str, photometric: str, samples: int, frames: int) -> None:
    """Refuse what the attributes alone exclude."""
    if photometric.startswith("MONOCHROME"):
        raise RefusedPixelsError("NOT_COLOUR", "the pixels are monochrome")
    if photometric == "PALETTE COLOR":
        if syntax in _LOSSY:
            detail = f"palette colour does not survive the lossy {UID(syntax).name}"
            raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
        if samples not in (0, 1):
            detail = f"palette colour with {samples} samples per pixel"
            raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
    elif samples == 1:
        raise RefusedPixelsError("NOT_COLOUR", "there is one sample per pixel")
    if frames > MAXIMUM_FRAMES:
        raise RefusedPixelsError("IMAGE_TOO_LARGE", f"{frames} frames, allowed are {MAXIMUM_FRAMES}")


def check_size(rows: int, columns: int) -> None:
    """Refuse a frame without extent (PIXELS_UNREADABLE) or beyond the limits (IMAGE_TOO_LARGE)."""
    if rows < 1 or columns < 1:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"{rows} rows of {columns} pixels")
    if rows * columns > MAXIMUM_PIXELS or max(rows, columns) > MAXIMUM_SIDE:
        detail = f"{columns} x {rows} pixels, allowed are {MAXIMUM_PIXELS} in all"
        raise RefusedPixelsError("IMAGE_TOO_LARGE", detail)


def check_stream(rows: int, columns: int, stream_bytes: int) -> None:
    """Like `check_size`, and refuse more pixels than a compressed stream of that length can hold.

    Called with the numbers of the stream itself, before its decoder takes memory for them.
    """
    check_size(rows, columns)
    if rows * columns > max(SMALL_FRAME, stream_bytes * PIXELS_PER_BYTE):
        detail = f"{columns} x {rows} pixels cannot be in a stream of {stream_bytes} bytes"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
