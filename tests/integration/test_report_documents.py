from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from factories.runtime import (
    CALLER,
    Pacs,
    deliver_all,
    execute,
    fundus_of_grade,
    let_time_pass,
    make_runtime,
    offer,
    past,
    receiving_pacs,
    report_all,
    rows,
    run_to_report,
    value,
)
from factories.validators import dciodvfy
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from worker.dispatch import Job
from worker.documents import make_documents
from worker.intake import Intake
from worker.retention import retain
from worker.runtime import Runtime
from worker.store import documents
from worker.sweep import sweep, wake_due

CLASSES = (Comprehensive3DSRStorage, EncapsulatedPDFStorage, SecondaryCaptureImageStorage)
DESTINATION = {
    "name": "pacs",
    "ae_title": "PACS",
    "host": "127.0.0.1",
    "port": 1,
    "pdf": True,
    "overlay": True,
}


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with receiving_pacs(classes=CLASSES) as running:
        yield running


@pytest.fixture
def runtime(tmp_path: Path, database_url: str, pacs: Pacs) -> Iterator[Runtime]:
    destination = pacs.destination(pdf=True, overlay=True)
    made = make_runtime(tmp_path, database_url=database_url, destination=[destination])
    yield made
    made.close()


def study(runtime: Runtime, grades: Sequence[int | None] = (3, 0), **options: Any) -> None:
    """Right and left eye, in turn, of these grades; reported."""
    for number, grade in enumerate(grades, start=1):
        image = {"study_uid": "1.2.3", "sop_uid": f"1.2.3.{number}", "laterality": "RL"[(number - 1) % 2]}
        assert offer(runtime, fundus_of_grade(**{**image, "grade": grade, **options})) == 0
    run_to_report(runtime)


def make(runtime: Runtime) -> None:
    for each in rows(runtime, "SELECT id FROM studies"):
        make_documents(runtime, each["id"])


def states(runtime: Runtime) -> list[tuple[str, str]]:
    found = rows(runtime, "SELECT kind, state FROM documents ORDER BY id")
    return [(each["kind"], each["state"]) for each in found]


def by_class(pacs: Pacs, sop_class: str) -> list[Any]:
    return [ds for ds in pacs.received if ds.SOPClassUID == sop_class]


def test_page_and_maps_arrive_beside_the_report_in_its_study(runtime: Runtime, pacs: Pacs) -> None:
    study(runtime)
    deliver_all(runtime)  # the report does not wait for them
    assert [ds.Modality for ds in pacs.received] == ["SR"]
    make(runtime)
    deliver_all(runtime)
    report, page, *maps = pacs.received
    assert {ds.StudyInstanceUID for ds in pacs.received} == {"1.2.3"}
    assert {ds.PatientID for ds in pacs.received} == {report.PatientID}
    assert {ds.AccessionNumber for ds in pacs.received} == {report.AccessionNumber}
    assert len({ds.SeriesInstanceUID for ds in pacs.received}) == 3
    assert page.EncapsulatedDocument.startswith(b"%PDF-")
    sources = {ref.ReferencedSOPInstanceUID for ref in page.SourceInstanceSequence}
    assert sources == {report.SOPInstanceUID, "1.2.3.1", "1.2.3.2"}
    assert (page.BurnedInAnnotation, page.VerificationFlag) == ("YES", "UNVERIFIED")
    assert {ds.ImageLaterality: ds.SourceImageSequence[0].ReferencedSOPInstanceUID for ds in maps} == {
        "R": "1.2.3.1",
        "L": "1.2.3.2",
    }
    assert all(ds.ImageType[0] == "DERIVED" and "DerivationDescription" in ds for ds in maps)
    found = rows(runtime, "SELECT kind, state, sop_class_uid, sop_instance_uid FROM v_deliveries ORDER BY 1")
    assert [(each["kind"], each["state"]) for each in found] == [
        ("OVERLAY", "ACCEPTED"),
        ("OVERLAY", "ACCEPTED"),
        ("PDF", "ACCEPTED"),
        ("SR", "ACCEPTED"),
    ]
    assert {each["sop_instance_uid"] for each in found} == set(pacs.uids)
    assert value(runtime, "SELECT delivered_at IS NOT NULL FROM v_eye_results LIMIT 1")


def test_every_object_beside_the_report_is_valid(runtime: Runtime, tmp_path: Path) -> None:
    study(runtime)
    make(runtime)
    found = rows(runtime, "SELECT kind, spool_path FROM documents")
    iods = {"PDF": "EncapsulatedPDF", "OVERLAY": "SCImage"}
    for each in found:
        assert dciodvfy(runtime.spool.path(each["spool_path"]), iods[each["kind"]]) == []
    assert len(found) == 3


