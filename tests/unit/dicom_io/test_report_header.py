from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from factories.reports import STUDY, header
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.errors import ReportBuildError
from dicom_io.report_header import long_string, patient_and_study, to_timezone, utc_offset


def copied(keyword: str, value: str) -> str | None:
    """What becomes of `value` in a photograph's header; None when the report leaves the attribute out."""
    attributes: dict[str, Any] = {keyword: value}
    found = patient_and_study([header(**attributes)]).get(keyword)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Yamada^Tarou^^^"),
        ("PatientID", "x" * 64),
        ("PatientBirthDate", "19560229"),
        ("PatientSex", "F"),
        ("PatientAge", "069Y"),
        ("StudyDate", "20260304"),
        ("StudyTime", "235959.5"),
        ("StudyTime", "07"),
        ("StudyID", "S-1"),
        ("AccessionNumber", "A" * 16),
        ("IssuerOfPatientID", "HOSPITAL"),
        ("StudyDescription", "Fundus both eyes"),
        ("ReferringPhysicianName", "Roe^Mary"),
    ],
)
def test_a_legal_value_is_copied(keyword: str, value: str) -> None:
    assert copied(keyword, value) == value


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "x" * 65),
        ("PatientName", "a^b^c^d^e^f"),
        ("PatientName", "a=b=c=d"),
        ("PatientID", "x" * 65),
        ("PatientID", "two\\values"),
        ("PatientID", "a\x07b"),
        ("PatientBirthDate", "00000000"),
        ("PatientBirthDate", "19560230"),
        ("PatientBirthDate", "1956-02-2"),
        ("PatientSex", "W"),
        ("StudyDate", "20260304-"),
        ("StudyDate", "00010101"),
        ("PatientName", "Doe^\u202eenaJ"),
        ("StudyTime", "2460"),
        ("StudyTime", "12:30:00"),
        ("AccessionNumber", "A" * 17),
        ("StudyID", "x" * 17),
    ],
)
def test_a_type_2_value_that_breaks_its_representation_becomes_empty(keyword: str, value: str) -> None:
    assert copied(keyword, value) == ""


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientAge", "69"),
        ("IssuerOfPatientID", "x" * 65),
        ("StudyDescription", "a\x1bb"),
        ("PatientAge", ""),
    ],
)
def test_a_type_3_value_that_breaks_its_representation_is_left_out(keyword: str, value: str) -> None:
    assert copied(keyword, value) is None


def test_a_missing_type_2_attribute_is_empty_in_the_report() -> None:
    attributes: dict[str, Any] = {"PatientBirthDate": None, "StudyTime": None, "StudyID": None}
    found = patient_and_study([header(**attributes)])
    assert (found.PatientBirthDate, found.StudyTime, found.StudyID) == ("", "", "")


def test_the_first_legal_value_counts_so_that_one_damaged_header_does_not_empty_the_report() -> None:
    found = patient_and_study([header(1, accession="A" * 20), header(2, accession="ACC7")])
    assert found.AccessionNumber == "ACC7"


