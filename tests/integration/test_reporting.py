from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from factories.bundle import write_tiny_bundle
from factories.runtime import (
    analyse_all,
    close_studies,
    deliver_all,
    execute,
    fundus_of_grade,
    make_runtime,
    offer,
    past,
    receiving_pacs,
    report_all,
    row,
    rows,
    run_to_report,
    value,
    woken,
)
from pydicom import dcmread

from dicom_io.report_text import render_text
from dicom_io.uids import derived_uid
from worker.analyse import analyse
from worker.dispatch import Job
from worker.errors import ClaimLostError
from worker.reporting import report
from worker.runtime import Runtime
from worker.store import deliveries, images, reports, studies

DESTINATION = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}


@pytest.fixture
def runtime(tmp_path: Path, database_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=database_url, destination=[DESTINATION])
    yield made
    made.close()


def _two_eyes(runtime: Runtime, **options: Any) -> None:
    for number, (side, grade) in enumerate((("R", 3), ("L", 0)), start=1):
        image = {"study_uid": "1.2.3", "sop_uid": f"1.2.3.{number}", "laterality": side, "grade": grade}
        assert offer(runtime, fundus_of_grade(**{**image, **options})) == 0


def _states(runtime: Runtime) -> list[tuple[Any, ...]]:
    found = rows(runtime, "SELECT revision, state, partial FROM reports ORDER BY id")
    return [(each["revision"], each["state"], bool(each["partial"])) for each in found]


def _study(runtime: Runtime) -> int:
    return int(value(runtime, "SELECT id FROM studies"))


