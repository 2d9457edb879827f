from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from factories.runtime import (
    analyse_all,
    caller,
    close_studies,
    execute,
    fundus_of_grade,
    make_runtime,
    offer,
    report_all,
    row,
    rows,
    run_to_report,
    value,
    woken,
)
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from sqlalchemy import text

from dicom_io.errors import BacklogError
from dicom_io.listener import TurnedAway
from worker.dispatch import Job
from worker.errors import DatabaseUnreachableError
from worker.intake import Intake
from worker.runtime import Runtime
from worker.store import images
from worker.store.intake import conflicts, keep_first
from worker.store.studies import settle_content

STUDY, OTHER_STUDY = "1.2.3.4", "1.2.3.5"


@pytest.fixture
def runtime(tmp_path: Path, database_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=database_url)
    yield made
    made.close()


@pytest.fixture
def on_postgresql(tmp_path: Path, postgres_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=postgres_url)
    yield made
    made.close()


def _fundus(sop_uid: str = "1.2.3.4.1", **options: Any) -> Any:
    return fundus_of_grade(
        **{"grade": 2, "study_uid": STUDY, "series_uid": "1.2.3.4.0", **options}, sop_uid=sop_uid
    )


def _current_report(runtime: Runtime) -> Any:
    found = row(runtime, "SELECT spool_path FROM reports WHERE state = 'WRITTEN'")
    return dcmread(runtime.spool.path(found["spool_path"]))


class TestNewObject:
    def test_it_is_a_file_and_a_row_and_its_analysis_is_woken(self, runtime: Runtime) -> None:
        ds = _fundus()
        assert offer(runtime, ds) == 0
        found = row(runtime, "SELECT * FROM instances")
        assert (found["state"], found["route"], found["camera"]) == ("RECEIVED", "labelled", "kowa-vx-10")
        stored = dcmread(runtime.spool.path(found["spool_path"]))
        assert stored.SOPInstanceUID == ds.SOPInstanceUID
        assert woken(runtime, Job.ANALYSE) == [found["id"]]

    @pytest.mark.parametrize(
        ("requested", "dimse", "priority"),
        [("STAT", 0, 0), ("HIGH", 2, 1), ("", 1, 1), ("", 0, 2), ("", 2, 3), ("LOW", 1, 3), ("ODD", 1, 1)],
    )
    def test_its_priority_is_the_requested_one_else_that_of_the_message(
        self, tmp_path: Path, requested: str, dimse: int, priority: int
    ) -> None:
        runtime = make_runtime(tmp_path)
        offer(runtime, _fundus(RequestedProcedurePriority=requested), priority=dimse)
        assert value(runtime, "SELECT priority FROM instances") == priority
        assert value(runtime, "SELECT priority FROM studies") == priority
        runtime.close()

    def test_odd_values_of_a_header_are_no_reason_to_refuse_it(self, runtime: Runtime) -> None:
        ds = _fundus(
            accession="A" * 100,
            manufacturer="M" * 100,
            model="X" * 200,
            NumberOfStudyRelatedInstances="999999999999",
        )
        assert offer(runtime, ds) == 0
        assert value(runtime, "SELECT expected_images FROM studies") == 2**31 - 1
        assert value(runtime, "SELECT accession_number FROM studies") == "A" * 64

    def test_a_camera_key_made_from_a_long_model_name_is_cut(self, runtime: Runtime) -> None:
        assert offer(runtime, _fundus(manufacturer="SIMULATED", model="blue " * 20)) == 0
        assert len(value(runtime, "SELECT camera FROM instances")) <= 48


