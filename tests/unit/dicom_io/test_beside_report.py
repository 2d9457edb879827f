from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from factories.reports import REPORT, SHAPES, STUDY, content, graded, header, image
from factories.validators import dciodvfy
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import Comprehensive3DSRStorage

from dicom_io.beside_report import ObjectIds, build_overlay, build_pdf_object
from dicom_io.errors import ReportBuildError
from dicom_io.laterality import Laterality
from dicom_io.report_content import Predecessor, ReportImage
from dicom_io.report_header import read_evidence
from dicom_io.report_parts import file_meta, to_bytes

IDS = ObjectIds("2.25.71", "2.25.70", 1)
SR = Predecessor(Comprehensive3DSRStorage, REPORT, "2.25.3000", STUDY)
PICTURE = np.random.default_rng(1).integers(0, 255, (40, 32, 3), np.uint8)


def pdf_object(pdf: bytes = b"%PDF-1.4 odd", shape: str = "two-eyes") -> Dataset:
    made = SHAPES[shape]()
    return build_pdf_object(pdf, IDS, made.content, report=SR, evidence=made.evidence)


def overlay(of: ReportImage | None = None, **attributes: str) -> Dataset:
    source = of or image()
    evidence = (header(1, **attributes),)
    return build_overlay(
        PICTURE, IDS, content((graded(),)), image=source, derivation="drawn", evidence=evidence
    )


@pytest.mark.parametrize("name", SHAPES)
def test_a_page_is_valid_whatever_the_headers_were(name: str, tmp_path: Path) -> None:
    path = tmp_path / "page.dcm"
    path.write_bytes(to_bytes(pdf_object(shape=name)))
    assert dciodvfy(path, "EncapsulatedPDF") == []


def test_the_page_comes_out_as_it_was_put_in() -> None:
    for pdf in (b"%PDF-1.4 odd", b"%PDF-1.4 even"):
        ds = dcmread(BytesIO(to_bytes(pdf_object(pdf))))
        assert ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength] == pdf
        assert ds.StudyInstanceUID == STUDY
    assert to_bytes(pdf_object()) == to_bytes(pdf_object())


def test_what_is_no_pdf_is_not_wrapped() -> None:
    with pytest.raises(ReportBuildError, match="no PDF"):
        pdf_object(b"<html>")


def test_a_map_is_valid_and_its_pixels_and_source_are_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "map.dcm"
    path.write_bytes(to_bytes(overlay()))
    assert dciodvfy(path, "SCImage") == []
    ds = dcmread(path)
    assert np.array_equal(ds.pixel_array, PICTURE)
    (source,) = ds.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == "2.25.1"
    assert "ReferencedFrameNumber" not in source
    assert (ds.ImageLaterality, ds.ImageType[0], ds.DerivationDescription) == ("R", "DERIVED", "drawn")


def test_a_frame_and_a_side_are_those_of_the_source() -> None:
    ds = overlay(image(1, Laterality.LEFT, frame_number=2))
    assert ds.SourceImageSequence[0].ReferencedFrameNumber == 2
    assert ds.ImageLaterality == "L"


@pytest.mark.parametrize(("said", "expected"), [("YES", "YES"), ("NO", "NO"), ("", None)])
def test_burned_in_annotation_is_as_the_photograph_says_it(said: str, expected: str | None) -> None:
    assert overlay(BurnedInAnnotation=said).get("BurnedInAnnotation") == expected


def test_what_was_lossy_stays_lossy() -> None:
    assert overlay(LossyImageCompression="01").LossyImageCompression == "01"
    assert "LossyImageCompression" not in overlay(LossyImageCompression="00")


def test_what_a_photograph_s_file_says_of_itself_comes_to_its_map() -> None:
    said = header(1, BurnedInAnnotation="NO", LossyImageCompression="01", LossyImageCompressionRatio="12.5")
    said.LossyImageCompressionMethod = "ISO_10918_1"
    said.file_meta = file_meta(said.SOPClassUID, said.SOPInstanceUID)
    read = read_evidence(to_bytes(said))

    made = build_overlay(
        PICTURE, IDS, content((graded(),)), image=image(), derivation="drawn", evidence=[read]
    )

    assert (made.BurnedInAnnotation, made.LossyImageCompression) == ("NO", "01")
    assert (made.LossyImageCompressionRatio, made.LossyImageCompressionMethod) == (12.5, "ISO_10918_1")


def test_an_illegal_ratio_costs_no_map() -> None:
    odd = header(1, LossyImageCompression="01")
    odd[Tag(0x00282112)] = RawDataElement(Tag(0x00282112), "DS", 4, b"high", 0, False, True)
    made = build_overlay(
        PICTURE, IDS, content((graded(),)), image=image(), derivation="drawn", evidence=[odd]
    )
    assert "LossyImageCompressionRatio" not in made


def test_a_map_without_its_photograph_is_not_made() -> None:
    with pytest.raises(ReportBuildError, match=r"2\.25\.9"):
        overlay(image(9))
