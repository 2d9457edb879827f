"""Processes: which parts each role runs, in which order they start, and how they stop.

`serve` is all of it in one process. `listen`, `work` and `sweep` are the same parts apart; without a broker
`work` looks for due rows itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import StrEnum

import structlog

from dicom_io.listener import Listener
from worker.analyse import analyse
from worker.delivery import deliver
from worker.dispatch import Dispatcher, Job, Key, LocalDispatcher, Run, SilentDispatcher
from worker.documents import make_documents
from worker.door_settings import (
    allowed_callers,
    caller_rules,
    certificates,
    limits_of,
    listener_context,
)
from worker.errors import DatabaseError
from worker.forgetting import forget
from worker.intake import Intake
from worker.reporting import report
from worker.retention import retain
from worker.runtime import Runtime, build_runtime
from worker.settings import Settings
from worker.store import processes
from worker.sweep import adopt_orphans, alive, recover, sweep, wake_due

log = structlog.get_logger(__name__)
POLL_S = 0.5
"""How often `work` without a broker looks for rows."""
ORPHANS_EVERY_S = 300.0
FORGET_EVERY_S = 3600.0
RETAIN_EVERY_S = 600.0
CERTIFICATES_EVERY_S = 86_400.0
BROKER_UNUSED = (
    "serve runs every job in its own process and leaves broker_url alone; "
    "with a broker run listen, work and sweep instead"
)
"""What `serve` says when a broker is configured."""
_WATCH_S = 1.0
"""How often a process looks whether all its threads are there."""
_LEAST_S = 2.0
"""Seconds that each part has to end, however long those before it took."""


class Role(StrEnum):
    """What a process does."""

    SERVE = "serve"
    LISTEN = "listen"
    WORK = "work"
    SWEEP = "sweep"


def run_job(runtime: Runtime) -> Run:
    """Return the function that runs any job with this runtime.

    Of two processes with different bundles only one may analyse and report: each would undo what the other
    did, without end. The one that started last has the active bundle; the other delivers and waits.
    """
    superseded = threading.Event()

    def may_analyse() -> bool:
        if runtime.database.read(processes.bundle_is_active, runtime.bundle_pk):
            superseded.clear()
            return True
        if not superseded.is_set():
            superseded.set()
            log.warning(
                "bundle_not_active",
                bundle_id=runtime.bundle.manifest.id,
                bundle_sha256=runtime.bundle.digest,
                remedy="a process with another bundle started later; stop this one, or start it anew to win",
            )
        return False

    def run(job: Job, key: Key) -> None:
        if runtime.stopping.is_set() or (job is not Job.DELIVER and not may_analyse()):
            return
        if job is Job.ANALYSE:
            analyse(runtime, int(key))
        elif job is Job.REPORT:
            report(runtime, int(key))
            make_documents(runtime, int(key))
        else:
            deliver(runtime, str(key))

    return run


def concurrency(settings: Settings, jobs: Mapping[Job, bool]) -> dict[Job, int]:
    """Return the threads for each kind of job that this process takes on."""
    threads = {
        Job.ANALYSE: settings.resolved_analyse_concurrency,
        Job.REPORT: 2,
        Job.DELIVER: max(1, len(settings.destinations)),
    }
    return {job: threads[job] for job in Job if jobs.get(job)}


class Service:
    """One process of the application. Start it, wait, stop it.

    Args:
        settings: The checked configuration.
        role: Which parts to run.
        jobs: For `work`: the kinds of job to take on; None for all.
    """

    def __init__(self, settings: Settings, role: Role, jobs: frozenset[Job] | None = None) -> None:
        self.settings = settings
        self.role = role
        self._jobs = jobs or frozenset(Job)
        self.runtime: Runtime | None = None
        self.listener: Listener | None = None
        self.failed = threading.Event()
        """Set when a thread ended that must not: the process has to end, for its manager to start it anew."""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Open everything, put right what an earlier run left, then take on work; on failure close again."""
        with ExitStack() as undo:
            runtime = build_runtime(self.settings, self.role)
            undo.callback(runtime.close)
            self.runtime = runtime
            undo.callback(self._stop_loops)
            if self.role in (Role.SERVE, Role.LISTEN):
                # First, so that a port in use is known before the models load.
                undo.callback(self._bind_listener(runtime).stop, 0.0)
            runtime.dispatcher = self._dispatcher(runtime)
            if self.role is Role.SERVE and self.settings.broker_url:
                log.warning("broker_not_used", remedy=BROKER_UNUSED)
            if self.role in (Role.SERVE, Role.WORK) and Job.ANALYSE in self._jobs:
                _ = runtime.batcher  # load and warm up before anything arrives
            recover(runtime)
            if self.role in (Role.SERVE, Role.WORK) and Job.ANALYSE in self._jobs:
                runtime.take_over()  # last: a start that fails must not stop those who run
            runtime.dispatcher.start()
            self._start_loops(runtime)
            if self.listener is not None:
                self.listener.start()
                log.info("listening", ae_title=self.settings.listener.ae_title, port=self.listener.port)
            threading.Thread(target=self._watch, args=(runtime,), name="watch", daemon=True).start()
            undo.pop_all()
        log.info("service_started", role=str(self.role), process=runtime.process_id)

    def _dispatcher(self, runtime: Runtime) -> Dispatcher:
        """In-process threads where jobs run here; the broker, if there is one, where they run elsewhere."""
        if self.role is Role.SERVE or (self.role is Role.WORK and not self.settings.broker_url):
            wanted = {job: job in self._jobs for job in Job}
            return LocalDispatcher(run_job(runtime), concurrency(self.settings, wanted))
        if self.settings.broker_url:
            from worker.tasks import CeleryDispatcher, make_app

            return CeleryDispatcher(make_app(self.settings))
        return SilentDispatcher()

    def _start_loops(self, runtime: Runtime) -> None:
        interval_s = self.settings.jobs.sweep_interval_s
        self._loop("certificates", CERTIFICATES_EVERY_S, self._warn_of_expiry)
        if self.role in (Role.SERVE, Role.SWEEP):
            self._loop("sweep", interval_s, lambda: sweep(runtime))
            self._loop("orphans", ORPHANS_EVERY_S, lambda: adopt_orphans(runtime))
            self._loop("forget", FORGET_EVERY_S, lambda: forget(runtime))
            self._loop("retain", RETAIN_EVERY_S, lambda: retain(runtime))
        elif self.role is Role.WORK and not self.settings.broker_url:
            self._loop("poll", POLL_S, lambda: wake_due(runtime))
        if self.role in (Role.LISTEN, Role.WORK):
            self._loop("alive", interval_s, lambda: alive(runtime))

    def _warn_of_expiry(self) -> None:
        for each in certificates(self.settings, datetime.now(UTC)):
            if each.problem is not None:
                log.warning("certificate_expires", setting=each.setting, remedy=each.problem)

    def _loop(self, name: str, interval_s: float, work: Callable[[], object]) -> None:
        def run() -> None:
            while True:
                try:
                    work()
                except DatabaseError as error:
                    log.error("loop_failed", loop=name, error=str(error))
                except Exception:
                    log.exception("loop_failed", loop=name)
                if self._stop.wait(interval_s):
                    return

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _bind_listener(self, runtime: Runtime) -> Listener:
        door = self.settings.listener
        intake = Intake(runtime)
        self.listener = Listener(
            intake,
            ae_title=door.ae_title,
            host=door.host,
            port=door.port,
            allowed_callers=allowed_callers(self.settings),
            rules=caller_rules(self.settings),
            incoming=runtime.spool.incoming,
            limits=limits_of(door),
            pressure=intake.pressure,
            tls=listener_context(self.settings),
            acse_timeout_s=door.acse_timeout_s,
            dimse_timeout_s=door.dimse_timeout_s,
            network_timeout_s=door.network_timeout_s,
        )
        return self.listener

    def _watch(self, runtime: Runtime) -> None:
        """A process that has lost a thread looks alive and is not: say so, and let it be stopped."""
        while not self._stop.wait(_WATCH_S):
            ended = self._ended_parts(runtime)
            if ended and not self._stop.is_set():  # a stop that has begun ends them itself
                log.critical(
                    "essential_thread_ended",
                    parts=ended,
                    remedy="the process ends with status 1; start it again",
                )
                runtime.stopping.set()  # what is given back now is not taken again here
                self.failed.set()
                return

    def _ended_parts(self, runtime: Runtime) -> list[str]:
        ended = [thread.name for thread in self._threads if not thread.is_alive()]
        if self.listener is not None and not self.listener.accepting:
            ended.append("listener")
        return [*ended, *runtime.ended_parts]

    def _stop_loops(self, timeout_s: float = 10.0) -> list[str]:
        """Stop the loops; return the names of those that still ran after `timeout_s`."""
        self._stop.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Close the door, let what is in flight end, give the rest back; False when something still ran."""
        runtime = self.runtime
        if runtime is None:
            return True
        deadline = time.monotonic() + timeout_s

        def left() -> float:
            return max(_LEAST_S, deadline - time.monotonic())

        self._stop.set()
        if self.listener is not None:
            self.listener.stop(timeout_s / 2)
        runtime.stopping.set()
        late = [] if runtime.dispatcher.stop(left()) else ["jobs"]
        late += self._stop_loops(left())
        closed = runtime.close(left())
        if late:
            log.error("still_running", parts=late, remedy="they end with the process; nothing is lost")
        ended = closed and not late
        log.info("service_stopped", role=str(self.role), clean=ended)
        return ended
