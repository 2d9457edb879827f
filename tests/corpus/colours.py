"""Photometric interpretations, true and false ones, sample layouts, palettes and ICC profiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from corpus.case import Case, graded, refused
from corpus.encoders import (
    Triple,
    as_jpeg_2000,
    as_jpeg_ls,
    as_jpeg_rgb,
    as_rle,
    as_ybr,
    as_ybr_422,
    icc_profile,
    without_jfif,
)
from corpus.photograph import COLUMNS, ROWS, as_jpeg, compressed, photograph, pixels, raw, written
from pydicom.dataset import FileDataset
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

_SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
_WIDE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
"""Primaries of sRGB and of Adobe RGB (1998), adapted to D50."""


def _labelled(case: str, samples: npt.NDArray[Any], label: str) -> list[bytes]:
    return [written(raw(case, samples, PhotometricInterpretation=label))]


def _planes(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(samples, 2, 0))


def _wide(case: str, stored: int) -> list[bytes]:
    """16-bit words, of which the lowest `stored` bits count."""
    samples = photograph().astype(np.uint16) << stored - 8
    ds = pixels(raw(case), samples.astype("<u2").tobytes(), vr="OW")
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, stored, stored - 1
    return [written(ds)]


def _monochrome(case: str, label: str) -> list[bytes]:
    grey = np.ascontiguousarray(photograph()[..., 1])
    ds = raw(case, grey, PhotometricInterpretation=label, SamplesPerPixel=1)
    del ds.PlanarConfiguration
    return [written(ds)]


def _indexed() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Indices (H, W) and colours (256, 3): 7 levels of red, 6 of green, 6 of blue."""
    rgb = photograph().astype(np.uint16)
    levels = [np.rint(rgb[..., index] * (count - 1) / 255) for index, count in enumerate((7, 6, 6))]
    indices = (levels[0] * 36 + levels[1] * 6 + levels[2]).astype(np.uint8)
    number = np.arange(256)
    scaled = [number // 36 % 7 / 6, number // 6 % 6 / 5, number % 6 / 5]
    return indices, np.clip(np.rint(np.stack(scaled, axis=1) * 255), 0, 255).astype(np.uint8)


def _palette(case: str, bits: int) -> list[bytes]:
    indices, colours = _indexed()
    ds = raw(case, indices, PhotometricInterpretation="PALETTE COLOR", SamplesPerPixel=1)
    del ds.PlanarConfiguration
    for name, channel in zip(("Red", "Green", "Blue"), colours.T, strict=True):
        wide = channel.astype("<u2") * 257 if bits == 16 else channel
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(ds, f"{name}PaletteColorLookupTableData", wide.tobytes())
    return [written(ds)]


def _jpeg(case: str, stream: bytes, label: str) -> list[bytes]:
    return [written(compressed(case, stream, JPEGBaseline8Bit, PhotometricInterpretation=label))]


def _grey_jpeg(case: str) -> list[bytes]:
    grey = np.ascontiguousarray(photograph()[..., 1:2])
    stream = bytes(simplejpeg.encode_jpeg(grey, colorspace="GRAY"))
    return _jpeg(case, stream, "YBR_FULL_422")


def _four_components(case: str) -> list[bytes]:
    ink = np.dstack([255 - photograph(), np.zeros((ROWS, COLUMNS), np.uint8)])
    stream = bytes(simplejpeg.encode_jpeg(ink, colorspace="CMYK", colorsubsampling="444"))
    return _jpeg(case, stream, "YBR_FULL_422")


def _with_profile(ds: FileDataset, primaries: Sequence[Triple], gamma: float, name: str) -> list[bytes]:
    ds.ICCProfile, ds.ColorSpace = icc_profile(primaries, gamma), name
    return [written(ds)]


def _with_corners(case: str) -> list[bytes]:
    """Text in the dark surround, as cameras burn it in: it is outside the field of view."""
    rgb = photograph()
    for line, text in enumerate(("OD 45", "F 2/8")):
        cv2.putText(rgb, text, (2, 12 + 12 * line), cv2.FONT_HERSHEY_PLAIN, 0.7, (255, 255, 255))
        cv2.putText(rgb, text, (214, 150 + 12 * line), cv2.FONT_HERSHEY_PLAIN, 0.7, (255, 255, 255))
    return [written(raw(case, rgb, BurnedInAnnotation="YES"))]


def _overlay(case: str) -> list[bytes]:
    """An overlay plane (PS3.3 C.9.2) with text across the retina: it is no part of the picture."""
    plane = np.zeros((ROWS, COLUMNS), np.uint8)
    cv2.putText(plane, "RIGHT EYE", (40, 90), cv2.FONT_HERSHEY_PLAIN, 2, 1, 2)
    ds = raw(case)
    ds.add_new(0x60000010, "US", ROWS)
    ds.add_new(0x60000011, "US", COLUMNS)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60000102, "US", 0)
    ds.add_new(0x60003000, "OW", np.packbits(plane, bitorder="little").tobytes())
    return [written(ds)]


_NO_COLOUR = refused("NOT_COLOUR", eye="NO_GRADABLE_IMAGE")

