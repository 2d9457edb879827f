"""Wakes somebody up for a row. A wake-up may be lost or doubled: the row, and the sweep, put that right."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)
AGEING_S = 60.0
"""Seconds by which one step of priority is worth being later: nothing urgent starves what is not."""


class Job(StrEnum):
    """What can be asked for; the key is a row's id, for `deliver` a destination's name."""

    ANALYSE = "analyse"
    REPORT = "report"
    DELIVER = "deliver"


Key = int | str
Run = Callable[[Job, Key], None]


class Dispatcher(Protocol):
    """Hands wake-ups to whoever runs the jobs."""

    def wake(self, job: Job, key: Key, priority: int = 2) -> None:
        """Ask for a job. Never blocks, never raises: it may be called from a C-STORE thread.

        Args:
            job: What to do.
            key: The row, or the destination.
            priority: 0 (at once) to 3 (any time).
        """
        ...

    def room(self, job: Job) -> int:
        """Return how many more wake-ups of this kind are useful now (the sweep offers no more)."""
        ...

    def start(self) -> None:
        """Begin to hand out what is woken."""
        ...

    def stop(self, timeout_s: float) -> bool:
        """Hand out nothing more and wait for what runs; False when something still runs then."""
        ...


class SilentDispatcher:
    """For a process that runs no jobs and has no broker: `work` finds the rows by looking."""

    def wake(self, job: Job, key: Key, priority: int = 2) -> None:
        """Do nothing: the row is enough."""

    def room(self, job: Job) -> int:
        """Return 0: nobody listens here."""
        return 0

    def start(self) -> None:
        """Nothing to start."""

    def stop(self, timeout_s: float) -> bool:
        """Nothing to wait for."""
        return True


class LocalDispatcher:
    """Runs jobs on this process's threads, most urgent first, a waiting one at most once.

    Args:
        run: Does one job; must not raise (an exception is logged and ends that job only).
        concurrency: Threads for each kind of job.
        capacity: Wake-ups kept for each kind; more are dropped, because the sweep brings them back.
    """

    def __init__(self, run: Run, concurrency: Mapping[Job, int], capacity: int = 10_000) -> None:
        self._run = run
        self._pools = {job: _Pool(job, run, threads, capacity) for job, threads in concurrency.items()}

    def wake(self, job: Job, key: Key, priority: int = 2) -> None:
        """Queue the job unless it is waiting already."""
        if pool := self._pools.get(job):
            pool.put(key, priority)

    def room(self, job: Job) -> int:
        """Return the free places in the queue."""
        pool = self._pools.get(job)
        return 0 if pool is None else pool.room()

    def start(self) -> None:
        """Start the threads."""
        for pool in self._pools.values():
            pool.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop taking jobs, let running ones end."""
        deadline = time.monotonic() + timeout_s
        for pool in self._pools.values():
            pool.stop()
        ended = [pool.join(deadline) for pool in self._pools.values()]
        return all(ended)


class _Pool:
    """The threads and the queue of one kind of job."""

    def __init__(self, job: Job, run: Run, threads: int, capacity: int) -> None:
        self._job, self._run, self._capacity = job, run, capacity
        self._heap: list[tuple[float, int, Key]] = []
        self._waiting: set[Key] = set()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{job}-{number}", daemon=True)
            for number in range(threads)
        ]

    def put(self, key: Key, priority: int) -> None:
        # Ageing in one number: an urgent job counts as if it had come AGEING_S a step earlier.
        rank = time.monotonic() + priority * AGEING_S
        with self._changed:
            if self._stopped or key in self._waiting or len(self._heap) >= self._capacity:
                return
            self._waiting.add(key)
            heapq.heappush(self._heap, (rank, next(self._numbers), key))
            self._changed.notify()

    def room(self) -> int:
        with self._changed:
            return self._capacity - len(self._heap)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._heap.clear()
            self._changed.notify_all()

    def join(self, deadline: float) -> bool:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (key := self._next()) is not None:
            try:
                self._run(self._job, key)
            except BaseException:  # SystemExit too: the next job needs this thread
                log.exception("job_failed", job=str(self._job), key=key)

    def _next(self) -> Key | None:
        with self._changed:
            self._changed.wait_for(lambda: self._heap or self._stopped)
            if self._stopped:
                return None
            _, _, key = heapq.heappop(self._heap)
            self._waiting.discard(key)
            return key
