"""Photographs with odd headers, byte by byte: what is sent, and what has to come of it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from types import MappingProxyType
from typing import Any

from factories.runtime import fundus_of_grade
from pydicom.dataset import FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

PATIENT_ID = "HEADER7"
_LONG_VR = ("OB", "OW", "SQ", "UN", "UT")
_CHARSET, _NAME, _ID, _SEX = 0x00080005, 0x00100010, 0x00100020, 0x00100040
_STUDY_DATE, _STUDY_TIME, _BIRTH_DATE, _AGE = 0x00080020, 0x00080030, 0x00100030, 0x00101010
_ACCESSION, _ISSUER_OF_ACCESSION, _DESCRIPTION = 0x00080050, 0x00080051, 0x00081030
_STUDY_UID, _SERIES_UID, _INSTANCE_UID = 0x0020000D, 0x0020000E, 0x00080018
_ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_ITEM_END, _SEQUENCE_END = b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
_WIDE = str.maketrans({str(digit): chr(0xFF10 + digit) for digit in range(10)})
"""To the wide digits that Japanese and Chinese software may write."""
ITEMS = 30_000
LEVELS = 3_000


@dataclass(frozen=True)
class HeaderCase:
    """One odd header.

    Attributes:
        elements: Encoded elements (explicit VR little endian) by tag; None removes one.
        after: Bytes after the data set.
        status: What the sender is answered.
        row: State and reason of the image's row, or None and that of its rejection.
        copied: Values in the report by keyword.
        invalid: What `dciodvfy` says of identifiers that are not ours to correct.
    """

    elements: Mapping[int, bytes | None] = field(default_factory=dict)
    after: bytes = b""
    status: int = 0x0000
    row: tuple[str | None, str | None] = ("ANALYSED", None)
    copied: Mapping[str, str] = field(default_factory=dict)
    invalid: str | None = None


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """An element in explicit VR little endian (PS3.5 section 7.1.2); nothing is checked or padded."""
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (struct.pack("<HL", 0, size) if vr in _LONG_VR else struct.pack("<H", size)) + value


def file_of(case: HeaderCase, ds: FileDataset) -> bytes:
    """The file of a photograph whose header is that of the case."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    (meta_length,) = struct.unpack("<L", content[140:144])
    encoded: dict[int, bytes | None] = {int(each.tag): _encoded(ds, int(each.tag)) for each in ds}
    encoded.update(case.elements)
    ordered = [encoded[tag] or b"" for tag in sorted(encoded)]
    return content[: 144 + meta_length] + b"".join(ordered) + case.after


def photograph(number: int) -> FileDataset:
    """The photograph of case `number`, with nothing odd about it."""
    root = f"2.25.88.{number}"
    uids: dict[str, Any] = {"study_uid": root, "series_uid": f"{root}.1", "sop_uid": f"{root}.2"}
    return fundus_of_grade(2, **uids, patient_id=PATIENT_ID, accession=f"H{number}")


def _encoded(ds: FileDataset, tag: int) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, ds[tag], "utf8")
    return buffer.getvalue()


def _set(*elements: tuple[int, str, bytes]) -> dict[int, bytes | None]:
    return {tag: element(tag, vr, value) for tag, vr, value in elements}


def _name(declared: str, encoded: bytes, expected: str) -> HeaderCase:
    """A name in the bytes of some character set, under a declaration that need not be its own."""
    padded = encoded + b" " * (len(encoded) % 2)
    elements = _set((_CHARSET, "CS", declared.encode()), (_NAME, "PN", padded))
    return HeaderCase(elements, copied={"PatientName": expected, "PatientID": PATIENT_ID})


def _only(*elements: tuple[int, str, bytes], **copied: str) -> HeaderCase:
    return HeaderCase(_set(*elements), copied={"PatientID": PATIENT_ID, **copied})


def _refused(*removed: int) -> HeaderCase:
    return HeaderCase(dict.fromkeys(removed), status=0xA900, row=(None, "IDENTIFIER_MISSING"))


def _sequence(tag: int, value: bytes) -> dict[int, bytes | None]:
    """A sequence of undefined length beside a private creator."""
    return {**_set((0x00290010, "LO", b"ACME")), tag: element(tag, "SQ", value + _SEQUENCE_END, 0xFFFFFFFF)}


