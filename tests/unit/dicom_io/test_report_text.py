from __future__ import annotations

from factories.reports import SHAPES

from dicom_io.report import render_text


def test_a_report_reads_as_an_indented_tree() -> None:
    lines = render_text(SHAPES["two-eyes"]().build()).splitlines()
    assert lines[:4] == [
        "Structured Report 2.25.3001",
        "State: complete, preliminary, unverified",
        "Study: 2.25.1001   Accession number: ACC0001",
        "Written: 20260304 050607",
    ]
    assert "Imaging Measurement Report" in lines
    severity = "Diabetic retinopathy severity level Right eye by Ophthalmoscopy"
    assert f"      {severity}: Severe non-proliferative retinopathy" in lines
    assert "      Finding Site: Eye" in lines
    assert "        Laterality: Right" in lines
    assert "      Probability: 0.937182" in lines
    assert "      Source of Measurement: 2.25.1" in lines


def test_a_report_as_text_does_not_name_the_patient() -> None:
    report = SHAPES["two-eyes"]().build()
    assert report.PatientName == "Doe^Jane"
    assert "Doe" not in render_text(report)
    assert "PID0001" not in render_text(report)


def test_a_revision_shows_what_it_replaces_and_a_frame_its_number() -> None:
    assert "Replaces: 2.25.4001" in render_text(SHAPES["revision"]().build()).splitlines()
    assert "Source of Measurement: 2.25.15 frame 2" in render_text(SHAPES["many-photographs"]().build())


def test_a_withheld_eye_shows_its_reason_and_a_missing_accession_number_a_dash() -> None:
    text = render_text(SHAPES["broken-header"]().build())
    assert "Accession number: -" in text
    withheld = render_text(SHAPES["one-withheld"]().build())
    assert "Grade withheld because: The photograph is too dark or blurred to be graded." in withheld


def test_a_unit_is_shown_when_there_is_one() -> None:
    report = SHAPES["revision"]().build()
    group = report.ContentSequence[-2].ContentSequence[0]
    number = next(item for item in group.ContentSequence if item.ValueType == "NUM")
    number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "%"
    assert "Probability: 0.937182 %" in render_text(report)
