from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from factories.dicom import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    as_jpeg,
    make_fundus,
    synthetic_fundus,
    write_fundus,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicom_io import dataset
from dicom_io.dataset import ParsedObject
from dicom_io.elements import raw_bytes, text
from dicom_io.errors import DicomIoError, IdentifierMissingError, UnreadableObjectError
from dicom_io.header import (
    MAXIMUM_FRAMES,
    FundusHeader,
    Laterality,
    LateralityReading,
    decisive_content,
    read_header,
)
from dicom_io.pixel_digest import pixel_digest


def header_of(tmp_path: Path, **options: Any) -> FundusHeader:
    write_fundus(tmp_path / "a.dcm", **options)
    return read_header(tmp_path / "a.dcm")


def encoded(ds: FileDataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def file_meta_of(content: bytes) -> bytes:
    """Preamble, prefix and group 0002, by its group length."""
    return content[: 144 + int.from_bytes(content[140:144], "little")]


def code_item(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def region(code: str, modifier: str | None = None) -> list[Dataset]:
    """Anatomic Region Sequence, with a modifier if one is given."""
    item = code_item(code)
    if modifier is not None:
        item.AnatomicRegionModifierSequence = [code_item(modifier)]
    return [item]


@pytest.mark.parametrize(
    "transfer_syntax",
    [JPEGBaseline8Bit, ExplicitVRLittleEndian, ImplicitVRLittleEndian],
)
def test_reads_what_the_header_says(tmp_path: Path, transfer_syntax: str) -> None:
    header = header_of(
        tmp_path,
        transfer_syntax=transfer_syntax,
        study_uid="1.2.3",
        series_uid="1.2.4",
        sop_uid="1.2.5",
        patient_id="P77",
        size=64,
        IssuerOfPatientID="HOSPITAL",
        RequestedProcedurePriority="HIGH",
        NumberOfStudyRelatedInstances="4",
        SoftwareVersions=["1.0", "2.0"],
        DeviceSerialNumber="S1",
        IlluminationTypeCodeSequence=[code_item("111627", "DCM")],
    )

    assert (header.study_instance_uid, header.series_instance_uid) == ("1.2.3", "1.2.4")
    assert (header.sop_instance_uid, header.transfer_syntax_uid) == ("1.2.5", transfer_syntax)
    assert (header.accession_number, header.patient_id) == ("ACC0001", "P77")
    assert header.issuer_of_patient_id == "HOSPITAL"
    assert (header.manufacturer, header.model_name) == ("Kowa", "VX-10")
    assert (header.device_serial, header.software) == ("S1", "1.0\\2.0")
    assert (header.rows, header.columns, header.number_of_frames) == (64, 64, 1)
    assert (header.samples_per_pixel, header.bits_allocated, header.bits_stored) == (3, 8, 8)
    assert header.photometric == ("YBR_FULL_422" if transfer_syntax == JPEGBaseline8Bit else "RGB")
    assert header.image_type == ("ORIGINAL", "PRIMARY", "", "COLOR")
    assert header.laterality == (LateralityReading(Laterality.RIGHT),)
    assert header.device_type_codes == ("409898007",)
    assert header.illumination_codes == ("111627",)
    assert header.burned_in_annotation is False
    assert (header.requested_priority, header.related_instances) == ("HIGH", 4)
    assert len(header.acquisition_datetime) == 14


def test_what_is_absent_has_a_default(tmp_path: Path) -> None:
    header = header_of(
        tmp_path,
        laterality=None,
        NumberOfFrames=None,
        BurnedInAnnotation=None,
        AcquisitionDateTime=None,
        Manufacturer=None,
        AcquisitionDeviceTypeCodeSequence=None,
        AcquisitionDate="20240102",
        AcquisitionTime="030405",
    )

    assert header.number_of_frames == 1
    assert header.burned_in_annotation is None
    assert header.related_instances is None
    assert header.manufacturer == ""
    assert header.device_type_codes == ()
    assert header.acquisition_datetime == "20240102030405"
    assert header.laterality == (LateralityReading(None, "LATERALITY_UNKNOWN"),)


def test_big_endian_and_deflated_read_the_same(tmp_path: Path) -> None:
    photograph = make_fundus(transfer_syntax=ExplicitVRLittleEndian, size=32, sop_uid="1.2.5")
    ds = Dataset(photograph)
    ds.file_meta = photograph.file_meta
    expected = None
    for syntax in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        ds.file_meta.TransferSyntaxUID = syntax
        path = tmp_path / f"{syntax}.dcm"
        ds.save_as(
            path,
            implicit_vr=False,
            little_endian=syntax != ExplicitVRBigEndian,
            enforce_file_format=True,
        )
        header = read_header(path)
        summary = (header.sop_instance_uid, header.rows, header.samples_per_pixel, header.laterality)
        expected = expected or summary
        assert summary == expected
        assert header.pixel_sha256 is not None


def test_a_deflated_bomb_is_refused_before_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MAXIMUM_INFLATED_BYTES", 10_000)
    ds = make_fundus(transfer_syntax=ExplicitVRLittleEndian, size=64)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(tmp_path / "a.dcm")

    with pytest.raises(UnreadableObjectError, match="inflates beyond 10000 bytes"):
        read_header(tmp_path / "a.dcm")


def test_a_deflated_data_set_that_is_no_deflate_stream_is_unreadable(tmp_path: Path) -> None:
    ds = make_fundus(transfer_syntax=ExplicitVRLittleEndian, size=16)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta = file_meta_of(encoded(ds))
    (tmp_path / "a.dcm").write_bytes(meta + b"\xff" * 100)

    with pytest.raises(UnreadableObjectError, match=r"cannot be parsed"):
        read_header(tmp_path / "a.dcm")


def test_no_transfer_syntax_is_guessed_from_the_first_element(tmp_path: Path) -> None:
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        ds = make_fundus(transfer_syntax=syntax, size=16, sop_uid="1.2.5")
        content = encoded(ds)
        start = content.index(b"\x02\x00\x10\x00UI")
        length = 8 + struct.unpack("<H", content[start + 6 : start + 8])[0]
        (tmp_path / "a.dcm").write_bytes(content[:start] + content[start + length :])

        header = read_header(tmp_path / "a.dcm")

        assert header.sop_instance_uid == "1.2.5"
        assert header.transfer_syntax_uid == ImplicitVRLittleEndian


def test_the_pixel_digest_covers_the_pixel_element_only(tmp_path: Path) -> None:
    # Given the same pixels under two headers, and other pixels
    pixels = synthetic_fundus(32, 1)
    one = header_of(tmp_path, rgb=pixels, transfer_syntax=ExplicitVRLittleEndian, laterality="R")
    two = header_of(tmp_path, rgb=pixels, transfer_syntax=ExplicitVRLittleEndian, laterality="L")
    other = header_of(tmp_path, rgb=synthetic_fundus(32, 2), transfer_syntax=ExplicitVRLittleEndian)

    # Then only the pixels tell
    assert one.pixel_sha256 == two.pixel_sha256 != other.pixel_sha256
    assert one.pixel_sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_encodings_of_one_object_have_one_digest_and_one_decisive_content(tmp_path: Path) -> None:
    pixels = synthetic_fundus(32, 1)
    known: dict[str, Any] = {"rgb": pixels, "study_uid": "1.2", "series_uid": "1.3", "sop_uid": "1.4"}
    explicit = header_of(tmp_path, transfer_syntax=ExplicitVRLittleEndian, **known)
    implicit = header_of(tmp_path, transfer_syntax=ImplicitVRLittleEndian, **known)

    assert explicit.pixel_sha256 == implicit.pixel_sha256
    assert decisive_content(explicit) == decisive_content(implicit)
    assert explicit.transfer_syntax_uid != implicit.transfer_syntax_uid


def test_what_follows_the_pixels_is_not_in_their_digest(tmp_path: Path) -> None:
    header = header_of(tmp_path, rgb=synthetic_fundus(32, 1), transfer_syntax=ExplicitVRLittleEndian)
    path = tmp_path / "a.dcm"
    path.write_bytes(path.read_bytes() + b"\xfc\xff\xfc\xffOB\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00")

    assert read_header(path).pixel_sha256 == header.pixel_sha256


def test_neither_fragments_nor_their_offset_table_are_in_the_digest(tmp_path: Path) -> None:
    # Given one stream in one fragment, and in two behind an offset table
    stream = as_jpeg(synthetic_fundus(32, 1))
    stream += bytes(len(stream) % 2)
    whole, split = make_fundus(stream), make_fundus(stream)
    whole.PixelData = encapsulate([stream], has_bot=False)
    split.PixelData = encapsulate([stream], fragments_per_frame=2, has_bot=True)
    digests = set()
    for ds in (whole, split):
        ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        digests.add(read_header(tmp_path / "a.dcm").pixel_sha256)

    assert digests == {hashlib.sha256(stream).hexdigest()}


def test_a_value_that_is_not_made_of_items_is_digested_as_it_is(tmp_path: Path) -> None:
    digests = set()
    for content in (b"no items at all!", b"no items at all?", b"short"):
        parsed = ParsedObject(
            Dataset(),
            JPEGBaseline8Bit,
            BytesIO(b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff" + content),
            False,
            True,
        )
        digests.add(pixel_digest(parsed))
    assert len(digests) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"patient_name": "Other^Name"},
        {"PatientBirthDate": "19500102"},
        {"IssuerOfPatientID": "X"},
        {"accession": "OTHER"},
        {"laterality": "L"},
        {"PhotometricInterpretation": "RGB"},
        {"TimezoneOffsetFromUTC": "+0200"},
        {"model": "VX-20"},
    ],
)
def test_what_the_report_or_the_analysis_depends_on_is_decisive(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    known: dict[str, Any] = {"size": 32, "study_uid": "1.2", "series_uid": "1.3", "sop_uid": "1.4"}
    one = decisive_content(header_of(tmp_path, **known))
    assert one == decisive_content(header_of(tmp_path, SeriesDescription="other", **known))
    assert one != decisive_content(header_of(tmp_path, **{**known, **change}))


def test_no_pixels_no_digest(tmp_path: Path) -> None:
    assert header_of(tmp_path, PixelData=None).pixel_sha256 is None
    assert header_of(tmp_path, transfer_syntax=ImplicitVRLittleEndian, PixelData=b"").pixel_sha256 is None


def test_the_patient_is_not_in_the_representation(tmp_path: Path) -> None:
    header = header_of(
        tmp_path, patient_id="SECRET1", patient_name="Secret^Name", IssuerOfPatientID="SECRET2"
    )

    assert header.patient_id == "SECRET1"
    assert "SECRET" not in repr(header).upper()


@pytest.mark.parametrize(
    ("charset", "value", "expected"),
    [
        ("ISO_IR 192", "Größe".encode(), "Größe"),
        ("ISO_IR 100", "Größe".encode("latin_1"), "Größe"),
        ("GB18030", "眼底".encode("gb18030"), "眼底"),
        ("", "Größe".encode("latin_1"), "Größe"),
        ("ISO_IR 192", b"Gr\xf6\xdfe", "Gr��e"),
        ("\\ISO 2022 IR 87", b"\x1b$B4c\x1b(B", "眼"),
        ("\\ISO 2022 IR 87", b"\x1b$B\xff\x1b(B", None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_text_is_decoded_by_the_declared_character_set(
    tmp_path: Path, charset: str, value: bytes, expected: str | None
) -> None:
    # Given bytes written under a declaration that may be wrong for them
    content = encoded(make_fundus(size=16, manufacturer="M" * len(value), SpecificCharacterSet="C" * 16))
    declared = charset.encode().ljust(16)
    content = content.replace(b"C" * 16, declared).replace(b"M" * len(value), value)
    (tmp_path / "a.dcm").write_bytes(content)

    manufacturer = read_header(tmp_path / "a.dcm").manufacturer

    assert manufacturer == expected or (expected is None and manufacturer)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", UnreadableObjectError),
        (b"this is a text file, not an image\n" * 100, UnreadableObjectError),
        (bytes(128) + b"DICM", IdentifierMissingError),
        (bytes(128) + b"DICM" + b"\x08\x00" * 40, UnreadableObjectError),
    ],
)
def test_what_is_no_dicom_object_is_refused(
    tmp_path: Path, content: bytes, error: type[DicomIoError]
) -> None:
    (tmp_path / "a.dcm").write_bytes(content)

    with pytest.raises(DicomIoError) as caught:
        read_header(tmp_path / "a.dcm")

    assert isinstance(caught.value, error | IdentifierMissingError)


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
@pytest.mark.parametrize("value", [None, "", "PID0001^Doe", "1" * 65])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_object_needs_its_identifiers(tmp_path: Path, keyword: str, value: str | None) -> None:
    ds = make_fundus(size=16)
    content = encoded(ds)
    (tmp_path / "a.dcm").write_bytes(content)
    ds = make_fundus(size=16)
    if value is None:
        delattr(ds, keyword)
    else:
        ds[keyword]._value = value
    ds.save_as(tmp_path / "a.dcm")

    with pytest.raises(IdentifierMissingError) as caught:
        read_header(tmp_path / "a.dcm")

    assert caught.value.status == 0xA900
    assert "Doe" not in str(caught.value)


def groups(*sides: str | list[str] | None) -> list[Dataset]:
    return [group(side) for side in sides]


def group(side: str | list[str] | None) -> Dataset:
    functional = Dataset()
    if side is not None:
        anatomy = Dataset()
        anatomy.FrameLaterality = side
        functional.FrameAnatomySequence = [anatomy]
    return functional


R = LateralityReading(Laterality.RIGHT)
L = LateralityReading(Laterality.LEFT)
UNKNOWN = LateralityReading(None, "LATERALITY_UNKNOWN")
CONFLICT = LateralityReading(None, "LATERALITY_CONFLICT")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ImageLaterality": "L"}, (L,)),
        ({"Laterality": "R"}, (R,)),
        ({"ImageLaterality": "R", "Laterality": "R"}, (R,)),
        ({"ImageLaterality": "R", "Laterality": "L"}, (CONFLICT,)),
        ({"ImageLaterality": "R", "Laterality": "B"}, (UNKNOWN,)),
        ({"ImageLaterality": "B"}, (UNKNOWN,)),
        ({"ImageLaterality": ""}, (UNKNOWN,)),
        ({"SharedFunctionalGroupsSequence": groups("L")}, (L,)),
        ({"SharedFunctionalGroupsSequence": groups("L"), "ImageLaterality": "R"}, (CONFLICT,)),
        ({"NumberOfFrames": 3, "ImageLaterality": "R"}, (R, R, R)),
        ({"AnatomicRegionSequence": region("81745001", "7771000")}, (L,)),
        ({"AnatomicRegionSequence": region("18944008")}, (R,)),
        ({"AnatomicRegionSequence": region("81745001", "G-A100"), "Laterality": "R"}, (R,)),
        ({"AnatomicRegionSequence": region("81745001", "7771000"), "Laterality": "R"}, (CONFLICT,)),
        ({"AnatomicRegionSequence": region("81745001", "51440002"), "Laterality": "R"}, (UNKNOWN,)),
        ({"NumberOfFrames": 2, "PerFrameFunctionalGroupsSequence": groups("R", "L")}, (R, L)),
        ({"NumberOfFrames": 3, "PerFrameFunctionalGroupsSequence": groups("R", None)}, (R, UNKNOWN, UNKNOWN)),
        (
            {
                "NumberOfFrames": 2,
                "Laterality": "R",
                "PerFrameFunctionalGroupsSequence": groups("R", "L"),
            },
            (R, CONFLICT),
        ),
        # Of several values each one counts
        ({"ImageLaterality": ["R", "L"]}, (CONFLICT,)),
        ({"ImageLaterality": ["R", "R"]}, (R,)),
        ({"ImageLaterality": ["R", "B"]}, (UNKNOWN,)),
        ({"Laterality": ["L", "R"]}, (CONFLICT,)),
        ({"SharedFunctionalGroupsSequence": groups(["L", "R"])}, (CONFLICT,)),
        ({"NumberOfFrames": 2, "PerFrameFunctionalGroupsSequence": groups("R", ["R", "L"])}, (R, CONFLICT)),
        # A frame that the groups leave out is not known by what the others say
        (
            {"NumberOfFrames": 2, "ImageLaterality": "R", "PerFrameFunctionalGroupsSequence": groups("R")},
            (R, UNKNOWN),
        ),
    ],
)
def test_laterality_of_each_frame(
    tmp_path: Path, attributes: dict[str, Any], expected: tuple[LateralityReading, ...]
) -> None:
    assert header_of(tmp_path, laterality=None, size=16, **attributes).laterality == expected


