"""The main job with DCMTK on both sides: storescu as the cameras, storescp as the PACS.

The run at full size, 40 photographs of one's own with the models that are installed: this file with the
environment variables `FUNDUS_TEST_STUDIES=20 FUNDUS_TEST_IMAGES=<folder> FUNDUS_TEST_BUNDLE=reference`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from factories.dcmtk import StoreScp, storescp_process
from factories.photographs import SentStudy, camera_strings, write_studies
from factories.process import Worker, bundle_to_test, worker
from factories.received_reports import ReceivedReport, account, received_reports, stated_in_database
from factories.storescu import Sending, send_in_parallel
from factories.validators import dciodvfy, dsrdump

STUDIES = int(os.environ.get("FUNDUS_TEST_STUDIES", "8"))
ASSOCIATIONS = 4
pytestmark = [pytest.mark.slow, pytest.mark.dcmtk, pytest.mark.timeout(900), pytest.mark.xdist_group("dcmtk")]


@dataclass(frozen=True)
class Run:
    """What was sent, and everything that came of it."""

    worker: Worker
    pacs: StoreScp
    studies: list[SentStudy]
    sendings: list[Sending]
    reports: list[ReceivedReport]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two-eye studies from four camera strings, JPEG and raw, sent over four associations at a time."""
    folder = tmp_path_factory.mktemp("dcmtk")
    bundle = bundle_to_test(folder / "bundle")
    studies = write_studies(folder / "studies", STUDIES, camera_strings(bundle))
    with (
        storescp_process(folder / "pacs") as pacs,
        worker(folder / "worker", bundle=bundle, pacs_port=pacs.port) as served,
    ):
        sendings = send_in_parallel(served.port, studies, ASSOCIATIONS)
        served.wait_drained()
        yield Run(served, pacs, studies, sendings, received_reports(pacs.files()))


def test_storescu_is_told_success_for_every_object(run: Run) -> None:
    assert [sending.output for sending in run.sendings if sending.status] == []
    assert sum(len(sending.acknowledged) for sending in run.sendings) == 2 * STUDIES


def test_one_report_a_study_arrives_and_every_object_is_accounted_for(run: Run) -> None:
    sent = [photograph.sop_instance_uid for study in run.studies for photograph in study.photographs]

    accounts = account(run.worker, sent, run.pacs.files())

    assert accounts.problems == ()
    assert accounts.reports_received == STUDIES
    assert accounts.findings == 2 * STUDIES
    studies = sorted(report.study_instance_uid for report in run.reports)
    assert studies == sorted(study.study_instance_uid for study in run.studies)


def test_the_account_itself_notices_what_is_lost(run: Run) -> None:
    sent = [photograph.sop_instance_uid for study in run.studies for photograph in study.photographs]
    (first, *others), elsewhere = run.pacs.files(), "2.25.1"

    (lost_object,) = account(run.worker, [*sent, elsewhere], [first, *others]).problems
    (lost_report,) = account(run.worker, sent, others).problems

    assert lost_object == f"lost: {elsewhere} was acknowledged and has no row"
    study = received_reports([first])[0].study_instance_uid
    assert lost_report == f"lost: the current report of study {study} is not at the PACS"


def test_results_have_a_row_for_each_photograph_with_its_camera_and_route(run: Run) -> None:
    rows = run.worker.query("SELECT * FROM v_results")

    assert len(rows) == 2 * STUDIES
    found = {
        row["sop_instance_uid"]: (row["laterality"], row["camera"], row["route"], row["adapter"])
        for row in rows
    }
    for study in run.studies:
        camera = study.camera
        adapter = camera.camera if camera.route == "adapter" else None
        for photograph in study.photographs:
            expected = (photograph.laterality, camera.camera, camera.route, adapter)
            assert found[photograph.sop_instance_uid] == expected
    assert all(row["analysed_at"] and row["reported_at"] and row["delivered_at"] for row in rows)


def test_both_encodings_of_every_camera_were_sent(run: Run) -> None:
    assert {(study.camera.route, study.raw) for study in run.studies} >= {
        (route, raw) for route in ("labelled", "adapter", "known", "unknown") for raw in (False, True)
    }


def test_each_report_says_what_the_database_says_and_nothing_of_withheld_eyes(run: Run) -> None:
    stated = stated_in_database(run.worker)
    cameras = {study.study_instance_uid: study.camera for study in run.studies}

    assert {report.sop_instance_uid for report in run.reports} == set(stated)
    for report in run.reports:
        assert set(report.eyes) == {"R", "L"}
        for side, eye in report.eyes.items():
            expected = stated[report.sop_instance_uid][side]
            assert eye == expected
            if not cameras[report.study_instance_uid].reported:
                assert eye.grade is None
                assert eye.reason_code in ("CAMERA_NOT_VALIDATED", "UNGRADABLE_QUALITY")
            assert (eye.grade is None) == (eye.reason_code is not None)


def test_some_eyes_are_graded_and_their_grades_are_those_of_their_photographs(run: Run) -> None:
    graded = [eye for report in run.reports for eye in report.eyes.values() if eye.grade is not None]
    rows = run.worker.query("SELECT * FROM v_results WHERE route IN ('labelled', 'adapter')")
    by_eye = {(row["study_instance_uid"], row["laterality"]): row for row in rows}

    assert graded
    for report in run.reports:
        for side, eye in report.eyes.items():
            row = by_eye.get((report.study_instance_uid, side))
            if row is not None and eye.grade is not None:
                assert (eye.grade, eye.referable_probability) == (row["grade"], row["referable_probability"])


def test_dciodvfy_reports_no_error_and_dsrdump_reads_every_report(run: Run) -> None:
    for report in run.reports:
        assert dciodvfy(report.path) == []
        assert "eye" in dsrdump(report.path)


def test_nothing_was_turned_away(run: Run) -> None:
    assert run.worker.query("SELECT kind, reason_code, detail FROM v_rejections") == []
