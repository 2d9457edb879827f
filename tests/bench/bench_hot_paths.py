"""What each image costs, step by step, on this machine: `make bench`.

The figures are printed, never asserted: they belong to the machine. A line is the median of repeated runs.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import simplejpeg

from dicom_io.spool import Spool
from models.bundle import Bundle
from models.predictor import Predictor
from models.preprocess import prepare

REPETITIONS = 20
SIZE = 512
BATCH = 8


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    folder = files("worker.demo").joinpath("images")
    photographs = sorted(each.name for each in folder.iterdir() if each.name.endswith(".jpg"))
    return folder.joinpath(photographs[0]).read_bytes()


@pytest.fixture(scope="module")
def photograph(jpeg: bytes) -> np.ndarray:
    return np.asarray(simplejpeg.decode_jpeg(jpeg, colorspace="RGB"))


def measure(step: str, run: Callable[[], object], images: int = 1) -> None:
    """Print the median time of a step for each image, after one run that does not count."""
    run()
    times = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1000 / images)
    sys.stdout.write(f"\n{step:<48} {median(times):9.2f} ms an image")


def bench_decode(jpeg: bytes) -> None:
    measure("decode, JPEG Baseline", lambda: simplejpeg.decode_jpeg(jpeg, colorspace="RGB"))


def bench_prepare(photograph: np.ndarray) -> None:
    measure(f"find the field, crop, resize to {SIZE}", lambda: prepare(photograph, SIZE))


def bench_spool(tmp_path: Path) -> None:
    spool, names = Spool(tmp_path / "spool"), count()

    def store() -> None:
        number = next(names)
        temporary = spool.incoming / f"{number}.part"
        temporary.write_bytes(number.to_bytes(8, "big") * 25_000)
        spool.sync(spool.place(temporary))

    measure("spool 200 KB, synced", store)
    shutil.rmtree(tmp_path / "spool")


@pytest.mark.parametrize("adapted", [False, True], ids=["labelled camera", "with an adapter"])
@pytest.mark.parametrize("images", [1, BATCH])
def bench_predict(photograph: np.ndarray, images: int, adapted: bool) -> None:
    bundle = Bundle.load("reference")
    predictor = Predictor(bundle)
    camera = sorted(bundle.manifest.adapters)[0] if adapted else None
    tensors = [prepare(photograph, bundle.manifest.size).tensor] * images

    measure(
        f"predict, batch of {images}, adapter {camera or 'none'}",
        lambda: predictor.predict(tensors, [camera] * images),
        images,
    )
