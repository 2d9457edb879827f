"""Photographs in every compressed transfer syntax, made by code or by DCMTK."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import numpy.typing as npt
import pytest
from factories.dicom import ExplicitVRLittleEndian, make_fundus, synthetic_fundus
from factories.servers import require_binary
from openjpeg.utils import encode_array
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from dicom_io.errors import RefusedPixelsError
from dicom_io.pixels import frames

Rgb = npt.NDArray[np.uint8]
Samples = npt.NDArray[Any]
FUNDUS = synthetic_fundus(128, 3)
_RGB, _GREY = 1, 2
"""OpenJPEG's numbers for colour spaces."""


def encoded(ds: FileDataset) -> bytes:
    """The file of `ds`."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def decode(ds: FileDataset | bytes) -> Rgb:
    """The only frame of `ds`."""
    [frame] = frames(ds if isinstance(ds, bytes) else encoded(ds))
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    return frame


def refusal(ds: FileDataset | bytes) -> RefusedPixelsError:
    """Why `ds` is refused."""
    with pytest.raises(RefusedPixelsError) as caught:
        list(frames(ds if isinstance(ds, bytes) else encoded(ds)))
    return caught.value


def difference(one: Rgb, other: Rgb) -> float:
    """Mean absolute difference, in grey levels."""
    return float(np.abs(one.astype(int) - other).mean())


def rgb_to_ybr(rgb: Rgb) -> Rgb:
    """PS3.3 C.7.6.3.1.2, as the standard writes it."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    rounded: Rgb = np.clip(np.rint(rgb.astype(float) @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    return rounded


def packed_bits(plane: bytes) -> bytes:
    """RLE of one byte plane (PS3.5 G.3.1): runs of equal bytes, the rest literally."""
    out, at = bytearray(), 0
    while at < len(plane):
        run = 1
        while run < 128 and plane[at : at + run + 1] == plane[at : at + 1] * (run + 1):
            run += 1
        if run > 1:
            out += bytes((257 - run, plane[at]))
        else:
            out += bytes((0, plane[at]))
        at += run
    return bytes(out) + b"\x80" * (len(out) % 2)


def as_rle(samples: Samples) -> bytes:
    """An RLE frame (PS3.5 G.2) of uint8 or uint16 samples (H, W) or (H, W, C)."""
    number = samples.shape[2] if samples.ndim == 3 else 1
    planes = samples.reshape(-1, number)
    width = samples.dtype.itemsize
    parts = [
        packed_bits((planes[:, channel] >> shift & 255).astype(np.uint8).tobytes())
        for channel in range(number)
        for shift in range(8 * (width - 1), -1, -8)
    ]
    offsets = [64 + sum(map(len, parts[:index])) for index in range(len(parts))]
    return struct.pack("<16L", len(parts), *offsets, *[0] * (15 - len(parts))) + b"".join(parts)


def as_j2k(samples: Samples, bits: int = 0, **options: Any) -> bytes:
    """A JPEG 2000 codestream, lossless and without colour transform unless told."""
    options = {"use_mct": False, "photometric_interpretation": _RGB if samples.ndim == 3 else _GREY} | options
    return bytes(encode_array(samples, bits_stored=bits or samples.itemsize * 8, **options))


def as_jpeg_ls(samples: Samples, bits: int = 0, mode: int | None = None, error: int = 0) -> bytes:
    """A JPEG-LS stream; `mode` 0 is by plane (C, H, W), 1 by line, 2 by sample (H, W, C)."""
    return bytes(
        jpeg_ls.encode_array(
            samples,
            lossy_error=error,
            interleave_mode=(2 if samples.ndim == 3 else 0) if mode is None else mode,
        )
    )


LOSSLESS: dict[UID, Callable[[Samples], bytes]] = {
    JPEG2000Lossless: as_j2k,
    JPEGLSLossless: as_jpeg_ls,
    RLELossless: as_rle,
}


def compressed(stream: bytes, syntax: UID, **attributes: Any) -> FileDataset:
    """A photograph whose only frame is `stream`."""
    ds = make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, **attributes)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def by_dcmtk(ds: FileDataset, folder: Path, program: str, options: str) -> bytes:
    """What a program of DCMTK makes of `ds`."""
    ds.save_as(folder / "source.dcm", enforce_file_format=True)
    command: list[str | Path] = [
        require_binary(program),
        *options.split(),
        folder / "source.dcm",
        folder / "coded.dcm",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "coded.dcm").read_bytes()
