"""Puts the images of many callers together for the engine.

Each caller says that it is on its way, prepares one image (or several: the frames of one object), hands it
in and waits for its own result. One thread owns the engine. A batch starts as soon as it is full, or nothing
more is on its way, or its first image has waited long enough; so an idle worker answers at once and a busy
one fills its batches without anybody tuning it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from worker.errors import BatchContractError, BatcherClosedError, BatcherFullError, EngineEndedError

R = TypeVar("R")
Image = npt.NDArray[np.uint8]
Predict = Callable[[Sequence[Image], Sequence[str | None]], Sequence[R]]


@dataclass(frozen=True)
class BatchStatistics:
    """What a batcher has done since it was made.

    Attributes:
        max_batch: Images that fit in a batch.
        batches: Batches given to the engine, without the repetitions of failed ones.
        failed_batches: Batches that raised or came back with a wrong number of results.
        images: Images in those batches.
        waited_s: Seconds that images waited for the engine, summed over the images.
        engine_s: Seconds the engine ran, repetitions included.
    """

    max_batch: int
    batches: int = 0
    failed_batches: int = 0
    images: int = 0
    waited_s: float = 0.0
    engine_s: float = 0.0

    @property
    def fill(self) -> float:
        """Mean share of a batch that was used, 0 to 1; 0 before the first batch."""
        return self.images / (self.batches * self.max_batch) if self.batches else 0.0


@dataclass(frozen=True)
class _Item(Generic[R]):
    image: Image
    adapter: str | None
    future: Future[R] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Failure:
    error: Exception


def _failure(error: BaseException) -> _Failure:
    """What the caller gets: nothing that would end the caller's own thread."""
    return _Failure(error if isinstance(error, Exception) else EngineEndedError(type(error).__name__))


class Slot(Generic[R]):
    """A caller's place in the queue; made by `MicroBatcher.announce`. Used by one thread."""

    def __init__(self, batcher: MicroBatcher[R], images: int) -> None:
        self._batcher = batcher
        self._outstanding = images

    def submit(self, image: Image, adapter: str | None, *, timeout_s: float = 60.0) -> Future[R]:
        """Hand in one image.

        Args:
            image: uint8 RGBA (S, S, 4); not copied, not to be changed before the result is there.
            adapter: Key of the camera adapter, None to go straight to the classifier.
            timeout_s: Seconds to wait for room in the queue.

        Returns:
            The future result. Cancelling it takes the image out as long as it is not in the engine.

        Raises:
            BatcherFullError: The queue stayed full; retryable.
            BatcherClosedError: The batcher was closed; retryable.
        """
        announced = self._outstanding > 0
        future = self._batcher._enqueue(_Item(image, adapter), announced, timeout_s)
        self._outstanding -= announced
        return future

    def _withdraw(self) -> None:
        """Stop waiting for what was announced and has not come."""
        self._batcher._expect(-self._outstanding)
        self._outstanding = 0