class TestWriting:
    def test_a_complete_study_has_one_report_its_eyes_and_its_deliveries(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        run_to_report(runtime)
        assert _states(runtime) == [(1, "WRITTEN", False)]
        eyes = rows(runtime, "SELECT laterality, grade, grade_label FROM v_eye_results ORDER BY 1")
        assert [tuple(each.values()) for each in eyes] == [
            ("L", 0, "No diabetic retinopathy"),
            ("R", 3, "Severe NPDR"),
        ]
        assert value(runtime, "SELECT state FROM deliveries") == "PENDING"
        assert woken(runtime, Job.DELIVER) == ["pacs"]
        found = row(runtime, "SELECT * FROM reports")
        data = runtime.spool.path(found["spool_path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == found["sha256"]

    def test_it_is_written_once(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        run_to_report(runtime)
        report(runtime, _study(runtime))
        assert _states(runtime) == [(1, "WRITTEN", False)]

    def test_an_open_or_unfinished_study_waits(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        report(runtime, _study(runtime))
        close_studies(runtime)
        report(runtime, _study(runtime))
        assert _states(runtime) == []

    def test_asked_for_again_with_nothing_new_it_makes_no_revision(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        run_to_report(runtime)
        assert runtime.database.write(studies.reopen_for_report, [_study(runtime)]) == 1
        report_all(runtime)
        assert _states(runtime) == [(1, "WRITTEN", False)]
        found = row(runtime, "SELECT content_version, reported_version FROM studies")
        assert found["content_version"] == found["reported_version"]

    def test_a_camera_that_was_opted_in_is_reported_with_a_flag(self, tmp_path: Path) -> None:
        runtime = make_runtime(tmp_path, camera={"unknown": "classify"})
        _two_eyes(runtime, manufacturer="Nobody", model="Nothing")
        run_to_report(runtime)
        path = value(runtime, "SELECT spool_path FROM reports")
        assert "not validated for an unknown camera" in render_text(dcmread(runtime.spool.path(path)))
        runtime.close()


class TestDeadline:
    def test_over_it_is_partial_then_complete(self, runtime: Runtime) -> None:
        # Given a study with one image that is not read in time
        _two_eyes(runtime)
        analyse(runtime, value(runtime, "SELECT min(id) FROM instances"))
        close_studies(runtime)
        report_all(runtime)
        assert _states(runtime) == []
        past(runtime, "studies", "report_deadline_at")
        report_all(runtime)
        # Then a partial report says so, once
        assert _states(runtime) == [(1, "WRITTEN", True)]
        found = rows(runtime, "SELECT laterality, reason_code FROM v_eye_results ORDER BY 1")
        assert [tuple(each.values()) for each in found] == [("L", "IMAGE_UNFINISHED"), ("R", None)]
        report_all(runtime)
        assert _states(runtime) == [(1, "WRITTEN", True)]
        # When the image is read
        analyse_all(runtime)
        report_all(runtime)
        # Then a complete revision follows
        assert _states(runtime) == [(1, "SUPERSEDED", True), (2, "WRITTEN", False)]


class TestRevisions:
    def test_a_late_image_supersedes_the_report_and_what_of_it_was_not_sent(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        run_to_report(runtime)
        offer(runtime, fundus_of_grade(4, study_uid="1.2.3", laterality="L"))
        run_to_report(runtime)
        assert _states(runtime) == [(1, "SUPERSEDED", False), (2, "WRITTEN", False)]
        found = rows(runtime, "SELECT state FROM deliveries ORDER BY id")
        assert [each["state"] for each in found] == ["SUPERSEDED", "PENDING"]

    def test_what_was_sent_stays_accepted(self, tmp_path: Path) -> None:
        with receiving_pacs() as pacs:
            runtime = make_runtime(tmp_path, destination=[pacs.destination()])
            _two_eyes(runtime)
            run_to_report(runtime)
            deliver_all(runtime)
            offer(runtime, fundus_of_grade(4, study_uid="1.2.3", laterality="L"))
            run_to_report(runtime)
            deliver_all(runtime)
            found = rows(runtime, "SELECT state FROM deliveries ORDER BY id")
            assert [each["state"] for each in found] == ["ACCEPTED", "ACCEPTED"]
            series = {str(ds.SeriesInstanceUID) for ds in pacs.received}
            assert len(pacs.received) == 2
            assert len(series) == 1
            runtime.close()

    def test_an_image_that_comes_while_it_is_written_ends_the_attempt(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        analyse_all(runtime)
        close_studies(runtime)
        real = runtime.spool.write_durable

        def meanwhile(path: str, data: bytes) -> None:
            real(path, data)
            offer(runtime, fundus_of_grade(4, study_uid="1.2.3", laterality="L"))

        with patch.object(runtime.spool, "write_durable", meanwhile):
            report_all(runtime)
        assert _states(runtime) == [(1, "PENDING", False)]
        # Then the next one takes its place, and is the only one
        run_to_report(runtime)
        assert _states(runtime) == [(1, "WRITTEN", False)]
        assert value(runtime, "SELECT count(*) FROM deliveries") == 1


class TestCrashes:
    @pytest.mark.parametrize("moment", ["write_durable", "finish"])
    def test_a_run_that_was_cut_off_makes_the_same_object(self, runtime: Runtime, moment: str) -> None:
        # Given a report whose process died after the PENDING row, or after the file
        _two_eyes(runtime)
        analyse_all(runtime)
        close_studies(runtime)
        target: Any = runtime.spool if moment == "write_durable" else reports
        with (
            patch.object(target, moment, side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            report(runtime, _study(runtime))
        begun = row(runtime, "SELECT * FROM reports")
        assert begun["state"] == "PENDING"
        path = runtime.spool.path(f"reports/{begun['sop_instance_uid']}.dcm")
        before = path.read_bytes() if path.exists() else None
        # When its claim has run out and another does it
        past(runtime, "studies", "claim_expires_at")
        report(runtime, _study(runtime))
        # Then it is the same object, and the only one
        found = row(runtime, "SELECT * FROM reports")
        assert found["state"] == "WRITTEN"
        for column in ("id", "sop_instance_uid", "series_instance_uid", "created_at"):
            assert found[column] == begun[column]
        assert before in (None, path.read_bytes())
        assert value(runtime, "SELECT count(*) FROM deliveries") == 1

    def test_a_run_that_was_overtaken_writes_nothing(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        analyse_all(runtime)
        close_studies(runtime)
        real = runtime.spool.write_durable
        overtaken: list[int] = []

        def stall(path: str, data: bytes) -> None:
            real(path, data)
            if not overtaken:
                overtaken.append(1)
                past(runtime, "studies", "claim_expires_at")
                report(runtime, _study(runtime))

        with patch.object(runtime.spool, "write_durable", stall):
            report(runtime, _study(runtime))
        assert _states(runtime) == [(1, "WRITTEN", False)]
        assert value(runtime, "SELECT count(*) FROM eye_results") == 2

    def test_a_stale_claim_cannot_begin_a_revision(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        analyse_all(runtime)
        close_studies(runtime)
        stale = runtime.database.write(studies.claim, _study(runtime), "a", 60.0)
        assert stale is not None
        past(runtime, "studies", "claim_expires_at")
        assert runtime.database.write(studies.claim, _study(runtime), "b", 60.0) is not None
        with pytest.raises(ClaimLostError):
            runtime.database.write(reports.begin, stale, {}, None)
        assert runtime.database.write(studies.reported, stale) is False

    def test_a_failure_is_tried_again_later(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        analyse_all(runtime)
        close_studies(runtime)
        with (
            patch("worker.reporting.build_report", side_effect=ValueError("Doe^Jane")),
            patch("worker.reporting.backoff_s", return_value=3600.0),
        ):
            report(runtime, _study(runtime))
        found = row(runtime, "SELECT attempts, last_error, claim_token FROM studies")
        assert tuple(found.values()) == (1, "ValueError", None)
        assert runtime.database.read(studies.unreported, 10) == []
        past(runtime, "studies", "due_at")
        assert len(runtime.database.read(studies.unreported, 10)) == 1
        report_all(runtime)
        assert _states(runtime) == [(1, "WRITTEN", False)]

    def test_a_study_none_of_whose_files_is_readable_is_withheld_until_they_are_back(
        self, runtime: Runtime
    ) -> None:
        _two_eyes(runtime)
        analyse_all(runtime)
        kept = {}
        for found in rows(runtime, "SELECT spool_path FROM instances"):
            path = runtime.spool.path(found["spool_path"])
            kept[path] = path.read_bytes()
            path.unlink()
        close_studies(runtime)
        report_all(runtime)
        found = row(runtime, "SELECT kind, reason_code FROM v_failures")
        assert tuple(found.values()) == ("study_withheld", "SPOOL_FILE_DAMAGED")
        for path, data in kept.items():
            path.write_bytes(data)
        past(runtime, "studies", "due_at")
        report_all(runtime)
        assert _states(runtime) == [(1, "WRITTEN", False)]
        assert rows(runtime, "SELECT * FROM v_failures") == []

    def test_what_fails_again_and_again_is_shown_before_its_deadline(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        analyse_all(runtime)
        close_studies(runtime)
        with patch("worker.reporting.build_report", side_effect=ValueError("Doe^Jane")):
            for _ in range(3):
                assert rows(runtime, "SELECT * FROM v_failures") == []
                past(runtime, "studies", "due_at")
                report_all(runtime)
        found = row(runtime, "SELECT kind, detail FROM v_failures")
        assert tuple(found.values()) == ("report_failing", "ValueError")


class TestImagesThatMoved:
    """A corrected header took every image of a reported study to another one."""

    def _moved(self, runtime: Runtime) -> None:
        image: dict[str, Any] = {"sop_uid": "1.2.3.1", "grade": 4}
        if not rows(runtime, "SELECT 1 FROM instances"):
            offer(runtime, fundus_of_grade(**image, study_uid="1.2.3", PatientID="A"))
            run_to_report(runtime)
        else:
            offer(runtime, fundus_of_grade(**image, study_uid="1.2.4", PatientID="B"))

    def test_the_report_is_withdrawn_and_not_sent(self, tmp_path: Path, database_url: str) -> None:
        with receiving_pacs() as pacs:
            runtime = make_runtime(tmp_path, database_url=database_url, destination=[pacs.destination()])
            self._moved(runtime)
            self._moved(runtime)
            # Then not even before the study was looked at
            deliver_all(runtime)
            assert pacs.received == []
            run_to_report(runtime)
            deliver_all(runtime)
            assert [str(ds.StudyInstanceUID) for ds in pacs.received] == ["1.2.4"]
            states = "SELECT r.state, d.state AS sent FROM reports r JOIN deliveries d ON d.report_id = r.id "
            assert [tuple(each.values()) for each in rows(runtime, states + "ORDER BY r.id")] == [
                ("SUPERSEDED", "SUPERSEDED"),
                ("WRITTEN", "ACCEPTED"),
            ]
            assert value(runtime, "SELECT study_instance_uid FROM v_eye_results") == "1.2.4"
            assert rows(runtime, "SELECT * FROM v_failures") == []
            runtime.close()

    def test_delivered_before_it_is_a_failure_that_names_the_report(self, tmp_path: Path) -> None:
        with receiving_pacs() as pacs:
            runtime = make_runtime(tmp_path, destination=[pacs.destination()])
            self._moved(runtime)
            deliver_all(runtime)
            self._moved(runtime)
            run_to_report(runtime)
            found = row(runtime, "SELECT kind, study_instance_uid, reason_code, detail FROM v_failures")
            assert tuple(found.values()) == (
                "study_withheld",
                "1.2.3",
                "STUDY_EMPTIED",
                "report revision 1 was delivered before, and stands at its destination",
            )
            # And with an image again, the next revision names the one that was delivered
            offer(runtime, fundus_of_grade(0, sop_uid="1.2.3.9", study_uid="1.2.3", PatientID="A"))
            run_to_report(runtime)
            newest = row(
                runtime, "SELECT state, revision, predecessor_id FROM reports ORDER BY id DESC LIMIT 1"
            )
            first = value(runtime, "SELECT min(id) FROM reports")
            assert tuple(newest.values()) == ("WRITTEN", 2, first)
            assert rows(runtime, "SELECT * FROM v_failures") == []
            runtime.close()

    def test_accepted_while_it_was_withdrawn_it_is_shown_too(self, tmp_path: Path) -> None:
        with receiving_pacs() as pacs:
            runtime = make_runtime(tmp_path, destination=[pacs.destination()])
            self._moved(runtime)
            self._moved(runtime)
            run_to_report(runtime)
            assert rows(runtime, "SELECT * FROM v_failures") == []
            sent = value(runtime, "SELECT min(id) FROM deliveries")
            assert runtime.database.write(deliveries.accepted, sent, None)
            assert value(runtime, "SELECT reason_code FROM v_failures") == "STUDY_EMPTIED"
            runtime.close()


class TestWhatIsSaid:
    def test_a_good_photograph_is_not_blamed_for_another(self, runtime: Runtime) -> None:
        offer(runtime, fundus_of_grade(0, study_uid="1.2.3", sop_uid="1.2.3.1"))
        offer(runtime, fundus_of_grade(None, study_uid="1.2.3", sop_uid="1.2.3.2"))
        run_to_report(runtime)
        said = _said(runtime)
        assert (
            said.count("too blurred, dark or incomplete to be graded. [UNGRADABLE_QUALITY]") == 2
        )  # eye, image
        assert said.count("because of another photograph. [EYE_WITHHELD]") == 1

    def test_a_grade_tells_what_it_does_not_rest_on(self, runtime: Runtime) -> None:
        offer(runtime, fundus_of_grade(2, study_uid="1.2.3", sop_uid="1.2.3.1"))
        offer(runtime, fundus_of_grade(None, study_uid="1.2.3", sop_uid="1.2.3.2"))
        run_to_report(runtime)
        said = _said(runtime)
        assert (
            "1 of 2 photographs of this eye were not used (reasons: UNGRADABLE_QUALITY); disease in them "
            "would not be seen." in said
        )
        assert "Unusable" not in said
        found = row(runtime, "SELECT quality, images, images_used FROM v_eye_results")
        best = value(runtime, "SELECT max(quality) FROM findings")
        assert tuple(found.values()) == (best, 2, 1)

    def test_an_eye_with_all_its_photographs_has_no_such_note(self, runtime: Runtime) -> None:
        _two_eyes(runtime)
        run_to_report(runtime)
        assert "not used" not in _said(runtime)


def _said(runtime: Runtime) -> str:
    path = value(runtime, "SELECT spool_path FROM reports WHERE state = 'WRITTEN'")
    return " ".join(render_text(dcmread(runtime.spool.path(path))).split())


def test_a_study_uid_that_is_not_quite_one_gets_its_revisions_too(runtime: Runtime) -> None:
    odd = "1.2.826.0.1.03.5.77"
    offer(runtime, fundus_of_grade(0, study_uid=odd, sop_uid="1.2.3.1"))
    run_to_report(runtime)
    offer(runtime, fundus_of_grade(4, study_uid=odd, sop_uid="1.2.3.2", laterality="L"))
    run_to_report(runtime)
    assert _states(runtime) == [(1, "SUPERSEDED", False), (2, "WRITTEN", False)]


def test_a_refusal_takes_the_place_of_what_was_read_before(runtime: Runtime) -> None:
    offer(runtime, fundus_of_grade(4, study_uid="1.2.3", sop_uid="1.2.3.1"))
    analyse_all(runtime)
    claim = "UPDATE instances SET state = 'RECEIVED', due_at = received_at, claim_token = NULL"
    execute(runtime, claim)
    found = row(runtime, "SELECT state, grade FROM v_results")
    assert tuple(found.values()) == ("RECEIVED", None)
    claimed = runtime.database.write(images.claim, value(runtime, "SELECT id FROM instances"), "a", 60.0)
    assert claimed is not None
    assert runtime.database.write(images.refuse, claimed, "CAMERA_REFUSED", None)
    found = row(runtime, "SELECT state, grade, reason_code FROM v_results")
    assert tuple(found.values()) == ("REFUSED", None, "CAMERA_REFUSED")
    assert value(runtime, "SELECT count(*) FROM findings") == 0


def test_times_are_those_of_a_report_that_knows_the_image(runtime: Runtime) -> None:
    _two_eyes(runtime)
    run_to_report(runtime)
    offer(runtime, fundus_of_grade(4, study_uid="1.2.3", laterality="L", sop_uid="1.2.3.9"))
    asked = "SELECT sop_instance_uid FROM v_results WHERE reported_at IS NULL"
    assert [each["sop_instance_uid"] for each in rows(runtime, asked)] == ["1.2.3.9"]
    run_to_report(runtime)
    assert rows(runtime, asked) == []


def test_an_image_that_is_refused_again_is_still_in_the_report_that_said_so(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, camera={"unknown": "refuse"})
    offer(runtime, fundus_of_grade(0, manufacturer="Nobody", model="Nothing"))
    run_to_report(runtime)
    assert runtime.database.write(images.requeue, [value(runtime, "SELECT id FROM instances")]) == 1
    assert value(runtime, "SELECT reported_at FROM v_results") is None
    run_to_report(runtime)
    assert _states(runtime) == [(1, "WRITTEN", False)]
    assert value(runtime, "SELECT reported_at FROM v_results") is not None
    runtime.close()


class TestBundleSwapped:
    def test_a_study_is_read_and_reported_by_the_new_bundle_only(
        self, tmp_path: Path, database_url: str
    ) -> None:
        # Given a reported study, and a late image
        old = make_runtime(tmp_path, database_url=database_url)
        _two_eyes(old)
        run_to_report(old)
        offer(old, fundus_of_grade(1, study_uid="1.2.3", laterality="L", sop_uid="1.2.3.3"))
        old.close()
        # When the bundle was changed (it calls more eyes severe)
        folder = write_tiny_bundle(tmp_path / "new", version="2.0.0", thresholds=(0.5, 0.3, 0.2, 0.1))
        new = make_runtime(tmp_path, database_url=database_url, bundle=folder)
        run_to_report(new)
        assert [state for _, state, _ in _states(new)] == ["WRITTEN"]
        execute(new, "UPDATE studies SET report_deadline_at = closed_at")
        # Then every image is read again first, without a partial report in between
        analyse_all(new)
        report_all(new)
        assert value(new, "SELECT count(*) FROM findings WHERE bundle_pk = :pk", pk=new.bundle_pk) == 3
        found = rows(
            new, "SELECT bundle_pk, revision, state, partial, predecessor_id FROM reports ORDER BY id"
        )
        assert [(each["revision"], each["state"], bool(each["partial"])) for each in found] == [
            (1, "SUPERSEDED", False),
            (1, "WRITTEN", False),
        ]
        assert found[1]["predecessor_id"] is not None
        assert value(new, "SELECT count(*) FROM v_eye_results") == 2
        new.close()
        # And after going back, the old bundle's word is the current one again
        back = make_runtime(tmp_path, database_url=database_url)
        back.database.write(studies.reopen_for_report, [_study(back)])
        report_all(back)
        analyse_all(back)
        report_all(back)
        found = rows(back, "SELECT revision, state FROM reports ORDER BY id")
        assert [tuple(each.values()) for each in found] == [
            (1, "SUPERSEDED"),
            (1, "SUPERSEDED"),
            (2, "WRITTEN"),
        ]
        back.close()


def test_uids_follow_from_what_they_name(runtime: Runtime) -> None:
    uid = derived_uid(runtime.namespace, "report", "1.2.3")
    assert uid == derived_uid(runtime.namespace, "report", "1.2.3")
    assert uid != derived_uid(runtime.namespace, "report", "1.2.4")
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
