"""A Celery worker around our own runtime, on threads: forking after the engine started is broken."""

from __future__ import annotations

import os
import signal
import threading

import structlog
from celery import Celery
from celery.apps.worker import Worker

from worker.dispatch import Job
from worker.service import Service, concurrency, run_job
from worker.tasks import make_app, queue_of, register

log = structlog.get_logger(__name__)
_LOOK_S = 0.5
"""How often a process looks whether it has failed."""


def run_celery_worker(service: Service, jobs: frozenset[Job]) -> int:
    """Start the service's parts and consume its queues until a signal; return the exit status.

    Celery handles the signals: the first one stops consuming and waits for running jobs, whose messages are
    acknowledged only when they end; what was not begun goes back to the queue.
    """
    service.start()
    runtime = service.runtime
    if runtime is None:
        raise RuntimeError("the service started without a runtime")
    app = make_app(service.settings)
    register(app, run_job(runtime))
    threads = sum(concurrency(service.settings, {job: job in jobs for job in Job}).values())
    ended = threading.Event()
    try:
        worker: Worker = _worker(app, threads, jobs, runtime.process_id)
        log.info("consuming", queues=[queue_of(job) for job in sorted(jobs)], threads=threads)
        threading.Thread(target=_end_when_failed, args=(service, ended), daemon=True).start()
        worker.start()
        return int(worker.exitcode or service.failed.is_set())
    finally:
        ended.set()
        service.stop()


def _end_when_failed(service: Service, ended: threading.Event) -> None:
    """Ask Celery to stop, in the way that it knows, when the service has lost a thread."""
    while not ended.wait(_LOOK_S):
        if service.failed.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _worker(app: Celery, threads: int, jobs: frozenset[Job], process_id: str) -> Worker:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a Celery worker handles signals and has to run on the main thread")
    return app.Worker(
        hostname=process_id,
        pool="threads",
        concurrency=threads,
        queues=[queue_of(job) for job in sorted(jobs)],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        redirect_stdouts=False,
        loglevel="WARNING",
    )