class TestIdenticalBytes:
    def test_they_change_nothing(self, runtime: Runtime) -> None:
        ds = _fundus()
        offer(runtime, ds)
        run_to_report(runtime)
        before = row(runtime, "SELECT * FROM studies")
        assert offer(runtime, ds, peer=caller(2)) == 0
        assert row(runtime, "SELECT * FROM studies") == before
        assert value(runtime, "SELECT count(*) FROM header_versions") == 1

    def test_they_heal_a_copy_that_was_damaged(self, runtime: Runtime) -> None:
        # Given an image whose file was lost, and which was refused for that
        ds = _fundus()
        offer(runtime, ds)
        runtime.spool.path(value(runtime, "SELECT spool_path FROM instances")).write_bytes(b"rotten")
        run_to_report(runtime)
        found = row(runtime, "SELECT state, reason_code FROM instances")
        assert tuple(found.values()) == ("REFUSED", "SPOOL_FILE_DAMAGED")
        # When it is sent again
        assert offer(runtime, ds) == 0
        run_to_report(runtime)
        # Then it is read
        assert value(runtime, "SELECT state FROM instances") == "ANALYSED"
        assert value(runtime, "SELECT grade FROM v_eye_results") == 2


class TestSamePixelsOtherHeader:
    def test_a_corrected_side_reopens_the_study_and_the_new_report_names_its_predecessor(
        self, runtime: Runtime
    ) -> None:
        # Given a reported study
        offer(runtime, _fundus(laterality="R"))
        run_to_report(runtime)
        first = row(runtime, "SELECT id, sop_instance_uid FROM reports")
        # When the side is corrected
        assert offer(runtime, _fundus(laterality="L")) == 0
        assert value(runtime, "SELECT state FROM studies") == "OPEN"
        assert value(runtime, "SELECT state FROM instances") == "RECEIVED"
        run_to_report(runtime)
        # Then the second revision says so, and names the first
        revisions = rows(runtime, "SELECT revision, state, predecessor_id FROM reports ORDER BY id")
        assert [tuple(each.values()) for each in revisions] == [
            (1, "SUPERSEDED", None),
            (2, "WRITTEN", first["id"]),
        ]
        assert value(runtime, "SELECT laterality FROM v_eye_results") == "L"
        (study,) = _current_report(runtime).PredecessorDocumentsSequence
        named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert named == first["sop_instance_uid"]

    def test_a_change_that_the_report_does_not_state_makes_no_revision(self, runtime: Runtime) -> None:
        offer(runtime, _fundus())
        run_to_report(runtime)
        assert offer(runtime, _fundus(SeriesDescription="other")) == 0
        run_to_report(runtime)
        assert value(runtime, "SELECT count(*) FROM reports") == 1
        assert value(runtime, "SELECT header_version FROM instances") == 2

    def test_a_corrected_accession_number_is_reported(self, runtime: Runtime) -> None:
        offer(runtime, _fundus(accession="WRONG"))
        run_to_report(runtime)
        offer(runtime, _fundus(accession="RIGHT"))
        run_to_report(runtime)
        assert value(runtime, "SELECT accession_number FROM v_eye_results") == "RIGHT"
        assert _current_report(runtime).AccessionNumber == "RIGHT"

    def test_an_image_that_moves_to_another_study_is_reported_in_both(self, runtime: Runtime) -> None:
        # Given two images of one study
        offer(runtime, _fundus("1.2.3.4.1", laterality="R"))
        offer(runtime, _fundus("1.2.3.4.2", laterality="L", grade=0))
        run_to_report(runtime)
        # When one turns out to belong to another
        offer(runtime, _fundus("1.2.3.4.2", laterality="L", grade=0, study_uid=OTHER_STUDY))
        run_to_report(runtime)
        # Then each study has a current report with its own image
        found = rows(runtime, "SELECT study_instance_uid, laterality, revision FROM v_eye_results ORDER BY 1")
        assert [tuple(each.values()) for each in found] == [(STUDY, "R", 2), (OTHER_STUDY, "L", 1)]

    def test_the_study_that_its_only_image_left_waits_for_nothing(self, runtime: Runtime) -> None:
        offer(runtime, _fundus())
        run_to_report(runtime)
        offer(runtime, _fundus(study_uid=OTHER_STUDY))
        run_to_report(runtime)
        found = row(
            runtime,
            "SELECT content_version, reported_version, claim_token FROM studies "
            "WHERE study_instance_uid = :uid",
            uid=STUDY,
        )
        assert found["content_version"] == found["reported_version"]
        assert found["claim_token"] is None

    def test_a_correction_is_taken_back_by_sending_the_earlier_version_again(self, runtime: Runtime) -> None:
        # Given a right eye that was wrongly corrected to a left one
        right, left = _fundus(laterality="R"), _fundus(laterality="L")
        for ds in (right, left):
            assert offer(runtime, ds) == 0
            run_to_report(runtime)
        # When the first version is sent again, twice
        assert offer(runtime, right) == 0
        run_to_report(runtime)
        assert offer(runtime, right, peer=caller(2)) == 0
        run_to_report(runtime)
        # Then it counts, and the second time changed nothing
        assert value(runtime, "SELECT laterality FROM v_eye_results") == "R"
        assert value(runtime, "SELECT max(revision) FROM reports") == 3
        versions = rows(runtime, "SELECT version, sha256 FROM header_versions ORDER BY version")
        assert [each["version"] for each in versions] == [1, 2, 3]
        assert versions[0]["sha256"] == versions[2]["sha256"] != versions[1]["sha256"]

    @pytest.mark.parametrize(
        "change",
        [{"ImageType": ["ORIGINAL", "PRIMARY", "", "RED FREE"]}, {"PhotometricInterpretation": "RGB"}],
    )
    def test_whatever_decides_on_the_reading_means_another_analysis(
        self, runtime: Runtime, change: dict[str, Any]
    ) -> None:
        offer(runtime, _fundus(grade=0))
        run_to_report(runtime)
        offer(runtime, _fundus(grade=0, **change))
        assert value(runtime, "SELECT state FROM instances") == "RECEIVED"
        run_to_report(runtime)
        assert value(runtime, "SELECT max(revision) FROM reports") == 2

    def test_a_picture_that_turns_out_to_be_red_free_has_no_grade_any_more(self, runtime: Runtime) -> None:
        offer(runtime, _fundus(grade=0))
        run_to_report(runtime)
        assert value(runtime, "SELECT grade FROM v_eye_results") == 0
        offer(runtime, _fundus(grade=0, ImageType=["ORIGINAL", "PRIMARY", "", "RED FREE"]))
        run_to_report(runtime)
        assert value(runtime, "SELECT reason_code FROM instances") == "NOT_COLOUR"
        assert [each["grade"] for each in rows(runtime, "SELECT grade FROM v_eye_results")] in ([], [None])

    @pytest.mark.parametrize(
        ("keyword", "wrong", "right"),
        [
            ("PatientName", "Wrong^Name", "Right^Name"),
            ("PatientBirthDate", "19500101", "19500102"),
            ("PatientSex", "M", "F"),
            ("StudyDescription", "wrong", "right"),
        ],
    )
    def test_a_correction_of_anything_that_the_report_copies_is_reported(
        self, tmp_path: Path, keyword: str, wrong: str, right: str
    ) -> None:
        runtime = make_runtime(tmp_path)
        offer(runtime, _fundus(**{keyword: wrong}))
        run_to_report(runtime)
        offer(runtime, _fundus(**{keyword: right}))
        run_to_report(runtime)
        assert str(_current_report(runtime)[keyword].value) == right
        runtime.close()

    def test_another_encoding_of_the_same_is_a_version_and_nothing_else(self, runtime: Runtime) -> None:
        # Given an object from the camera, reported
        offer(runtime, _fundus(grade=0, transfer_syntax=ExplicitVRLittleEndian))
        run_to_report(runtime)
        # When the archive sends it on in another encoding
        assert offer(runtime, _fundus(grade=0, transfer_syntax=ImplicitVRLittleEndian)) == 0
        run_to_report(runtime)
        # Then it is known as the same
        assert value(runtime, "SELECT withheld_reason FROM studies") is None
        assert value(runtime, "SELECT header_version FROM instances") == 2
        assert value(runtime, "SELECT count(*) FROM reports") == 1

    def test_another_camera_means_another_analysis(self, runtime: Runtime) -> None:
        # Given an image read as one of the labelled camera
        offer(runtime, _fundus(grade=1))
        run_to_report(runtime)
        assert value(runtime, "SELECT grade FROM findings") == 1
        # When it turns out to come from one that has an adapter (20 more green)
        assert offer(runtime, _fundus(grade=1, manufacturer="SIMULATED", model="blue")) == 0
        assert value(runtime, "SELECT state FROM instances") == "RECEIVED"
        run_to_report(runtime)
        # Then it was read again, that way
        found = row(runtime, "SELECT route, adapter FROM findings")
        assert tuple(found.values()) == ("adapter", "simulated-blue")
        assert value(runtime, "SELECT max(revision) FROM reports") == 2

    def test_a_refused_image_gets_another_chance_and_the_study_another_report(self, runtime: Runtime) -> None:
        # Given an image that its header calls monochrome
        pixels: dict[str, Any] = {"grade": 2, "transfer_syntax": ExplicitVRLittleEndian}
        offer(runtime, _fundus(**pixels, PhotometricInterpretation="MONOCHROME2"))
        run_to_report(runtime)
        assert value(runtime, "SELECT reason_code FROM instances") == "NOT_COLOUR"
        # When the header is corrected, in nothing that a row shows
        offer(runtime, _fundus(**pixels))
        run_to_report(runtime)
        # Then the report knows
        assert value(runtime, "SELECT state FROM instances") == "ANALYSED"
        assert value(runtime, "SELECT grade FROM v_eye_results") == 2

    def test_the_result_of_a_running_analysis_takes_the_corrected_side(self, runtime: Runtime) -> None:
        offer(runtime, _fundus(laterality="R"))
        instance = value(runtime, "SELECT id FROM instances")
        claimed = runtime.database.write(images.claim, instance, "somebody", 60.0)
        assert claimed is not None
        offer(runtime, _fundus(laterality="L"))
        execute(runtime, "UPDATE instances SET claim_expires_at = NULL")
        analyse_all(runtime)
        assert value(runtime, "SELECT laterality FROM findings") == "L"