@pytest.mark.parametrize(
    ("charset", "patient_name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "山田^太郎"),
        ("GB18030", "王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Müller^Иван"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞"),
    ],
)
def test_a_name_is_read_by_its_character_set(charset: str | list[str], patient_name: str) -> None:
    ds = header(patient_name=patient_name, SpecificCharacterSet=charset)
    assert patient_and_study([ds]).PatientName == patient_name


@pytest.mark.parametrize(
    "value", ["Gal·la^Pérez", "D\u00b4Angelo^Nuño", "Ζωή^Δ", "張偉A", "ﾔﾏﾀﾞ^ﾀﾛｳ", "Łódź^Ñ"]
)
def test_a_name_of_any_script_is_copied(value: str) -> None:
    ds = header(patient_name=value, SpecificCharacterSet="ISO_IR 192")
    assert patient_and_study([ds]).PatientName == value


@pytest.mark.parametrize(
    ("declared", "encoded"),
    [
        ("ISO_IR 100", "Müller".encode()),
        ("ISO_IR 100", "山田".encode()),
        ("ISO_IR 100", "小东".encode("gb18030")),
        ("ISO_IR 100", "홍길동".encode("euc_kr")),
        ("GB18030", "Müller".encode("latin_1")),
        ("GB18030", "MÜLLER".encode("latin_1")),
    ],
)
def test_a_name_that_another_character_set_makes_nonsense_of_is_left_empty(
    declared: str, encoded: bytes
) -> None:
    ds = header(SpecificCharacterSet=declared)
    ds[0x00100010] = RawDataElement(Tag(0x00100010), "PN", len(encoded), encoded, 0, False, True)
    assert patient_and_study([ds]).PatientName == ""


@pytest.mark.parametrize(
    ("keyword", "first", "second", "expected"),
    [
        ("PatientName", "Doe^Jane", "Roe^Mary", ""),
        ("PatientName", "Doe^Jane", "DOE^JANE^^", "Doe^Jane"),
        ("PatientName", "Doe^Jane=山", "Doe ^ Jane", "Doe^Jane=山"),
        ("PatientName", "", "Roe^Mary", "Roe^Mary"),
        ("PatientBirthDate", "19500101", "19500102", ""),
        ("PatientSex", "F", "M", ""),
        ("PatientSex", "F", "F", "F"),
    ],
)
def test_headers_that_disagree_on_who_the_patient_is_leave_it_empty(
    keyword: str, first: str, second: str, expected: str
) -> None:
    values: tuple[dict[str, Any], ...] = ({keyword: first}, {keyword: second})
    declared = {"SpecificCharacterSet": "ISO_IR 192"}
    evidence = [header(number, **declared, **value) for number, value in enumerate(values, start=1)]
    assert str(patient_and_study(evidence)[keyword].value) == expected


@pytest.mark.parametrize("spelling", ["ISO_IR 100", "ISO-IR 100", "ISO IR 100", "iso_ir 100", "ISO_IR_100"])
def test_a_slip_in_the_name_of_a_character_set_is_understood(spelling: str) -> None:
    ds = header()
    ds.SpecificCharacterSet = spelling
    ds[0x00100010] = RawDataElement(Tag(0x00100010), "PN", 6, b"M\xfcller", 0, False, True)
    assert patient_and_study([ds]).PatientName == "Müller"


def test_a_name_in_iso_2022_ir_58_is_read_without_its_escape_sequences() -> None:
    encoded = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"
    ds = header(SpecificCharacterSet=["", "ISO 2022 IR 58"])
    ds[0x00100010] = RawDataElement(Tag(0x00100010), "PN", len(encoded), encoded, 0, False, True)
    assert patient_and_study([ds]).PatientName == "Zhang^XiaoDong=张^小东"


def test_ascii_needs_no_declaration_that_is_understood() -> None:
    ds = header()
    ds.SpecificCharacterSet = "ISO_IR 999"
    found = patient_and_study([ds])
    assert (found.PatientName, found.PatientID, found.StudyDate) == ("Doe^Jane", "PID0001", "20260304")


def test_a_name_that_its_declared_character_set_cannot_explain_is_left_empty() -> None:
    ds = header(patient_name="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    ds.SpecificCharacterSet = "ISO_IR 192"
    assert patient_and_study([ds]).PatientName == ""


@pytest.mark.parametrize(
    ("charset", "encoded"),
    [
        ("ISO_IR 999", "M\u00fcller".encode("latin-1")),
        (["", "ISO 2022 IR 87"], b"\x1b-AM\xfcller"),
        (["", "ISO 2022 IR 87"], b"\x1b?M"),
        ("ISO_IR 6", b"M\xfcller"),
    ],
)
def test_bytes_outside_the_declared_character_sets_are_left_out(
    charset: str | list[str], encoded: bytes
) -> None:
    ds = header()
    ds.SpecificCharacterSet = charset
    ds[0x00100010] = RawDataElement(Tag(0x00100010), "PN", len(encoded), encoded, 0, False, True)
    assert patient_and_study([ds]).PatientName == ""


def test_two_studies_or_none_are_refused() -> None:
    other = header(2)
    other.StudyInstanceUID = "2.25.5"
    with pytest.raises(ReportBuildError, match="2 studies"):
        patient_and_study([header(1), other])
    with pytest.raises(ReportBuildError):
        patient_and_study([header(1, StudyInstanceUID=None)])


def test_two_patients_are_refused_without_naming_them() -> None:
    with pytest.raises(ReportBuildError) as refused:
        patient_and_study([header(1, patient_id="PAT-A"), header(2, patient_id="PAT-B")])
    assert "PAT-" not in str(refused.value)


def issuer(**attributes: str) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def test_the_issuer_of_the_accession_number_comes_along() -> None:
    item = issuer(LocalNamespaceEntityID="RIS", UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    found = patient_and_study([header(IssuerOfAccessionNumberSequence=[item])])
    (copy,) = found.IssuerOfAccessionNumberSequence
    assert (copy.LocalNamespaceEntityID, copy.UniversalEntityID, copy.UniversalEntityIDType) == (
        "RIS",
        "1.2.3",
        "ISO",
    )


@pytest.mark.parametrize(
    "item",
    [
        issuer(),
        issuer(UniversalEntityID="1.2.3"),
        issuer(UniversalEntityID="1.2.3", UniversalEntityIDType="WHATEVER"),
    ],
)
def test_an_issuer_that_says_nothing_legal_is_left_out(item: Dataset) -> None:
    ds = header(IssuerOfAccessionNumberSequence=[item])
    assert "IssuerOfAccessionNumberSequence" not in patient_and_study([ds])


def test_an_issuer_without_an_accession_number_is_left_out() -> None:
    ds = header(accession="", IssuerOfAccessionNumberSequence=[issuer(LocalNamespaceEntityID="RIS")])
    assert "IssuerOfAccessionNumberSequence" not in patient_and_study([ds])


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (("+0130", "+0130"), "+0130"),
        (("-0800",), "-0800"),
        (("+0130", "+0000"), None),
        (("+1500",), None),
        (("+9900",), None),
        (("-2400",), None),
        (("0130",), None),
        ((), None),
    ],
)
def test_the_offset_from_utc_counts_when_the_headers_agree(
    stated: tuple[str, ...], expected: str | None
) -> None:
    headers = [header(number, TimezoneOffsetFromUTC=value) for number, value in enumerate(stated, 1)]
    assert utc_offset(headers or [header()]) == expected


def test_an_offset_is_turned_into_a_zone_with_its_sign() -> None:
    assert to_timezone("-0330").utcoffset(None) == -timedelta(hours=3, minutes=30)
    assert to_timezone("+0545").utcoffset(None) == timedelta(hours=5, minutes=45)


def test_a_long_string_is_one_line_of_64_characters() -> None:
    assert long_string(" a\\b\nc ") == "a b c"
    assert len(long_string("x" * 100)) == 64
    assert patient_and_study([header()]).StudyInstanceUID == STUDY