_NAMES = {
    "ISO 2022 IR 87": _name(
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        "Yamada^Tarou=山田^太郎",
    ),
    "ISO 2022 IR 159": _name(
        "\\ISO 2022 IR 87\\ISO 2022 IR 159", b"Yamada^T=\x1b$(D0!\x1b(B^\x1b$BB@\x1b(B", "Yamada^T=丂^太"
    ),
    "ISO 2022 IR 149": _name(
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "ISO 2022 IR 58": _name(
        "\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
        "Zhang^XiaoDong=张^小东",
    ),
    "GB18030": _name("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    "UTF-8": _name("ISO_IR 192", "Buc^Jérôme=王^小東".encode(), "Buc^Jérôme=王^小東"),
    "Latin-1": _name("ISO_IR 100", "Müller^Jörg".encode("latin_1"), "Müller^Jörg"),
    "Latin-1, declared with a slip": _name("ISO-IR 100", "Müller^Jörg".encode("latin_1"), "Müller^Jörg"),
    "UTF-8 declared as Latin-1": _name("ISO_IR 100", "Müller^Jörg".encode(), ""),
    "Latin-1 declared as UTF-8": _name("ISO_IR 192", "Müller^Jörg".encode("latin_1"), ""),
    "Latin-1 declared as GB18030": _name("GB18030", "Müller^Jörg".encode("latin_1"), ""),
    "GB18030 declared as Latin-1": _name("ISO_IR 100", "王^小东".encode("gb18030"), ""),
    "Latin-1 undeclared": _name("", "Müller^Jörg".encode("latin_1"), ""),
    "Shift JIS undeclared": _name("", "山田^太郎".encode("shift_jis"), ""),
    "escapes undeclared": _name("", b"Yamada^Tarou=\x1b$B;3ED\x1b(B", ""),
    "a character set that is none, ASCII": _name("ISO_IR 999", b"Mueller^Joerg", "Mueller^Joerg"),
    "a name turned round by control characters": _name("ISO_IR 192", "Doe^\u202eenaJ".encode(), ""),
}

_VALUES = {
    "dates of zeros": _only(
        (_STUDY_DATE, "DA", b"00000000"), (_BIRTH_DATE, "DA", b"00000000"), StudyDate="", PatientBirthDate=""
    ),
    "year 1": _only((_STUDY_DATE, "DA", b"00010101"), (_BIRTH_DATE, "DA", b"0000"), StudyDate=""),
    "dates in other digits": _only(
        (_CHARSET, "CS", b"ISO_IR 192"),
        (_STUDY_DATE, "DA", "20260304".translate(_WIDE).encode()),
        (_STUDY_TIME, "TM", "0102".translate(_WIDE).encode()),
        (_AGE, "AS", "069Y".translate(_WIDE).encode()),
        (0x00080201, "SH", "+0100".translate(_WIDE).encode()),
        StudyDate="",
        StudyTime="",
    ),
    "values too long": _only(
        (_NAME, "PN", b"x" * 200), (_ACCESSION, "SH", b"A" * 40), PatientName="", AccessionNumber=""
    ),
    "control characters": _only(
        (_NAME, "PN", b"Doe\n^Jane\x00 "), (_DESCRIPTION, "LO", b"a\x1bb\x07"), PatientName=""
    ),
    "an odd length": _only((_ACCESSION, "SH", b"ABC"), AccessionNumber="ABC"),
    "VR that does not exist": _only((_ACCESSION, "ZZ", b"ACC7"), AccessionNumber="ACC7"),
    "VR of another kind": _only(
        (_NAME, "UN", b"Doe^Jane"), (_STUDY_DATE, "LO", b"20260304"), (_SEX, "US", b"\x01\x00"),
        (0x00280010, "SS", b"\x80\x00"), (0x00280002, "IS", b"3 "),
        PatientName="Doe^Jane", StudyDate="20260304", PatientSex="",
    ),
    "a sequence that is none": _only((_ISSUER_OF_ACCESSION, "SQ", b"abcdefgh")),
    "private elements": _only(
        (0x00090011, "LO", b"NOBODY"), (0x00291001, "UN", bytes(1000)), (0x00291102, "OB", b"\x01\x02")
    ),
    "private sequence within UN": HeaderCase(
        {
            0x00291001: element(
                0x00291001,
                "UN",
                _ITEM + b"\x08\0\0\x01\x02\0\0\0ab" + _ITEM_END + _SEQUENCE_END,
                0xFFFFFFFF,
            )
        }
    ),
    "group lengths": _only(
        (0x00080000, "UL", struct.pack("<L", 12)), (0x00100000, "UL", struct.pack("<L", 0xFFFFFFF0)),
        (0x00280000, "UL", bytes(4)),
    ),
    "trailing padding": HeaderCase(after=element(0xFFFCFFFC, "OB", bytes(512))),
    "zeros after the data set": HeaderCase(after=bytes(1000)),
    "a private sequence of very many items": HeaderCase(
        _sequence(0x00291002, (_ITEM + element(0x00080100, "SH", b"ab") + _ITEM_END) * ITEMS)
    ),
    "a known sequence of very many items": HeaderCase(
        _sequence(0x00220015, (_ITEM + element(0x00080100, "SH", b"ab") + _ITEM_END) * ITEMS)
    ),
    "sequences nested very deeply": HeaderCase(
        _sequence(
            _ISSUER_OF_ACCESSION,
            (_ITEM + element(_ISSUER_OF_ACCESSION, "SQ", b"", 0xFFFFFFFF)) * LEVELS
            + (_SEQUENCE_END + _ITEM_END) * LEVELS,
        )
    ),
}  # fmt: skip

_IDENTIFIERS = {
    "no study UID": _refused(_STUDY_UID),
    "no series UID": _refused(_SERIES_UID),
    "no SOP instance UID": _refused(_INSTANCE_UID),
    "study UID with a leading zero": HeaderCase(
        _set((_STUDY_UID, "UI", b"2.25.088.1\0\0")), invalid="Leading zeroes in embedded numeric component"
    ),
    "nobody's name and number": HeaderCase(
        dict.fromkeys((_NAME, _ID, _SEX, _BIRTH_DATE, _STUDY_DATE, _STUDY_TIME, _ACCESSION, 0x00200010)),
        copied={"PatientName": "", "PatientID": "", "StudyDate": "", "StudyID": "", "AccessionNumber": ""},
    ),
    "no manufacturer": HeaderCase({0x00080070: None}, row=("ANALYSED", "CAMERA_NOT_VALIDATED")),
    "no pixel description": HeaderCase(
        dict.fromkeys((0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280100)),
        row=("REFUSED", "PIXELS_UNREADABLE"),
    ),
    "no modality, type, times": HeaderCase(dict.fromkeys((0x00080060, 0x00080008, 0x0008002A, 0x00080033))),
}

CASES: Mapping[str, HeaderCase] = MappingProxyType({**_NAMES, **_VALUES, **_IDENTIFIERS})
"""Every odd header by name."""
NAMES: Sequence[str] = ("Yamada", "Hong^", "Zhang", "Mueller", "ller^J", "Doe^", PATIENT_ID)
"""What must not be found in a log."""
