"""Finds what time has made due, and what a crash has left behind. Losing every message loses nothing.

A sweep is idempotent and may run in any number of processes: every transition it makes is one statement that
checks the row's state. What touches files runs under a lease, once at a time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import psutil
import structlog
from sqlalchemy import Connection

from dicom_io.errors import DicomIoError
from dicom_io.header import read_header
from dicom_io.spool import SpooledFile, StoredObject
from worker.delivery import add_missing
from worker.dispatch import Job
from worker.intake import store
from worker.runtime import Runtime
from worker.store import deliveries, images, leases, processes, studies

log = structlog.get_logger(__name__)
SILENT_S = 60.0
"""A process not seen for so long is dead: what it held is released."""
ORPHAN_AGE_S = 60.0
"""A file younger than this may be on its way to its row."""
_ORPHAN_LEASE_S = 600.0


def sweep(runtime: Runtime) -> None:
    """Look once: close what is due, release what dead processes hold, wake what waits."""
    database, policy = runtime.database, runtime.closing_policy
    database.write(processes.seen, runtime.process_id)
    for process_id in database.read(
        processes.silent, max(SILENT_S, 3 * runtime.settings.jobs.sweep_interval_s)
    ):
        if process_id != runtime.process_id:
            _bury(runtime, process_id)
    for study_id, _ in database.write(studies.close_due, policy):
        log.info("study_closed", study=study_id, by="time")
    add_missing(runtime)
    wake_due(runtime)


def wake_due(runtime: Runtime) -> None:
    """Wake whatever is due and in nobody's hands, as far as the dispatcher has room for it."""
    database, dispatcher = runtime.database, runtime.dispatcher
    for instance_id, priority in _offer(runtime, Job.ANALYSE, images.due):
        dispatcher.wake(Job.ANALYSE, instance_id, priority)
    for study_id, priority in _offer(runtime, Job.REPORT, studies.unreported):
        dispatcher.wake(Job.REPORT, study_id, priority)
    if dispatcher.room(Job.DELIVER):
        for name in database.read(deliveries.due_destinations):
            dispatcher.wake(Job.DELIVER, name)


def _offer(
    runtime: Runtime, job: Job, look: Callable[[Connection, int], list[tuple[int, int]]]
) -> list[tuple[int, int]]:
    room = runtime.dispatcher.room(job)
    return runtime.database.read(look, min(room, 1000)) if room > 0 else []


def recover(runtime: Runtime) -> None:
    """At start: release at once what processes of this host held that are gone, and check their files."""
    host, own = socket.gethostname()[:64], os.getpid()
    for process_id, process_host, pid in runtime.database.read(processes.running):
        gone = pid == own or not psutil.pid_exists(pid)
        if process_id != runtime.process_id and process_host == host and gone:
            _bury(runtime, process_id)
    refuse_damaged(runtime)


def _bury(runtime: Runtime, process_id: str) -> None:
    released = runtime.database.write(processes.bury, process_id, runtime.closing_policy)
    log.warning("process_gone", process=process_id, claims_released=released)


def refuse_damaged(runtime: Runtime) -> int:
    """Refuse images that wait and whose file is missing or has another length; return how many.

    Nothing tells whether their senders were told that we have them: they block a negative result, an
    administrator sees them in `v_failures`, and the next copy that is sent heals them (decision 0006).
    """
    refused = 0
    for instance_id, path, size_bytes, sop_instance_uid in runtime.database.read(images.unfinished_files):
        if _damage(runtime, path, size_bytes) is None:
            continue
        if not runtime.database.write(
            images.refuse_damaged, instance_id, lambda *file: _damage(runtime, *file)
        ):
            continue
        log.error("stored_file_damaged", sop_instance_uid=sop_instance_uid, instance=instance_id)
        refused += 1
    return refused


def _damage(runtime: Runtime, path: str, size_bytes: int) -> str | None:
    """Say what is wrong with a file as far as its length shows; None when nothing is."""
    try:
        found = runtime.spool.path(path).stat().st_size
    except FileNotFoundError:
        return "the file is missing in the spool"
    return None if found == size_bytes else f"the file has {found} bytes instead of {size_bytes}"


def adopt_orphans(runtime: Runtime) -> int:
    """Give files without a row their row, and delete what reception left half done; return how many adopted.

    A file gets here when the process died between rename and commit. Its sender was not told that we have it
    and will most likely send it again; adopting it loses nothing and doubles nothing, because it is the same
    object under the same UID.
    """
    token = runtime.database.write(leases.acquire, "orphans", runtime.process_id, _ORPHAN_LEASE_S)
    if token is None:
        return 0
    try:
        for path in runtime.spool.stale_incoming(ORPHAN_AGE_S):
            path.unlink(missing_ok=True)
            log.warning("half_received_file_deleted", file=path.name)
        oldest = time.time() - ORPHAN_AGE_S
        old = (each for each in runtime.spool.objects() if each.modified_at < oldest)
        return sum(_adopt_unknown(runtime, group) for group in _groups(old, 500))
    finally:
        runtime.database.write(leases.release, "orphans", token)


def _groups(files: Iterator[StoredObject], size: int) -> Iterator[list[StoredObject]]:
    while group := list(islice(files, size)):
        yield group


def _adopt_unknown(runtime: Runtime, group: Sequence[SpooledFile]) -> int:
    known = runtime.database.read(images.known_hashes, [each.sha256 for each in group])
    return sum(_adopt(runtime, each) for each in _unknown(group, known))


def _unknown(group: Iterable[SpooledFile], known: set[str]) -> list[SpooledFile]:
    return [each for each in group if each.sha256 not in known]


def _adopt(runtime: Runtime, spooled: SpooledFile) -> bool:
    try:
        runtime.spool.read_verified(spooled.relative_path, spooled.sha256)
        header = read_header(runtime.spool.path(spooled.relative_path))
    except DicomIoError as error:
        log.warning("orphan_discarded", file=spooled.relative_path, error=str(error))
        runtime.spool.discard(spooled.relative_path)
        return False
    recorded = store(runtime, header, spooled, caller=None, dimse_priority=0)
    log.info("orphan_adopted", sop_instance_uid=header.sop_instance_uid, outcome=str(recorded.outcome))
    return True
