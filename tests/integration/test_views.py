"""What was found and reported, as SQL shows it, on SQLite and PostgreSQL with the same answer."""

from __future__ import annotations

from typing import Any

import pytest
from factories.rows import Rows, at
from factories.views import ask, only
from sqlalchemy import Engine, inspect
from sqlalchemy.orm import Session

RESULT_COLUMNS = [
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
    "frame_number",
    "accession_number",
    "laterality",
    "camera",
    "route",
    "adapter",
    "bundle_id",
    "grade",
    "grade_label",
    "referable",
    "referable_probability",
    "certainty",
    "quality",
    "state",
    "reason_code",
    "received_at",
    "analysed_at",
    "reported_at",
    "delivered_at",
]


@pytest.fixture
def rows(session: Session) -> Rows:
    return Rows(session)


def test_the_interface_has_the_documented_views_and_both_databases_agree_on_columns(engine: Engine) -> None:
    names = set(inspect(engine).get_view_names())
    assert names == {
        "v_results",
        "v_eye_results",
        "v_backlog",
        "v_throughput_hourly",
        "v_latency_hourly",
        "v_cameras",
        "v_camera_drift",
        "v_failures",
        "v_rejections",
        "v_deliveries",
        "v_removed_files",
    }
    columns = [column["name"] for column in inspect(engine).get_columns("v_results")]
    assert columns[: len(RESULT_COLUMNS)] == RESULT_COLUMNS


# --- v_results


def test_a_reported_image(session: Session, rows: Rows) -> None:
    # Given
    bundle = rows.bundle()
    study = rows.study()
    image = rows.image(study, adapter="other-camera", route="adapter", camera="other-camera")
    rows.finding(image, bundle, laterality="L", grade=3, grade_label="Severe", referable=True)
    report = rows.report(study, bundle)
    rows.accepted(report, "pacs", 140)
    # When
    (row,) = ask(session, "SELECT * FROM v_results")
    # Then
    assert row == {
        "study_instance_uid": study.study_instance_uid,
        "series_instance_uid": "1.2.3.2",
        "sop_instance_uid": image.sop_instance_uid,
        "frame_number": 1,
        "accession_number": "A1",
        "laterality": "L",
        "camera": "other-camera",
        "route": "adapter",
        "adapter": "other-camera",
        "bundle_id": "reference-1",
        "grade": 3,
        "grade_label": "Severe",
        "referable": True,
        "referable_probability": 0.125,
        "certainty": 0.75,
        "quality": 0.875,
        "state": "ANALYSED",
        "reason_code": None,
        "received_at": at(0),
        "analysed_at": at(5),
        "reported_at": at(130),
        "delivered_at": at(140),
        "reported": True,
        "manufacturer": "Kowa",
        "model_name": "VX-10",
        "reason_detail": None,
        "engine": "onnx",
        "decode_ms": 30.0,
        "prepare_ms": 10.0,
        "engine_ms": 20.0,
        "instance_id": image.id,
    }


def test_an_image_without_a_finding_appears_once_with_its_header_s_side(session: Session, rows: Rows) -> None:
    rows.bundle()
    rows.waiting(rows.study(), lateralities=[["L", None], ["R", None]], number_of_frames=2)
    found = ask(session, "SELECT * FROM v_results")
    columns = (
        "frame_number",
        "laterality",
        "bundle_id",
        "route",
        "grade",
        "state",
        "analysed_at",
        "reported",
    )
    assert only(found, *columns) == [(1, "L", "reference-1", "labelled", None, "RECEIVED", None, False)]


@pytest.mark.parametrize("lateralities", [[], [[None, "LATERALITY_UNKNOWN"]]])
def test_an_image_without_a_side_or_a_bundle(session: Session, rows: Rows, lateralities: list[Any]) -> None:
    rows.bundle(active=False)
    rows.waiting(rows.study(), lateralities=lateralities)
    found = ask(session, "SELECT * FROM v_results")
    assert only(found, "frame_number", "laterality", "bundle_id") == [(1, None, None)]


