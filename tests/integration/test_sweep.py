from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from factories.runtime import (
    analyse_all,
    caller,
    execute,
    fundus_of_grade,
    let_time_pass,
    make_runtime,
    offer,
    past,
    row,
    rows,
    run_to_report,
    value,
    woken,
)

from worker.dispatch import Job, SilentDispatcher
from worker.errors import DatabaseUnreachableError, ForeignSpoolError
from worker.intake import Intake
from worker.runtime import Runtime
from worker.store import door, images, leases, processes, studies
from worker.sweep import adopt_orphans, alive, recover, refuse_damaged, sweep, wake_due

DEAD = "dead-process"
RULES_BY_CALLER = """
schema_version: 1
rules:
  - {name: other, camera: other-camera, when: {model: VX-10, calling_ae: CAMERA}}
  - {name: kowa, camera: kowa-vx-10, when: {model: VX-10}}
"""


@pytest.fixture
def runtime(tmp_path: Path, database_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=database_url)
    yield made
    made.close()


def _offered(runtime: Runtime, number: int = 1, **options: Any) -> Any:
    ds = fundus_of_grade(2, study_uid="1.2.3", sop_uid=f"1.2.3.{number}", **options)
    assert offer(runtime, ds) == 0
    return ds


def _leave_a_dead_process(runtime: Runtime, host: str = "elsewhere", pid: int = 1) -> None:
    """What a process that was killed leaves behind."""
    runtime.database.write(processes.started, DEAD, "serve", host, pid)
    assert runtime.database.write(images.claim, value(runtime, "SELECT id FROM instances"), DEAD, 3600.0)
    assert runtime.database.write(leases.acquire, "deliver:pacs", DEAD, 3600.0)
    execute(runtime, "UPDATE associations SET process_id = :dead", dead=DEAD)


def _held(runtime: Runtime) -> tuple[Any, ...]:
    return (
        value(runtime, "SELECT claim_owner FROM instances"),
        value(runtime, "SELECT count(*) FROM leases"),
        value(runtime, "SELECT outcome FROM associations"),
    )


class TestDeadProcesses:
    def test_what_one_held_is_released_when_it_was_silent_for_long(self, runtime: Runtime) -> None:
        _offered(runtime)
        _leave_a_dead_process(runtime)
        sweep(runtime)
        assert _held(runtime) == (DEAD, 1, None)
        past(runtime, "processes", "seen_at")
        sweep(runtime)
        assert _held(runtime) == (None, 0, "CONNECTION_LOST")
        assert woken(runtime, Job.ANALYSE)[-1] == value(runtime, "SELECT id FROM instances")
        # The sweeping one itself is never dead
        running = [each["id"] for each in rows(runtime, "SELECT id FROM processes WHERE stopped_at IS NULL")]
        assert running == [runtime.process_id]

    def test_one_of_this_host_is_released_at_the_next_start(self, runtime: Runtime) -> None:
        _offered(runtime)
        _leave_a_dead_process(runtime, socket.gethostname()[:64], 2**22 + 1)
        recover(runtime)
        assert _held(runtime) == (None, 0, "CONNECTION_LOST")

    def test_one_that_had_our_own_number_is_gone_too(self, runtime: Runtime) -> None:
        _offered(runtime)
        _leave_a_dead_process(runtime, socket.gethostname()[:64], os.getpid())
        recover(runtime)
        assert _held(runtime)[0] is None

    def test_one_of_another_host_is_left_to_its_silence(self, runtime: Runtime) -> None:
        _offered(runtime)
        _leave_a_dead_process(runtime, "elsewhere", 2**22 + 1)
        recover(runtime)
        assert _held(runtime)[0] == DEAD

    def test_one_that_was_thought_dead_and_is_not_is_alive_again(self, runtime: Runtime) -> None:
        runtime.database.write(processes.started, DEAD, "work", "elsewhere", 1)
        runtime.database.write(processes.bury, DEAD, runtime.closing_policy)
        runtime.database.write(processes.seen, DEAD)
        assert DEAD in [each[0] for each in runtime.database.read(processes.running)]

    def test_an_orderly_end_releases_what_a_job_still_holds(self, tmp_path: Path, database_url: str) -> None:
        first = make_runtime(tmp_path, database_url=database_url)
        _offered(first)
        instance = value(first, "SELECT id FROM instances")
        assert first.database.write(images.claim, instance, first.process_id, 3600.0)
        first.close()
        first.close()
        second = make_runtime(tmp_path, database_url=database_url)
        assert value(second, "SELECT claim_owner FROM instances") is None
        second.close()