def test_the_same_bytes_under_the_same_uid_whenever_it_is_made_and_sent(runtime: Runtime, pacs: Pacs) -> None:
    study(runtime)
    make(runtime)
    stored = {each["sop_instance_uid"]: each["sha256"] for each in rows(runtime, "SELECT * FROM documents")}
    # When the process died before the rows were written, and again when the PACS could not take them
    execute(runtime, "DELETE FROM deliveries WHERE document_id IS NOT NULL")
    execute(runtime, "UPDATE documents SET state = 'PENDING', sha256 = NULL")
    make(runtime)
    assert {e["sop_instance_uid"]: e["sha256"] for e in rows(runtime, "SELECT * FROM documents")} == stored
    pacs.status = 0xA700
    deliver_all(runtime)
    pacs.status = 0
    let_time_pass(runtime)
    deliver_all(runtime)
    assert sorted(pacs.uids) == sorted([*stored, value(runtime, "SELECT sop_instance_uid FROM reports")])
    files = [runtime.spool.path(f"reports/{uid}.dcm").read_bytes() for uid in stored]
    assert {hashlib.sha256(data).hexdigest() for data in files} == set(stored.values())


def test_a_revision_has_documents_of_its_own_and_old_ones_go_no_more(runtime: Runtime, pacs: Pacs) -> None:
    study(runtime)
    make(runtime)
    offer(runtime, fundus_of_grade(4, study_uid="1.2.3", sop_uid="1.2.3.9", laterality="L"))
    run_to_report(runtime)
    make(runtime)
    deliver_all(runtime)
    assert [ds.InstanceNumber for ds in by_class(pacs, EncapsulatedPDFStorage)] == [2]
    (page,) = by_class(pacs, EncapsulatedPDFStorage)
    first = value(runtime, "SELECT sop_instance_uid FROM documents WHERE kind = 'PDF' ORDER BY id LIMIT 1")
    series = page.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first
    assert len(by_class(pacs, SecondaryCaptureImageStorage)) == 3
    old = rows(runtime, "SELECT DISTINCT state FROM v_deliveries WHERE revision = 1")
    assert [each["state"] for each in old] == ["SUPERSEDED"]


def test_what_was_not_made_when_the_revision_came_is_not_made(runtime: Runtime) -> None:
    study(runtime)
    offer(runtime, fundus_of_grade(4, study_uid="1.2.3", sop_uid="1.2.3.9", laterality="L"))
    run_to_report(runtime)
    make(runtime)
    found = states(runtime)
    assert found[:3] == [("PDF", "LEFT_OUT"), ("OVERLAY", "LEFT_OUT"), ("OVERLAY", "LEFT_OUT")]
    assert {state for _, state in found[3:]} == {"WRITTEN"}


def test_an_eye_without_a_grade_has_no_map_and_a_study_in_conflict_has_nothing(
    runtime: Runtime, pacs: Pacs
) -> None:
    study(runtime, (3, None))
    assert states(runtime) == [("PDF", "PENDING"), ("OVERLAY", "PENDING")]
    make(runtime)
    execute(runtime, "UPDATE studies SET withheld_reason = 'PATIENT_CONFLICT'")
    deliver_all(runtime)
    assert pacs.received == []


def test_when_the_rows_say_other_than_the_report_nothing_is_made_and_nothing_reported_anew(
    tmp_path: Path,
) -> None:
    runtime = make_runtime(tmp_path, destination=[DESTINATION], jobs={"max_attempts": 2})
    study(runtime, (3,))
    execute(runtime, "UPDATE findings SET quality = 0.71")
    make(runtime)
    assert {state for _, state in states(runtime)} == {"PENDING"}
    let_time_pass(runtime)
    make(runtime)
    assert {state for _, state in states(runtime)} == {"LEFT_OUT"}
    assert value(runtime, "SELECT min(reason_code) FROM documents") == "REPORT_CHANGED"
    report_all(runtime)
    assert value(runtime, "SELECT count(*) FROM reports") == 1
    runtime.close()


def test_a_map_that_is_not_the_findings_is_not_drawn(runtime: Runtime) -> None:
    study(runtime, (3,))
    with patch("worker.document_pictures.prepare", _other_colour):
        make(runtime)
    found = rows(runtime, "SELECT kind, state, reason_code FROM documents ORDER BY id")
    assert [tuple(each.values()) for each in found] == [
        ("PDF", "WRITTEN", None),
        ("OVERLAY", "LEFT_OUT", "MAPS_DIFFER"),
    ]


def _other_colour(rgb: Any, size: int) -> Any:
    from models.preprocess import prepare

    prepared = prepare(rgb, size)
    prepared.tensor[..., 1] = np.where(prepared.tensor[..., 3] > 0, 40, 0)
    return prepared


