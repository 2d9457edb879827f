"""Patient and study of a report, copied from the photographs' headers as far as they are legal.

A report must be a valid object whatever the camera wrote: a value that breaks its value representation
(PS3.5 section 6.2) is left out rather than passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from io import BytesIO
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.dataset import parse_object
from dicom_io.elements import items, uid
from dicom_io.errors import ReportBuildError
from dicom_io.strict_text import strict_text

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\uffff\\]")
"""Control characters, and those that turn the text beside them round or stand for nothing."""
_NO_NAME = re.compile(
    r"[\u00a1-\u00a7\u00a9\u00ab\u00ac\u00ae\u00af\u00b1\u00b6\u00bb-\u00bf\u00d7\u00f7]"
    r"|[\u00c2-\u00df][\u00a0-\u00bf]"
    r"|[A-Za-z][\u3400-\u9fff][A-Za-z]|[a-z][\u3400-\u9fff]|[\u3400-\u9fff][a-z]"
)
"""What no name contains, and what a name becomes under a character set that is declared and is not its own:
UTF-8, GB 18030 or EUC-KR read as Latin-1 (symbols; a capital with an accent and a symbol), Latin-1 read as
GB 18030 (an ideograph within a word of small letters)."""
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII)
_AGE = re.compile(r"\d{3}[DWMY]", re.ASCII)
_DATE = re.compile(r"[1-9]\d{7}", re.ASCII)
"""Years before 1000 stand for "unknown"; validators refuse them."""
_OFFSET = re.compile(r"([+-])(\d{2})([0-5]\d)", re.ASCII)
_MAXIMUM_OFFSET = timedelta(hours=14)


def _is_text(longest: int) -> Callable[[str], bool]:
    def legal(value: str) -> bool:
        return len(value) <= longest and not _CONTROL.search(value)

    return legal


def _is_person_name(value: str) -> bool:
    """Up to three groups of up to five components, 64 characters a group (PS3.5 section 6.2.1).

    A name that its declared character set turns into nonsense is none: it might be another person's.
    """
    groups = value.split("=")
    return (
        len(groups) <= 3
        and not _CONTROL.search(value)
        and not _NO_NAME.search(value)
        and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    )


def _is_date(value: str) -> bool:
    if not _DATE.fullmatch(value):
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

_AGREED = ("PatientName", "PatientBirthDate", "PatientSex")
"""Who the patient is: headers that disagree on it leave it empty, instead of one of them being picked."""

COPIED_TAGS = (
    *(int(Tag(keyword)) for keyword in (*_EMPTY_WHEN_UNKNOWN, *_LEFT_OUT_WHEN_UNKNOWN)),
    _ISSUER_OF_ACCESSION_NUMBER,
    _TIMEZONE_OFFSET,
)
"""Elements that a report copies from a photograph's header or interprets its times by."""

_OF_THE_PICTURE = (0x00280301, 0x00282110, 0x00282112, 0x00282114)
"""Burned In Annotation and loss: what is made of a photograph says it too."""

_IDENTIFIERS = (0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E)

_ENTITY_ID_TYPES = ("DNS", "EUI64", "ISO", "URI", "UUID", "X400", "X500")


def patient_and_study(evidence: Sequence[Dataset]) -> Dataset:
    """Return the patient and study attributes that the photographs of one study agree on.

    Each attribute is the first legal value in the order given, so that one damaged header does not empty it.
    Name, birth date and sex are empty when two headers state different ones.

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
        values = list(_legal_values(evidence, keyword, legal))
        agreed = keyword not in _AGREED or len({_plain(value) for value in values}) < 2
        setattr(header, keyword, values[0] if values and agreed else "")
    for keyword, legal in _LEFT_OUT_WHEN_UNKNOWN.items():
        value = next(_legal_values(evidence, keyword, legal), "")
        if value:
            setattr(header, keyword, value)
    issuer = _accession_issuer(evidence)
    if issuer is not None and header.AccessionNumber:
        header.IssuerOfAccessionNumberSequence = [issuer]
    return header


def read_evidence(data: bytes) -> Dataset:
    """Return what a report needs of a photograph's file: its identifiers, and what is copied.

    It is read as it was at reception, so what could be taken in can be reported.

    Raises:
        UnreadableObjectError: The file is no DICOM file.
    """
    return parse_object(BytesIO(data), (*_IDENTIFIERS, *_OF_THE_PICTURE, *COPIED_TAGS)).dataset


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


def _plain(value: str) -> str:
    """A value without what does not make it another one: case, spaces, empty components, other scripts."""
    first = value.split("=", maxsplit=1)[0] or value
    return "^".join(" ".join(part.split()) for part in first.split("^")).rstrip("^").casefold()


def _is_offset(value: str) -> bool:
    found = _OFFSET.fullmatch(value)  # a time zone of a day or more cannot even be made
    return found is not None and timedelta(hours=int(found[2]), minutes=int(found[3])) <= _MAXIMUM_OFFSET


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
