"""Parts that a report and the objects beside it have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import groupby

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_io.elements import uid
from dicom_io.errors import ReportBuildError
from dicom_io.report_content import SOFTWARE_NAME, ReportContent
from dicom_io.report_header import long_string, to_timezone
from dicom_io.report_tree import device_uid
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

SERIES, INSTANCE, CLASS, STUDY = 0x0020000E, 0x00080018, 0x00080016, 0x0020000D


def to_bytes(report: Dataset) -> bytes:
    """Return the report as a file (PS3.10), the same bytes for the same report."""
    buffer = BytesIO()
    dcmwrite(buffer, report, enforce_file_format=True)
    return buffer.getvalue()


def distinct(evidence: Iterable[Dataset]) -> list[Dataset]:
    """Each object once, in an order that does not depend on that of arrival."""
    by_uid = {(uid(ds, SERIES), uid(ds, INSTANCE)): ds for ds in evidence}
    if not by_uid:
        raise ReportBuildError("a report needs the header of at least one photograph")
    for series, instance in by_uid:
        if not (series and instance):
            raise ReportBuildError("a photograph without series or instance UID cannot be referred to")
    return [by_uid[key] for key in sorted(by_uid)]


def add_equipment(report: Dataset, content: ReportContent) -> None:
    """Enhanced General Equipment module (PS3.3 C.7.5.2)."""
    report.Manufacturer = long_string(content.algorithm.manufacturer)
    report.ManufacturerModelName = SOFTWARE_NAME
    report.DeviceSerialNumber = device_uid(content)
    report.SoftwareVersions = long_string(content.software_version) or "unknown"
    if content.institution_name:
        report.InstitutionName = long_string(content.institution_name)


def add_times(report: Dataset, content: ReportContent, offset: str | None) -> None:
    """Content and creation times: one zone holds for all times of an object (PS3.3 C.12.1.1.8)."""
    moment = content.created_at
    if offset is not None:
        report.TimezoneOffsetFromUTC = offset
        moment = moment.astimezone(to_timezone(offset))
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    report.ContentDate = report.InstanceCreationDate = report.SeriesDate = date
    report.ContentTime = report.InstanceCreationTime = report.SeriesTime = time


def references(study: str, instances: Sequence[tuple[str, str, str]]) -> Dataset:
    """Hierarchical SOP Instance Reference macro; `instances` are (series, class, instance), by series."""
    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = []
    for series, members in groupby(instances, key=lambda entry: entry[0]):
        series_item = Dataset()
        series_item.SeriesInstanceUID = series
        series_item.ReferencedSOPSequence = [reference(sop_class, sop) for _, sop_class, sop in members]
        item.ReferencedSeriesSequence.append(series_item)
    return item


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """SOP Instance Reference macro (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def file_meta(sop_class_uid: str, sop_instance_uid: str) -> FileMetaDataset:
    """Return the file meta information (PS3.10) of an object of ours, Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