class TestWaking:
    def test_whatever_is_due_is_woken(self, tmp_path: Path, database_url: str) -> None:
        destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
        runtime = make_runtime(tmp_path, database_url=database_url, destination=[destination])
        _offered(runtime)
        run_to_report(runtime)
        runtime.dispatcher.woken.clear()  # type: ignore[attr-defined]  # the recording one
        _offered(runtime, 2, laterality="L")
        sweep(runtime)
        assert woken(runtime, Job.ANALYSE)[-1] == value(runtime, "SELECT max(id) FROM instances")
        assert woken(runtime, Job.DELIVER) == ["pacs"]
        # And the study, once its time has come
        analyse_all(runtime)
        let_time_pass(runtime)
        past(runtime, "studies", "opened_at")
        sweep(runtime)
        assert woken(runtime, Job.REPORT)[-1] == value(runtime, "SELECT id FROM studies")
        runtime.close()

    def test_nobody_who_listens_means_nothing_to_look_for(self, runtime: Runtime) -> None:
        _offered(runtime)
        runtime.dispatcher = SilentDispatcher()
        wake_due(runtime)
        assert runtime.dispatcher.room(Job.ANALYSE) == 0

    def test_no_more_than_there_is_room_for(self, runtime: Runtime) -> None:
        from factories.runtime import RecordingDispatcher

        for number in range(3):
            _offered(runtime, number)
        runtime.dispatcher = RecordingDispatcher(room=2)
        wake_due(runtime)
        assert len(woken(runtime, Job.ANALYSE)) == 2

    def test_priority_before_age(self, runtime: Runtime) -> None:
        _offered(runtime, 1)
        _offered(runtime, 2, RequestedProcedurePriority="STAT")
        assert [priority for _, priority in runtime.database.read(images.due, 10)] == [0, 2]
        assert runtime.database.read(studies.unreported, 10) == []


class TestDamagedFiles:
    @staticmethod
    def _file(runtime: Runtime, number: int = 1) -> Path:
        uid = f"1.2.3.{number}"
        return runtime.spool.path(
            value(runtime, "SELECT spool_path FROM instances WHERE sop_instance_uid = :uid", uid=uid)
        )

    @pytest.mark.parametrize("left", ["nothing", "half"])
    def test_a_row_whose_file_is_lost_is_refused_and_the_next_copy_heals_it(
        self, runtime: Runtime, left: str
    ) -> None:
        # Given an image that was acknowledged, and a file that was lost since
        ds = _offered(runtime)
        path = self._file(runtime)
        path.write_bytes(path.read_bytes()[:100]) if left == "half" else path.unlink()
        # When a process starts
        assert refuse_damaged(runtime) == 1
        # Then the image is there, refused, where an administrator looks
        found = row(runtime, "SELECT state, reason_code FROM instances")
        assert tuple(found.values()) == ("REFUSED", "SPOOL_FILE_DAMAGED")
        failure = row(runtime, "SELECT kind, reason_code, sop_instance_uid FROM v_failures")
        assert tuple(failure.values()) == ("image_refused", "SPOOL_FILE_DAMAGED", ds.SOPInstanceUID)
        assert rows(runtime, "SELECT * FROM rejections") == []
        # And when its sender sends it again, it is read
        assert offer(runtime, ds) == 0
        run_to_report(runtime)
        assert value(runtime, "SELECT grade FROM v_eye_results") == 2

    def test_no_negative_is_stated_of_its_eye(self, runtime: Runtime) -> None:
        # Given a healthy photograph, and a second one of the same eye whose file is lost
        assert offer(runtime, fundus_of_grade(0, study_uid="1.2.3", sop_uid="1.2.3.1")) == 0
        analyse_all(runtime)
        assert offer(runtime, fundus_of_grade(4, study_uid="1.2.3", sop_uid="1.2.3.2")) == 0
        self._file(runtime, 2).unlink()
        # When a process starts and the study is reported
        recover(runtime)
        run_to_report(runtime)
        # Then the eye is withheld
        found = row(runtime, "SELECT grade, reason_code FROM v_eye_results")
        assert tuple(found.values()) == (None, "SPOOL_FILE_DAMAGED")

    def test_what_is_there_stays(self, runtime: Runtime) -> None:
        _offered(runtime)
        assert refuse_damaged(runtime) == 0

    def test_a_copy_that_comes_meanwhile_is_not_refused(self, runtime: Runtime) -> None:
        # Given a file that is missing when the waiting images are listed
        ds = _offered(runtime)
        self._file(runtime).unlink()
        real = runtime.database.write

        def after_another_copy(work: Any, *arguments: Any) -> Any:
            if work is images.refuse_damaged:
                offer(runtime, ds)
            return real(work, *arguments)

        # When it is sent again before it is refused
        with patch.object(runtime.database, "write", after_another_copy):
            assert refuse_damaged(runtime) == 0
        # Then it is analysed as if nothing had been
        assert value(runtime, "SELECT state FROM instances") == "RECEIVED"


