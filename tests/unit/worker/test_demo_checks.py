from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factories.demo import result, study, withheld_result
from factories.reports import SHAPES, graded
from factories.reports import content as report_content
from factories.reports import header as report_header
from factories.reports import image as report_image
from factories.reports import withheld as withheld_eye
from pydicom import Dataset
from pydicom.sr.coding import Code

from dicom_io import codes
from dicom_io.laterality import Laterality
from dicom_io.report import build_report, to_bytes
from worker.demo.checks import Reports, find_problems, read_reports
from worker.demo.results import Result
from worker.demo.statements import EyeStatement, read_statements

STUDIES = [study("R", "L")]
RESULTS = [result(1, "R"), withheld_result(2, "L")]


def reports_of(*reports: Dataset) -> Reports:
    by_study: dict[str, list[tuple[Path, Dataset]]] = {}
    for report in reports:
        by_study.setdefault(str(report.StudyInstanceUID), []).append((Path("report.dcm"), report))
    return by_study


@pytest.fixture
def report() -> Dataset:
    return SHAPES["one-withheld"]().build()


def test_nothing_is_wrong_when_report_and_rows_say_the_same(report: Dataset) -> None:
    assert find_problems(STUDIES, RESULTS, reports_of(report)) == []


def test_a_missing_report_and_a_doubled_one_are_found(report: Dataset) -> None:
    missing = find_problems(STUDIES, RESULTS, {})
    doubled = find_problems(STUDIES, RESULTS, reports_of(report, report))

    assert missing == ["DEMO-0001: the PACS has 0 reports instead of one"]
    assert doubled == ["DEMO-0001: the PACS has 2 reports instead of one"]


def test_a_report_of_a_study_that_was_never_sent_is_found(report: Dataset) -> None:
    stranger = replace(STUDIES[0], study_instance_uid="2.25.7", photographs=())

    problems = find_problems([*STUDIES, stranger], RESULTS, reports_of(report))
    strangers = find_problems([], [], reports_of(report))

    assert problems == ["DEMO-0001: the PACS has 0 reports instead of one"]
    assert strangers == ["the PACS received reports of 1 studies that were never sent"]


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("grade", 3),
        ("referable", False),
        ("referable_probability", 0.93718),
        ("certainty", None),
        ("quality", 0.96),
        ("reason_code", "UNGRADABLE_QUALITY"),
    ],
)
def test_each_difference_between_report_and_row_is_found(field: str, stored: object, report: Dataset) -> None:
    changed: dict[str, object] = {field: stored}
    rows = [replace(RESULTS[0], **changed), RESULTS[1]]  # type: ignore[arg-type]  # one field of many types

    (problem,) = find_problems(STUDIES, rows, reports_of(report))

    assert problem.startswith(f"DEMO-0001 R: {field} is ")
    assert problem.endswith(f"{stored} in v_eye_results")


def test_a_report_under_another_uid_than_the_current_one_is_found(report: Dataset) -> None:
    rows = [replace(row, report_sop_instance_uid="2.25.999") for row in RESULTS]

    assert find_problems(STUDIES, rows, reports_of(report)) == [
        "DEMO-0001: the PACS has another report than v_eye_results names"
    ]


def test_rows_that_are_missing_or_were_refused_are_found(report: Dataset) -> None:
    refused = [RESULTS[0], replace(RESULTS[1], state="REFUSED", image_reason_code="PIXELS_MISSING")]

    fewer = find_problems(STUDIES, RESULTS[:1], reports_of(report))
    other = find_problems(STUDIES, refused, reports_of(report))

    assert fewer == [
        "2 photographs were sent, v_results has 1 of them in 1 rows",
        "DEMO-0001: the report and v_eye_results name different eyes",
    ]
    assert other == ["DEMO-0001 L: REFUSED, reason PIXELS_MISSING"]


def test_statements_are_read_from_the_codes_of_the_report() -> None:
    eyes = (graded(Laterality.RIGHT, 3), withheld_eye(Laterality.LEFT, quality=None))
    images = (
        report_image(1, Laterality.RIGHT),
        report_image(2, Laterality.LEFT, "UNGRADABLE_QUALITY", "Too dark."),
    )
    report = build_report(report_content(eyes, images), [report_header(1), report_header(2)])

    assert read_statements(report) == {
        "R": EyeStatement(3, True, 0.9371823668479919, 0.61, 0.97, None),
        "L": EyeStatement(None, None, None, None, None, "UNGRADABLE_QUALITY"),
    }


def test_a_report_without_eyes_states_nothing() -> None:
    assert read_statements(SHAPES["no-side"]().build()) == {}


def test_a_grade_that_no_scale_knows_and_an_eye_without_a_side_state_nothing(report: Dataset) -> None:
    (eyes,) = (
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == codes.IMAGING_MEASUREMENTS.value
    )
    group = eyes.ContentSequence[0]
    for item in group.ContentSequence:
        name = item.ConceptNameCodeSequence[0]
        if name.CodeMeaning.startswith("Diabetic retinopathy severity"):
            item.ConceptCodeSequence[0].CodeValue = "LA0-0"
        if name.CodeMeaning == "Finding Site":
            item.ContentSequence[0].ConceptCodeSequence = []

    statements = read_statements(report)

    assert statements[""].grade is None
    assert set(statements) == {"", "L"}


def test_the_finding_site_is_found_by_its_standard_code(report: Dataset) -> None:
    sites = [
        Code(name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning)
        for item in report.iterall()
        if item.keyword == "ConceptNameCodeSequence"
        for name in item.value
        if name.CodeMeaning == "Finding Site"
    ]

    assert set(sites) == {Code("363698007", "SCT", "Finding Site")}


def test_reports_are_read_by_study(tmp_path: Path, report: Dataset) -> None:
    (tmp_path / "2.25.3001.dcm").write_bytes(to_bytes(report))
    (tmp_path / "2.25.3002.part").write_bytes(b"half of it")

    reports = read_reports(tmp_path)

    ((path, read),) = reports["2.25.1001"]
    assert list(reports) == ["2.25.1001"]
    assert path.name == "2.25.3001.dcm"
    assert read.SOPInstanceUID == "2.25.3001"


def test_a_result_knows_its_time_and_its_verdict() -> None:
    waiting: Result = result(analysed_at=None, state="RECEIVED", grade=None)

    assert result().analysis_ms == pytest.approx(250)
    assert waiting.analysis_ms is None
    assert result().verdict == "2 Moderate"
    assert withheld_result().verdict == "withheld: UNGRADABLE_QUALITY"
    assert waiting.verdict == "withheld: RECEIVED"