class TestLateRetry:
    """The right eye over a first association, a correction to the left, and the right eye's bytes again."""

    def _sent_again(self, runtime: Runtime, *, released: bool | None, first: int = 1) -> None:
        right, left = _fundus(laterality="R"), _fundus(laterality="L")
        offer(runtime, right, peer=caller(first))
        if released is not None:
            outcome = "RELEASED" if released else "CONNECTION_LOST"
            Intake(runtime).association_closed(caller(first), outcome)
        offer(runtime, left, peer=caller(2))
        assert offer(runtime, right, peer=caller(3)) == 0
        run_to_report(runtime)

    @pytest.mark.parametrize(
        ("released", "side"), [(True, "R"), (False, "L"), (None, "L")], ids=["released", "lost", "open"]
    )
    def test_a_sender_that_was_not_told_takes_nothing_back(
        self, runtime: Runtime, released: bool | None, side: str
    ) -> None:
        self._sent_again(runtime, released=released)
        assert value(runtime, "SELECT laterality FROM v_eye_results") == side

    def test_sent_once_more_after_it_was_told_it_counts(self, runtime: Runtime) -> None:
        self._sent_again(runtime, released=False)
        Intake(runtime).association_closed(caller(3), "RELEASED")
        offer(runtime, _fundus(laterality="R"), peer=caller(4))
        run_to_report(runtime)
        assert value(runtime, "SELECT laterality FROM v_eye_results") == "R"

    def test_a_retry_that_came_before_the_correction_leaves_nothing_to_excuse(self, runtime: Runtime) -> None:
        right = _fundus(laterality="R")
        offer(runtime, right)
        Intake(runtime).association_closed(caller(1), "ABORTED")
        offer(runtime, right, peer=caller(5))
        Intake(runtime).association_closed(caller(5), "RELEASED")
        self._sent_again(runtime, released=True, first=6)
        assert value(runtime, "SELECT laterality FROM v_eye_results") == "R"

    def test_an_association_that_was_forgotten_was_long_ago(self, runtime: Runtime) -> None:
        right = _fundus(laterality="R")
        offer(runtime, right)
        offer(runtime, _fundus(laterality="L"), peer=caller(2))
        execute(runtime, "DELETE FROM association_studies")
        execute(runtime, "DELETE FROM associations")
        offer(runtime, right, peer=caller(3))
        run_to_report(runtime)
        assert value(runtime, "SELECT laterality FROM v_eye_results") == "R"


