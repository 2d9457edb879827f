"""The same jobs through Celery: a message is a job's name and a row's key, nothing else.

The message only wakes somebody up. It may be lost (the sweep publishes again what is due), doubled (the claim
on the row lets one through) or reordered. Nothing waits in the broker for a time: waits are columns. Results
are not stored, payloads are JSON, and a message is acknowledged after its job (`acks_late`), so that a worker
that dies gives it back.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

import structlog
from celery import Celery

from worker.dispatch import Job, Key, Run
from worker.settings import Settings

log = structlog.get_logger(__name__)
_PRIORITY_STEPS = [0, 3, 6, 9]
_REFILL, _NEARLY_EMPTY = 1000, 32
"""The sweep fills a queue shorter than this with so many messages: the database holds the backlog."""
_UNPUBLISHED = 10_000
"""Wake-ups kept while the broker is away."""


def make_app(settings: Settings) -> Celery:
    """Return a Celery application for `settings.broker_url`, without tasks."""
    app = Celery("fundus-worker", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "priority_steps": _PRIORITY_STEPS,
            "sep": ":",
            "queue_order_strategy": "priority",
            "visibility_timeout": 3600,
        },
        task_default_queue=queue_of(Job.ANALYSE),
        task_create_missing_queues=True,
    )
    return app


def queue_of(job: Job) -> str:
    """Return the queue of a kind of job."""
    return f"fundus.{job}"


def register(app: Celery, run: Run) -> None:
    """Define the tasks: each runs one job with the worker's own runtime."""
    for job in Job:

        def task(key: Key, job: Job = job) -> None:
            try:
                run(job, key)
            except Exception:
                # The row is still there and due: the sweep brings it back. The message has done its work.
                log.exception("job_failed", job=str(job), key=key)

        app.task(task, name=f"fundus.{job}", bind=False)


class CeleryDispatcher:
    """Publishes wake-ups from a thread of its own: a C-STORE never waits for the broker.

    A publication that fails is dropped and logged: the row is due, and the sweep publishes it again.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._queue: SimpleQueue[tuple[Job, Key, int]] = SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._publish_all, name="publisher", daemon=True)
        self._failing = False

    def wake(self, job: Job, key: Key, priority: int = 2) -> None:
        """Hand the wake-up to the publishing thread; dropped when much has piled up (the broker is away)."""
        if self._queue.qsize() < _UNPUBLISHED:
            self._queue.put((job, key, priority))

    def room(self, job: Job) -> int:
        """Return how many messages the sweep may add: many when the queue is nearly empty, else none.

        What is due and still in the queue would be published twice otherwise.
        """
        try:
            with self._app.connection_for_write(connect_timeout=2) as connection:
                declared = connection.default_channel.queue_declare(queue=queue_of(job), durable=True)
                return _REFILL if declared.message_count < _NEARLY_EMPTY else 0
        except Exception as error:  # the sweep has other things to do
            self._complain(error)
            return 0

    def start(self) -> None:
        """Start publishing."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Publish what is queued, within the time."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _publish_all(self) -> None:
        while True:
            try:
                job, key, priority = self._queue.get(timeout=0.2)
            except Empty:
                if self._stopped.is_set():
                    return
                continue
            self._publish(job, key, priority)

    def _publish(self, job: Job, key: Key, priority: int) -> None:
        try:
            self._app.send_task(
                f"fundus.{job}",
                args=(key,),
                queue=queue_of(job),
                priority=_PRIORITY_STEPS[min(max(priority, 0), 3)],
                retry=False,
                ignore_result=True,
            )
        except Exception as error:  # whatever it is: the next wake-up needs this thread
            self._complain(error)
        else:
            if self._failing:
                log.info("broker_back")
                self._failing = False

    def _complain(self, error: Exception) -> None:
        """Say once that the broker is away, not once a message."""
        if not self._failing:
            log.error("broker_unreachable", error=type(error).__name__, remedy="start it; nothing is lost")
            self._failing = True
