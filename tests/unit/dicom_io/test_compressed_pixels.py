from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from factories.dicom import ExplicitVRLittleEndian, make_fundus, synthetic_fundus
from factories.encodings import (
    FUNDUS,
    LOSSLESS,
    Samples,
    as_j2k,
    as_jpeg_ls,
    as_rle,
    by_dcmtk,
    compressed,
    decode,
    difference,
    refusal,
    rgb_to_ybr,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_io.colour_model import ybr_to_rgb

lossless = pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)


@lossless
def test_a_lossless_codec_gives_rgb_bit_for_bit(syntax: UID) -> None:
    ds = compressed(LOSSLESS[syntax](FUNDUS), syntax, photometric="RGB")

    np.testing.assert_array_equal(decode(ds), FUNDUS)


@lossless
@pytest.mark.parametrize("label", ["YBR_FULL", "YBR_FULL_422", "RGB"])
def test_ybr_samples_are_converted_whatever_the_label(syntax: UID, label: str) -> None:
    ds = compressed(LOSSLESS[syntax](rgb_to_ybr(FUNDUS)), syntax, photometric=label)

    assert difference(decode(ds), FUNDUS) <= 1.5


@lossless
@pytest.mark.parametrize("label", ["YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", ""])
def test_rgb_samples_with_another_label_stay_as_they_are(syntax: UID, label: str) -> None:
    ds = compressed(LOSSLESS[syntax](FUNDUS), syntax, photometric=label)

    np.testing.assert_array_equal(decode(ds), FUNDUS)


@pytest.mark.parametrize("label", ["YBR_RCT", "YBR_ICT", "YBR_FULL", "RGB"])
def test_the_colour_transform_of_jpeg_2000_is_undone_by_its_own_marker(label: str) -> None:
    stream = as_j2k(FUNDUS, use_mct=True)

    np.testing.assert_array_equal(decode(compressed(stream, JPEG2000Lossless, photometric=label)), FUNDUS)


def test_without_a_surround_the_marker_of_jpeg_2000_still_counts() -> None:
    inner = np.ascontiguousarray(synthetic_fundus(256, 1)[80:176, 80:176])
    by_marker = compressed(as_j2k(inner, use_mct=True), JPEG2000Lossless, photometric="YBR_FULL")
    by_label = compressed(as_j2k(rgb_to_ybr(inner)), JPEG2000Lossless, photometric="YBR_FULL")

    np.testing.assert_array_equal(decode(by_marker), inner)
    assert difference(decode(by_label), inner) <= 1.5


@pytest.mark.parametrize("transform", [True, False])
def test_lossy_jpeg_2000_is_close(transform: bool) -> None:
    stream = as_j2k(FUNDUS, use_mct=transform, compression_ratios=[8])
    ds = compressed(stream, JPEG2000, photometric="YBR_ICT" if transform else "RGB")

    assert len(stream) < FUNDUS.size / 7
    assert difference(decode(ds), FUNDUS) < 4


def test_a_jp2_file_in_the_object_is_read_too() -> None:
    stream = as_j2k(FUNDUS, use_mct=True, codec_format=1)

    assert stream[4:8] == b"jP  "
    np.testing.assert_array_equal(decode(compressed(stream, JPEG2000Lossless, photometric="YBR_RCT")), FUNDUS)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("error", [0, 3])
def test_jpeg_ls_in_every_order_of_its_components(mode: int, error: int) -> None:
    picture = np.ascontiguousarray(np.moveaxis(FUNDUS, 2, 0)) if mode == 0 else FUNDUS
    stream = as_jpeg_ls(picture, mode=mode, error=error)
    syntax = JPEGLSNearLossless if error else JPEGLSLossless

    frame = decode(compressed(stream, syntax, photometric="RGB"))

    assert np.abs(frame.astype(int) - FUNDUS).max() <= error


@pytest.mark.parametrize("stored", [12, 16])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG2000Lossless, as_j2k),
        (JPEGLSLossless, lambda deep, bits: as_jpeg_ls(deep)),
        (RLELossless, lambda deep, bits: as_rle(deep)),
    ],
    ids=["JPEG 2000", "JPEG-LS", "RLE"],
)
def test_deep_samples_are_scaled_by_bits_stored(
    syntax: UID, encode: Callable[[Samples, int], bytes], stored: int
) -> None:
    deep = FUNDUS.astype(np.uint16) << (stored - 8)
    attributes = {"BitsAllocated": 16, "BitsStored": stored, "HighBit": stored - 1}
    ds = compressed(encode(deep, stored), syntax, photometric="RGB", **attributes)

    np.testing.assert_array_equal(decode(ds), FUNDUS)


def test_high_bit_tells_where_the_samples_end() -> None:
    aligned = (FUNDUS.astype("<u2") << 8).tobytes()
    ds = make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, PixelData=aligned)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 15

    np.testing.assert_array_equal(decode(ds), FUNDUS)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_an_overlay_in_the_unused_bits_is_no_part_of_the_picture(syntax: UID) -> None:
    deep = FUNDUS.astype("<u2") << 4
    deep[40:60, 30:90] |= 0x1000  # OverlayBitPosition 12, as objects before 2004 have it
    attributes = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    ds = compressed(as_rle(deep), RLELossless, photometric="RGB", **attributes)
    if syntax != RLELossless:
        ds = make_fundus(FUNDUS, transfer_syntax=syntax, PixelData=deep.tobytes(), **attributes)

    np.testing.assert_array_equal(decode(ds), FUNDUS)


