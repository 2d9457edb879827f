"""One frame of compressed pixels as RGB.

`decode_frame` is the only way to the native decoders: libjpeg-turbo, CharLS and OpenJPEG. It takes bytes
and plain values and keeps nothing, so it can run in another process. Before a decoder sees a stream, the
stream's own header is held against the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import jpeg_ls
import numpy as np
import numpy.typing as npt
import openjpeg.utils
import simplejpeg
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_io.colour_model import samples_are_ybr, was_rgb_already, ybr_to_rgb
from dicom_io.errors import RefusedPixelsError
from dicom_io.frame_layout import FrameLayout, check_stream
from dicom_io.jpeg2000_markers import read_jpeg2000_header
from dicom_io.jpeg_markers import JpegColour, JpegHeader, read_jpeg_header, without_application_data
from dicom_io.run_lengths import decode_rle

RgbFrame = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

NO_TRANSFORM = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""Adobe APP14 segment that keeps libjpeg from converting colours."""

_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_DCT = (0xC0, 0xC1, 0xC2)
_BY_PLANE = 0
_MOST_BEYOND = 0.2
_END_OF_IMAGE = b"\xff\xd9"


def decode_frame(stream: bytes, layout: FrameLayout) -> RgbFrame:
    """Decode one compressed frame.

    Args:
        stream: The frame's bytes, its fragments joined (PS3.5 A.4).
        layout: What the object's header says of its frames; `transfer_syntax_uid` is a key of `CODECS`.

    Returns:
        uint8 RGB (H, W, 3), C-contiguous; H and W by the stream where it tells.

    Raises:
        RefusedPixelsError: PIXELS_UNREADABLE, NOT_COLOUR, IMAGE_TOO_LARGE, or UNSUPPORTED_TRANSFER_SYNTAX
            for a variant that no decoder reads.
    """
    return CODECS[layout.transfer_syntax_uid](stream, layout)


def finished(samples: Samples, bits: int, layout: FrameLayout, *, stated_ybr: bool) -> RgbFrame:
    """RGB of decoded samples: by palette, or scaled to 8 bits and converted where they are YBR.

    Args:
        samples: uint8 or uint16 (H, W, 1 or 3).
        bits: Significant bits of a sample, from bit 0 on.
        layout: The object's own words; its palette is applied.
        stated_ybr: Whether the samples are YBR by label.
    """
    if layout.palette is not None:
        return layout.palette.apply(samples[..., 0])
    wide = samples.dtype != np.uint8 and bits > 8
    scaled = np.right_shift(samples, bits - 8) if wide else samples
    eight_bit = np.minimum(scaled, 255).astype(np.uint8, order="C", copy=False)
    if samples_are_ybr(eight_bit, stated_ybr=stated_ybr):
        return ybr_to_rgb(eight_bit)
    return np.ascontiguousarray(eight_bit)


def without_unused_bits(samples: Samples, bits: int) -> Samples:
    """Samples as far as High Bit: what is above may be an overlay of old (PS3.5 8.1.1), and is no picture.

    Args:
        samples: uint8 or uint16 of any shape.
        bits: Significant bits, from bit 0 on.

    Raises:
        RefusedPixelsError: PIXELS_UNREADABLE when so many samples go beyond that High Bit must be wrong.
    """
    if samples.dtype == np.uint8 or bits >= 16:
        return samples
    beyond = np.count_nonzero(samples >> bits) / max(samples.size, 1)
    if beyond > _MOST_BEYOND:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"{beyond:.0%} of the samples go beyond {bits} bits")
    return samples & np.uint16((1 << bits) - 1) if beyond else samples


def _jpeg(stream: bytes, layout: FrameLayout) -> RgbFrame:
    """JPEG baseline, extended, progressive or lossless (T.81), whichever the stream is."""
    jpeg = read_jpeg_header(stream)
    if jpeg.process not in (*_DCT, _LOSSLESS) or jpeg.precision != 8:
        detail = f"JPEG process 0x{jpeg.process:02X} with {jpeg.precision} bits is not read"
        damaged = layout.transfer_syntax_uid == JPEGBaseline8Bit
        raise RefusedPixelsError("PIXELS_UNREADABLE" if damaged else "UNSUPPORTED_TRANSFER_SYNTAX", detail)
    _check_components(len(jpeg.component_ids), "JPEG", layout)
    check_stream(jpeg.rows, jpeg.columns, len(stream))
    if jpeg.process == _LOSSLESS:
        return _jpeg_lossless(stream, layout)
    if layout.palette is not None:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "palette colour in a lossy JPEG stream")
    return _jpeg_by_content(stream, jpeg.colour, layout)


def _jpeg_by_content(stream: bytes, colour: JpegColour, layout: FrameLayout) -> RgbFrame:
    """As markers say, else as the label says, unless the dark surround of the picture proves them wrong."""
    if colour is JpegColour.RGB:
        pixels = _libjpeg(stream, "RGB")
        return ybr_to_rgb(pixels) if samples_are_ybr(pixels, stated_ybr=False) else pixels
    if colour is JpegColour.UNSTATED:
        raw = _as_coded(stream)
        return _libjpeg(stream, "RGB") if samples_are_ybr(raw, stated_ybr=layout.stated_ybr) else raw
    pixels = _libjpeg(stream, "RGB")
    return _as_coded(stream) if was_rgb_already(pixels) else pixels