class MicroBatcher(Generic[R]):
    """Collects single images into batches; any number of threads may use it.

    Args:
        predict: The engine: n images and n adapter keys in, n results out, in the same order. Only
            ever called from the batcher's own thread.
        max_batch: Images a batch at most.
        max_wait_ms: Milliseconds an image waits at most for others that are on their way.
        capacity: Images that may wait; at least `max_batch`.

    A batch that raises is run again one image at a time: a bad image fails alone, with its own exception.
    """

    def __init__(self, predict: Predict[R], max_batch: int, max_wait_ms: float, capacity: int) -> None:
        if not 1 <= max_batch <= capacity:
            raise ValueError("max_batch has to be at least 1 and at most capacity")
        self._predict = predict
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._capacity = capacity
        self._waiting: deque[_Item[R]] = deque()
        self._on_their_way = 0
        self._closed = False
        self._statistics = BatchStatistics(max_batch)
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # the engine's thread waits here
        self._room = threading.Condition(lock)  # callers wait here while the queue is full
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @contextmanager
    def announce(self, images: int = 1) -> Iterator[Slot[R]]:
        """Say that images are on their way: a batch then waits for them, within `max_wait_ms`.

        Leaving the block takes back what has not been handed in, for instance because it cannot be decoded.
        Handing in more than was announced is allowed.
        """
        slot = Slot(self, images)
        self._expect(images)
        try:
            yield slot
        finally:
            slot._withdraw()

    @property
    def statistics(self) -> BatchStatistics:
        """A consistent snapshot."""
        with self._changed:
            return self._statistics

    @property
    def waiting(self) -> int:
        """Images in the queue now."""
        with self._changed:
            return len(self._waiting)

    @property
    def running(self) -> bool:
        """False when the engine's thread has ended."""
        return self._thread.is_alive()

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuse new images, finish those in the queue, end the thread. May be called more than once.

        Args:
            timeout_s: Seconds to wait for the thread at most; None for as long as it takes.

        Returns:
            False when the thread still ran then: the engine hangs.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._room.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _expect(self, images: int) -> None:
        with self._changed:
            self._on_their_way += images
            self._changed.notify()

    def _enqueue(self, item: _Item[R], announced: bool, timeout_s: float) -> Future[R]:
        with self._changed:
            if not self._room.wait_for(self._may_enqueue, timeout_s):
                raise BatcherFullError(self._capacity, timeout_s)
            if self._closed:
                raise BatcherClosedError
            self._waiting.append(item)
            self._on_their_way -= announced
            self._changed.notify()
        return item.future

    def _may_enqueue(self) -> bool:
        return self._closed or len(self._waiting) < self._capacity

    def _run(self) -> None:
        try:
            while self._serve_next():
                pass  # no name here keeps the last batch's images alive while waiting for the next one
        finally:
            self._abandon()

    def _serve_next(self) -> bool:
        """Wait for the next batch and run it; False when there will be none."""
        batch = [item for item in self._next_batch() if item.future.set_running_or_notify_cancel()]
        if batch:
            self._serve(batch)
        with self._changed:
            return bool(self._waiting) or not self._closed

    def _next_batch(self) -> list[_Item[R]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._waiting:
                deadline = self._waiting[0].arrived + self._max_wait_s
                self._changed.wait_for(self._is_ready, max(0.0, deadline - time.monotonic()))
            count = min(self._max_batch, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._room.notify(count)
            return batch

    def _is_ready(self) -> bool:
        return len(self._waiting) >= self._max_batch or self._on_their_way == 0 or self._closed

    def _serve(self, batch: Sequence[_Item[R]]) -> None:
        started = time.monotonic()
        outcomes, failed = self._outcomes(batch)
        self._count(batch, started, failed)
        for item, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, _Failure):
                item.future.set_exception(outcome.error)
            else:
                item.future.set_result(outcome)

    def _outcomes(self, batch: Sequence[_Item[R]]) -> tuple[Sequence[R | _Failure], bool]:
        """One outcome an image, and whether the batch as a whole failed."""
        try:
            return self._run_engine(batch), False
        except BatchContractError as error:  # which result belongs to which image cannot be known
            return [_Failure(BatchContractError(error.images, error.results)) for _ in batch], True
        except BaseException as error:  # SystemExit too: this thread serves everybody else's images
            return [_failure(error)] if len(batch) == 1 else [self._alone(item) for item in batch], True

    def _alone(self, item: _Item[R]) -> R | _Failure:
        try:
            return self._run_engine([item])[0]
        except BaseException as error:  # as above
            return _failure(error)

    def _run_engine(self, batch: Sequence[_Item[R]]) -> Sequence[R]:
        results = self._predict([item.image for item in batch], [item.adapter for item in batch])
        if len(results) != len(batch):
            raise BatchContractError(len(batch), len(results))
        return results

    def _count(self, batch: Sequence[_Item[R]], started: float, failed: bool) -> None:
        with self._changed:
            so_far = self._statistics
            self._statistics = replace(
                so_far,
                batches=so_far.batches + 1,
                failed_batches=so_far.failed_batches + failed,
                images=so_far.images + len(batch),
                waited_s=so_far.waited_s + sum(started - item.arrived for item in batch),
                engine_s=so_far.engine_s + time.monotonic() - started,
            )

    def _abandon(self) -> None:
        """Leave nobody waiting for a thread that is gone; the queue is empty unless something broke it."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._room.notify_all()
        self._refuse([item for item in left if item.future.set_running_or_notify_cancel()])

    def _refuse(self, items: Sequence[_Item[R]]) -> None:
        for item in items:
            item.future.set_exception(BatcherClosedError())