class TestOtherPixels:
    def test_they_are_kept_aside_and_the_report_is_withheld(self, runtime: Runtime) -> None:
        # Given an image
        offer(runtime, _fundus(grade=0))
        # When another picture comes under its UID
        assert offer(runtime, _fundus(grade=4)) == 0
        # Then the second file is in quarantine, and nothing is reported
        aside = row(runtime, "SELECT * FROM quarantined")
        assert runtime.spool.path(aside["spool_path"]).exists()
        assert not list(Path(runtime.spool.path("objects")).rglob(f"{aside['sha256']}*"))
        run_to_report(runtime)
        assert value(runtime, "SELECT withheld_reason FROM studies") == "UID_CONFLICT"
        assert value(runtime, "SELECT count(*) FROM reports") == 0
        # And the same bytes once more are kept aside too, without a new row or a second file
        again = dcmread(runtime.spool.path(aside["spool_path"]))
        assert offer(runtime, again) == 0
        assert not list(Path(runtime.spool.path("objects")).rglob(f"{aside['sha256']}*"))
        assert value(runtime, "SELECT count(*) FROM quarantined") == 1

    def test_a_person_may_decide_that_the_first_one_counts(self, runtime: Runtime) -> None:
        # Given a conflict that came after the report
        offer(runtime, _fundus(grade=0))
        run_to_report(runtime)
        offer(runtime, _fundus(grade=4))
        aside = row(runtime, "SELECT spool_path, resolved_at FROM quarantined")
        assert aside["resolved_at"] is None
        # When a person decides
        found = runtime.database.read(
            lambda tx: conflicts(tx, sop_instance_uid="1.2.3.4.1", study_instance_uid=STUDY)
        )
        assert runtime.database.write(keep_first, found, runtime.closing_policy) == 1
        run_to_report(runtime)
        # Then the first one is reported, and the other stays as a record
        assert value(runtime, "SELECT withheld_reason FROM studies") is None
        studies = row(runtime, "SELECT content_version, reported_version FROM studies")
        assert studies["content_version"] == studies["reported_version"]
        assert value(runtime, "SELECT grade FROM v_eye_results") == 0
        assert value(runtime, "SELECT resolved_at FROM quarantined") is not None
        # And the other one sent again changes nothing
        assert offer(runtime, dcmread(runtime.spool.path(aside["spool_path"]))) == 0
        assert value(runtime, "SELECT withheld_reason FROM studies") is None

    def test_the_study_that_they_name_waits_for_that_person_too(self, runtime: Runtime) -> None:
        # Given two studies, and other pixels that come for the one under a UID of the other
        offer(runtime, _fundus("1.2.3.4.1", grade=0))
        offer(runtime, _fundus("1.2.3.4.2", grade=0, study_uid=OTHER_STUDY))
        run_to_report(runtime)
        offer(runtime, _fundus("1.2.3.4.1", grade=4, study_uid=OTHER_STUDY))
        run_to_report(runtime)
        withheld = rows(runtime, "SELECT withheld_reason FROM studies")
        assert [each["withheld_reason"] for each in withheld] == ["UID_CONFLICT"] * 2
        # When a person decides, naming either
        found = runtime.database.read(
            lambda tx: conflicts(tx, sop_instance_uid=None, study_instance_uid=OTHER_STUDY)
        )
        assert runtime.database.write(keep_first, found, runtime.closing_policy) == 1
        run_to_report(runtime)
        # Then both are reported
        waiting = "SELECT count(*) FROM studies WHERE reported_version < content_version"
        assert value(runtime, waiting) == 0
        assert rows(runtime, "SELECT * FROM v_failures") == []

    def test_a_study_that_only_they_name_is_withheld_before_its_images_come(self, runtime: Runtime) -> None:
        offer(runtime, _fundus(grade=0))
        offer(runtime, _fundus(grade=4, study_uid=OTHER_STUDY))
        offer(runtime, _fundus("1.2.3.4.2", grade=0, study_uid=OTHER_STUDY))
        run_to_report(runtime)
        assert value(runtime, "SELECT count(*) FROM reports") == 0

    def test_a_report_that_is_being_written_is_not_finished(self, runtime: Runtime) -> None:
        # Given a conflict that comes while the report is built
        offer(runtime, _fundus(grade=0))
        analyse_all(runtime)
        close_studies(runtime)
        real = runtime.spool.write_durable

        def meanwhile(path: str, data: bytes) -> None:
            real(path, data)
            offer(runtime, _fundus(grade=4))

        with patch.object(runtime.spool, "write_durable", meanwhile):
            report_all(runtime)
        assert rows(runtime, "SELECT * FROM reports WHERE state = 'WRITTEN'") == []
        assert value(runtime, "SELECT claim_token FROM studies") is None


