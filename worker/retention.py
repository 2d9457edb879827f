"""Removes files under the retention rules: images, reports and quarantined objects whose time is over.

What is removed are files. The rows of results stay, they are the record, and `file_removals` says which files
went and when. Every study is two short transactions of its own (`worker.store.retention`), so a removal is
never in the way of work, and one that was killed is finished by the next, whoever runs it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import structlog

from dicom_io.spool import Spool
from worker.runtime import Runtime
from worker.settings import RetentionSettings
from worker.spool_files import SpoolFiles
from worker.store import disposable, retention
from worker.store.disposable import STATES, Kind, Rule, StoredFile
from worker.transactions import Database

log = structlog.get_logger(__name__)
DAY_S = 86_400.0
STUDIES_A_STEP = 500
"""Studies whose files one step of the sweep removes at most."""
WINDOWS_A_STEP = 50
"""Windows of studies that one step looks at at most: a big database takes several steps for a pass."""
LEFTOVER_AGE_S = DAY_S
"""A report's file without a row is left alone for so long at least: it may be on its way."""
LEFTOVER = "LEFTOVER"
WINDOW = 2000
"""Studies that one query looks at: some tens of milliseconds."""
MOST_STUCK = 20
"""Studies with a file that cannot be removed; with more it is the disk's matter, not a file's."""
_PAGE = 100
_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
"""Others write between two studies: twice as long as one took. SQLite's writers do not queue, they try again
after some milliseconds; without a pause, whoever is in the loop has the lock whenever they look."""


@dataclass
class Removed:
    """What a purge removed: files and bytes by kind (`IMAGE`, `REPORT`, `QUARANTINE`, `LEFTOVER`).

    Attributes:
        last_study: Id of the last study that was looked after; where the next step goes on.
        complete: False when a limit was reached, or the process was asked to stop.
        stuck: Studies with a file that could not be removed. It is tried again each time.
    """

    files: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)
    last_study: int = 0
    complete: bool = True
    stuck: int = 0

    def add(self, kind: str, size_bytes: int) -> None:
        """Count one file."""
        self.files[kind] += 1
        self.size_bytes[kind] += size_bytes


@dataclass(frozen=True)
class Group:
    """Files of one kind, state and standing that would go; the moments are those their age counts from."""

    kind: str
    state: str
    standing: str
    files: int
    size_bytes: int
    oldest: datetime
    newest: datetime


def rules_of(settings: RetentionSettings) -> list[Rule]:
    """Return what `[retention]` lets go: only what was delivered, in any state of its row."""
    ages = (
        (Kind.IMAGE, settings.images_days),
        (Kind.REPORT, settings.reports_days),
        (Kind.QUARANTINE, settings.quarantine_days),
    )
    return [Rule(kind, days * DAY_S, STATES[kind]) for kind, days in ages if days]


def finish_begun(database: Database, files: SpoolFiles, removed: Removed) -> None:
    """Finish what a process began that died: its rows say which files were about to go."""
    after = 0
    while studies := database.read(retention.begun, after, _PAGE):
        for study_id in studies:
            _finish(database, files, study_id, removed)
        after = studies[-1]


def _finish(database: Database, files: SpoolFiles, study_id: int, removed: Removed) -> None:
    """Remove the files of one study that were begun; one that does not go keeps no other from its turn."""
    try:
        for kind, size_bytes in database.write(retention.finish, study_id, files):
            removed.add(kind, size_bytes)
    except OSError as error:
        removed.stuck += 1
        log.error("file_not_removed", study=study_id, file=error.filename, error=error.strerror)
        if removed.stuck > MOST_STUCK:
            raise


def purge(
    database: Database,
    files: SpoolFiles,
    rules: Sequence[Rule],
    *,
    after: int = 0,
    limit: int | None = None,
    windows: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    pause: Callable[[float], object] = time.sleep,
) -> Removed:
    """Remove what the rules let go, study by study; first what an earlier purge left half done.

    Args:
        database: Where the rows are.
        files: Where the files are.
        rules: What may go; none: only what was begun is finished.
        after: Id of the study after which to begin.
        limit: Studies that lose files at most.
        windows: Windows of studies that are looked at at most.
        stopping: Asked before each study, and before each look for further ones.
        pause: Waits so many seconds, after each study.

    Raises:
        DatabaseError: The database cannot be reached; what was begun is finished next time.
        ForeignSpoolError: The spool is not there.
        OSError: Files of too many studies cannot be removed.
    """
    removed = Removed(last_study=after)
    finish_begun(database, files, removed)
    done = 0
    for number, (start, up_to) in enumerate(_windows(database, after) if rules else ()):
        removed.complete = False  # until this window is done
        if stopping() or number == windows:
            return removed
        for study_id in database.read(disposable.studies_with_files, rules, start, up_to):
            if stopping() or done == limit:
                return removed
            started = time.monotonic()
            database.write(retention.begin, rules, study_id, files)
            _finish(database, files, study_id, removed)
            pause(min(_LONGEST_PAUSE_S, max(_PAUSE_S, 2 * (time.monotonic() - started))))
            removed.last_study = study_id
            done += 1
        removed.last_study, removed.complete = up_to, True
    return removed


