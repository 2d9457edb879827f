"""The questions of `export-training-set`, on SQLite and on PostgreSQL."""

from __future__ import annotations

from factories.rows import Rows, at
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from worker.store.exporting import cameras, images_of


def test_cameras_are_counted_by_what_their_headers_state(session: Session) -> None:
    # Given a camera of two models, one that no rule names, and one that states nothing
    rows = Rows(session)
    study = rows.study()
    for patient in ("a" * 64, "b" * 64, "b" * 64):
        rows.image(study, patient_key=patient)
    rows.image(study, model_name="VX-10 next", camera_exact=False)
    rows.image(study, camera=None, manufacturer="Acme", model_name="EyeCam", camera_exact=False)
    rows.image(study, camera=None, manufacturer="", model_name="", camera_exact=False)
    # When
    found = [(each.name, each.exact, each.images, each.patients) for each in cameras(_connection(session))]
    # Then
    assert found == [
        ("kowa-vx-10", True, 3, 2),
        ("(not stated)", False, 1, 1),
        ("Acme EyeCam", False, 1, 1),
        ("kowa-vx-10", False, 1, 1),
    ]


def test_the_newest_finding_of_each_frame_counts(session: Session) -> None:
    # Given an image of two frames, read by two bundles, and another camera's
    rows = Rows(session)
    old, new = rows.bundle("old", active=False), rows.bundle("new")
    study = rows.study(withheld_reason="PATIENT_CONFLICT")
    image = rows.image(study, number_of_frames=2, uid_conflict=True)
    for frame, first, second in ((1, "UNGRADABLE_QUALITY", None), (2, None, "UNGRADABLE_QUALITY")):
        rows.finding(image, old, frame_number=frame, reason_code=first)
        rows.finding(image, new, frame_number=frame, reason_code=second)
    rows.finding(rows.image(study, camera="other"), new)
    # When
    connection = _connection(session)
    stocks = [each for each in cameras(connection) if each.camera == "kowa-vx-10"]
    (found,) = images_of(connection, stocks, None, None)
    # Then
    assert found.frame_reasons == {1: None, 2: "UNGRADABLE_QUALITY"}
    assert (found.sop_instance_uid, found.study_reason) == (image.sop_instance_uid, "PATIENT_CONFLICT")
    assert found.uid_conflict


def test_times_are_from_and_before(session: Session) -> None:
    rows = Rows(session)
    study = rows.study()
    uids = [rows.image(study, received_at=at(second)).sop_instance_uid for second in (0, 10, 20)]
    connection = _connection(session)
    stocks = cameras(connection)

    def between(since: float | None, until: float | None) -> list[int]:
        limits = [None if second is None else at(second) for second in (since, until)]
        return sorted(uids.index(each.sop_instance_uid) for each in images_of(connection, stocks, *limits))

    assert between(None, None) == [0, 1, 2]
    assert between(10, None) == [1, 2]
    assert between(None, 10) == [0]
    assert between(10, 20) == [1]


def _connection(session: Session) -> Connection:
    session.flush()
    return session.connection()