class TestPatientConflict:
    def test_two_patients_in_one_study_withhold_it_until_one_is_corrected(self, runtime: Runtime) -> None:
        offer(runtime, _fundus("1.2.3.4.1", patient_id="A"))
        offer(runtime, _fundus("1.2.3.4.2", patient_id="B", laterality="L"))
        run_to_report(runtime)
        assert value(runtime, "SELECT withheld_reason FROM studies") == "PATIENT_CONFLICT"
        assert value(runtime, "SELECT count(*) FROM reports") == 0
        # When the wrong identity is corrected
        offer(runtime, _fundus("1.2.3.4.2", patient_id="A", laterality="L"))
        run_to_report(runtime)
        # Then the report is written
        assert value(runtime, "SELECT withheld_reason FROM studies") is None
        assert value(runtime, "SELECT count(*) FROM v_eye_results") == 2

    def test_one_who_issued_the_identifier_is_compared_where_it_is_stated(self, runtime: Runtime) -> None:
        offer(runtime, _fundus("1.2.3.4.1", IssuerOfPatientID="HOSPITAL"))
        offer(runtime, _fundus("1.2.3.4.2", laterality="L"))
        assert value(runtime, "SELECT withheld_reason FROM studies") is None
        offer(runtime, _fundus("1.2.3.4.3", laterality="L", IssuerOfPatientID="OTHER"))
        assert value(runtime, "SELECT withheld_reason FROM studies") == "PATIENT_CONFLICT"

    def test_one_that_is_found_meanwhile_is_not_overwritten(self, on_postgresql: Runtime) -> None:
        # Given a transaction that makes one of two images another patient's, not committed yet; SQLite,
        # which has one writer at a time, cannot get there
        runtime = on_postgresql
        offer(runtime, _fundus("1.2.3.4.1"))
        offer(runtime, _fundus("1.2.3.4.2", laterality="L"))
        study = value(runtime, "SELECT id FROM studies")
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with ThreadPoolExecutor(1) as pool:
            with runtime.database.engine.begin() as tx:
                tx.execute(text("SELECT id FROM studies FOR UPDATE"))
                tx.execute(text("UPDATE instances SET patient_key = 'other' WHERE id = 2"))
                tx.execute(text("UPDATE studies SET withheld_reason = 'PATIENT_CONFLICT'"))
                # When another one settles the study
                settled = pool.submit(runtime.database.write, settle_content, study, runtime.closing_policy)
                while not value(runtime, waiting) and not settled.done():
                    time.sleep(0.01)
            settled.result(30)
        # Then it saw the other patient
        assert value(runtime, "SELECT withheld_reason FROM studies") == "PATIENT_CONFLICT"

    def test_no_table_holds_the_identity(self, runtime: Runtime) -> None:
        offer(runtime, _fundus(patient_id="PATIENT7", patient_name="Doe^Jane"))
        everything = repr(
            [
                rows(runtime, f"SELECT * FROM {table}")  # noqa: S608 - names from the list below
                for table in ("instances", "studies", "header_versions", "associations")
            ]
        )
        assert "PATIENT7" not in everything
        assert "Doe" not in everything


