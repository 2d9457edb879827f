"""Removes files under the retention rules: images, reports and quarantined objects whose time is over.

What is removed are files. The rows of results stay, they are the record, and `file_removals` says which files
went and when. Every study is two short transactions of its own (`worker.store.retention`), so a removal is
never in the way of work, and one that was killed is finished by the next, whoever runs it.
"""

from __future__ import annotations

import os
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
"""Studies that one step of the sweep looks after at most."""
LEFTOVER_AGE_S = DAY_S
"""A report's file without a row is left alone for so long at least: it may be on its way."""
LEFTOVER = "LEFTOVER"
_PAGE = 100


@dataclass
class Removed:
    """What a purge removed: files and bytes by kind (`IMAGE`, `REPORT`, `QUARANTINE`, `LEFTOVER`).

    Attributes:
        last_study: Id of the last study that was looked after; where the next step goes on.
        complete: False when the limit was reached, or the process was asked to stop.
    """

    files: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)
    last_study: int = 0
    complete: bool = True

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
    while studies := database.read(retention.begun, _PAGE):
        for study_id in studies:
            for kind, size_bytes in database.write(retention.finish, study_id, files):
                removed.add(kind, size_bytes)


def purge(
    database: Database,
    files: SpoolFiles,
    rules: Sequence[Rule],
    *,
    after: int = 0,
    limit: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Removed:
    """Remove what the rules let go, study by study; first what an earlier purge left half done.

    Args:
        database: Where the rows are.
        files: Where the files are.
        rules: What may go; none: only what was begun is finished.
        after: Id of the study after which to begin.
        limit: Studies at most.
        stopping: Asked before each study.

    Raises:
        DatabaseError: The database cannot be reached; what was begun is finished next time.
        ForeignSpoolError: The spool is not there.
        OSError: A file cannot be removed.
    """
    removed = Removed(last_study=after)
    finish_begun(database, files, removed)
    for study_id in islice(_studies(database, rules, after), limit):
        if stopping():
            removed.complete = False
            return removed
        database.write(retention.begin, rules, study_id, files)
        for kind, size_bytes in database.write(retention.finish, study_id, files):
            removed.add(kind, size_bytes)
        removed.last_study = study_id
    removed.complete = not database.read(disposable.studies_with_files, rules, removed.last_study, 1)
    return removed


def _studies(database: Database, rules: Sequence[Rule], after: int) -> Iterator[int]:
    while page := database.read(disposable.studies_with_files, rules, after, _PAGE):
        yield from page
        after = page[-1]


def preview(database: Database, files: SpoolFiles, rules: Sequence[Rule]) -> list[Group]:
    """Return what `purge` would remove now, by kind, state and standing; nothing changes."""
    groups: dict[tuple[str, str, str], Group] = {}
    for study_id in _studies(database, rules, 0):
        for each in database.read(disposable.files_of, rules, study_id):
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
    for path in _leftovers(database, spool, older_than_s):
        stat = path.stat()
        sizes.append(stat.st_size)
        moments.append(datetime.fromtimestamp(stat.st_mtime, UTC))
    if not sizes:
        return []
    return [Group(LEFTOVER, "-", "-", len(sizes), sum(sizes), min(moments), max(moments))]


def remove_leftovers(database: Database, spool: Spool, older_than_s: float, removed: Removed) -> None:
    """Remove files of reports that no row stands for: made by an attempt that another one replaced."""
    for path in _leftovers(database, spool, older_than_s):
        size_bytes = path.stat().st_size
        path.unlink(missing_ok=True)
        log.info("leftover_report_removed", file=path.name)
        removed.add(LEFTOVER, size_bytes)


def _leftovers(database: Database, spool: Spool, older_than_s: float) -> Iterator[Path]:
    """Files in the reports' folder, old enough, of which the rows know nothing, or know that they went."""
    folder = spool.path("reports")
    if not folder.is_dir():
        return
    limit = spool.clock() - max(older_than_s, LEFTOVER_AGE_S)
    with os.scandir(folder) as entries:
        old = (Path(each.path) for each in entries if each.is_file() and each.stat().st_mtime < limit)
        while page := list(islice(old, _PAGE)):
            names = {f"reports/{path.name}": path for path in page}
            claimed = database.read(retention.claimed_report_files, list(names))
            yield from (path for name, path in names.items() if name not in claimed)


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
        stopping=runtime.stopping.is_set,
    )
    runtime.retained_up_to = 0 if removed.complete else removed.last_study
    if removed.complete and settings.reports_days:
        remove_leftovers(runtime.database, runtime.spool, settings.reports_days * DAY_S, removed)
    if removed.files:
        log.info("files_removed", files=dict(removed.files), size_bytes=removed.size_bytes.total())
    return removed
