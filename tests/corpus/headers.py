"""Headers that break the rules of PS3.5, and legal ones that readers stumble over."""

from __future__ import annotations

import struct

from corpus.case import Case, graded, refused, turned_away
from corpus.photograph import Odd, change, element, inserted, make, place_of, raw, written
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

_MISSING = turned_away(0xA900, "IDENTIFIER_MISSING")
_CANNOT = turned_away(0xC210, "UNREADABLE_OBJECT")
_ITEM = b"\xfe\xff\x00\xe0"


def _odd(case: str, *elements: Odd) -> list[bytes]:
    return [written(make(case), *elements)]


def _without(case: str, *keywords: str) -> list[bytes]:
    return [written(change(make(case), **dict.fromkeys(keywords)))]


def _private(case: str) -> list[bytes]:
    """Private elements with and without their creator, and a private sequence (PS3.5 7.8)."""
    ds = make(case)
    block = ds.private_block(0x0009, "ACME FUNDUS", create=True)
    block.add_new(0x01, "LO", "calibrated")
    block.add_new(0x02, "OB", bytes(range(256)))
    inner = Dataset()
    inner.add_new(0x00091101, "UN", b"\x01\x02")
    block.add_new(0x03, "SQ", DicomSequence([inner]))
    return [written(ds, (0x00193001, b"UN", b"no creator"))]


def _items(case: str, number: int) -> list[bytes]:
    """A sequence of that many items."""
    code = element(0x00080100, b"SH", b"1")
    item = _ITEM + struct.pack("<L", len(code)) + code
    return _odd(case, ("ProcedureCodeSequence", b"SQ", item * number))


def _nested(case: str, depth: int) -> list[bytes]:
    """Sequences in sequences, all of undefined length."""
    tag = struct.pack("<HH", 0x0040, 0x0555)
    opened = tag + b"SQ\0\0\xff\xff\xff\xff" + _ITEM + b"\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return [inserted(written(make(case)), 0x00400555, opened * depth + closed * depth)]


def _group_lengths(case: str) -> list[bytes]:
    """Group length elements (retired, PS3.5 7.2), wrong ones."""
    wrong = (99_999).to_bytes(4, "little")
    return _odd(case, *((group << 16, b"UL", wrong) for group in (0x0008, 0x0010, 0x0020, 0x0028)))


def _trailing_padding(case: str) -> list[bytes]:
    """Data Set Trailing Padding (FFFC,FFFC), PS3.10 7.2."""
    return [written(make(case)) + element(0xFFFCFFFC, b"OB", bytes(64))]


def _duplicate(case: str) -> list[bytes]:
    """Rows twice, the second time out of order."""
    extra = element(0x00280010, b"US", (170).to_bytes(2, "little"))
    return [inserted(written(make(case)), 0x7FE00010, extra)]


def _elements_behind(case: str) -> list[bytes]:
    return [written(make(case)) + element(0xFFFA0010, b"LO", b"unexpected")]


def _cut_in_header(case: str) -> list[bytes]:
    content = written(make(case))
    start, _ = place_of(content, 0x00100020)
    return [content[: start + 4]]


def _length_beyond(case: str) -> list[bytes]:
    """An element in the header that claims 4 GB."""
    extra = struct.pack("<HH", 0x0028, 0x1200) + b"OW\0\0" + (0xFFFFFFF0).to_bytes(4, "little")
    return [inserted(written(make(case)), 0x00281200, extra)]


def _odd_uids(case: str) -> list[bytes]:
    """UIDs with leading zeros in components (PS3.5 section 9.1), which some vendors generate."""
    study, series = b"1.2.826.0.1.0075058170.01", b"1.2.826.0.1.0075058170.02"
    return _odd(case, ("StudyInstanceUID", b"UI", study), ("SeriesInstanceUID", b"UI", series))


def _long_uid(case: str) -> list[bytes]:
    return _odd(case, ("StudyInstanceUID", b"UI", b"1.2." + b"3" * 66))


def _lying_uid(case: str) -> list[bytes]:
    return _odd(case, ("SOPInstanceUID", b"UI", b"1.2.826.0.1.3680043.8.498.77"))


def _dates(case: str) -> list[bytes]:
    """Dates and times as devices write them that know none."""
    return _odd(
        case,
        ("StudyDate", b"DA", b"00000000"),
        ("StudyTime", b"TM", b"000000.000000000"),
        ("PatientBirthDate", b"DA", b"00000000"),
        ("AcquisitionDateTime", b"DT", b"00000000000000"),
        ("TimezoneOffsetFromUTC", b"SH", b"+9900"),
    )


def _old_dates(case: str) -> list[bytes]:
    """The forms of ACR-NEMA, and what is no date at all."""
    return _odd(
        case,
        ("StudyDate", b"DA", b"2026.03.01"),
        ("StudyTime", b"TM", b"10:00:00"),
        ("PatientAge", b"AS", b"64"),
        ("PatientSex", b"CS", b"female"),
    )


def _long_texts(case: str) -> list[bytes]:
    """Values far longer than their representations allow, and with control characters."""
    return _odd(
        case,
        ("PatientID", b"LO", b"CRPLONG" + b"7" * 200),
        ("PatientName", b"PN", b"Quarnlong^" * 30),
        ("AccessionNumber", b"SH", b"A" * 40),
        ("StudyDescription", b"LO", b"line one\r\nline two"),
        ("StudyID", b"SH", b"several\\values"),
    )