def test_identifiers_that_cannot_be_decoded_are_told_apart(tmp_path: Path) -> None:
    # Given two identifiers in bytes that the declared character set does not explain
    contents = []
    for name in ("王", "李"):
        ds = make_fundus(size=16, patient_id="IDID", SpecificCharacterSet="ISO_IR 192")
        contents.append(encoded(ds).replace(b"IDID", name.encode("gb18030") * 2))
    headers = []
    for content in contents:
        (tmp_path / "a.dcm").write_bytes(content)
        headers.append(read_header(tmp_path / "a.dcm"))
    # Then they read the same, and are not
    assert headers[0].patient_id == headers[1].patient_id
    assert headers[0].patient != headers[1].patient


def test_without_an_identifier_name_and_birth_date_tell_patients_apart(tmp_path: Path) -> None:
    def context(**options: Any) -> str:
        return header_of(tmp_path, size=16, **options).patient_context

    nobody = {"patient_id": "", "patient_name": "", "PatientBirthDate": ""}
    assert context(IssuerOfPatientID="HOSPITAL") == "HOSPITAL"
    assert context(**nobody) == ""
    one = context(patient_id="", patient_name="Doe^Jane", PatientBirthDate="19500101")
    assert one == context(patient_id="", patient_name="Doe^Jane", PatientBirthDate="19500101")
    assert one != context(patient_id="", patient_name="Doe^Jane", PatientBirthDate="19500102")
    assert one != context(patient_id="", patient_name="Roe^Jane", PatientBirthDate="19500101")