@pytest.mark.parametrize("state", ["RECEIVED", "REFUSED"])
def test_what_was_read_before_is_not_the_result_of_an_image_that_is_read_anew_or_refused(
    session: Session, rows: Rows, state: str
) -> None:
    image = rows.image(rows.study(), state=state, route="unknown", camera=None)
    rows.finding(image, rows.bundle(), grade=4, route="labelled")
    found = ask(session, "SELECT * FROM v_results")
    assert only(found, "grade", "route", "laterality") == [(None, "unknown", "R")]


def test_a_report_older_than_the_image_is_not_the_image_s(session: Session, rows: Rows) -> None:
    bundle, study = rows.bundle(), rows.study(content_version=3)
    for version in (2, 3):
        rows.finding(rows.image(study, content_version=version), bundle)
    rows.accepted(rows.report(study, bundle, content_version=2), "pacs", 140)
    found = ask(session, "SELECT * FROM v_results ORDER BY instance_id")
    assert only(found, "reported_at", "delivered_at") == [(at(130), at(140)), (None, None)]


def test_a_bundle_that_is_not_active_adds_no_row(session: Session, rows: Rows) -> None:
    active, shadow = rows.bundle("new"), rows.bundle("shadow", active=False)
    image = rows.image(rows.study())
    rows.finding(image, shadow, grade=4)
    rows.finding(image, active, grade=1)
    assert only(ask(session, "SELECT * FROM v_results"), "bundle_id", "grade") == [("new", 1)]


def test_an_image_that_only_a_retired_bundle_read_is_not_said_to_be_reported(
    session: Session, rows: Rows
) -> None:
    rows.bundle("new")
    rows.finding(rows.image(rows.study()), rows.bundle("retired", active=False))
    found = ask(session, "SELECT * FROM v_results")
    assert only(found, "bundle_id", "grade", "reported") == [("new", None, False)]


def test_two_active_bundles_have_a_row_each(session: Session, rows: Rows) -> None:
    study = rows.study()
    image = rows.image(study)
    for number, name in enumerate(("one", "two")):
        bundle = rows.bundle(name)
        rows.finding(image, bundle, grade=number)
        rows.report(study, bundle, written_at=at(number))
    found = ask(session, "SELECT * FROM v_results ORDER BY bundle_id")
    assert only(found, "bundle_id", "grade", "reported_at") == [("one", 0, at(0)), ("two", 1, at(1))]


def test_each_frame_has_a_row(session: Session, rows: Rows) -> None:
    bundle = rows.bundle()
    image = rows.image(rows.study(), number_of_frames=2)
    rows.finding(image, bundle, frame_number=1, laterality="R", grade=0)
    rows.finding(
        image, bundle, frame_number=2, laterality=None, laterality_reason="LATERALITY_UNKNOWN", grade=2
    )
    found = ask(session, "SELECT * FROM v_results ORDER BY frame_number")
    assert only(found, "frame_number", "laterality", "grade", "reason_code", "reported") == [
        (1, "R", 0, None, True),
        (2, None, 2, "LATERALITY_UNKNOWN", False),
    ]


REASONS = ["PIXELS_UNREADABLE", "CAMERA_NOT_VALIDATED", "LATERALITY_UNKNOWN", "UID_CONFLICT"]


@pytest.mark.parametrize("nearest", range(len(REASONS) + 1))
def test_the_nearest_reason_is_given(session: Session, rows: Rows, nearest: int) -> None:
    # Given: reasons of the image, the finding, its side and the study; the nearest ones are absent
    present = [None] * nearest + REASONS[nearest:]
    image = rows.image(rows.study(withheld_reason=present[3]), reason_code=present[0])
    rows.finding(image, rows.bundle(), reason_code=present[1], laterality_reason=present[2])
    # Then
    expected = [*REASONS, None][nearest]
    found = ask(session, "SELECT * FROM v_results")
    assert only(found, "reason_code", "reported") == [(expected, expected is None)]


