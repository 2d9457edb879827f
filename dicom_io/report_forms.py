"""A Structured Report under a lesser SOP class, for receivers that do not take Comprehensive 3D SR.

Every form says the same. Comprehensive SR and Enhanced SR hold the same content tree: it uses no spatial
coordinates and no references by value to other items. Basic Text SR has no numbers (PS3.3 table A.35.1-1), so
there each number is a sentence, and no template is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from dicom_io.report_parts import file_meta

FORMS: Mapping[str, str] = MappingProxyType(
    {
        "comprehensive-3d": str(Comprehensive3DSRStorage),
        "comprehensive": str(ComprehensiveSRStorage),
        "enhanced": str(EnhancedSRStorage),
        "basic-text": str(BasicTextSRStorage),
    }
)
"""SOP class UID of each form, the richest first."""


def in_form(report: Dataset, sop_class_uid: str, renamed: Callable[[str], str]) -> Dataset:
    """Return the report under another SOP class, an object of its own.

    Args:
        report: A Comprehensive 3D SR as `build_report` makes it, or read from its file.
        sop_class_uid: One of `FORMS`.
        renamed: SOP instance UID in this form for that of a Comprehensive 3D SR: of the report, and of those
            that it replaces, because the receiver holds them in this form.

    Returns:
        A data set with file meta information, ready for `to_bytes`; the same for the same arguments.
    """
    made = deepcopy(report)
    uid = renamed(str(report.SOPInstanceUID))
    made.SOPClassUID = sop_class_uid
    made.SOPInstanceUID = uid
    made.file_meta = file_meta(sop_class_uid, uid)
    for study in made.get("PredecessorDocumentsSequence") or ():
        for series in study.ReferencedSeriesSequence:
            for document in series.ReferencedSOPSequence:
                if document.ReferencedSOPClassUID == Comprehensive3DSRStorage:
                    document.ReferencedSOPClassUID = sop_class_uid
                    document.ReferencedSOPInstanceUID = renamed(str(document.ReferencedSOPInstanceUID))
    if sop_class_uid == BasicTextSRStorage:
        _without_numbers(made)
    return made


def _without_numbers(item: Dataset) -> None:
    if "ContentTemplateSequence" in item:
        del item.ContentTemplateSequence
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0]
        unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
        scale = "on the scale 0 to 1" if unit == "1" else unit
        item.ValueType = "TEXT"
        item.TextValue = f"{measured.NumericValue} {scale}"
        del item.MeasuredValueSequence
    for child in item.get("ContentSequence") or ():
        _without_numbers(child)