@pytest.mark.parametrize("keyword", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
@pytest.mark.parametrize("broken", ["groups", "anatomy", "text"])
def test_groups_that_cannot_be_parsed_leave_the_side_open(tmp_path: Path, keyword: str, broken: str) -> None:
    # Given Image Laterality R, and a statement in the groups that nobody can read
    attributes: dict[str, Any] = {keyword: groups("L")}
    ds = make_fundus(size=16, laterality="R", **attributes)
    if broken == "text":
        ds.add(DataElement(Tag(keyword), "LO", "no sequence"))
    content = bytearray(encoded(ds))
    if broken != "text":
        tag = Tag(keyword if broken == "groups" else "FrameAnatomySequence")
        first_item = content.index(struct.pack("<HH2s", tag.group, tag.element, b"SQ")) + 12
        content[first_item : first_item + 4] = b"\xfe\xff\x01\xe0"
    (tmp_path / "a.dcm").write_bytes(content)

    assert read_header(tmp_path / "a.dcm").laterality == (UNKNOWN,)


def test_names_in_several_character_sets_are_read_once_these_were_looked_at(tmp_path: Path) -> None:
    # Given a declaration of two character sets that the library has taken apart
    ds = Dataset()
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.Manufacturer = "眼"
    ds.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True)
    read = dcmread(tmp_path / "a.dcm", force=True)
    assert list(read.SpecificCharacterSet) == ["", "ISO 2022 IR 87"]

    assert raw_bytes(read, Tag("SpecificCharacterSet")) == b"\\ISO 2022 IR 87"
    assert text(read, Tag("Manufacturer")) == "眼"