class TestAtOnce:
    def test_one_object_over_many_associations_is_one_row(self, runtime: Runtime) -> None:
        ds = [_fundus()] * 6
        with ThreadPoolExecutor(6) as pool:
            statuses = list(
                pool.map(lambda pair: offer(runtime, pair[1], peer=caller(pair[0])), enumerate(ds, 1))
            )
        assert statuses == [0] * 6
        assert value(runtime, "SELECT count(*) FROM instances") == 1
        assert value(runtime, "SELECT count(*) FROM header_versions") == 1
        assert value(runtime, "SELECT content_version FROM studies") == 1

    def test_images_of_one_new_study_meet_in_one_row(self, runtime: Runtime) -> None:
        objects = [_fundus(f"1.2.3.4.{number}") for number in range(1, 9)]
        with ThreadPoolExecutor(8) as pool:
            statuses = list(
                pool.map(lambda pair: offer(runtime, pair[1], peer=caller(pair[0])), enumerate(objects, 1))
            )
        assert statuses == [0] * 8
        assert value(runtime, "SELECT content_version FROM studies") == 8
        assert value(runtime, "SELECT count(*) FROM association_studies") == 8

    def test_corrections_of_one_header_are_taken_one_after_the_other(self, runtime: Runtime) -> None:
        offer(runtime, _fundus())
        corrected = [_fundus(accession=f"ACC{number}") for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda ds: offer(runtime, ds), corrected)) == [0] * 6
        assert value(runtime, "SELECT header_version FROM instances") == 7
        assert value(runtime, "SELECT count(*) FROM header_versions") == 7

    def test_a_file_that_vanishes_while_it_is_stored_is_not_acknowledged(self, runtime: Runtime) -> None:
        real = runtime.spool.sync

        def then_lost(spooled: Any) -> None:
            real(spooled)
            runtime.spool.discard(spooled.relative_path)

        ds = _fundus()
        with patch.object(runtime.spool, "sync", then_lost):
            assert offer(runtime, ds) != 0
        assert offer(runtime, ds) == 0
        run_to_report(runtime)
        assert value(runtime, "SELECT grade FROM v_eye_results") == 2