CASES = (
    Case(
        "colour-ybr-full",
        "YBR_FULL, uncompressed",
        graded(),
        lambda case: _labelled(case, as_ybr(photograph()), "YBR_FULL"),
    ),
    Case(
        "colour-ybr-full-422",
        "YBR_FULL_422, uncompressed",
        graded(),
        lambda case: [
            written(pixels(raw(case, PhotometricInterpretation="YBR_FULL_422"), as_ybr_422(photograph())))
        ],
    ),
    Case(
        "colour-ybr-full-422-unhalved",
        "YBR_FULL_422 as label, every sample there",
        graded(),
        lambda case: _labelled(case, as_ybr(photograph()), "YBR_FULL_422"),
    ),
    Case(
        "colour-rgb-called-ybr",
        "RGB samples labelled YBR_FULL",
        graded(),
        lambda case: _labelled(case, photograph(), "YBR_FULL"),
    ),
    Case(
        "colour-ybr-called-rgb",
        "YBR samples labelled RGB",
        graded(),
        lambda case: _labelled(case, as_ybr(photograph()), "RGB"),
    ),
    Case(
        "colour-jpeg-ybr-called-rgb",
        "a JFIF stream labelled RGB",
        graded(),
        lambda case: _jpeg(case, as_jpeg(), "RGB"),
    ),
    Case(
        "colour-jpeg-rgb",
        "a JPEG stream of R, G and B, labelled so",
        graded(),
        lambda case: _jpeg(case, as_jpeg_rgb(photograph()), "RGB"),
    ),
    Case(
        "colour-jpeg-rgb-called-ybr",
        "a JPEG stream of R, G and B (Adobe marker) labelled YBR_FULL_422",
        graded(),
        lambda case: _jpeg(case, as_jpeg_rgb(photograph()), "YBR_FULL_422"),
    ),
    Case(
        "colour-jpeg-rgb-unmarked",
        "a JPEG stream of R, G and B without any marker, labelled RGB",
        graded(),
        lambda case: _jpeg(case, as_jpeg_rgb(photograph(), adobe=False), "RGB"),
    ),
    Case(
        "colour-jpeg-ybr-unmarked",
        "a YCbCr stream without any marker, labelled RGB",
        graded(),
        lambda case: _jpeg(case, without_jfif(as_jpeg(subsampling="444")), "RGB"),
    ),
    Case(
        "colour-rct-called-rgb",
        "JPEG 2000 with a colour transform labelled RGB",
        graded(),
        lambda case: [written(compressed(case, as_jpeg_2000(photograph()), JPEG2000Lossless))],
    ),
    Case(
        "colour-rct-called-ybr",
        "JPEG 2000 with a colour transform labelled YBR_FULL",
        graded(),
        lambda case: [
            written(
                compressed(
                    case, as_jpeg_2000(photograph()), JPEG2000Lossless, PhotometricInterpretation="YBR_FULL"
                )
            )
        ],
    ),
    Case(
        "colour-rle-ybr-called-rgb",
        "RLE of YBR samples labelled RGB",
        graded(),
        lambda case: [written(compressed(case, as_rle(as_ybr(photograph())), RLELossless))],
    ),
    Case(
        "colour-jpeg-ls-ybr",
        "JPEG-LS of YBR_FULL samples",
        graded(),
        lambda case: [
            written(
                compressed(
                    case,
                    as_jpeg_ls(as_ybr(photograph())),
                    JPEGLSLossless,
                    PhotometricInterpretation="YBR_FULL",
                )
            )
        ],
    ),
    Case(
        "colour-planar",
        "planar configuration 1, RGB",
        graded(),
        lambda case: [written(raw(case, _planes(photograph()), PlanarConfiguration=1))],
    ),
    Case(
        "colour-planar-ybr",
        "planar configuration 1, YBR_FULL",
        graded(),
        lambda case: [
            written(
                raw(
                    case,
                    _planes(as_ybr(photograph())),
                    PlanarConfiguration=1,
                    PhotometricInterpretation="YBR_FULL",
                )
            )
        ],
    ),
    Case("colour-16-bit", "16 bits a sample", graded(), lambda case: _wide(case, 16)),
    Case("colour-12-bit", "12 bits in words of 16", graded(), lambda case: _wide(case, 12)),
    Case("colour-monochrome1", "MONOCHROME1", _NO_COLOUR, lambda case: _monochrome(case, "MONOCHROME1")),
    Case("colour-monochrome2", "MONOCHROME2", _NO_COLOUR, lambda case: _monochrome(case, "MONOCHROME2")),
    Case("colour-jpeg-grey", "a grey JPEG stream labelled YBR_FULL_422", _NO_COLOUR, _grey_jpeg),
    Case(
        "colour-jpeg-cmyk", "a JPEG stream of four components", refused("PIXELS_UNREADABLE"), _four_components
    ),
    Case(
        "colour-palette",
        "PALETTE COLOR, entries of 16 bits",
        graded(),
        lambda case: _palette(case, 16),
    ),
    Case(
        "colour-palette-8-bit",
        "PALETTE COLOR, entries of 8 bits",
        graded(),
        lambda case: _palette(case, 8),
    ),
    Case(
        "colour-palette-missing",
        "PALETTE COLOR without its tables",
        refused("PIXELS_UNREADABLE"),
        lambda case: [
            written(raw(case, _indexed()[0], PhotometricInterpretation="PALETTE COLOR", SamplesPerPixel=1))
        ],
    ),
    Case(
        "colour-icc-srgb",
        "an ICC profile of sRGB",
        graded(),
        lambda case: _with_profile(raw(case), _SRGB, 2.2, "SRGB"),
    ),
    Case(
        "colour-icc-wide",
        "an ICC profile of Adobe RGB",
        graded(),
        lambda case: _with_profile(raw(case), _WIDE, 2.2, "ADOBERGB"),
        same_colours=False,
    ),
    Case(
        "colour-icc-damaged",
        "an ICC profile that is none",
        graded(),
        lambda case: [written(raw(case, ICCProfile=b"no profile at all"))],
    ),
    Case("text-in-the-corners", "text burned in outside the field of view", graded(), _with_corners),
    Case("text-overlay", "an overlay plane with text across the retina", graded(), _overlay),
)