def test_an_absurd_number_of_frames_makes_no_absurd_record(tmp_path: Path) -> None:
    header = header_of(tmp_path, size=16, NumberOfFrames=2_000_000_000)

    assert header.number_of_frames == 2_000_000_000
    assert len(header.laterality) == MAXIMUM_FRAMES


def test_odd_value_representations_fall_back_to_defaults(tmp_path: Path) -> None:
    # Given Rows written as text, Columns with one byte too many, and a code sequence that is text
    content = encoded(make_fundus(size=16, transfer_syntax=ExplicitVRLittleEndian))
    content = content.replace(b"\x28\x00\x10\x00US\x02\x00\x10\x00", b"\x28\x00\x10\x00IS\x02\x0016")
    content = content.replace(
        b"\x28\x00\x11\x00US\x02\x00\x10\x00", b"\x28\x00\x11\x00US\x03\x00\x10\x00\x00"
    )
    content = content.replace(b"\x22\x00\x15\x00SQ", b"\x22\x00\x15\x00UT")
    (tmp_path / "a.dcm").write_bytes(content)

    header = read_header(tmp_path / "a.dcm")

    assert (header.rows, header.columns) == (16, 0)
    assert header.device_type_codes == ()


def test_a_broken_sequence_is_read_as_empty(tmp_path: Path) -> None:
    content = encoded(make_fundus(size=16, transfer_syntax=ExplicitVRLittleEndian))
    start = content.index(b"\x22\x00\x15\x00SQ") + 12
    (tmp_path / "a.dcm").write_bytes(content[:start] + bytes(60) + content[start + 60 :])

    assert read_header(tmp_path / "a.dcm").device_type_codes == ()


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    edits = st.lists(st.tuples(st.integers(132, len(content) - 1), st.integers(0, 255)), max_size=12)
    cuts = st.integers(0, len(content))

    def apply(changes: list[tuple[int, int]], end: int) -> bytes:
        changed = bytearray(content)
        for position, value in changes:
            changed[position] = value
        return bytes(changed[:end])

    return st.builds(apply, edits, cuts)