def _numbers(case: str) -> list[bytes]:
    """Numbers as text where US is due, and numbers that are none."""
    return _odd(
        case,
        ("Rows", b"IS", b"170 "),
        ("Columns", b"DS", b"256 "),
        ("InstanceNumber", b"IS", b"one "),
        ("SeriesNumber", b"IS", b"99999999999999999999"),
    )


def _unknown_representation(case: str) -> list[bytes]:
    """VR UN for elements that every dictionary knows (PS3.5 6.2.2)."""
    ds = make(case)
    known = ("PatientName", "PatientID", "Manufacturer", "ImageLaterality", "StudyDate")
    return [written(ds, *((keyword, b"UN", str(ds[keyword].value).encode()) for keyword in known))]


def _padded(case: str) -> list[bytes]:
    """Values padded with zeros and spaces on the wrong side, in lower case."""
    return _odd(
        case,
        ("Manufacturer", b"LO", b"  Kowa  "),
        ("ManufacturerModelName", b"LO", b" vx-10\0\0"),
        ("ImageLaterality", b"CS", b" r\0\0"),
    )


CASES = (
    Case("uid-study-missing", "no Study Instance UID", _MISSING, lambda c: _without(c, "StudyInstanceUID")),
    Case(
        "uid-series-missing", "no Series Instance UID", _MISSING, lambda c: _without(c, "SeriesInstanceUID")
    ),
    Case(
        "uid-study-empty",
        "an empty Study Instance UID",
        _MISSING,
        lambda c: _odd(c, ("StudyInstanceUID", b"UI", b"")),
    ),
    Case(
        "uid-with-letters",
        "a Study Instance UID with letters",
        _MISSING,
        lambda c: _odd(c, ("StudyInstanceUID", b"UI", b"1.2.STUDY.1")),
    ),
    Case("uid-too-long", "a Study Instance UID of 70 characters", _MISSING, _long_uid),
    Case("uid-leading-zeros", "UIDs with leading zeros", graded(), _odd_uids),
    Case(
        "uid-mismatch",
        "another SOP Instance UID in the data set than in the request",
        turned_away(0xA900, "SOP_INSTANCE_MISMATCH"),
        _lying_uid,
        dcmtk="announces the UID of the data set",
    ),
    Case("type1-modality-missing", "no Modality", graded(), lambda c: _without(c, "Modality")),
    Case(
        "type1-photometric-missing",
        "no Photometric Interpretation, JPEG",
        graded(),
        lambda c: _without(c, "PhotometricInterpretation"),
    ),
    Case(
        "type1-photometric-missing-raw",
        "no Photometric Interpretation, uncompressed",
        graded(),
        lambda c: [written(raw(c, PhotometricInterpretation=None))],
    ),
    Case(
        "type1-samples-missing",
        "no Samples per Pixel",
        graded(),
        lambda c: [written(raw(c, SamplesPerPixel=None))],
    ),
    Case(
        "type1-bits-missing",
        "no Bits Allocated, uncompressed",
        refused("PIXELS_UNREADABLE"),
        lambda c: [written(raw(c, BitsAllocated=None))],
    ),
    Case(
        "type1-rows-missing",
        "no Rows, uncompressed",
        refused("PIXELS_UNREADABLE"),
        lambda c: [written(raw(c, Rows=None))],
    ),
    Case(
        "type1-patient-missing",
        "no patient at all",
        graded(),
        lambda c: _without(c, "PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    ),
    Case(
        "type1-dates-missing",
        "no date or time at all",
        graded(),
        lambda c: _without(c, "StudyDate", "StudyTime", "ContentDate", "ContentTime", "AcquisitionDateTime"),
    ),
    Case("dates-of-zeros", "dates of 00000000", graded(), _dates),
    Case("dates-of-acr-nema", "dates, age and sex in forms of their own", graded(), _old_dates),
    Case(
        "vr-too-long",
        "values too long, with control characters",
        graded(),
        _long_texts,
        secrets=("CRPLONG", "Quarnlong"),
    ),
    Case("vr-numbers", "Rows and Columns as text", graded(), _numbers),
    Case("vr-un", "VR UN for elements that are known", graded(), _unknown_representation),
    Case(
        "vr-invalid",
        "a VR that does not exist",
        graded(),
        lambda c: _odd(c, (0x00289999, b"ZZ", b"what?!")),
        dcmtk="cannot read it",
    ),
    Case("vr-padding", "values padded on the wrong side, in lower case", graded(), _padded),
    Case("private-elements", "private elements, with and without creator", graded(), _private),
    Case("sequence-huge", "a sequence of 20,000 items", graded(), lambda c: _items(c, 20_000)),
    Case("sequence-nested", "100 sequences in each other", graded(), lambda c: _nested(c, 100)),
    Case("sequence-bottomless", "5,000 sequences in each other", graded(), lambda c: _nested(c, 5_000)),
    Case("group-lengths", "group length elements, wrong ones", graded(), _group_lengths),
    Case("trailing-padding", "data set trailing padding", graded(), _trailing_padding),
    Case("elements-twice", "an element twice, out of order", graded(), _duplicate),
    Case("elements-behind-pixels", "an element behind the pixel data", graded(), _elements_behind),
    Case(
        "length-of-4-gb",
        "an element of 4 GB before the pixel data",
        refused("PIXELS_MISSING"),
        _length_beyond,
        dcmtk="cannot read it",
    ),
    Case(
        "cut-in-the-header", "the object ends in its header", _MISSING, _cut_in_header, dcmtk="cannot read it"
    ),
)
