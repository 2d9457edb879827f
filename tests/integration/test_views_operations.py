"""Backlog, speed, cameras and trouble, as SQL shows them, on SQLite and PostgreSQL with the same answer."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from factories.rows import Rows, at
from factories.views import ask, only
from sqlalchemy.orm import Session

from worker.schema import db_now


@pytest.fixture
def rows(session: Session) -> Rows:
    return Rows(session)


# --- v_backlog


def test_an_idle_system_has_no_backlog(session: Session, rows: Rows) -> None:
    study, bundle = rows.study(), rows.bundle()
    rows.image(study)
    rows.accepted(rows.report(study, bundle), "pacs", 140)
    found = ask(session, "SELECT * FROM v_backlog ORDER BY kind")
    kinds = ("images_claim_overdue", "images_claimed", "images_waiting", "studies_open", "studies_unreported")
    assert only(found, "kind", "destination", "items", "oldest_age_s") == [
        (kind, None, 0, None) for kind in kinds
    ]


def test_the_backlog_by_kind_with_the_age_of_its_oldest(session: Session, rows: Rows) -> None:
    # Given: the database's clock
    now = session.scalar(db_now(0).select())
    assert now is not None

    def ago(seconds: float) -> datetime:
        return now - timedelta(seconds=seconds)

    bundle = rows.bundle()
    opened = rows.study(state="OPEN", opened_at=ago(400), closed_at=None, reported_version=0)
    unreported = rows.study(closed_at=ago(500), reported_version=1, content_version=2)
    rows.study(closed_at=ago(9000), reported_version=0, withheld_reason="PATIENT_CONFLICT")
    rows.waiting(opened, received_at=ago(100))
    rows.waiting(opened, received_at=ago(50))
    rows.waiting(opened, received_at=ago(200), claim_expires_at=ago(-60), claim_token="a")
    rows.waiting(opened, received_at=ago(3000), claim_expires_at=ago(300), claim_token="b")
    report = rows.report(unreported, bundle)
    rows.delivery(report, "archive", created_at=ago(600), required=False)
    rows.delivery(report, "pacs", created_at=ago(700))
    rows.delivery(rows.report(opened, bundle), "pacs", created_at=ago(650))
    rows.delivery(report, "gone", created_at=ago(800), state="DEAD")
    # When
    found = ask(session, "SELECT * FROM v_backlog ORDER BY kind, destination")
    # Then: ages to within what this test itself takes
    assert only(found, "kind", "destination", "items") == [
        ("deliveries_pending", "archive", 1),
        ("deliveries_pending", "pacs", 2),
        ("images_claim_overdue", None, 1),
        ("images_claimed", None, 1),
        ("images_waiting", None, 2),
        ("studies_open", None, 1),
        ("studies_unreported", None, 1),
    ]
    ages = [row["oldest_age_s"] for row in found]
    assert ages == pytest.approx([600, 700, 300, 200, 100, 400, 500], abs=30)
    assert min(age - least for age, least in zip(ages, [600, 700, 300, 200, 100, 400, 500], strict=True)) >= 0


# --- v_throughput_hourly, v_latency_hourly


def test_throughput_by_the_hour_in_which_each_step_ended(session: Session, rows: Rows) -> None:
    bundle, study = rows.bundle(), rows.study()
    rows.image(study, received_at=at(3599), analysed_at=at(3600))
    rows.image(study, received_at=at(0), analysed_at=at(1))
    rows.waiting(study, received_at=at(3601))
    rows.refused(study, received_at=at(2), analysed_at=at(3))
    rows.refused(study, received_at=at(7200), analysed_at=None)
    old = rows.report(study, bundle, state="SUPERSEDED", written_at=at(10))
    new = rows.report(study, bundle, revision=2, written_at=at(3610))
    rows.report(study, bundle, revision=3, state="PENDING", written_at=None)
    rows.delivery(old, "pacs", state="SUPERSEDED")
    rows.accepted(new, "pacs", 3620)
    rows.accepted(new, "archive", 7300)
    found = ask(session, "SELECT * FROM v_throughput_hourly ORDER BY hour")
    columns = ("hour", "received", "analysed", "refused", "reported", "delivered")
    assert only(found, *columns) == [
        (at(0), 3, 1, 1, 1, 0),
        (at(3600), 1, 1, 0, 1, 0),
        (at(7200), 1, 0, 1, 0, 1),
    ]


def test_latency_percentiles_are_those_of_the_nearest_rank(session: Session, rows: Rows) -> None:
    study = rows.study()
    for seconds in range(1, 22):
        rows.image(study, received_at=at(0), analysed_at=at(seconds / 4))
    rows.refused(study, received_at=at(0), analysed_at=at(900))
    found = ask(session, "SELECT * FROM v_latency_hourly")
    assert found == [
        {
            "hour": at(0),
            "stage": "received_to_analysed",
            "items": 21,
            "p50_s": 2.75,
            "p95_s": 5.0,
            "max_s": 5.25,
        }
    ]


def test_latency_of_reports_and_deliveries(session: Session, rows: Rows) -> None:
    bundle = rows.bundle()
    study = rows.study(last_image_at=at(100))
    rows.report(study, bundle, state="SUPERSEDED", written_at=at(90))
    rows.accepted(rows.report(study, bundle, revision=2, written_at=at(230.5)), "pacs", 3630.625)
    newer_image = rows.study(last_image_at=at(1000))
    rows.delivery(rows.report(newer_image, bundle, written_at=at(900)), "pacs")
    found = ask(session, "SELECT * FROM v_latency_hourly ORDER BY stage")
    assert only(found, "stage", "hour", "items", "p50_s", "p95_s", "max_s") == [
        ("last_image_to_reported", at(0), 1, 130.5, 130.5, 130.5),
        ("reported_to_delivered", at(3600), 1, 3400.125, 3400.125, 3400.125),
    ]


# --- v_cameras, v_camera_drift


def test_cameras_and_what_became_of_their_images(session: Session, rows: Rows) -> None:
    bundle, shadow = rows.bundle(), rows.bundle("shadow", active=False)
    study = rows.study()
    withheld_study = rows.study(withheld_reason="UID_CONFLICT")
    two_frames = rows.image(study, number_of_frames=2, received_at=at(7))
    rows.finding(two_frames, bundle, frame_number=1)
    rows.finding(two_frames, bundle, frame_number=2, reason_code="UNGRADABLE_QUALITY", grade=None)
    rows.finding(rows.image(withheld_study), bundle)
    rows.finding(rows.image(study), bundle, laterality=None, laterality_reason="LATERALITY_UNKNOWN")
    rows.finding(rows.image(study), shadow)
    rows.refused(study)
    rows.waiting(study)
    other = {"camera": None, "manufacturer": "ACME", "model_name": "Eye 1", "route": "unknown"}
    rows.finding(rows.image(study, **other), bundle, reason_code="CAMERA_NOT_VALIDATED", grade=2)
    found = ask(session, "SELECT * FROM v_cameras ORDER BY manufacturer DESC")
    columns = (
        "camera",
        "manufacturer",
        "model",
        "route",
        "images",
        "last_seen",
        "graded",
        "withheld",
        "refused",
    )
    assert only(found, *columns) == [
        ("kowa-vx-10", "Kowa", "VX-10", "labelled", 6, at(7), 1, 3, 1),
        (None, "ACME", "Eye 1", "unknown", 1, at(0), 0, 1, 0),
    ]


def test_drift_is_by_camera_and_utc_day(session: Session, rows: Rows) -> None:
    # Given: three frames on one day, the last in its last second, and one on the next day
    bundle, shadow, study = rows.bundle(), rows.bundle("shadow", active=False), rows.study()
    late, next_day = at(13 * 3600 + 3599), at(14 * 3600)
    colour = {"mean_red": 120.0, "mean_green": 60.0, "mean_blue": 30.0, "field_fraction": 0.5, "quality": 1.0}
    for received_at, values in (
        (at(0), colour | {"referable": True, "grade": 2}),
        (at(0), colour | {"referable": False, "mean_red": 60.0, "quality": 0.5}),
        (late, {"referable": None, "grade": None, "quality": 0.0, "reason_code": "UNGRADABLE_QUALITY"}),
        (next_day, colour),
    ):
        image = rows.image(study, received_at=received_at)
        rows.finding(image, bundle, **values)
        rows.finding(image, shadow, mean_red=255.0)
    for anew in (rows.waiting(study), rows.refused(study)):
        rows.finding(anew, bundle, mean_red=255.0)  # what was read before says nothing of it
    # Then: an image without a field of view has no colours to average
    found = ask(session, "SELECT * FROM v_camera_drift ORDER BY day")
    assert found[0].pop("ungradable_rate") == pytest.approx(1 / 3)
    assert found[0] == {
        "camera": "kowa-vx-10",
        "day": "2026-03-01",
        "images": 3,
        "mean_red": 90.0,
        "mean_green": 60.0,
        "mean_blue": 30.0,
        "field_fraction": 0.5,
        "quality": 0.5,
        "referable_rate": 0.5,
        "bundle_id": "reference-1",
    }
    assert only(found[1:], "day", "images", "ungradable_rate") == [("2026-03-02", 1, 0.0)]


# --- v_failures, v_rejections, v_deliveries


def test_failures_are_all_that_a_person_should_look_at(session: Session, rows: Rows) -> None:
    bundle = rows.bundle()
    fine = rows.study(accession_number="fine", report_deadline_at=at(3600))
    rows.image(fine)
    rows.accepted(rows.report(fine, bundle), "pacs", 140)
    refused = rows.refused(fine, reason_detail="truncated", analysed_at=at(6))
    early = rows.refused(fine, analysed_at=None, received_at=at(7), reason_code="NOT_COLOUR")
    withheld = rows.study(
        accession_number=None, withheld_reason="UID_CONFLICT", last_image_at=at(8), reported_version=0
    )
    overdue = rows.study(report_deadline_at=at(3600), reported_version=0, last_error="TimeoutError in write")
    rows.study(report_deadline_at=session.scalar(db_now(3600).select()), reported_version=0)
    undelivered = rows.study()
    old = rows.report(undelivered, bundle, state="SUPERSEDED")
    rows.delivery(old, "pacs", state="DEAD")
    report = rows.report(undelivered, bundle, revision=2)
    dead = {"state": "DEAD", "reason_code": "STORE_REFUSED", "reason_detail": "0xA700", "due_at": at(9)}
    rows.delivery(report, "pacs", **dead)
    found = ask(session, "SELECT * FROM v_failures ORDER BY since")
    columns = [
        "kind",
        "study_instance_uid",
        "sop_instance_uid",
        "accession_number",
        "destination",
        "reason_code",
        "detail",
        "since",
    ]
    fine_uid, overdue_uid, dead_uid = (each.study_instance_uid for each in (fine, overdue, undelivered))
    assert only(found, *columns) == [
        (
            "image_refused",
            fine_uid,
            refused.sop_instance_uid,
            "fine",
            None,
            "PIXELS_UNREADABLE",
            "truncated",
            at(6),
        ),
        ("image_refused", fine_uid, early.sop_instance_uid, "fine", None, "NOT_COLOUR", None, at(7)),
        ("study_withheld", withheld.study_instance_uid, None, None, None, "UID_CONFLICT", None, at(8)),
        ("delivery_dead", dead_uid, report.sop_instance_uid, "A1", "pacs", "STORE_REFUSED", "0xA700", at(9)),
        ("study_overdue", overdue_uid, None, "A1", None, None, "TimeoutError in write", at(3600)),
    ]


def test_a_withheld_study_says_whether_a_report_of_it_was_delivered(session: Session, rows: Rows) -> None:
    bundle = rows.bundle()
    never = rows.study(withheld_reason="PATIENT_CONFLICT", last_image_at=at(1))
    rows.delivery(rows.report(never, bundle), "pacs")
    before = rows.study(withheld_reason="UID_CONFLICT", last_image_at=at(2))
    rows.accepted(rows.report(before, bundle, revision=1, state="SUPERSEDED"), "pacs", 140)
    rows.delivery(rows.report(before, bundle, revision=2), "pacs")
    found = ask(session, "SELECT * FROM v_failures ORDER BY since")
    assert only(found, "kind", "reason_code", "detail") == [
        ("study_withheld", "PATIENT_CONFLICT", None),
        (
            "study_withheld",
            "UID_CONFLICT",
            "report revision 1 was delivered before, and stands at its destination",
        ),
    ]


def test_a_report_that_keeps_failing_and_a_delivery_that_waits_are_failures(
    session: Session, rows: Rows
) -> None:
    now = session.scalar(db_now(0).select())
    assert now is not None
    bundle = rows.bundle()
    values = {"reported_version": 0, "report_deadline_at": now + timedelta(hours=1), "last_error": "OSError"}
    rows.study(attempts=2, **values)
    failing = rows.study(attempts=3, **values)
    report = rows.report(rows.study(), bundle)
    late = {"created_at": now - timedelta(minutes=16), "reason_code": "PEER_REJECTED_ASSOCIATION"}
    rows.delivery(report, "pacs", **late)
    rows.delivery(report, "archive", created_at=now - timedelta(minutes=14))
    rows.delivery(rows.report(rows.study(), bundle, state="SUPERSEDED"), "pacs", **late)
    found = ask(session, "SELECT * FROM v_failures ORDER BY kind")
    assert only(found, "kind", "study_instance_uid", "destination", "reason_code", "detail") == [
        ("delivery_overdue", report.study_instance_uid, "pacs", "PEER_REJECTED_ASSOCIATION", None),
        ("report_failing", failing.study_instance_uid, None, None, "OSError"),
    ]


def test_rejections_show_a_status_as_the_standard_writes_it(session: Session, rows: Rows) -> None:
    rows.rejection(count=3, last_at=at(50))
    rows.rejection(kind="STORE", status=0xA700, sop_instance_uid="1.2.3", fold_key=None)
    rows.rejection(kind="STORE", status=0x0124)
    found = ask(session, "SELECT * FROM v_rejections ORDER BY id")
    assert found[0] == {
        "id": found[0]["id"],
        "kind": "ASSOCIATION",
        "reason_code": "CALLED_AE_UNKNOWN",
        "status": None,
        "calling_ae": "ROUTER",
        "called_ae": "WRONG",
        "peer_host": "127.0.0.1",
        "sop_class_uid": None,
        "sop_instance_uid": None,
        "transfer_syntax_uid": None,
        "detail": "the called AE title is not FUNDUS",
        "count": 3,
        "first_at": at(0),
        "last_at": at(50),
    }
    assert only(found[1:], "status", "sop_instance_uid") == [("0xA700", "1.2.3"), ("0x0124", None)]


def test_deliveries_with_their_report(session: Session, rows: Rows) -> None:
    bundle, study = rows.bundle(), rows.study()
    report = rows.report(study, bundle, revision=4)
    delivery = rows.accepted(report, "pacs", 140, state="COMMITTED", committed_at=at(150))
    rows.delivery(report, "archive", attempts=2, reason_code="PEER_UNREACHABLE", reason_detail="no answer")
    found = ask(session, "SELECT * FROM v_deliveries ORDER BY destination DESC")
    assert found[0] == {
        "study_instance_uid": study.study_instance_uid,
        "accession_number": "A1",
        "report_sop_instance_uid": report.sop_instance_uid,
        "revision": 4,
        "destination": "pacs",
        "state": "COMMITTED",
        "attempts": 1,
        "due_at": at(130),
        "reason_code": None,
        "accepted_at": at(140),
        "committed_at": at(150),
        "required": True,
        "reason_detail": None,
        "report_state": "WRITTEN",
        "bundle_id": "reference-1",
        "created_at": at(130),
        "delivery_id": delivery.id,
        "kind": "SR",
        "sop_class_uid": report.sop_class_uid,
        "sop_instance_uid": report.sop_instance_uid,
    }
    columns = ("destination", "state", "attempts", "reason_code", "reason_detail", "accepted_at")
    assert only(found[1:], *columns) == [("archive", "PENDING", 2, "PEER_UNREACHABLE", "no answer", None)]
