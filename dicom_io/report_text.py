"""A report as text, for people at a terminal: demo, command line, test output."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

_INDENT = "  "


def render_text(report: Dataset) -> str:
    """Return the report's content tree as indented lines, without the patient's identity.

    Args:
        report: A Structured Report, as built or as read from a file.

    Returns:
        A heading with state, study and accession number, then one line a content item; a line ends with what
        it is inferred from, or holds its modifiers on the lines below.
    """
    return "\n".join([*_heading(report), "", *_lines(report, 0)]) + "\n"


def _heading(report: Dataset) -> Iterator[str]:
    flags = (report.get(name) for name in ("CompletionFlag", "PreliminaryFlag", "VerificationFlag"))
    yield f"Structured Report {report.SOPInstanceUID}"
    yield f"State: {', '.join(str(flag).lower() for flag in flags if flag)}"
    yield f"Study: {report.StudyInstanceUID}   Accession number: {report.get('AccessionNumber') or '-'}"
    yield f"Written: {report.ContentDate} {str(report.ContentTime)[:6]}"
    for study in report.get("PredecessorDocumentsSequence") or ():
        for series in study.ReferencedSeriesSequence:
            for document in series.ReferencedSOPSequence:
                yield f"Replaces: {document.ReferencedSOPInstanceUID}"


def _lines(item: Dataset, depth: int) -> Iterator[str]:
    name = _meaning(item, "ConceptNameCodeSequence")
    value = _value(item)
    yield f"{_INDENT * depth}{name}: {value}" if value else f"{_INDENT * depth}{name}"
    for child in item.get("ContentSequence") or ():
        yield from _lines(child, depth + 1)


def _value(item: Dataset) -> str:
    kind = item.ValueType
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "NUM":
        return _number(item)
    if kind == "IMAGE":
        return _image(item.ReferencedSOPSequence[0])
    return str(item.get("TextValue") or item.get("UID") or "")


def _number(item: Dataset) -> str:
    measured = item.MeasuredValueSequence[0]
    unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
    return f"{measured.NumericValue}" if unit == "1" else f"{measured.NumericValue} {unit}"


def _image(reference: Dataset) -> str:
    frame = reference.get("ReferencedFrameNumber")
    return f"{reference.ReferencedSOPInstanceUID}" + (f" frame {frame}" if frame else "")


def _meaning(item: Dataset, keyword: str) -> str:
    sequence = item.get(keyword)
    return str(sequence[0].CodeMeaning) if sequence else ""