CONTENT = encoded(make_fundus(size=16, sop_uid="1.2.3", study_uid="1.2.4", series_uid="1.2.5"))


@given(content=damaged(CONTENT))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_gives_a_header_or_a_contracted_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)

    outcome: FundusHeader | DicomIoError
    try:
        outcome = read_header(tmp_path / "a.dcm")
    except DicomIoError as error:
        outcome = error

    if isinstance(outcome, FundusHeader):
        assert outcome.number_of_frames >= 1
        assert len(outcome.laterality) >= 1
    else:
        assert outcome.reason_code in ("UNREADABLE_OBJECT", "IDENTIFIER_MISSING")
    assert "Doe" not in f"{outcome!r} {outcome}"
    assert "PID0001" not in f"{outcome!r} {outcome}"


def test_a_missing_file_stays_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none.dcm")


def nested(depth: int) -> Iterator[bytes]:
    for _ in range(depth):
        yield b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"


def test_sequences_nested_without_end_are_unreadable(tmp_path: Path) -> None:
    content = CONTENT[: CONTENT.index(b"\x08\x00\x05\x00CS")] + b"".join(nested(5000))
    (tmp_path / "a.dcm").write_bytes(content)

    with pytest.raises(DicomIoError):
        read_header(tmp_path / "a.dcm")
