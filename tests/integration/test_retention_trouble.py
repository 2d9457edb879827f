"""Removal of files where something is in its way: a disk, another process, a crash, many studies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from factories.commands import ago
from factories.rows import Rows
from factories.runtime import make_runtime, rows, value
from sqlalchemy.orm import Session

from worker import retention as removal
from worker.errors import ForeignSpoolError
from worker.retention import Removed, preview, preview_leftovers, purge, remove_leftovers, retain
from worker.runtime import Runtime
from worker.spool_files import SpoolFiles
from worker.spool_marker import MARKER
from worker.store import disposable, retention
from worker.store.disposable import STATES, Kind, Rule
from worker.sweep import adopt_orphans

RULES = [Rule(kind, 86_400.0, STATES[kind]) for kind in Kind]
KEEP = {"images_days": 1, "reports_days": 1, "quarantine_days": 1}


@pytest.fixture
def runtime(tmp_path: Path, database_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=database_url, retention=KEEP)
    yield made
    made.close()


def store(runtime: Runtime, studies: int, quarantined: bool = False) -> list[str]:
    """Delivered studies of one image each, 40 days old; return the paths of their images."""
    paths = []
    with Session(runtime.database.engine) as session, session.begin():
        made = Rows(session)
        bundle = made.bundle(active=False)
        for number in range(1, studies + 1):
            study = made.study()
            paths.append(f"objects/{number:02x}/{number:064x}.dcm")
            runtime.spool.write_durable(paths[-1], b"x" * 100)
            image = made.image(study, spool_path=paths[-1], sha256=f"{number:064x}")
            made.header_version(image, received_at=ago(days=40))
            report = made.report(study, bundle, sha256="0" * 64, written_at=ago(days=40))
            made.delivery(report, state="ACCEPTED")
            if quarantined:
                path = f"quarantine/{number:064x}.dcm"
                runtime.spool.write_durable(path, b"y")
                made.quarantined(image, spool_path=path, resolved_at=ago(days=40))
    return paths


def files_of(runtime: Runtime) -> SpoolFiles:
    return SpoolFiles(runtime.spool, runtime.namespace)


def purged(runtime: Runtime, rules: Any = RULES) -> Removed:
    return purge(runtime.database, files_of(runtime), rules)


def test_a_file_that_cannot_be_removed_keeps_no_other_from_its_turn(runtime: Runtime) -> None:
    first, second = store(runtime, 2)
    remove = SpoolFiles.remove

    def stuck(files: SpoolFiles, path: str) -> None:
        if path == first:
            raise PermissionError(1, "Operation not permitted", path)
        remove(files, path)

    with patch.object(SpoolFiles, "remove", stuck):
        for _ in range(2):  # the second run begins with what the first one could not finish
            removed = purged(runtime)
            assert removed.stuck == 1
            assert not runtime.spool.path(second).exists()
    assert runtime.spool.path(first).exists()
    assert purged(runtime).files == {"IMAGE": 1}
    assert not runtime.spool.path(first).exists()


def test_a_disk_that_removes_nothing_ends_the_run(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "MOST_STUCK", 1)
    store(runtime, 3)
    broken = OSError(30, "Read-only file system")
    with patch.object(SpoolFiles, "remove", side_effect=broken), pytest.raises(OSError, match="Read-only"):
        purged(runtime)
    assert value(runtime, "SELECT count(*) FROM file_removals") == 2


def test_a_spool_that_vanishes_leaves_no_row_of_files_without_size(runtime: Runtime) -> None:
    (path,) = store(runtime, 1)
    runtime.spool.path(MARKER).unlink()
    runtime.spool.path(path).unlink()
    with pytest.raises(ForeignSpoolError):
        purged(runtime)
    assert value(runtime, "SELECT count(*) FROM file_removals") == 0


def test_every_study_is_looked_at_once_however_rare_the_files_of_a_rule_are(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "WINDOW", 2)
    store(runtime, 5)
    looked: list[tuple[int, int]] = []
    find = disposable.studies_with_files

    def seen(tx: Any, rules: Any, after: int, up_to: int) -> list[int]:
        looked.append((after, up_to))
        return find(tx, rules, after, up_to)

    with patch.object(disposable, "studies_with_files", seen):
        assert purged(runtime).files == {"IMAGE": 5}
    assert looked == [(0, 2), (2, 4), (4, 5)]
    # And likewise for a dry run
    with patch.object(disposable, "files_of", wraps=disposable.files_of) as asked:
        assert preview(runtime.database, files_of(runtime), RULES) == []
    assert asked.call_count == 3


def test_others_write_between_two_studies(runtime: Runtime) -> None:
    store(runtime, 2)
    pauses: list[float] = []
    purge(runtime.database, files_of(runtime), RULES, pause=pauses.append)
    assert len(pauses) == 2
    assert all(0.02 <= each <= 1 for each in pauses)


def test_a_stop_is_heard_where_nothing_is_found(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "WINDOW", 1)
    store(runtime, 3)
    purged(runtime)
    answers = iter((False, True))
    removed = purge(runtime.database, files_of(runtime), RULES, stopping=lambda: next(answers))
    assert (removed.complete, removed.last_study) == (False, 1)


def test_a_quarantined_file_that_is_there_again_is_known_to_be(runtime: Runtime) -> None:
    # Given a file that went, and that a power failure, or a process that died as it came again, brought back
    store(runtime, 1, quarantined=True)
    assert purged(runtime).files == {"IMAGE": 1, "QUARANTINE": 1}
    path = f"quarantine/{1:064x}.dcm"
    runtime.spool.write_durable(path, b"y")
    adopt_orphans(runtime)
    assert rows(runtime, "SELECT kind FROM file_removals") == [{"kind": "IMAGE"}]
    assert purged(runtime).files == {"QUARANTINE": 1}
    assert not runtime.spool.path(path).exists()


def test_a_removal_while_the_spool_is_scanned_is_no_file_found_again(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = store(runtime, 1)
    os.utime(runtime.spool.path(path), (1, 1))
    with patch.object(retention, "ended", side_effect=lambda tx, paths: purged(runtime) and list(paths)):
        adopt_orphans(runtime)
    assert value(runtime, "SELECT count(*) FROM file_removals") == 1
    assert "removed_file_found_again" not in "".join(capsys.readouterr())


def test_two_processes_may_remove_leftovers_at_once(runtime: Runtime) -> None:
    for name in ("1.9.1", "1.9.2"):
        runtime.spool.write_durable(f"reports/{name}.dcm", b"left")
        os.utime(runtime.spool.path(f"reports/{name}.dcm"), (1, 1))
    ask = retention.claimed_report_files

    def other_was_faster(tx: Any, paths: list[str]) -> set[str]:
        runtime.spool.discard(paths[0])
        return ask(tx, paths)

    assert preview_leftovers(runtime.database, runtime.spool, 0.0)[0].files == 2
    removed = Removed()
    with patch.object(retention, "claimed_report_files", other_was_faster):
        remove_leftovers(runtime.database, runtime.spool, 0.0, removed)
    assert not list(runtime.spool.path("reports").iterdir())
    assert removed.files == {"LEFTOVER": 1}


def test_a_step_of_the_sweep_says_what_it_could_not_remove(runtime: Runtime) -> None:
    store(runtime, 1)
    with patch.object(SpoolFiles, "remove", side_effect=PermissionError(1, "Operation not permitted")):
        assert retain(runtime).stuck == 1
    assert retain(runtime).files == {"IMAGE": 1}
