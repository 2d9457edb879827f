"""One file for each transfer syntax that cameras use, and for some that are not read."""

from __future__ import annotations

from corpus.case import Case, graded, not_offered, refused
from corpus.encoders import as_jp2, as_jpeg_2000, as_jpeg_ls, as_progressive_jpeg, as_rle
from corpus.lossless_jpeg import encode
from corpus.photograph import COLUMNS, ROWS, as_jpeg, compressed, make, photograph, pixels, raw, written
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)


def _uncompressed(case: str, syntax: str) -> bytes:
    return written(pixels(raw(case), photograph().tobytes(), syntax))


def _big_endian_words(case: str) -> bytes:
    """8-bit samples as 16-bit words, whose bytes are swapped in big endian (PS3.5 8.1.1)."""
    content = bytearray(photograph().tobytes())
    content[0::2], content[1::2] = content[1::2], content[0::2]
    return written(pixels(raw(case), bytes(content), ExplicitVRBigEndian, "OW"))


def _twelve_bits(case: str) -> bytes:
    """A stream that says 12 bits a sample: process 2 or 4 of T.81."""
    stream = bytearray(as_jpeg(subsampling="444"))
    at = stream.index(b"\xff\xc0")
    stream[at + 1], stream[at + 4] = 0xC1, 12
    return written(compressed(case, bytes(stream), JPEGExtended12Bit, PhotometricInterpretation="YBR_FULL"))


def _extended(case: str) -> bytes:
    stream = as_jpeg(subsampling="444").replace(b"\xff\xc0", b"\xff\xc1", 1)
    return written(compressed(case, stream, JPEGExtended12Bit, PhotometricInterpretation="YBR_FULL"))


def _stream(case: str, stream: bytes, syntax: UID, photometric: str = "RGB") -> list[bytes]:
    return [written(compressed(case, stream, syntax, PhotometricInterpretation=photometric))]


CASES = (
    Case(
        "syntax-explicit-little-endian",
        "Explicit VR Little Endian",
        graded(),
        lambda case: [_uncompressed(case, ExplicitVRLittleEndian)],
    ),
    Case(
        "syntax-implicit-little-endian",
        "Implicit VR Little Endian",
        graded(),
        lambda case: [_uncompressed(case, ImplicitVRLittleEndian)],
    ),
    Case(
        "syntax-big-endian",
        "Explicit VR Big Endian (retired), 8-bit samples as bytes",
        graded(),
        lambda case: [_uncompressed(case, ExplicitVRBigEndian)],
    ),
    Case(
        "syntax-big-endian-words",
        "Explicit VR Big Endian, 8-bit samples as swapped words",
        graded(),
        lambda case: [_big_endian_words(case)],
    ),
    Case(
        "syntax-deflated",
        "Deflated Explicit VR Little Endian",
        graded(),
        lambda case: [_uncompressed(case, DeflatedExplicitVRLittleEndian)],
    ),
    Case("syntax-jpeg-baseline", "JPEG Baseline, 4:2:2", graded(), lambda case: [written(make(case))]),
    Case(
        "syntax-jpeg-baseline-420",
        "JPEG Baseline, chrominance halved both ways",
        graded(),
        lambda case: _stream(case, as_jpeg(subsampling="420"), JPEGBaseline8Bit, "YBR_FULL_422"),
    ),
    Case(
        "syntax-jpeg-progressive",
        "progressive JPEG under JPEG Baseline",
        graded(),
        lambda case: _stream(case, as_progressive_jpeg(photograph()), JPEGBaseline8Bit, "YBR_FULL_422"),
    ),
    Case("syntax-jpeg-extended", "JPEG Extended with 8 bits", graded(), lambda case: [_extended(case)]),
    Case(
        "syntax-jpeg-extended-12-bit",
        "JPEG Extended with 12 bits a sample",
        refused("UNSUPPORTED_TRANSFER_SYNTAX"),
        lambda case: [_twelve_bits(case)],
    ),
    Case(
        "syntax-jpeg-lossless-sv1",
        "JPEG Lossless, first-order prediction",
        graded(),
        lambda case: _stream(case, encode(photograph()), JPEGLosslessSV1),
    ),
    Case(
        "syntax-jpeg-lossless",
        "JPEG Lossless, process 14, predicted from above",
        graded(),
        lambda case: _stream(case, encode(photograph(), selection=2), JPEGLossless),
    ),
    Case(
        "syntax-jpeg-ls",
        "JPEG-LS, lossless",
        graded(),
        lambda case: _stream(case, as_jpeg_ls(photograph()), JPEGLSLossless),
    ),
    Case(
        "syntax-jpeg-ls-near-lossless",
        "JPEG-LS, near-lossless",
        graded(),
        lambda case: _stream(case, as_jpeg_ls(photograph(), error=2), JPEGLSNearLossless),
    ),
    Case(
        "syntax-jpeg-2000-lossless",
        "JPEG 2000, lossless, YBR_RCT",
        graded(),
        lambda case: _stream(case, as_jpeg_2000(photograph()), JPEG2000Lossless, "YBR_RCT"),
    ),
    Case(
        "syntax-jpeg-2000-plain",
        "JPEG 2000, lossless, without a colour transform",
        graded(),
        lambda case: _stream(case, as_jpeg_2000(photograph(), transform=False), JPEG2000Lossless),
    ),
    Case(
        "syntax-jpeg-2000-lossy",
        "JPEG 2000, lossy, YBR_ICT",
        graded(),
        lambda case: _stream(case, as_jpeg_2000(photograph(), ratio=8), JPEG2000, "YBR_ICT"),
    ),
    Case(
        "syntax-jpeg-2000-file",
        "a JP2 file instead of a codestream",
        graded(),
        lambda case: _stream(
            case, as_jp2(as_jpeg_2000(photograph()), COLUMNS, ROWS), JPEG2000Lossless, "YBR_RCT"
        ),
    ),
    Case(
        "syntax-rle", "RLE Lossless", graded(), lambda case: _stream(case, as_rle(photograph()), RLELossless)
    ),
    Case(
        "syntax-htj2k",
        "High-Throughput JPEG 2000",
        not_offered(),
        lambda case: _stream(case, as_jpeg_2000(photograph()), HTJ2KLossless, "YBR_RCT"),
        dcmtk="3.6.7 does not know the transfer syntax",
    ),
    Case(
        "syntax-mpeg4",
        "MPEG-4 video",
        not_offered(),
        lambda case: _stream(case, b"\0\0\0\1\x67" * 8, MPEG4HP41, "YBR_PARTIAL_420"),
        dcmtk="3.6.7 does not send it",
    ),
)