class TestTheDoor:
    def test_a_full_disk_is_a_transient_refusal(self, tmp_path: Path) -> None:
        runtime = make_runtime(tmp_path, spool={"reserve_mb": 10_000_000})
        assert offer(runtime, _fundus()) == 0xA700
        assert rows(runtime, "SELECT * FROM instances") == []
        runtime.close()

    def test_a_backlog_beyond_the_limit_is_a_transient_refusal(self, tmp_path: Path) -> None:
        runtime = make_runtime(tmp_path, listener={"maximum_backlog": 1})
        intake = Intake(runtime)
        assert intake.pressure() is None
        assert offer(runtime, _fundus()) == 0
        refusal = Intake(runtime).pressure()
        assert isinstance(refusal, BacklogError)
        assert (refusal.status, refusal.reason_code) == (0xA700, "BACKLOG_LIMIT")
        assert intake.pressure() is None  # counted a moment ago: the limit is no exact one
        runtime.close()

    def test_a_database_that_is_away_is_no_backlog(self, runtime: Runtime) -> None:
        with patch.object(runtime.database, "read", side_effect=DatabaseUnreachableError("away")):
            assert Intake(runtime).pressure() is None

    def test_what_is_refused_for_now_again_and_again_is_one_row(self, runtime: Runtime) -> None:
        for uid in ("1.2.3", "1.2.3", "1.2.4"):
            again = TurnedAway("STORE", "BACKLOG_LIMIT", caller(), 0xA700, sop_instance_uid=uid)
            Intake(runtime).turned_away(again)
        found = rows(runtime, "SELECT sop_instance_uid, count FROM rejections")
        assert {each["sop_instance_uid"] for each in found} == {"1.2.3", "1.2.4"}
        assert sum(each["count"] for each in found) == 3
        assert len(found) <= 3  # two, unless the hour has just changed

    def test_another_object_than_announced_is_refused(self, runtime: Runtime) -> None:
        ds = _fundus()
        original = Intake.object_received

        def announce_another(self: Intake, received: Any) -> int:
            return original(self, replace(received, sop_instance_uid=generate_uid()))

        with patch.object(Intake, "object_received", announce_another):
            assert offer(runtime, ds) == 0xA900
        assert rows(runtime, "SELECT * FROM instances") == []

    def test_a_database_that_is_away_is_a_transient_refusal_and_loses_nothing(self, runtime: Runtime) -> None:
        ds = _fundus()
        with patch.object(runtime.database, "submit", side_effect=DatabaseUnreachableError("away")):
            assert offer(runtime, ds) == 0xA700
        assert offer(runtime, ds) == 0
        assert value(runtime, "SELECT count(*) FROM instances") == 1

    def test_what_is_turned_away_is_a_row_and_repeats_are_counted(self, runtime: Runtime) -> None:
        intake = Intake(runtime)
        probe = TurnedAway("ASSOCIATION", "CALLING_AE_UNKNOWN", caller(), 0x10103)
        for _ in range(3):
            intake.turned_away(probe)
        found = rows(runtime, "SELECT reason_code, count, calling_ae FROM rejections")
        assert {each["reason_code"] for each in found} == {"CALLING_AE_UNKNOWN"}
        assert sum(each["count"] for each in found) == 3
        assert len(found) <= 2

    def test_what_names_an_object_has_a_row_of_its_own(self, runtime: Runtime) -> None:
        lost = TurnedAway("STORE", "UNREADABLE_OBJECT", caller(), 0xC210, sop_instance_uid="1.2.3")
        for _ in range(2):
            Intake(runtime).turned_away(lost)
        assert [each["count"] for each in rows(runtime, "SELECT count FROM rejections")] == [1, 1]

    def test_what_a_hostile_peer_says_of_itself_is_a_row_all_the_same(self, runtime: Runtime) -> None:
        peer = replace(caller(), calling_ae="EVIL\x00AE\ud800", host="h" * 100)
        rejection = TurnedAway("ASSOCIATION", "CALLED_AE_UNKNOWN", peer, sop_class_uid="1.2\x00" + "9" * 100)
        Intake(runtime).turned_away(rejection)
        assert value(runtime, "SELECT calling_ae FROM rejections") == "EVILAE?"

    def test_the_contexts_that_one_association_was_refused_are_one_row(self, runtime: Runtime) -> None:
        intake, peer = Intake(runtime), caller()
        for number in range(60):
            detail = f"Class {number:02d} with JPEG Baseline"
            refused = TurnedAway("CONTEXT", "CONTEXT_NOT_ACCEPTED", peer, 3, f"1.2.{number}", detail=detail)
            intake.turned_away(refused)
        assert rows(runtime, "SELECT * FROM rejections") == []  # it may still become clear what was missed
        intake.association_closed(peer, "RELEASED")
        (found,) = rows(runtime, "SELECT sop_class_uid, detail, count FROM rejections")
        assert (found["sop_class_uid"], found["count"]) == (None, 1)
        assert found["detail"].startswith("no object stored over this association; not accepted: Class 00, ")
        assert found["detail"].endswith("Class 19 and 40 more")

    def test_a_single_refused_context_keeps_its_class(self, runtime: Runtime) -> None:
        intake, peer = Intake(runtime), caller()
        refused = TurnedAway("CONTEXT", "CONTEXT_NOT_ACCEPTED", peer, 3, "1.2.3", detail="CT with nothing")
        intake.turned_away(refused)
        intake.association_closed(peer, "RELEASED")
        (found,) = rows(runtime, "SELECT sop_class_uid, detail FROM rejections")
        assert found == {
            "sop_class_uid": "1.2.3",
            "detail": "no object stored over this association; not accepted: CT with nothing",
        }

    def test_a_rejection_that_cannot_be_recorded_ends_nothing(self, runtime: Runtime) -> None:
        with patch.object(runtime.database, "write", side_effect=DatabaseUnreachableError("away")):
            Intake(runtime).turned_away(TurnedAway("CONNECTION", "CONNECTION_PROBE", caller()))
        assert rows(runtime, "SELECT * FROM rejections") == []
