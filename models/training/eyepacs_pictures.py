"""Prepared photographs in one memory-mapped file: tens of thousands of them do not fit in memory.

Each set of photographs is a file ``<key>.npy``, uint8 (N, S, S, 4), beside ``<key>.state.npy`` that says for
each row whether it is done; a killed preparation continues with the rows that are not. Several processes
write rows of the one file.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import NoFieldOfViewError
from models.preprocess import prepare
from models.training.data import DataError, read_rgb
from models.training.eyepacs import EyepacsPhotograph

Progress = Callable[[str, int, int, dict[str, float]], None]
"""As in ``lesions``, which imports torch: the processes that prepare pictures must not."""
_Job = list[tuple[int, Path]]
PENDING, DONE, NO_FIELD, UNREADABLE = 0, 1, 2, 3
"""States of a row; those of the last two have no picture."""
_CHUNK = 32
"""Photographs that a process prepares before its rows are marked."""


@dataclass(frozen=True)
class Pictures:
    """Prepared photographs of one part.

    Attributes:
        photographs: Those that could be prepared, in the order of ``tensors``.
        tensors: uint8 (N, S, S, 4), memory-mapped; writing to it changes nothing on disk.
        without_field: Number in which no round, lit field of view was found.
        unreadable: Number that could not be decoded.
    """

    photographs: tuple[EyepacsPhotograph, ...]
    tensors: npt.NDArray[np.uint8]
    without_field: int
    unreadable: int

    @property
    def grades(self) -> npt.NDArray[np.int64]:
        """Grades, int64 (N,).

        Raises:
            ValueError: They were taken away, see ``without_grades``.
        """
        grades = [photo.grade for photo in self.photographs if photo.grade is not None]
        if len(grades) != len(self.photographs):
            raise ValueError("these photographs are unlabelled here")
        return np.array(grades, dtype=np.int64)

    @property
    def patients(self) -> npt.NDArray[np.int64]:
        """A number for each patient, int64 (N,)."""
        return np.array([int(photo.patient) for photo in self.photographs], dtype=np.int64)


class PictureStore:
    """Prepares sets of photographs once and keeps them.

    Args:
        folder: Where the files go; S² · 4 bytes a photograph.
        size: Side S in pixels.
        workers: Processes; 1 prepares in this one, 0 is one for each CPU core.
        progress: Called with stage, step, steps and no measurements.
    """

    def __init__(self, folder: Path, size: int, workers: int, progress: Progress) -> None:
        self._folder, self._size, self._progress = folder, size, progress
        self._workers = workers or os.cpu_count() or 1

    def load(self, stage: str, photographs: Sequence[EyepacsPhotograph]) -> Pictures:
        """Prepare what is not prepared yet, and map the result.

        Args:
            stage: What the progress bar says.
            photographs: The set; the same one always has the same file.

        Raises:
            DataError: Not one photograph could be prepared.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        key = self._key(photographs)
        tensors = _opened(self._folder / f"{key}.npy", (len(photographs), self._size, self._size, 4))
        states = _opened(self._folder / f"{key}.state.npy", (len(photographs),))
        pending = np.flatnonzero(states == PENDING)
        jobs = [
            [(int(row), photographs[row].path) for row in pending[start : start + _CHUNK]]
            for start in range(0, len(pending), _CHUNK)
        ]
        done = len(photographs) - len(pending)
        for finished in self._run(self._folder / f"{key}.npy", jobs):
            # The pictures are on disk before a row says so: a power cut costs work, never a wrong picture.
            tensors.flush()
            for row, state in finished:
                states[row] = state
            states.flush()
            done += len(finished)
            self._progress(stage, done, len(photographs), {})
        return _compact(tensors, states, photographs, self._folder / f"{key}.npy")

    def _key(self, photographs: Sequence[EyepacsPhotograph]) -> str:
        digest = hashlib.sha256(str(self._size).encode())
        for photo in photographs:
            digest.update(f"{photo.name}:{photo.path.stat().st_size}".encode())
        return digest.hexdigest()[:20]

    def _run(self, file: Path, jobs: list[_Job]) -> Iterator[list[tuple[int, int]]]:
        if self._workers == 1 or len(jobs) <= 1:
            yield from (_prepare_rows(file, job) for job in jobs)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            self._workers, context, initializer=cv2.setNumThreads, initargs=(1,)
        ) as pool:
            for future in as_completed([pool.submit(_prepare_rows, file, job) for job in jobs]):
                yield future.result()


def _prepare_rows(file: Path, job: _Job) -> list[tuple[int, int]]:
    """Prepare photographs into their rows of the file; returns each row's state."""
    tensors = np.load(file, mmap_mode="r+")
    return [(row, _prepare_row(tensors, row, path)) for row, path in job]


def _prepare_row(tensors: npt.NDArray[np.uint8], row: int, path: Path) -> int:
    try:
        tensors[row] = prepare(read_rgb(path), tensors.shape[1]).tensor
    except NoFieldOfViewError:
        return NO_FIELD
    except DataError:
        return UNREADABLE
    return DONE


def _opened(file: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """A memory-mapped uint8 array, made (sparse, all zero) at the first call."""
    if not file.exists():
        partial = file.with_suffix(".partial")
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape).flush()
        partial.replace(file)
    return np.lib.format.open_memmap(file, mode="r+")


def _compact(
    tensors: npt.NDArray[np.uint8],
    states: npt.NDArray[np.uint8],
    photographs: Sequence[EyepacsPhotograph],
    file: Path,
) -> Pictures:
    """Fill the rows that have no picture from the end, so that the pictures are one slice of the file.

    Every call copies the same rows to the same holes and leaves the states alone, so it may be cut short.
    """
    good = states == DONE
    count = int(good.sum())
    if not count:
        raise DataError(
            f"none of {len(photographs)} photographs could be prepared, first {photographs[0].path}: "
            "they are unreadable, or show no lit disc on a dark surround"
        )
    order = list(range(count))
    holes, spare = np.flatnonzero(~good[:count]), np.flatnonzero(good[count:]) + count
    for hole, row in zip(holes, spare, strict=True):
        tensors[hole] = tensors[row]
        order[int(hole)] = int(row)
    return Pictures(
        tuple(photographs[row] for row in order),
        np.lib.format.open_memmap(file, mode="c")[:count],
        without_field=int((states == NO_FIELD).sum()),
        unreadable=int((states == UNREADABLE).sum()),
    )