def test_a_failure_is_tried_again_then_said_and_a_person_can_ask_for_it_again(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, destination=[DESTINATION], jobs={"max_attempts": 2})
    study(runtime, (3,))
    with patch("worker.documents.build_overlay", side_effect=ValueError("Doe^Jane")):
        for _ in range(runtime.settings.jobs.max_attempts):
            make(runtime)
            let_time_pass(runtime)
    assert states(runtime) == [("PDF", "WRITTEN"), ("OVERLAY", "FAILED")]
    failure = rows(runtime, "SELECT kind, reason_code, detail FROM v_failures")
    assert [tuple(each.values()) for each in failure] == [
        ("document_failed", "DOCUMENT_FAILED", "ValueError")
    ]

    assert (
        runtime.database.write(documents.requeue, runtime.database.read(documents.failed_ids, "1.2.3")) == 1
    )
    make(runtime)
    assert states(runtime)[1] == ("OVERLAY", "WRITTEN")
    runtime.close()


def test_a_lost_photograph_costs_its_map_and_its_place_on_the_page(runtime: Runtime) -> None:
    study(runtime)
    runtime.spool.path(value(runtime, "SELECT min(spool_path) FROM instances")).unlink()
    make(runtime)
    assert sorted(states(runtime)) == [("OVERLAY", "LEFT_OUT"), ("OVERLAY", "WRITTEN"), ("PDF", "WRITTEN")]


def test_a_pacs_that_takes_no_pages_gets_the_rest(tmp_path: Path) -> None:
    with receiving_pacs() as pacs:
        runtime = make_runtime(tmp_path, destination=[pacs.destination(pdf=True)])
        study(runtime)
        make(runtime)
        deliver_all(runtime)
        assert [ds.Modality for ds in pacs.received] == ["SR"]
        found = rows(runtime, "SELECT kind, state, reason_code FROM v_deliveries ORDER BY kind")
        assert [tuple(each.values()) for each in found] == [
            ("PDF", "PENDING", "CONTEXT_NOT_ACCEPTED"),
            ("SR", "ACCEPTED", None),
        ]
        runtime.close()


def test_the_sweep_finds_what_is_to_be_made_and_settles_what_destinations_want(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, destination=[DESTINATION])
    study(runtime, (3,))
    runtime.dispatcher.woken.clear()  # type: ignore[attr-defined]  # the test's own dispatcher
    wake_due(runtime)
    assert (Job.REPORT, 1, 2) in runtime.dispatcher.woken  # type: ignore[attr-defined]
    make(runtime)
    runtime.close()
    # When pages are not wanted any more at the one, and are at another
    other = {**DESTINATION, "name": "archive", "overlay": False}
    settled = make_runtime(tmp_path, destination=[{**DESTINATION, "pdf": False}, other])
    sweep(settled)
    found = rows(settled, "SELECT destination, kind, state FROM v_deliveries ORDER BY 1, 2")
    assert [tuple(each.values()) for each in found] == [
        ("archive", "PDF", "PENDING"),
        ("archive", "SR", "PENDING"),
        ("pacs", "OVERLAY", "PENDING"),
        ("pacs", "PDF", "SUPERSEDED"),
        ("pacs", "SR", "PENDING"),
    ]
    settled.close()


def test_our_own_picture_that_is_routed_back_to_us_is_no_photograph(runtime: Runtime) -> None:
    study(runtime, (3,))
    make(runtime)
    path = value(runtime, "SELECT spool_path FROM documents WHERE kind = 'OVERLAY'")
    own = dcmread(BytesIO(runtime.spool.path(path).read_bytes()))
    assert offer(runtime, own) == 0
    assert value(runtime, "SELECT count(*) FROM instances") == 1
    assert value(runtime, "SELECT state FROM studies") == "CLOSED"
    assert list(runtime.spool.incoming.iterdir()) == []
    assert value(runtime, "SELECT reason_code FROM v_rejections") == "OWN_PICTURE"


def test_files_beside_the_report_go_when_the_reports_go_and_photographs_wait_for_them(tmp_path: Path) -> None:
    keep = {"images_days": 0.5, "reports_days": 0.5}
    runtime = make_runtime(tmp_path, destination=[DESTINATION], retention=keep)
    study(runtime, (3,))
    Intake(runtime).association_closed(CALLER, "RELEASED")
    execute(runtime, "UPDATE deliveries SET state = 'ACCEPTED'")
    moments = (("studies", "created_at"), ("header_versions", "received_at"), ("reports", "written_at"))
    for table, column in moments:
        past(runtime, table, column)
    # While a page is to be made, nothing goes
    assert dict(retain(runtime).files) == {}
    make(runtime)
    execute(runtime, "UPDATE deliveries SET state = 'ACCEPTED'")
    past(runtime, "documents", "written_at")
    assert dict(retain(runtime).files) == {"IMAGE": 1, "REPORT": 3}
    assert list(runtime.spool.path("reports").iterdir()) == []
    runtime.close()
