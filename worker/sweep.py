"""Finds what time has made due, and what a crash has left behind. Losing every message loses nothing.

A sweep is idempotent and may run in any number of processes: every transition it makes is one statement that
checks the row's state. What touches files runs under a lease, once at a time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import psutil
import structlog
from sqlalchemy import Connection

from dicom_io.errors import DicomIoError
from dicom_io.header import read_header
from dicom_io.spool import StoredObject
from worker.delivery import add_missing
from worker.dispatch import Job
from worker.errors import DatabaseError
from worker.intake import adopt, close_left
from worker.runtime import Runtime
from worker.spool_files import SpoolFiles
from worker.store import deliveries, documents, images, leases, processes, retention, studies

log = structlog.get_logger(__name__)
T = TypeVar("T")
SILENT_S = 60.0
"""A process not seen for so long is dead: what it held is released."""
ORPHAN_AGE_S = 600.0
"""A file younger than this may be on its way to its row; ample, because clocks jump and disks stall."""
HALF_RECEIVED_AGE_S = 3600.0
"""A file in reception that has not grown for so long is nobody's: no association may be silent so long."""
_ORPHAN_LEASE_S = 600.0


def sweep(runtime: Runtime) -> None:
    """Look once: close what is due, release what dead processes hold, wake what waits."""
    database, policy = runtime.database, runtime.closing_policy
    alive(runtime)
    for process_id in database.read(
        processes.silent, max(SILENT_S, 3 * runtime.settings.jobs.sweep_interval_s)
    ):
        if process_id != runtime.process_id:
            _bury(runtime, process_id)
    for study_id, _ in database.write(studies.close_due, policy):
        log.info("study_closed", study=study_id, by="time")
    add_missing(runtime)
    wake_due(runtime)


def alive(runtime: Runtime) -> None:
    """Say that this process lives, and what it could not say before."""
    runtime.database.write(processes.seen, runtime.process_id)
    close_left(runtime)


def wake_due(runtime: Runtime) -> None:
    """Wake whatever is due and in nobody's hands, as far as the dispatcher has room for it."""
    database, dispatcher = runtime.database, runtime.dispatcher
    for instance_id, priority in _offer(runtime, Job.ANALYSE, images.due):
        dispatcher.wake(Job.ANALYSE, instance_id, priority)
    for study_id, priority in _offer(runtime, Job.REPORT, studies.unreported):
        dispatcher.wake(Job.REPORT, study_id, priority)
    for study_id, priority in _offer(runtime, Job.REPORT, documents.due_studies):
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
    and will most likely send it again. It becomes an image only when its UID is unknown: what came under that
    UID since was acknowledged, and is newer.
    """
    token = runtime.database.write(leases.acquire, "orphans", runtime.process_id, _ORPHAN_LEASE_S)
    if token is None:
        return 0
    try:
        silent_s = 2 * runtime.settings.listener.network_timeout_s
        for path in runtime.spool.stale_incoming(max(HALF_RECEIVED_AGE_S, silent_s)):
            path.unlink(missing_ok=True)
            log.warning("half_received_file_deleted", file=path.name)
        _say_what_is_back(runtime, runtime.spool.quarantined())
        oldest = runtime.spool.clock() - ORPHAN_AGE_S  # the files' own clock: this machine's may be another's
        return sum(
            _look_through(runtime, folder, changed_ns, oldest)
            for folder, changed_ns in runtime.spool.folders()
            if runtime.settled_folders.get(folder) != changed_ns
        )
    finally:
        runtime.database.write(leases.release, "orphans", token)


def _look_through(runtime: Runtime, folder: str, changed_ns: int, oldest: float) -> int:
    """Put one folder right; remember it when nothing in it has to be looked at again before it changes."""
    files = list(runtime.spool.objects(folder))
    old = [each for each in files if each.modified_at < oldest]
    outcomes = [outcome for group in _groups(iter(old), 500) for outcome in _adopt_group(runtime, group)]
    if len(old) == len(files) and changed_ns < oldest * 1e9 and None not in outcomes:
        runtime.settled_folders[folder] = changed_ns
    return outcomes.count(True)


def _groups(files: Iterator[T], size: int) -> Iterator[list[T]]:
    while group := list(islice(files, size)):
        yield group


def _adopt_group(runtime: Runtime, group: Sequence[StoredObject]) -> list[bool | None]:
    """Put files right that have no row; return for each whether it was adopted, None when it was left."""
    known = runtime.database.read(images.known_hashes, [each.sha256 for each in group])
    _say_what_is_back(runtime, (each.relative_path for each in group if each.sha256 in known))
    unknown = [each for each in group if each.sha256 not in known]
    aside = runtime.database.read(images.quarantined_hashes, [each.sha256 for each in unknown])
    return [_put_right(runtime, each, aside=each.sha256 in aside) for each in unknown]


def _say_what_is_back(runtime: Runtime, paths: Iterator[str]) -> None:
    """Files that went under the retention rules and are there again: received anew by a process that died."""
    files = SpoolFiles(runtime.spool, runtime.namespace)
    for group in _groups(paths, 500):
        for path in runtime.database.read(retention.ended, group):
            if runtime.database.write(retention.came_back, path, files):
                log.warning("removed_file_found_again", file=path)


def _put_right(runtime: Runtime, found: StoredObject, *, aside: bool) -> bool | None:
    """Adopt, quarantine or discard one file; one that cannot be handled keeps no other from its turn."""
    try:
        if aside:
            runtime.spool.quarantine(found)
            log.warning("conflict_quarantined", file=found.relative_path)
            return False
        return _adopt(runtime, found)
    except DatabaseError:
        raise  # no file's fault
    except Exception as error:  # whatever it is: the other files have to come to their rows
        log.error("orphan_left", file=found.relative_path, error=type(error).__name__)
        return None


def _adopt(runtime: Runtime, found: StoredObject) -> bool:
    try:
        runtime.spool.read_verified(found.relative_path, found.sha256)
        header = read_header(runtime.spool.path(found.relative_path))
    except DicomIoError as error:
        _discard(runtime, found, error.reason_code)
        return False
    recorded = adopt(runtime, header, found)
    if recorded is None:
        _set_aside(runtime, found, header.sop_instance_uid)
        return False
    log.info("orphan_adopted", sop_instance_uid=header.sop_instance_uid, instance=recorded.instance_id)
    return True


def _set_aside(runtime: Runtime, found: StoredObject, sop_instance_uid: str) -> None:
    """Keep a sound file whose UID another row has: after a database restore it may be acknowledged."""
    referred_to = runtime.database.read(images.known_hashes, [found.sha256])
    if not referred_to and runtime.spool.is_unchanged(found):
        runtime.spool.quarantine(found)
        log.warning("orphan_quarantined", file=found.relative_path, sop_instance_uid=sop_instance_uid)


def _discard(runtime: Runtime, found: StoredObject, reason: str, **about: str) -> None:
    """Delete a file that was never acknowledged, unless it became somebody's while we looked at it."""
    referred_to = runtime.database.read(images.known_hashes, [found.sha256])
    if not referred_to and runtime.spool.discard_unchanged(found):
        log.warning("orphan_discarded", file=found.relative_path, reason=reason, **about)
