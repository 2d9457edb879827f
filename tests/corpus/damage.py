"""Pixel data that is missing, cut off, corrupt or a bomb, and pictures of something else."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from corpus.case import Case, refused, turned_away, withheld
from corpus.encoders import as_jpeg_2000, as_jpeg_ls, as_rle
from corpus.photograph import as_jpeg, compressed, make, photograph, pixels, raw, written
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

_HUGE = 40_000
_UNREADABLE = refused("PIXELS_UNREADABLE")
_TOO_LARGE = refused("IMAGE_TOO_LARGE")


def _without_pixels(case: str) -> list[bytes]:
    ds = raw(case)
    del ds.PixelData
    return [written(ds)]


def _half(case: str, stream: bytes, syntax: str) -> list[bytes]:
    return [written(compressed(case, stream[: len(stream) // 2 & ~1], syntax))]


def _corrupt_jpeg(case: str) -> list[bytes]:
    stream = bytearray(as_jpeg())
    middle = len(stream) // 2
    stream[middle : middle + 64] = bytes(range(1, 65))
    return [written(compressed(case, bytes(stream), JPEGBaseline8Bit))]


def _resized_jpeg(stream: bytes, rows: int, columns: int) -> bytes:
    at = stream.index(b"\xff\xc0") + 5
    return stream[:at] + struct.pack(">HH", rows, columns) + stream[at + 4 :]


def _resized_jpeg_2000(rows: int, columns: int, tile: int = 0) -> bytes:
    stream = bytearray(as_jpeg_2000(photograph()))
    stream[8:16] = struct.pack(">LL", columns, rows)
    stream[24:32] = struct.pack(">LL", tile or columns, tile or rows)
    return bytes(stream)


def _huge_header(case: str) -> list[bytes]:
    return [written(raw(case, Rows=_HUGE, Columns=_HUGE))]


def _huge_jpeg(case: str) -> list[bytes]:
    stream = _resized_jpeg(as_jpeg(), _HUGE, _HUGE)
    return [written(compressed(case, stream, JPEGBaseline8Bit, Rows=_HUGE, Columns=_HUGE))]


def _cut_file(case: str) -> list[bytes]:
    whole = written(raw(case))
    return [whole[: len(whole) * 2 // 3]]


def _deflate_bomb(case: str) -> list[bytes]:
    """A deflated data set of 600 kB that inflates to 600 MB: one block of zeros, over and over."""
    ds = make(case, photograph())
    ds.file_meta.TransferSyntaxUID = UID(DeflatedExplicitVRLittleEndian)
    plain = written(ds)
    start = 144 + int.from_bytes(plain[140:144], "little")
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = engine.compress(zlib.decompress(plain[start:], -zlib.MAX_WBITS)) + engine.flush(zlib.Z_FULL_FLUSH)
    block = engine.compress(bytes(1_000_000)) + engine.flush(zlib.Z_FULL_FLUSH)
    return [plain[:start] + head + block * 600 + engine.flush()]


def _rle_bomb(case: str) -> list[bytes]:
    stream = struct.pack("<16L", 3, 64, 66, 68, *[0] * 12) + b"\x81\0" * 3
    return [written(compressed(case, stream, RLELossless, Rows=9_000, Columns=9_000))]


def _picture(case: str, rgb: np.ndarray) -> list[bytes]:
    return [written(make(case, as_jpeg(np.ascontiguousarray(rgb))))]


def _document() -> np.ndarray:
    page = np.full_like(photograph(), 255)
    for line in range(20, 160, 16):
        cv2.putText(page, "Visual acuity 0.8", (20, line), cv2.FONT_HERSHEY_PLAIN, 0.9, (0, 0, 0))
    return page


def _dark() -> np.ndarray:
    return cv2.GaussianBlur((photograph() * 0.22).astype(np.uint8), (0, 0), 2)


_NO_FUNDUS = refused("NOT_A_FUNDUS_PHOTOGRAPH")

CASES = (
    Case("pixels-missing", "no pixel data element", refused("PIXELS_MISSING"), _without_pixels),
    Case(
        "pixels-empty",
        "pixel data of length 0",
        refused("PIXELS_MISSING"),
        lambda case: [written(pixels(raw(case), b""))],
    ),
    Case(
        "pixels-no-fragment",
        "encapsulated pixel data without a frame",
        refused("PIXELS_MISSING"),
        lambda case: [written(compressed(case, [], JPEGBaseline8Bit))],
    ),
    Case(
        "pixels-short",
        "half of the pixels that Rows and Columns promise",
        _UNREADABLE,
        lambda case: [written(pixels(raw(case), photograph().tobytes()[: 170 * 256]))],
    ),
    Case(
        "pixels-cut-off",
        "the object ends in the middle of its pixel data",
        _UNREADABLE,
        _cut_file,
        dcmtk="cannot read it",
    ),
    Case(
        "pixels-jpeg-cut-off",
        "half a JPEG stream",
        _UNREADABLE,
        lambda case: _half(case, as_jpeg(), JPEGBaseline8Bit),
    ),
    Case("pixels-jpeg-corrupt", "a JPEG stream with foreign bytes in it", _UNREADABLE, _corrupt_jpeg),
    Case(
        "pixels-no-jpeg",
        "a PNG file as JPEG stream",
        _UNREADABLE,
        lambda case: [
            written(compressed(case, bytes(cv2.imencode(".png", photograph())[1]), JPEGBaseline8Bit))
        ],
    ),
    Case(
        "pixels-jpeg-2000-cut-off",
        "half a JPEG 2000 stream",
        _UNREADABLE,
        lambda case: _half(case, as_jpeg_2000(photograph()), JPEG2000Lossless),
    ),
    Case(
        "pixels-jpeg-ls-cut-off",
        "half a JPEG-LS stream",
        _UNREADABLE,
        lambda case: _half(case, as_jpeg_ls(photograph()), JPEGLSLossless),
    ),
    Case(
        "pixels-rle-cut-off",
        "half an RLE frame",
        _UNREADABLE,
        lambda case: _half(case, as_rle(photograph()), RLELossless),
    ),
    Case("size-zero", "0 rows", _UNREADABLE, lambda case: [written(raw(case, Rows=0))]),
    Case("size-huge", "40,000 x 40,000 pixels stated, 130 kB there", _TOO_LARGE, _huge_header),
    Case("size-huge-jpeg", "40,000 x 40,000 pixels, in the JPEG stream too", _TOO_LARGE, _huge_jpeg),
    Case(
        "bomb-jpeg",
        "a JPEG stream of 9,000 x 9,000 pixels in some kilobytes",
        _UNREADABLE,
        lambda case: [written(compressed(case, _resized_jpeg(as_jpeg(), 9_000, 9_000), JPEGBaseline8Bit))],
    ),
    Case(
        "bomb-jpeg-2000",
        "a JPEG 2000 stream that says 30,000 x 30,000 pixels",
        _TOO_LARGE,
        lambda case: [written(compressed(case, _resized_jpeg_2000(30_000, 30_000), JPEG2000Lossless))],
    ),
    Case(
        "bomb-jpeg-2000-tiles",
        "a JPEG 2000 stream of 43,520 tiles",
        _UNREADABLE,
        lambda case: [written(compressed(case, _resized_jpeg_2000(170, 256, tile=1), JPEG2000Lossless))],
    ),
    Case("bomb-rle", "9,000 x 9,000 pixels in 70 bytes of RLE", _UNREADABLE, _rle_bomb),
    Case(
        "bomb-deflated",
        "600 kB that inflate to 600 MB",
        turned_away(0xC210, "UNREADABLE_OBJECT"),
        _deflate_bomb,
        dcmtk="takes what it inflates to for elements, for minutes",
    ),
    Case(
        "picture-black",
        "a black frame",
        _NO_FUNDUS,
        lambda case: _picture(case, np.zeros_like(photograph())),
    ),
    Case("picture-document", "a page of text", _NO_FUNDUS, lambda case: _picture(case, _document())),
    Case(
        "picture-dark",
        "a dark, blurred photograph",
        withheld("UNGRADABLE_QUALITY"),
        lambda case: _picture(case, _dark()),
        same_colours=False,
    ),
)
