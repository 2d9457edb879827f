"""Which objects go out beside a report, and their UIDs: decided with the report, before anything is made."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from dicom_io.uids import derived_uid
from worker.grading import EyeResult
from worker.report_contents import image_result
from worker.runtime import Runtime
from worker.schema import DocumentKind
from worker.settings import Destination
from worker.store.documents import PlannedDocument
from worker.store.reports import ImageRow, ReportRow

OVERLAYS_AN_EYE = 4
"""Photographs of an eye that get an overlay at most: those with the gravest findings."""


def plan_documents(
    runtime: Runtime,
    revision: ReportRow,
    rows: Sequence[ImageRow],
    eyes: Sequence[EyeResult],
    destinations: Sequence[Destination],
) -> list[PlannedDocument]:
    """Return what is to go out beside this revision; nothing when no destination wants anything.

    A page for every report; an overlay for photographs that a stated result rests on. `destinations` are the
    ones that get the report itself.
    """
    planned = []
    if takers := _takers(destinations, DocumentKind.PDF):
        planned.append(_planned(runtime, revision, DocumentKind.PDF, takers, None))
    if takers := _takers(destinations, DocumentKind.OVERLAY):
        for eye in eyes:
            if eye.reason_code is None:
                planned += [
                    _planned(runtime, revision, DocumentKind.OVERLAY, takers, row)
                    for row in gravest(rows, eye.laterality)[:OVERLAYS_AN_EYE]
                ]
    return planned


def gravest(rows: Sequence[ImageRow], laterality: str) -> list[ImageRow]:
    """Return the photographs of an eye that its result may rest on, the gravest finding first."""
    own = [row for row in rows if _is_usable(row, laterality)]
    return sorted(own, key=lambda row: (row.referable, row.grade, row.referable_probability), reverse=True)


def _is_usable(row: ImageRow, laterality: str) -> bool:
    result = image_result(row)
    return result.usable and result.laterality == laterality


def _takers(destinations: Sequence[Destination], kind: DocumentKind) -> tuple[tuple[str, bool], ...]:
    wanted = (each for each in destinations if kind in each.document_kinds)
    return tuple((each.name, each.required) for each in wanted)


def _planned(
    runtime: Runtime,
    revision: ReportRow,
    kind: DocumentKind,
    takers: tuple[tuple[str, bool], ...],
    row: ImageRow | None,
) -> PlannedDocument:
    """One series a revision and kind; all UIDs follow from the report's, and so from what it says."""
    source = () if row is None else (row.sop_instance_uid, str(row.frame_number))
    report = revision.sop_instance_uid
    many_frames = row is not None and row.number_of_frames > 1
    return PlannedDocument(
        kind=kind,
        sop_class_uid=str(EncapsulatedPDFStorage if row is None else SecondaryCaptureImageStorage),
        sop_instance_uid=derived_uid(runtime.namespace, kind, report, *source),
        series_instance_uid=derived_uid(runtime.namespace, "series", kind, report),
        source_uid=None if row is None else row.sop_instance_uid,
        source_frame=row.frame_number if row is not None and many_frames else None,
        destinations=takers,
    )
