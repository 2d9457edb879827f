"""Whether the demonstration came out right: every report at the PACS, saying what the database says."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pydicom import Dataset, dcmread

from worker.demo.results import Result
from worker.demo.statements import EyeStatement, read_statements
from worker.demo.studies import DemoStudy

Reports = Mapping[str, Sequence[tuple[Path, Dataset]]]
"""By Study Instance UID: the files that the PACS has."""


def read_reports(folder: Path) -> Reports:
    """Every report that the PACS received."""
    by_study: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path in sorted(folder.glob("*.dcm")):
        report = dcmread(path)
        by_study[str(report.StudyInstanceUID)].append((path, report))
    return by_study


def find_problems(studies: Sequence[DemoStudy], results: Sequence[Result], reports: Reports) -> list[str]:
    """What is not as it must be, a sentence each; empty when all is well.

    Args:
        studies: What was sent.
        results: What the database says.
        reports: What the PACS has.
    """
    return [*_row_problems(studies, results), *_report_problems(studies, results, reports)]


def _row_problems(studies: Sequence[DemoStudy], results: Sequence[Result]) -> Iterator[str]:
    sent = sorted(each.sop_instance_uid for study in studies for each in study.photographs)
    stored = sorted(result.sop_instance_uid for result in results)
    if sent != stored:
        known = len(set(sent) & set(stored))
        yield f"{len(sent)} photographs were sent, v_results has {known} of them in {len(stored)} rows"
    for result in results:
        if result.state != "ANALYSED":
            eye = f"{result.accession_number} {result.laterality}"
            yield f"{eye}: {result.state}, reason {result.image_reason_code}"


def _report_problems(
    studies: Sequence[DemoStudy], results: Sequence[Result], reports: Reports
) -> Iterator[str]:
    if strangers := set(reports) - {study.study_instance_uid for study in studies}:
        yield f"the PACS received reports of {len(strangers)} studies that were never sent"
    for study in studies:
        received = reports.get(study.study_instance_uid, ())
        if len(received) != 1:
            yield f"{study.accession_number}: the PACS has {len(received)} reports instead of one"
            continue
        (_, report), own = (
            received[0],
            [r for r in results if r.study_instance_uid == study.study_instance_uid],
        )
        if {result.report_sop_instance_uid for result in own} != {str(report.SOPInstanceUID)}:
            yield f"{study.accession_number}: the PACS has another report than v_eye_results names"
        yield from _differences(study.accession_number, read_statements(report), own)


def _differences(
    accession_number: str, stated: Mapping[str, EyeStatement], results: Sequence[Result]
) -> Iterator[str]:
    """Where a report and the row of `v_eye_results` say different things."""
    if sorted(stated) != sorted(result.laterality for result in results):
        yield f"{accession_number}: the report and v_eye_results name different eyes"
        return
    for result in results:
        statement = stated[result.laterality]
        for name in (field.name for field in fields(EyeStatement)):
            said, stored = getattr(statement, name), getattr(result, name)
            if not _equal(said, stored):
                eye = f"{accession_number} {result.laterality}"
                yield f"{eye}: {name} is {said} in the report, {stored} in v_eye_results"


def _equal(said: object, stored: object) -> bool:
    if isinstance(said, float) and isinstance(stored, float):
        return math.isclose(said, stored, rel_tol=1e-9)
    return said == stored