def test_only_the_current_report_counts(session: Session, rows: Rows) -> None:
    # Given: a delivered report that a newer one superseded; that one is on its way
    bundle = rows.bundle()
    study = rows.study()
    rows.finding(rows.image(study), bundle)
    old = rows.report(study, bundle, state="SUPERSEDED", revision=1, written_at=at(130))
    rows.accepted(old, "pacs", 140)
    new = rows.report(study, bundle, revision=2, written_at=at(300), predecessor_id=old.id)
    rows.delivery(new)
    rows.report(study, bundle, revision=3, state="PENDING", written_at=None)
    # Then
    found = ask(session, "SELECT * FROM v_results")
    assert only(found, "reported_at", "delivered_at") == [(at(300), None)]


@pytest.mark.parametrize(
    ("deliveries", "expected"),
    [
        ([], None),
        ([("a", True, "ACCEPTED", 140)], 140),
        ([("a", True, "ACCEPTED", 140), ("b", True, "COMMITTED", 150)], 150),
        ([("a", True, "ACCEPTED", 140), ("b", True, "PENDING", None)], None),
        ([("a", True, "ACCEPTED", 140), ("b", True, "DEAD", None)], None),
        ([("a", True, "ACCEPTED", 140), ("b", False, "PENDING", None)], 140),
        ([("a", True, "ACCEPTED", 140), ("b", False, "ACCEPTED", 900)], 140),
        ([("b", False, "ACCEPTED", 900)], None),
    ],
)
def test_delivered_means_that_every_required_destination_has_it(
    session: Session,
    rows: Rows,
    deliveries: list[tuple[str, bool, str, float | None]],
    expected: float | None,
) -> None:
    bundle, study = rows.bundle(), rows.study()
    rows.finding(rows.image(study), bundle)
    report = rows.report(study, bundle)
    rows.eye(report, "R")
    for name, required, state, seconds in deliveries:
        accepted_at = None if seconds is None else at(seconds)
        rows.delivery(report, name, required=required, state=state, accepted_at=accepted_at)
    moment = None if expected is None else at(expected)
    for view in ("v_results", "v_eye_results"):
        assert only(ask(session, f"SELECT delivered_at FROM {view}"), "delivered_at") == [(moment,)]  # noqa: S608 - the names stand above


# --- v_eye_results


def test_eye_results_are_those_of_the_current_report(session: Session, rows: Rows) -> None:
    bundle, study = rows.bundle(), rows.study()
    old = rows.report(study, bundle, state="SUPERSEDED")
    rows.eye(old, "R", grade=0, referable=False)
    new = rows.report(study, bundle, revision=2, partial=True, written_at=at(300), predecessor_id=old.id)
    graded = {"grade": 2, "grade_label": "Moderate", "referable": True}
    rows.eye(
        new, "R", **graded, referable_probability=0.5, certainty=0.25, quality=0.75, images=3, images_used=2
    )
    rows.eye(new, "L", reason_code="CAMERA_NOT_VALIDATED", images_used=0)
    rows.accepted(new, "pacs", 310)
    found = ask(session, "SELECT * FROM v_eye_results ORDER BY laterality")
    assert found[1] == {
        "study_instance_uid": study.study_instance_uid,
        "accession_number": "A1",
        "laterality": "R",
        **graded,
        "referable_probability": 0.5,
        "certainty": 0.25,
        "quality": 0.75,
        "reason_code": None,
        "images": 3,
        "images_used": 2,
        "report_sop_instance_uid": new.sop_instance_uid,
        "revision": 2,
        "partial": True,
        "bundle_id": "reference-1",
        "reported_at": at(300),
        "delivered_at": at(310),
    }
    withheld = ("L", None, None, None, "CAMERA_NOT_VALIDATED", 1, 0)
    columns = ("laterality", "grade", "referable", "certainty", "reason_code", "images", "images_used")
    assert only(found[:1], *columns) == [withheld]