def test_an_association_whose_end_could_not_be_written_is_ended_later(runtime: Runtime) -> None:
    # Given a database that is away when an association ends
    _offered(runtime)
    real = runtime.database.write

    def away(work: Any, *arguments: Any) -> Any:
        if work is door.association_closed:
            raise DatabaseUnreachableError("away")
        return real(work, *arguments)

    with patch.object(runtime.database, "write", away):
        Intake(runtime).association_closed(caller(), "RELEASED")
        with pytest.raises(DatabaseUnreachableError):
            alive(runtime)
    assert value(runtime, "SELECT closed_at FROM associations") is None
    # When the process next says that it lives
    alive(runtime)
    # Then the association is ended, once
    assert value(runtime, "SELECT outcome FROM associations") == "RELEASED"
    assert not runtime.unclosed_associations


class TestWhoseSpool:
    def test_a_process_whose_spool_is_not_mounted_does_not_start(
        self, tmp_path: Path, database_url: str
    ) -> None:
        # Given an installation with an image
        first = make_runtime(tmp_path, database_url=database_url)
        _offered(first)
        spool, state = first.settings.spool_dir, "SELECT state FROM instances"
        first.close()
        # When its spool is elsewhere
        spool.rename(tmp_path / "elsewhere")
        with pytest.raises(ForeignSpoolError, match="Mount the spool"):
            make_runtime(tmp_path, database_url=database_url)
        # Then nothing was made in its place, and nothing is lost once it is back
        assert not spool.exists()
        (tmp_path / "elsewhere").rename(spool)
        again = make_runtime(tmp_path, database_url=database_url)
        recover(again)
        assert value(again, state) == "RECEIVED"
        again.close()

    def test_another_installations_spool_is_refused(self, tmp_path: Path) -> None:
        first = make_runtime(tmp_path)
        (first.settings.spool_dir / "installation").write_text("another")
        first.close()
        with pytest.raises(ForeignSpoolError, match="belongs to another installation"):
            make_runtime(tmp_path)

    def test_one_whose_files_are_lost_for_good_starts_when_it_is_told_so(self, tmp_path: Path) -> None:
        first = make_runtime(tmp_path)
        _offered(first)
        spool = first.settings.spool_dir
        first.close()
        shutil.rmtree(spool)
        with pytest.raises(ForeignSpoolError) as refused:
            make_runtime(tmp_path)
        told = re.search(r"echo (\S+) > (\S+)`", str(refused.value))
        assert told is not None
        spool.mkdir()
        Path(told[2]).write_text(f"{told[1]}\n")
        again = make_runtime(tmp_path)
        recover(again)
        assert value(again, "SELECT reason_code FROM instances") == "SPOOL_FILE_DAMAGED"
        again.close()