def test_a_high_bit_that_cannot_be_true_is_refused() -> None:
    deep = (FUNDUS.astype("<u2") << 8).tobytes()
    ds = make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, PixelData=deep)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11

    assert "go beyond 12 bits" in refusal(ds).detail


def test_an_overlay_of_its_own_is_not_drawn() -> None:
    ds = compressed(as_j2k(FUNDUS), JPEG2000Lossless, photometric="RGB")
    ds.add_new(0x60000010, "US", 128)
    ds.add_new(0x60000011, "US", 128)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60000102, "US", 0)
    ds.add_new(0x60003000, "OW", b"\xff" * (128 * 128 // 8))

    np.testing.assert_array_equal(decode(ds), FUNDUS)


DCMTK = {
    "SV1": (JPEGLosslessSV1, "dcmcjpeg", "+e1", 0),
    "process 14, 2": (JPEGLossless, "dcmcjpeg", "+el +sv 2", 0),
    "process 14, 7": (JPEGLossless, "dcmcjpeg", "+el +sv 7", 0),
    "extended": (JPEGExtended12Bit, "dcmcjpeg", "+ee +q 95 +s4", 4),
    "JPEG-LS": (JPEGLSLossless, "dcmcjpls", "+el", 0),
    "JPEG-LS by plane": (JPEGLSLossless, "dcmcjpls", "+el +in", 0),
    "near-lossless": (JPEGLSNearLossless, "dcmcjpls", "+en +md 2", 2),
    "RLE": (RLELossless, "dcmcrle", "", 0),
    "deflated": (DeflatedExplicitVRLittleEndian, "dcmconv", "+td", 0),
    "big endian": (ExplicitVRBigEndian, "dcmconv", "+tb", 0),
    "implicit": (ImplicitVRLittleEndian, "dcmconv", "+ti", 0),
}


@pytest.mark.dcmtk
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("case", DCMTK)
def test_what_dcmtk_writes_is_read(case: str, planar: int, tmp_path: Path) -> None:
    syntax, program, options, bound = DCMTK[case]
    ds = make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, photometric="RGB")
    if planar:
        ds.PlanarConfiguration = 1
        ds.PixelData = np.ascontiguousarray(np.moveaxis(FUNDUS, 2, 0)).tobytes()

    content = by_dcmtk(ds, tmp_path, program, options)

    assert str(syntax).encode() in content[:1000]
    frame = decode(content)
    assert (
        np.abs(frame.astype(int) - FUNDUS).mean()
        if case == "extended"
        else np.abs(frame.astype(int) - FUNDUS).max()
    ) <= bound


@pytest.mark.dcmtk
@pytest.mark.parametrize(("label", "ybr"), [("RGB", True), ("YBR_FULL", True), ("YBR_FULL", False)])
def test_jpeg_lossless_whatever_the_label(label: str, ybr: bool, tmp_path: Path) -> None:
    source = make_fundus(rgb_to_ybr(FUNDUS) if ybr else FUNDUS, transfer_syntax=ExplicitVRLittleEndian)
    source.PhotometricInterpretation = "RGB"
    content = by_dcmtk(source, tmp_path, "dcmcjpeg", "+e1")
    jfif = content.replace(
        b"\xff\xd8\xff\xc3", b"\xff\xd8\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc3"
    )
    start = content.index(b"\xff\xd8")
    ds = compressed(content[start:], JPEGLosslessSV1, photometric=label)
    marked = compressed(jfif[start:], JPEGLosslessSV1, photometric=label)

    assert difference(decode(ds), FUNDUS) <= 1.5
    np.testing.assert_array_equal(decode(marked), decode(ds))


@pytest.mark.dcmtk
def test_deep_jpeg_lossless_is_named_as_not_read(tmp_path: Path) -> None:
    deep = (FUNDUS.astype("<u2") << 4).tobytes()
    ds = make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, photometric="RGB", PixelData=deep)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11

    error = refusal(by_dcmtk(ds, tmp_path, "dcmcjpeg", "+e1"))

    assert error.reason_code == "UNSUPPORTED_TRANSFER_SYNTAX"
    assert "bits" in error.detail


def test_conversion_there_and_back() -> None:
    assert difference(ybr_to_rgb(rgb_to_ybr(FUNDUS)), FUNDUS) <= 1.5


def test_eight_bit_samples_in_big_endian_words() -> None:
    ds = make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, photometric="RGB")
    content = BytesIO()
    ds["PixelData"].VR = "OW"
    plain = Dataset(ds)
    plain.file_meta = ds.file_meta
    plain.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    plain.PixelData = np.frombuffer(FUNDUS.tobytes(), "<u2").astype(">u2").tobytes()
    plain["PixelData"].VR = "OW"
    plain.save_as(content, implicit_vr=False, little_endian=False, enforce_file_format=True)

    np.testing.assert_array_equal(decode(content.getvalue()), FUNDUS)
