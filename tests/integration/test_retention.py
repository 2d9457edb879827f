"""Removal of files: what may go, what may not, and a kill between any two steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from factories.runtime import (
    analyse_all,
    close_studies,
    execute,
    fundus_of_grade,
    make_runtime,
    offer,
    past,
    report_all,
    rows,
    run_to_report,
    value,
)

from worker.errors import ForeignSpoolError
from worker.intake import Intake
from worker.retention import Removed, preview, purge, remove_leftovers, retain
from worker.runtime import Runtime
from worker.spool_files import SpoolFiles
from worker.spool_marker import MARKER
from worker.store import deliveries, disposable, exporting, overview, retention
from worker.store.disposable import STATES, Kind, Rule, Standing
from worker.sweep import adopt_orphans

HALF_A_DAY_S = 43_200.0
PACS = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
KEEP = {"images_days": 0.5, "reports_days": 0.5, "quarantine_days": 0.5}
_NAMED = """
SELECT spool_path FROM header_versions UNION SELECT spool_path FROM quarantined
UNION SELECT spool_path FROM reports WHERE spool_path IS NOT NULL
"""


class KilledError(BaseException):
    """The process ended here."""


@pytest.fixture
def runtime(tmp_path: Path, database_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=database_url, destination=[PACS], retention=KEEP)
    yield made
    made.close()


def rule(kind: Kind = Kind.IMAGE, **options: Any) -> Rule:
    return Rule(kind, HALF_A_DAY_S, STATES[kind], **options)


ALL = [rule(kind) for kind in Kind]


def spool_files(runtime: Runtime) -> SpoolFiles:
    return SpoolFiles(runtime.spool, runtime.namespace)


def purged(runtime: Runtime, *rules: Rule) -> dict[str, int]:
    """Files that a purge removes, by kind."""
    return dict(purge(runtime.database, spool_files(runtime), rules or ALL).files)


def photograph(study: int = 1, number: int = 1, **options: Any) -> Any:
    return fundus_of_grade(0, study_uid=f"1.2.{study}", sop_uid=f"1.2.{study}.{number}", **options)


def settle(runtime: Runtime, state: str = "ACCEPTED") -> None:
    """Report every study, have its report delivered, and let a day go by."""
    Intake(runtime).association_closed(_caller(), "RELEASED")
    run_to_report(runtime)
    execute(runtime, "UPDATE deliveries SET state = :state WHERE state = 'PENDING'", state=state)
    grow_old(runtime)


def grow_old(runtime: Runtime) -> None:
    for table, column in (
        ("studies", "created_at"),
        ("header_versions", "received_at"),
        ("reports", "written_at"),
        ("quarantined", "resolved_at"),
    ):
        past(runtime, table, column)


def _caller() -> Any:
    from factories.runtime import CALLER

    return CALLER


def named(runtime: Runtime) -> set[str]:
    return {each["spool_path"] for each in rows(runtime, _NAMED)}


def on_disk(runtime: Runtime) -> set[str]:
    root = runtime.spool.incoming.parent
    folders = ("objects", "reports", "quarantine")
    return {str(path.relative_to(root)) for each in folders for path in (root / each).rglob("*.dcm")}


def removals(runtime: Runtime, where: str = "1 = 1") -> set[str]:
    found = rows(runtime, f"SELECT spool_path FROM file_removals WHERE {where}")  # noqa: S608 - a test's own
    return {each["spool_path"] for each in found}


def assert_rows_and_files_agree(runtime: Runtime) -> None:
    """No row claims a file that is not there without saying so, and no file is unknown."""
    disk = on_disk(runtime)
    assert named(runtime) - disk <= removals(runtime)
    assert disk <= named(runtime)
    assert not removals(runtime, "ended_at IS NOT NULL") & disk


def test_files_of_delivered_studies_go_and_rows_of_results_stay(runtime: Runtime) -> None:
    # Given two images of a study whose report was delivered
    for number in (1, 2):
        assert offer(runtime, photograph(number=number)) == 0
    settle(runtime)
    before = [value(runtime, f"SELECT count(*) FROM {each}") for each in ("v_results", "v_eye_results")]  # noqa: S608
    groups = preview(runtime.database, spool_files(runtime), ALL)
    size = sum(runtime.spool.path(each).stat().st_size for each in on_disk(runtime))
    # Then a look says what would go, and changes nothing
    assert [(g.kind, g.state, g.standing, g.files) for g in groups] == [
        ("IMAGE", "ANALYSED", "DELIVERED", 2),
        ("REPORT", "WRITTEN", "DELIVERED", 1),
    ]
    assert sum(group.size_bytes for group in groups) == size
    assert all(group.oldest <= group.newest for group in groups)
    assert removals(runtime) == set()
    # And the purge removes it
    assert purged(runtime) == {"IMAGE": 2, "REPORT": 1}
    assert on_disk(runtime) == set()
    assert removals(runtime, "ended_at IS NOT NULL") == named(runtime)
    assert value(runtime, "SELECT sum(size_bytes) FROM v_removed_files") == size
    after = [value(runtime, f"SELECT count(*) FROM {each}") for each in ("v_results", "v_eye_results")]  # noqa: S608
    assert after == before
    assert purged(runtime) == {}


def test_what_is_young_stays(runtime: Runtime) -> None:
    offer(runtime, photograph())
    Intake(runtime).association_closed(_caller(), "RELEASED")
    run_to_report(runtime)
    execute(runtime, "UPDATE deliveries SET state = 'ACCEPTED'")
    assert purged(runtime) == {}
    assert_rows_and_files_agree(runtime)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE instances SET state = 'RECEIVED'",
        "UPDATE studies SET state = 'OPEN'",
        "UPDATE studies SET content_version = content_version + 1",
        "UPDATE studies SET withheld_reason = 'UID_CONFLICT'",
        "UPDATE studies SET claim_expires_at = '2999-01-01 00:00:00.000000'",
        "UPDATE associations SET closed_at = NULL",
        "UPDATE deliveries SET state = 'PENDING'",
        "UPDATE deliveries SET state = 'DEAD'",
        "DELETE FROM deliveries",
        "UPDATE reports SET sha256 = NULL",
        "UPDATE reports SET state = 'PENDING'",
    ],
)
def test_what_is_in_work_or_was_not_delivered_stays(runtime: Runtime, statement: str) -> None:
    offer(runtime, photograph())
    settle(runtime)
    execute(runtime, statement)
    assert preview(runtime.database, spool_files(runtime), ALL) == []
    assert purged(runtime) == {}
    assert on_disk(runtime) == named(runtime)


@pytest.mark.parametrize(
    ("statement", "standing"),
    [
        ("UPDATE deliveries SET state = 'DEAD'", Standing.DEAD),
        ("DELETE FROM deliveries", Standing.UNSENT),
    ],
)
def test_dead_letters_and_what_was_never_sent_go_when_asked_for(
    runtime: Runtime, statement: str, standing: Standing
) -> None:
    offer(runtime, photograph())
    settle(runtime)
    execute(runtime, statement)
    chosen = [rule(kind, standings=(standing,)) for kind in (Kind.IMAGE, Kind.REPORT)]
    assert purged(runtime, *chosen) == {"IMAGE": 1, "REPORT": 1}
    # A report without its file is not sent again
    found = runtime.database.read(overview.dead_deliveries, destination=None, study_instance_uid=None)
    assert found == []


def test_a_destination_that_has_to_commit_keeps_the_files_until_it_did(runtime: Runtime) -> None:
    offer(runtime, photograph())
    settle(runtime)
    assert purged(runtime, rule(committing=("pacs",))) == {}
    execute(runtime, "UPDATE deliveries SET state = 'COMMITTED'")
    assert purged(runtime, rule(committing=("pacs",))) == {"IMAGE": 1}


def test_only_images_of_a_state(runtime: Runtime) -> None:
    offer(runtime, photograph())
    settle(runtime)
    refused = Rule(Kind.IMAGE, HALF_A_DAY_S, ("REFUSED",))
    assert purged(runtime, refused) == {}
    execute(runtime, "UPDATE instances SET state = 'REFUSED', reason_code = 'INTERNAL_ERROR'")
    assert purged(runtime, refused) == {"IMAGE": 1}
    # And one without a file is not analysed again, nor exported
    criteria: dict[str, Any] = dict.fromkeys(("sop_instance_uid", "reason_code", "study_instance_uid"))
    assert runtime.database.read(overview.refused_instances, **criteria) == []
    stocks = runtime.database.read(exporting.cameras)
    assert runtime.database.read(exporting.images_of, stocks, None, None) == []


def test_old_headers_and_superseded_reports_go_too(runtime: Runtime) -> None:
    # Given an image that was corrected: two files of one image, two reports
    offer(runtime, photograph())
    settle(runtime)
    offer(runtime, photograph(laterality="L"))
    settle(runtime)
    assert len(on_disk(runtime)) == 4
    assert purged(runtime) == {"IMAGE": 2, "REPORT": 2}
    assert_rows_and_files_agree(runtime)


def test_a_resolved_conflict_lets_the_file_aside_go(runtime: Runtime) -> None:
    offer(runtime, photograph())
    other = fundus_of_grade(2, study_uid="1.2.1", sop_uid="1.2.1.1")
    assert offer(runtime, other) == 0
    settle(runtime)
    assert purged(runtime) == {}  # undecided
    execute(runtime, "UPDATE instances SET uid_conflict = false")
    execute(runtime, "UPDATE quarantined SET resolved_at = received_at")
    execute(runtime, "UPDATE studies SET withheld_reason = NULL")
    settle(runtime)
    assert purged(runtime, rule(Kind.QUARANTINE)) == {"QUARANTINE": 1}
    # The same bytes again are aside again, and known to be there
    assert offer(runtime, other) == 0
    assert removals(runtime) == set()
    assert_rows_and_files_agree(runtime)


def _steps(runtime: Runtime, end_after: int) -> Any:
    """Patches that end the process before step `end_after`: each transaction, before and after, each file."""
    count = 0
    write, remove = runtime.database.write, SpoolFiles.remove

    def step() -> None:
        nonlocal count
        count += 1
        if count > end_after:
            raise KilledError

    def counted_write(work: Any, *arguments: Any, **options: Any) -> Any:
        step()
        result = write(work, *arguments, **options)
        step()
        return result

    def counted_remove(files: SpoolFiles, path: str) -> None:
        step()
        remove(files, path)
        step()

    return (
        patch.object(runtime.database, "write", counted_write),
        patch.object(SpoolFiles, "remove", counted_remove),
    )


def test_a_kill_between_any_two_steps_leaves_rows_and_files_that_agree(runtime: Runtime) -> None:
    # Given two studies of two images each
    ends = 0
    while True:
        for study in (2 * ends + 1, 2 * ends + 2):
            for number in (1, 2):
                assert offer(runtime, photograph(study, number)) == 0
        settle(runtime)
        # When the process ends at its next step but `ends`
        patches = _steps(runtime, ends)
        try:
            with patches[0], patches[1]:
                purged(runtime)
            finished = True
        except KilledError:
            finished = False
        # Then nothing is claimed that is gone, nothing unknown; and the next run finishes
        assert_rows_and_files_agree(runtime)
        purged(runtime)
        assert on_disk(runtime) == set()
        assert removals(runtime, "ended_at IS NULL") == set()
        assert_rows_and_files_agree(runtime)
        if finished:
            break
        ends += 1
    assert ends == 20  # of two studies: two transactions and three files each, before and after


def test_what_was_begun_is_finished_by_the_sweep_even_when_it_is_off(runtime: Runtime) -> None:
    offer(runtime, photograph())
    settle(runtime)
    (study_id,) = runtime.database.read(disposable.studies_with_files, ALL, 0, 10)
    runtime.database.write(retention.begin, ALL, study_id, spool_files(runtime))
    assert purge(runtime.database, spool_files(runtime), []).files == {"IMAGE": 1, "REPORT": 1}
    assert on_disk(runtime) == set()


def test_work_that_comes_between_begin_and_finish_keeps_the_files(runtime: Runtime) -> None:
    offer(runtime, photograph())
    settle(runtime)
    study_id = value(runtime, "SELECT id FROM studies")
    files = spool_files(runtime)
    assert runtime.database.write(retention.begin, ALL, study_id, files) == 2
    # When a second image comes in, and one file is gone already
    offer(runtime, photograph(number=2))
    files.remove(value(runtime, "SELECT spool_path FROM reports"))
    # Then what is there stays, and what is gone is said to be
    assert len(runtime.database.write(retention.finish, study_id, files)) == 1
    assert removals(runtime) == {value(runtime, "SELECT spool_path FROM reports")}
    assert_rows_and_files_agree(runtime)


def test_the_same_bytes_again_are_known_to_be_there_and_go_again(runtime: Runtime) -> None:
    image = photograph()
    offer(runtime, image)
    settle(runtime)
    assert purged(runtime, rule()) == {"IMAGE": 1}
    assert offer(runtime, image) == 0
    assert removals(runtime) == set()
    assert value(runtime, "SELECT state FROM instances") == "ANALYSED"
    assert_rows_and_files_agree(runtime)
    Intake(runtime).association_closed(_caller(), "RELEASED")
    execute(runtime, "UPDATE associations SET closed_at = opened_at")
    assert purged(runtime, rule()) == {"IMAGE": 1}


def test_a_file_that_vanishes_while_it_comes_again_is_not_acknowledged(runtime: Runtime) -> None:
    image = photograph()
    offer(runtime, image)
    settle(runtime)
    assert purged(runtime, rule()) == {"IMAGE": 1}
    with patch.object(SpoolFiles, "size", return_value=0):
        assert offer(runtime, image) == 0xA700  # for now: the sender tries again
    assert len(removals(runtime)) == 1


def test_a_removed_file_that_a_dead_process_received_again_is_found(runtime: Runtime) -> None:
    image = photograph()
    offer(runtime, image)
    settle(runtime)
    purged(runtime, rule())
    temporary = runtime.spool.incoming / "x.part"
    image.save_as(temporary, enforce_file_format=True)
    path = runtime.spool.path(runtime.spool.place(temporary).relative_path)
    os.utime(path, (1, 1))
    adopt_orphans(runtime)
    assert removals(runtime) == set()
    assert_rows_and_files_agree(runtime)


def test_a_study_that_is_reported_anew_after_its_images_went(runtime: Runtime) -> None:
    # Given a study whose image is gone
    offer(runtime, photograph())
    settle(runtime)
    purged(runtime)
    # When another comes, its report states the finding of the first one as well
    offer(runtime, photograph(number=2, laterality="L"))
    settle(runtime)
    eyes = rows(runtime, "SELECT laterality, grade FROM v_eye_results WHERE revision = 2")
    assert {each["laterality"] for each in eyes} == {"R", "L"}


def test_a_revision_with_nothing_left_to_copy_from_waits_until_an_image_comes_again(runtime: Runtime) -> None:
    # Given a study of two images that went, and the second one corrected into another study
    first = photograph()
    for image in (first, photograph(number=2)):
        offer(runtime, image)
    settle(runtime)
    purged(runtime)
    offer(runtime, fundus_of_grade(0, study_uid="1.2.2", sop_uid="1.2.1.2"))
    settle(runtime)
    withheld = "SELECT withheld_reason FROM studies WHERE study_instance_uid = '1.2.1'"
    assert value(runtime, withheld) == "SPOOL_FILE_DAMAGED"
    assert purged(runtime) == {"IMAGE": 1, "REPORT": 1}  # of the other study, which has its report
    # When the first one is sent again
    assert offer(runtime, first) == 0
    past(runtime, "studies", "due_at")
    settle(runtime)
    # Then the revision is written
    assert value(runtime, withheld) is None
    assert value(runtime, "SELECT max(revision) FROM reports WHERE study_instance_uid = '1.2.1'") == 2


def test_an_image_whose_file_went_cannot_be_read_by_other_models(runtime: Runtime) -> None:
    image = photograph()
    offer(runtime, image)
    settle(runtime)
    purged(runtime, rule())
    execute(runtime, "UPDATE instances SET state = 'RECEIVED'")
    past(runtime, "instances", "due_at")
    analyse_all(runtime)
    assert rows(runtime, "SELECT state, reason_code FROM instances") == [
        {"state": "REFUSED", "reason_code": "FILE_PURGED"}
    ]
    # Until it is sent again
    assert offer(runtime, image) == 0
    analyse_all(runtime)
    assert value(runtime, "SELECT state FROM instances") == "ANALYSED"


def test_a_new_destination_gets_no_report_whose_file_went(runtime: Runtime) -> None:
    offer(runtime, photograph())
    settle(runtime)
    assert len(runtime.database.read(deliveries.missing, "archive", 10)) == 1
    purged(runtime, rule(Kind.REPORT))
    assert runtime.database.read(deliveries.missing, "archive", 10) == []
    report_all(runtime)
    assert value(runtime, "SELECT count(*) FROM reports") == 1


def test_a_spool_that_is_not_there_is_not_taken_for_removed_files(runtime: Runtime) -> None:
    offer(runtime, photograph())
    settle(runtime)
    runtime.spool.path(MARKER).unlink()
    with pytest.raises(ForeignSpoolError):
        purged(runtime)
    assert removals(runtime, "ended_at IS NOT NULL") == set()


def test_files_of_abandoned_attempts_at_a_report_go(runtime: Runtime) -> None:
    # Given a file that no row stands for, old; one that is young; one that a row stands for
    offer(runtime, photograph())
    settle(runtime)
    for name in ("1.9.1", "1.9.2"):
        runtime.spool.write_durable(f"reports/{name}.dcm", b"left")
    os.utime(runtime.spool.path("reports/1.9.1.dcm"), (1, 1))
    current = runtime.spool.path(value(runtime, "SELECT spool_path FROM reports"))
    os.utime(current, (1, 1))
    removed = Removed()
    remove_leftovers(runtime.database, runtime.spool, 0.0, removed)
    assert (dict(removed.files), removed.size_bytes["LEFTOVER"]) == ({"LEFTOVER": 1}, 4)
    assert current.exists()
    assert runtime.spool.path("reports/1.9.2.dcm").exists()


def test_the_file_of_a_pending_report_that_was_replaced_goes(runtime: Runtime) -> None:
    # Given an attempt at a report that had its file, and was overtaken by a late image
    offer(runtime, photograph())
    analyse_all(runtime)
    close_studies(runtime)
    real = runtime.spool.write_durable

    def meanwhile(path: str, data: bytes) -> None:
        real(path, data)
        offer(runtime, photograph(number=2))

    with patch.object(runtime.spool, "write_durable", meanwhile):
        report_all(runtime)
    attempt = value(runtime, "SELECT sop_instance_uid FROM reports")
    abandoned = runtime.spool.path(f"reports/{attempt}.dcm")
    settle(runtime)
    current = runtime.spool.path(value(runtime, "SELECT spool_path FROM reports"))
    assert abandoned.exists()
    assert abandoned != current
    for path in (abandoned, current):
        os.utime(path, (1, 1))
    # When what nobody stands for is removed
    remove_leftovers(runtime.database, runtime.spool, 0.0, Removed())
    # Then it goes, and the report that took its place stays
    assert not abandoned.exists()
    assert current.exists()


def test_the_sweep_goes_on_where_it_stopped(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.retention.STUDIES_A_STEP", 1)
    for study in (1, 2):
        offer(runtime, photograph(study))
    settle(runtime)
    assert retain(runtime).complete is False
    assert runtime.retained_up_to > 0
    assert retain(runtime).complete is True
    assert runtime.retained_up_to == 0
    assert on_disk(runtime) == set()


def test_a_process_that_stops_begins_nothing_more(runtime: Runtime) -> None:
    offer(runtime, photograph())
    settle(runtime)
    runtime.stopping.set()
    assert retain(runtime).files == {}
    assert removals(runtime) == set()


def test_nothing_goes_by_itself_unless_the_settings_say_so(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, destination=[PACS])
    try:
        offer(runtime, photograph())
        settle(runtime)
        runtime.spool.write_durable("reports/1.9.1.dcm", b"left")
        os.utime(runtime.spool.path("reports/1.9.1.dcm"), (1, 1))
        assert retain(runtime).files == {}
        assert len(on_disk(runtime)) == 3
    finally:
        runtime.close()
