"""Photographs in the compressed and uncompressed forms that cameras send."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import cv2
import jpeg_ls
import numpy as np
import numpy.typing as npt
import simplejpeg
from corpus.photograph import Rgb
from openjpeg.utils import encode_array

Triple = tuple[float, float, float]
Samples = npt.NDArray[Any]
_RGB, _GREY, _YBR = 1, 2, 3
"""OpenJPEG's numbers for colour spaces."""


def as_ybr(rgb: Rgb) -> Rgb:
    """YBR_FULL (PS3.3 C.7.6.3.1.2)."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    ybr: Rgb = np.clip(np.rint(rgb.astype(float) @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    return ybr


def as_ybr_422(rgb: Rgb) -> bytes:
    """YBR_FULL_422, uncompressed: two pixels are Y, Y, Cb, Cr."""
    full = as_ybr(rgb)
    pairs = np.concatenate([full[:, ::2, :1], full[:, 1::2, :1], full[:, ::2, 1:]], axis=2)
    return pairs.tobytes()


def as_jpeg_rgb(rgb: Rgb, *, adobe: bool = True) -> bytes:
    """JPEG baseline of R, G and B; an Adobe marker (transform 0) says so unless it is left out."""
    planes = [np.ascontiguousarray(rgb[..., index]) for index in range(3)]
    stream = without_jfif(bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, quality=92)))
    return stream[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" + stream[2:] if adobe else stream


def without_jfif(stream: bytes) -> bytes:
    """A JPEG stream without the JFIF segment that follows its first marker."""
    return stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]


def as_progressive_jpeg(rgb: Rgb) -> bytes:
    """JPEG with progressive scans."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 92]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1])


def as_jpeg_2000(samples: Samples, *, bits: int = 0, transform: bool = True, ratio: int = 0) -> bytes:
    """A JPEG 2000 codestream: lossless with RCT, or lossy with ICT when a ratio is given."""
    options: dict[str, Any] = {"compression_ratios": [ratio]} if ratio else {}
    space = _RGB if samples.ndim == 3 else _GREY
    options |= {"use_mct": transform, "photometric_interpretation": space}
    return bytes(encode_array(samples, bits_stored=bits or samples.itemsize * 8, **options))


def as_jp2(codestream: bytes, columns: int, rows: int) -> bytes:
    """A JP2 file around a codestream of three components (ITU-T T.800 annex I)."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content) + 8) + kind + content

    head = box(b"ihdr", struct.pack(">LLHBBBB", rows, columns, 3, 7, 7, 0, 0))
    head += box(b"colr", struct.pack(">BBBL", 1, 0, 0, 16))
    signature = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return signature + box(b"jp2h", head) + box(b"jp2c", codestream)


def as_jpeg_ls(samples: Samples, *, error: int = 0) -> bytes:
    """A JPEG-LS stream, interleaved by sample."""
    return bytes(jpeg_ls.encode_array(samples, lossy_error=error, interleave_mode=2))


def as_rle(samples: Samples) -> bytes:
    """An RLE frame (PS3.5 G.2) of uint8 or uint16 samples (H, W, C)."""
    planes, width = samples.reshape(-1, samples.shape[2]), samples.dtype.itemsize
    parts = [
        _packed_bits((planes[:, channel] >> shift & 255).astype(np.uint8).tobytes())
        for channel in range(samples.shape[2])
        for shift in range(8 * (width - 1), -1, -8)
    ]
    offsets = [64 + sum(map(len, parts[:index])) for index in range(len(parts))]
    return struct.pack("<16L", len(parts), *offsets, *[0] * (15 - len(parts))) + b"".join(parts)


def _packed_bits(plane: bytes) -> bytes:
    """Runs of equal bytes, and stretches of up to 128 others literally (PS3.5 G.3.1)."""
    out, at = bytearray(), 0
    while at < len(plane):
        run = 1
        while run < 128 and plane[at + run : at + run + 1] == plane[at : at + 1]:
            run += 1
        if run > 2:
            out += bytes((257 - run, plane[at]))
            at += run
            continue
        literal = plane[at : at + 128]
        for index in range(2, len(literal)):
            if literal[index] == literal[index - 1] == literal[index - 2]:
                literal = literal[: index - 2]
                break
        literal = literal or plane[at : at + 1]
        out += bytes((len(literal) - 1,)) + literal
        at += len(literal)
    return bytes(out) + b"\0" * (len(out) % 2)


def icc_profile(primaries: Sequence[Triple], gamma: float) -> bytes:
    """A matrix display profile (ICC.1:2010), its primaries as XYZ under D50."""

    def xyz(values: Triple) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3l", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">LHH", 1, round(gamma * 256), 0)
    text = b"text\0\0\0\0corpus\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">L", 7) + b"corpus\0" + bytes(79)
    parts = {b"desc": name, b"cprt": text, b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"rXYZ": xyz(primaries[0])}
    parts |= {
        b"gXYZ": xyz(primaries[1]),
        b"bXYZ": xyz(primaries[2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, data = struct.pack(">L", len(parts)), b""
    start = 128 + 4 + 12 * len(parts)
    for signature, content in parts.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += signature + struct.pack(">LL", start + len(data), len(content))
        data += padded
    body = table + data
    head = struct.pack(">L4sL4s4s4s", 128 + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 3, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3l", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + body