def _as_coded(stream: bytes) -> RgbFrame:
    """Samples of a JPEG stream as they are coded, no colour converted."""
    bare = without_application_data(stream)
    return _libjpeg(bare[:2] + NO_TRANSFORM + bare[2:], "RGB")


def _jpeg_lossless(stream: bytes, layout: FrameLayout) -> RgbFrame:
    """Process 14 codes samples as they are: the label and the content tell their colours, no marker does."""
    if layout.palette is not None:
        return finished(_libjpeg(without_application_data(stream), "GRAY"), 8, layout, stated_ybr=False)
    return finished(_as_coded(stream), 8, layout, stated_ybr=layout.stated_ybr)


def _libjpeg(stream: bytes, colourspace: str) -> RgbFrame:
    """Pixels by libjpeg-turbo; a warning, as of a truncated stream, counts as an error."""
    try:
        pixels: RgbFrame = simplejpeg.decode_jpeg(stream, colorspace=colourspace, strict=True)
    except ValueError as error:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"the JPEG stream is damaged: {error}") from error
    return np.ascontiguousarray(pixels)


def _jpeg_ls(stream: bytes, layout: FrameLayout) -> RgbFrame:
    """JPEG-LS, lossless and near-lossless (ITU-T T.87)."""
    header = read_jpeg_header(stream)
    if header.process != _JPEG_LS:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the frame is no JPEG-LS stream")
    _check_components(len(header.component_ids), "JPEG-LS", layout)
    _check_precision(header.precision)
    check_stream(header.rows, header.columns, len(stream))
    if not stream.rstrip(b"\0").endswith(_END_OF_IMAGE):  # CharLS would read on for seconds
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG-LS stream is cut off before its end")
    try:
        content, found = jpeg_ls.decode_pixel_data(stream)
    except (RuntimeError, ValueError) as error:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"the JPEG-LS stream is damaged: {error}") from error
    samples = _arranged(content, header, by_plane=found["interleave_mode"] == _BY_PLANE)
    return finished(samples, _significant(header.precision, layout), layout, stated_ybr=layout.stated_ybr)


def _arranged(content: bytearray, header: JpegHeader, *, by_plane: bool) -> Samples:
    """CharLS's bytes as samples (H, W, C)."""
    number = len(header.component_ids)
    flat = np.frombuffer(content, "u1" if header.precision <= 8 else "<u2")
    if flat.size != number * header.rows * header.columns:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG-LS stream has another size than it states")
    if by_plane:
        return np.moveaxis(flat.reshape(number, header.rows, header.columns), 0, 2)
    return flat.reshape(header.rows, header.columns, number)


def _jpeg_2000(stream: bytes, layout: FrameLayout) -> RgbFrame:
    """JPEG 2000, lossless and lossy (ITU-T T.800)."""
    header = read_jpeg2000_header(stream)
    _check_components(header.components, "JPEG 2000", layout)
    _check_precision(header.precision)
    check_stream(header.rows, header.columns, len(stream))
    try:
        samples = openjpeg.utils.decode(stream[header.start :])
    except (RuntimeError, ValueError) as error:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"the JPEG 2000 stream is damaged: {error}") from error
    # YBR_ICT and YBR_RCT name the transform that decoding has undone (PS3.3 C.7.6.3.1.2).
    stated = layout.photometric.startswith(("YBR_FULL", "YBR_PARTIAL")) and not header.transformed
    if samples.size != header.rows * header.columns * header.components:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the JPEG 2000 stream has another size than it states")
    shaped = samples.reshape(header.rows, header.columns, header.components)
    return finished(shaped, _significant(header.precision, layout), layout, stated_ybr=stated)


def _rle(stream: bytes, layout: FrameLayout) -> RgbFrame:
    """RLE Lossless (PS3.5 annex G)."""
    if layout.bits_allocated not in (8, 16):
        detail = f"RLE with {layout.bits_allocated} bits a sample is not read"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
    samples = decode_rle(stream, layout.rows, layout.columns, layout.components, layout.bits_allocated)
    samples = without_unused_bits(samples, layout.significant_bits)
    return finished(samples, layout.significant_bits, layout, stated_ybr=layout.stated_ybr)


def _check_components(number: int, kind: str, layout: FrameLayout) -> None:
    """Refuse any other number of components than the photometric interpretation has."""
    if number == layout.components:
        return
    if number == 1:
        raise RefusedPixelsError("NOT_COLOUR", f"the {kind} stream has one component")
    raise RefusedPixelsError("PIXELS_UNREADABLE", f"the {kind} stream has {number} components")


def _check_precision(bits: int) -> None:
    """Refuse samples that do not fit 16 bits."""
    if not 1 <= bits <= 16:
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"{bits} bits a sample; up to 16 are read")


def _significant(precision: int, layout: FrameLayout) -> int:
    """Significant bits of a decoded sample: Bits Stored, unless the stream shows it to be wrong.

    Encoders choose a precision below Bits Stored where the brightest pixel allows it, or Bits Allocated.
    """
    if layout.bits_stored < 8 or precision > layout.bits_allocated:
        return max(precision, 8)
    return layout.bits_stored


CODECS: MappingProxyType[str, Callable[[bytes, FrameLayout], RgbFrame]] = MappingProxyType(
    {
        **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), _jpeg),
        **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), _jpeg_ls),
        **dict.fromkeys((JPEG2000Lossless, JPEG2000), _jpeg_2000),
        RLELossless: _rle,
    }
)
"""Decoder of each compressed transfer syntax (PS3.5 annex A.4)."""
