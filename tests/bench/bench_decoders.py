"""CPU that opening a picture costs, here and in a decoder process: part of `make bench`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import psutil
import pytest
from factories.dicom import as_jpeg, synthetic_fundus
from factories.encodings import as_j2k, as_jpeg_ls
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from dicom_io.codecs import RgbFrame, decode_frame
from dicom_io.decoder_pool import DecoderLimits, DecoderPool
from dicom_io.frame_layout import FrameLayout


@dataclass(frozen=True)
class Codec:
    """How a picture is coded, and how often it is opened to measure."""

    syntax: UID
    encode: Callable[[RgbFrame], bytes]
    times: int


CODECS = {
    "JPEG Baseline": Codec(JPEGBaseline8Bit, as_jpeg, 40),
    "JPEG-LS": Codec(JPEGLSLossless, as_jpeg_ls, 3),
    "JPEG 2000": Codec(JPEG2000Lossless, as_j2k, 2),
}


@pytest.mark.parametrize("size", [(2048, 1536), (4288, 2848)], ids=lambda size: f"{size[0]} x {size[1]}")
@pytest.mark.parametrize("name", CODECS)
def bench_decoders(name: str, size: tuple[int, int]) -> None:
    codec, (columns, rows) = CODECS[name], size
    picture = np.asarray(cv2.resize(synthetic_fundus(1024), size), dtype=np.uint8)
    stream = codec.encode(picture)
    layout = FrameLayout(str(codec.syntax), "RGB", 3, 0, 1, rows, columns, 8, 8, 7)
    with DecoderPool(DecoderLimits(1)) as pool:
        pool.decode(stream, layout)
        there = pool.process_ids
        here = cpu_ms([os.getpid()], lambda: decode_frame(stream, layout), codec.times)
        away = cpu_ms([os.getpid(), *there], lambda: pool.decode(stream, layout), codec.times)
    sys.stdout.write(f"\n{name}, {columns} x {rows}: {here:.1f} ms here, {away:.1f} ms in the pool")


def cpu_ms(processes: list[int], run: Callable[[], RgbFrame], times: int) -> float:
    """Milliseconds of CPU of these processes for each run, every pixel looked at once."""
    before = sum(_spent_s(each) for each in processes)
    for _ in range(times):
        run()[::16].sum()
    return (sum(_spent_s(each) for each in processes) - before) / times * 1000


def _spent_s(process: int) -> float:
    spent = psutil.Process(process).cpu_times()
    return float(spent.user + spent.system)