def _windows(database: Database, after: int) -> Iterator[tuple[int, int]]:
    """Ranges of study ids, (above, up to): each is looked at on its own, so that no query takes long."""
    while (up_to := database.read(disposable.window_end, after, WINDOW)) is not None:
        yield after, up_to
        after = up_to


def preview(database: Database, files: SpoolFiles, rules: Sequence[Rule]) -> list[Group]:
    """Return what `purge` would remove now, by kind, state and standing; nothing changes."""
    groups: dict[tuple[str, str, str], Group] = {}
    for start, up_to in _windows(database, 0):
        for each in database.read(disposable.files_of, rules, start, up_to):
            _count(groups, each, files.size(each.spool_path))
    return [groups[key] for key in sorted(groups)]


def _count(groups: dict[tuple[str, str, str], Group], each: StoredFile, size_bytes: int) -> None:
    key = (str(each.kind), each.state, str(each.standing))
    group = groups.get(key) or Group(*key, 0, 0, each.at, each.at)
    groups[key] = replace(
        group,
        files=group.files + 1,
        size_bytes=group.size_bytes + size_bytes,
        oldest=min(group.oldest, each.at),
        newest=max(group.newest, each.at),
    )


def preview_leftovers(database: Database, spool: Spool, older_than_s: float) -> list[Group]:
    """Return what `remove_leftovers` would remove now: one group, or none."""
    sizes, moments = [], []
    for _, stat in _leftovers(database, spool, older_than_s):
        sizes.append(stat.st_size)
        moments.append(datetime.fromtimestamp(stat.st_mtime, UTC))
    if not sizes:
        return []
    return [Group(LEFTOVER, "-", "-", len(sizes), sum(sizes), min(moments), max(moments))]


def remove_leftovers(database: Database, spool: Spool, older_than_s: float, removed: Removed) -> None:
    """Remove files of reports that no row stands for: made by an attempt that another one replaced."""
    for path, stat in _leftovers(database, spool, older_than_s):
        try:
            path.unlink()
        except FileNotFoundError:  # another process was faster, and counts it
            continue
        log.info("leftover_report_removed", file=path.name)
        removed.add(LEFTOVER, stat.st_size)


def _leftovers(
    database: Database, spool: Spool, older_than_s: float
) -> Iterator[tuple[Path, os.stat_result]]:
    """Files in the reports' folder, old enough, of which the rows know nothing, or know that they went."""
    folder = spool.path("reports")
    if not folder.is_dir():
        return
    limit = spool.clock() - max(older_than_s, LEFTOVER_AGE_S)
    with os.scandir(folder) as entries:
        looked_at = ((Path(each.path), _stat(each)) for each in entries if each.is_file())
        old = ((path, stat) for path, stat in looked_at if stat is not None and stat.st_mtime < limit)
        while page := list(islice(old, _PAGE)):
            claimed = database.read(
                retention.claimed_report_files, [f"reports/{path.name}" for path, _ in page]
            )
            yield from ((path, stat) for path, stat in page if f"reports/{path.name}" not in claimed)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Size and times of a file; None when it went since the folder was listed."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return None


def retain(runtime: Runtime) -> Removed:
    """One step of the sweep: finish what was begun, then remove what `[retention]` lets go, some studies."""
    settings = runtime.settings.retention
    files = SpoolFiles(runtime.spool, runtime.namespace)
    removed = purge(
        runtime.database,
        files,
        rules_of(settings),
        after=runtime.retained_up_to,
        limit=STUDIES_A_STEP,
        windows=WINDOWS_A_STEP,
        stopping=runtime.stopping.is_set,
        pause=runtime.stopping.wait,
    )
    runtime.retained_up_to = 0 if removed.complete else removed.last_study
    if removed.complete and settings.reports_days:
        remove_leftovers(runtime.database, runtime.spool, settings.reports_days * DAY_S, removed)
    if removed.files:
        log.info("files_removed", files=dict(removed.files), size_bytes=removed.size_bytes.total())
    return removed