class TestOrphans:
    @staticmethod
    def _old(path: Path) -> Path:
        os.utime(path, (1, 1))
        return path

    def test_a_file_without_a_row_gets_one(self, runtime: Runtime) -> None:
        # Given a process that died between rename and commit
        ds = fundus_of_grade(2, study_uid="1.2.3")
        temporary = runtime.spool.incoming / "x.part"
        ds.save_as(temporary, enforce_file_format=True)
        spooled = runtime.spool.place(temporary)
        assert adopt_orphans(runtime) == 0  # it may be on its way
        self._old(runtime.spool.path(spooled.relative_path))
        assert adopt_orphans(runtime) == 1
        assert adopt_orphans(runtime) == 0
        assert offer(runtime, ds) == 0
        assert value(runtime, "SELECT count(*) FROM instances") == 1
        run_to_report(runtime)
        assert value(runtime, "SELECT grade FROM v_eye_results") == 2

    def _orphan(self, runtime: Runtime, ds: Any) -> Path:
        """A file that a process left between rename and commit, an hour ago."""
        temporary = runtime.spool.incoming / "x.part"
        ds.save_as(temporary, enforce_file_format=True)
        return self._old(runtime.spool.path(runtime.spool.place(temporary).relative_path))

    def test_one_that_was_never_acknowledged_does_not_override_what_was(self, runtime: Runtime) -> None:
        # Given a photograph that was never acknowledged, and its correction, which was
        orphan = self._orphan(
            runtime, fundus_of_grade(2, study_uid="1.2.3", sop_uid="1.2.3.1", laterality="R")
        )
        contradicting = self._orphan(runtime, fundus_of_grade(4, study_uid="1.2.3", sop_uid="1.2.3.1"))
        _offered(runtime, laterality="L")
        # When the sweep finds it
        assert adopt_orphans(runtime) == 0
        # Then the correction stands
        assert not orphan.exists()
        assert not contradicting.exists()
        run_to_report(runtime)
        assert value(runtime, "SELECT laterality FROM v_eye_results") == "L"
        assert value(runtime, "SELECT count(*) FROM header_versions") == 1

    def test_one_that_is_placed_again_just_now_is_not_deleted(self, runtime: Runtime) -> None:
        # Given an orphan of a known UID, whose sender sends it again while the sweep looks at it
        first = fundus_of_grade(2, study_uid="1.2.3", sop_uid="1.2.3.1", laterality="R")
        orphan = self._orphan(runtime, first)
        _offered(runtime, laterality="L")
        real = runtime.spool.read_verified

        def then_placed_again(path: str, sha256: str) -> bytes:
            content = real(path, sha256)
            temporary = runtime.spool.incoming / "again.part"
            temporary.write_bytes(content)
            runtime.spool.place(temporary)
            return content

        with patch.object(runtime.spool, "read_verified", then_placed_again):
            assert adopt_orphans(runtime) == 0
        assert orphan.exists()

    def test_a_conflict_that_was_not_moved_in_time_is_moved(self, runtime: Runtime) -> None:
        # Given a process that died between the row of a conflict and the move to the quarantine
        _offered(runtime)
        with patch.object(runtime.spool, "quarantine"):
            offer(runtime, fundus_of_grade(4, study_uid="1.2.3", sop_uid="1.2.3.1"))
        aside = row(runtime, "SELECT sha256, spool_path FROM quarantined")
        assert not runtime.spool.path(aside["spool_path"]).exists()
        left = self._old(runtime.spool.path(f"objects/{aside['sha256'][:2]}/{aside['sha256']}.dcm"))
        # When the sweep finds it
        assert adopt_orphans(runtime) == 0
        assert (left.exists(), runtime.spool.path(aside["spool_path"]).exists()) == (False, True)

    def test_one_that_cannot_be_read_now_keeps_no_other_waiting(self, runtime: Runtime) -> None:
        for number in (1, 2):
            self._orphan(runtime, fundus_of_grade(2, study_uid="1.2.3", sop_uid=f"1.2.3.{number}"))
        real, left = runtime.spool.read_verified, [OSError(errno.EMFILE, "too many open files")]

        def once(path: str, sha256: str) -> bytes:
            if left:
                raise left.pop()
            return real(path, sha256)

        with patch.object(runtime.spool, "read_verified", once):
            assert adopt_orphans(runtime) == 1
        assert adopt_orphans(runtime) == 1

    def test_the_camera_of_an_adopted_file_is_known_when_its_sender_is(self, tmp_path: Path) -> None:
        # Given rules that ask for who sent an image, and a file that came from nobody knows where
        rules = tmp_path / "rules.yaml"
        rules.write_text(RULES_BY_CALLER)
        runtime = make_runtime(tmp_path, camera={"rules_file": rules})
        ds = fundus_of_grade(2, study_uid="1.2.3", sop_uid="1.2.3.1")
        self._orphan(runtime, ds)
        assert adopt_orphans(runtime) == 1
        assert value(runtime, "SELECT route FROM instances") == "unknown"
        analyse_all(runtime)
        # When its sender sends it again
        assert offer(runtime, ds) == 0
        # Then it is analysed as the sender's
        found = row(runtime, "SELECT state, camera, calling_ae FROM instances")
        assert tuple(found.values()) == ("RECEIVED", "other-camera", "CAMERA")
        runtime.close()

    def test_rubbish_is_removed_and_what_is_known_stays(self, runtime: Runtime) -> None:
        _offered(runtime)
        known = self._old(runtime.spool.path(value(runtime, "SELECT spool_path FROM instances")))
        half = runtime.spool.incoming / "half.part"
        half.write_bytes(b"half")
        rubbish = runtime.spool.incoming / "y.part"
        rubbish.write_bytes(b"no DICOM")
        placed = runtime.spool.path(runtime.spool.place(rubbish).relative_path)
        for path in (half, placed):
            self._old(path)
        assert adopt_orphans(runtime) == 0
        assert (known.exists(), half.exists(), placed.exists()) == (True, False, False)

    def test_one_at_a_time(self, runtime: Runtime) -> None:
        half = runtime.spool.incoming / "half.part"
        half.write_bytes(b"half")
        self._old(half)
        assert runtime.database.write(leases.acquire, "orphans", "other", 60.0)
        assert adopt_orphans(runtime) == 0
        assert half.exists()


def test_a_study_stays_open_while_an_association_that_touched_it_does(runtime: Runtime) -> None:
    _offered(runtime)
    past(runtime, "studies", "close_due_at")
    sweep(runtime)
    assert value(runtime, "SELECT state FROM studies") == "OPEN"
    Intake(runtime).association_closed(caller(), "RELEASED")
    sweep(runtime)
    assert value(runtime, "SELECT state FROM studies") == "CLOSED"
