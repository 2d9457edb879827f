"""Patient and study of a report, copied from the photographs' headers as far as they are legal.

A report must be a valid object whatever the camera wrote: a value that breaks its value representation
(PS3.5 section 6.2) is left out rather than passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.elements import items, uid
from dicom_io.errors import ReportBuildError
from dicom_io.strict_text import strict_text

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\\]")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_AGE = re.compile(r"\d{3}[DWMY]")
_OFFSET = re.compile(r"([+-])(\d{2})([0-5]\d)")
_MAXIMUM_OFFSET = timedelta(hours=14)


def _is_text(longest: int) -> Callable[[str], bool]:
    def legal(value: str) -> bool:
        return len(value) <= longest and not _CONTROL.search(value)

    return legal


def _is_person_name(value: str) -> bool:
    """Up to three groups of up to five components, 64 characters a group (PS3.5 section 6.2.1)."""
    groups = value.split("=")
    return (
        len(groups) <= 3
        and not _CONTROL.search(value)
        and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    )


def _is_date(value: str) -> bool:
    if not re.fullmatch(r"\d{8}", value):
        return False
    try:
        datetime.strptime(value, "%Y%m%d")  # a DA has no time zone
    except ValueError:
        return False
    return True


def _is_one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


_LO = _is_text(64)
_SH = _is_text(16)
_UT = _is_text(1024)

_EMPTY_WHEN_UNKNOWN: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "PatientName": _is_person_name,
        "PatientID": _LO,
        "PatientBirthDate": _is_date,
        "PatientSex": _is_one_of("M", "F", "O"),
        "StudyDate": _is_date,
        "StudyTime": lambda value: bool(_TIME.fullmatch(value)),
        "ReferringPhysicianName": _is_person_name,
        "StudyID": _SH,
        "AccessionNumber": _SH,
    }
)
"""Type 2 attributes of the Patient (C.7.1.1) and General Study (C.7.2.1) modules."""

_LEFT_OUT_WHEN_UNKNOWN: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "IssuerOfPatientID": _LO,
        "StudyDescription": _LO,
        "PatientAge": lambda value: bool(_AGE.fullmatch(value)),
    }
)
"""Type 3 attributes, also of the Patient Study module (C.7.2.2), that a PACS matches or shows."""

_ISSUER_OF_ACCESSION_NUMBER, _TIMEZONE_OFFSET = 0x00080051, 0x00080201

COPIED_TAGS = (
    *(int(Tag(keyword)) for keyword in (*_EMPTY_WHEN_UNKNOWN, *_LEFT_OUT_WHEN_UNKNOWN)),
    _ISSUER_OF_ACCESSION_NUMBER,
    _TIMEZONE_OFFSET,
)
"""Elements that a report copies from a photograph's header or interprets its times by."""

_ENTITY_ID_TYPES = ("DNS", "EUI64", "ISO", "URI", "UUID", "X400", "X500")


def patient_and_study(evidence: Sequence[Dataset]) -> Dataset:
    """Return the patient and study attributes that the photographs of one study agree on.

    Each attribute is the first legal value in the order given, so that one damaged header does not empty it.

    Args:
        evidence: Headers of one study, at least one.

    Raises:
        ReportBuildError: They belong to different studies, or name different patients: an accident that no
            report may hide.
    """
    header = Dataset()
    header.StudyInstanceUID = _single_study(evidence)
    if len(set(_legal_values(evidence, "PatientID", _LO))) > 1:
        raise ReportBuildError("the photographs name more than one patient; no report can be for both")
    for keyword, legal in _EMPTY_WHEN_UNKNOWN.items():
        setattr(header, keyword, next(_legal_values(evidence, keyword, legal), ""))
    for keyword, legal in _LEFT_OUT_WHEN_UNKNOWN.items():
        value = next(_legal_values(evidence, keyword, legal), "")
        if value:
            setattr(header, keyword, value)
    issuer = _accession_issuer(evidence)
    if issuer is not None and header.AccessionNumber:
        header.IssuerOfAccessionNumberSequence = [issuer]
    return header


def copied_values(ds: Dataset) -> str:
    """Return what a report of this photograph alone would copy from its header, as canonical JSON."""
    copied = patient_and_study([ds])
    offset = utc_offset([ds])
    if offset is not None:
        copied.TimezoneOffsetFromUTC = offset
    return copied.to_json()


def utc_offset(evidence: Sequence[Dataset]) -> str | None:
    """Return the Timezone Offset From UTC (0008,0201) that the headers state, None when they state none.

    Headers that disagree count as none: their study time would be read wrongly for some of them.
    """
    found = set(_legal_values(evidence, "TimezoneOffsetFromUTC", _is_offset))
    return found.pop() if len(found) == 1 else None


def to_timezone(offset: str) -> timezone:
    """Return the time zone of a value like "+0130"."""
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))


def long_string(text: str) -> str:
    """Return `text` as a legal LO: without control characters and backslashes, at most 64 characters."""
    return _CONTROL.sub(" ", text).strip()[:64]


def _is_offset(value: str) -> bool:
    return bool(_OFFSET.fullmatch(value)) and abs(to_timezone(value).utcoffset(None)) <= _MAXIMUM_OFFSET


def _single_study(evidence: Sequence[Dataset]) -> str:
    studies = {uid(ds, 0x0020000D) for ds in evidence}
    if len(studies) != 1 or not all(studies):
        raise ReportBuildError(f"the photographs belong to {len(studies)} studies, a report is for one")
    return studies.pop()


def _legal_values(evidence: Iterable[Dataset], keyword: str, legal: Callable[[str], bool]) -> Iterator[str]:
    for ds in evidence:
        value = strict_text(ds, keyword)
        if value is not None and legal(value):
            yield value


def _accession_issuer(evidence: Sequence[Dataset]) -> Dataset | None:
    """Return the first legal item of Issuer of Accession Number Sequence (PS3.3 table 10-17)."""
    for ds in evidence:
        for item in items(ds, _ISSUER_OF_ACCESSION_NUMBER)[:1]:
            issuer = _entity(item)
            if issuer:
                return issuer
    return None


def _entity(item: Dataset) -> Dataset:
    entity = Dataset()
    local = next(_legal_values([item], "LocalNamespaceEntityID", _UT), "")
    universal = next(_legal_values([item], "UniversalEntityID", _UT), "")
    kind = next(_legal_values([item], "UniversalEntityIDType", _is_one_of(*_ENTITY_ID_TYPES)), "")
    if local:
        entity.LocalNamespaceEntityID = local
    if universal and kind:
        entity.UniversalEntityID = universal
        entity.UniversalEntityIDType = kind
    return entity
