from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from factories.dicom import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    as_jpeg,
    make_fundus,
    synthetic_fundus,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, HTJ2KLossless, JPEGBaseline8Bit

from dicom_io.codecs import NO_TRANSFORM
from dicom_io.colour_model import expand_422, samples_are_ybr, ybr_to_rgb
from dicom_io.errors import RefusedPixelsError
from dicom_io.header import read_header
from dicom_io.pixels import frames
from dicom_io.wrap import wrap_photograph

Rgb = npt.NDArray[np.uint8]
FUNDUS = synthetic_fundus(128, 3)
SURROUND = (FUNDUS.sum(axis=2) < 30).mean()


def encoded(ds: FileDataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def decode(ds: FileDataset) -> list[Rgb]:
    return list(frames(encoded(ds)))


def refusal(ds: FileDataset | bytes) -> RefusedPixelsError:
    with pytest.raises(RefusedPixelsError) as caught:
        list(frames(ds if isinstance(ds, bytes) else encoded(ds)))
    return caught.value


def raw(rgb: Rgb = FUNDUS, **options: Any) -> FileDataset:
    return make_fundus(rgb, transfer_syntax=options.pop("transfer_syntax", ExplicitVRLittleEndian), **options)


def rgb_to_ybr(rgb: Rgb) -> Rgb:
    """PS3.3 C.7.6.3.1.2, as the standard writes it."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    ybr = rgb.astype(float) @ matrix.T + np.array([0, 128, 128])
    rounded: Rgb = np.clip(np.rint(ybr), 0, 255).astype(np.uint8)
    return rounded


def difference(one: Rgb, other: Rgb) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_uncompressed_rgb_comes_back_bit_for_bit(syntax: str) -> None:
    [frame] = decode(raw(transfer_syntax=syntax))

    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    np.testing.assert_array_equal(frame, FUNDUS)


def test_jpeg_baseline_is_decoded_as_libjpeg_does() -> None:
    stream = as_jpeg(FUNDUS)

    [frame] = decode(make_fundus(stream))

    np.testing.assert_array_equal(frame, simplejpeg.decode_jpeg(stream, colorspace="RGB"))
    assert difference(frame, FUNDUS) < 4


def test_a_header_that_was_read_already_gives_the_same(tmp_path: Path) -> None:
    ds = raw()
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)

    [frame] = frames((tmp_path / "a.dcm").read_bytes(), read_header(tmp_path / "a.dcm"))

    np.testing.assert_array_equal(frame, FUNDUS)


def test_every_frame_comes_in_order() -> None:
    series = np.stack([synthetic_fundus(48, seed) for seed in range(3)])

    raw_frames = decode(make_fundus(transfer_syntax=ExplicitVRLittleEndian, rgb=series))
    jpeg = wrap_photograph(
        [as_jpeg(frame) for frame in series], patient_id="", manufacturer="", model_name="", laterality=None
    )

    np.testing.assert_array_equal(np.stack(raw_frames), series)
    decoded = decode(jpeg)
    assert len(decoded) == 3
    assert all(difference(frame, original) < 6 for frame, original in zip(decoded, series, strict=True))


def test_planar_configuration_1() -> None:
    planes = np.ascontiguousarray(np.moveaxis(FUNDUS, 2, 0)).tobytes()

    [frame] = decode(raw(PlanarConfiguration=1, PixelData=planes))

    np.testing.assert_array_equal(frame, FUNDUS)
    assert frame.flags.c_contiguous


@pytest.mark.parametrize(("stored", "syntax"), [(12, ExplicitVRLittleEndian), (16, ExplicitVRBigEndian)])
def test_sixteen_bits_are_scaled_to_eight(stored: int, syntax: str) -> None:
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    deep = (FUNDUS.astype(np.uint16) << (stored - 8)).astype(order)
    photograph = raw(BitsAllocated=16, BitsStored=stored, HighBit=stored - 1, PixelData=deep.tobytes())
    ds = Dataset(photograph)
    ds.file_meta = photograph.file_meta
    ds.file_meta.TransferSyntaxUID = syntax  # type: ignore[assignment]
    ds["PixelData"].VR = "OB"
    buffer = BytesIO()
    little = syntax != ExplicitVRBigEndian
    ds.save_as(buffer, implicit_vr=False, little_endian=little, enforce_file_format=True)

    [frame] = frames(buffer.getvalue())

    np.testing.assert_array_equal(frame, FUNDUS)


def halved(rgb: Rgb) -> bytes:
    ybr = rgb_to_ybr(rgb)
    pairs = np.empty((ybr.shape[0], ybr.shape[1] // 2, 4), np.uint8)
    pairs[..., 0], pairs[..., 1] = ybr[:, ::2, 0], ybr[:, 1::2, 0]
    pairs[..., 2:] = ybr[:, ::2, 1:]
    return pairs.tobytes()


def cropped() -> Rgb:
    """The middle of the disc, without any dark surround."""
    return np.ascontiguousarray(synthetic_fundus(256, 1)[80:176, 80:176])


@pytest.mark.parametrize("picture", [FUNDUS, cropped()], ids=["with surround", "without surround"])
@pytest.mark.parametrize(
    ("photometric", "content", "tolerance"),
    [
        ("YBR_FULL", lambda rgb: rgb_to_ybr(rgb).tobytes(), 1.5),
        ("YBR_FULL_422", lambda rgb: rgb_to_ybr(rgb).tobytes(), 1.5),
        ("YBR_FULL_422", halved, 6),
        ("YBR_FULL_422", lambda rgb: rgb.tobytes(), 0),
        ("YBR_FULL", lambda rgb: rgb.tobytes(), 0),
        ("RGB", lambda rgb: rgb.tobytes(), 0),
    ],
    ids=["YBR", "YBR as 422", "422", "RGB as 422", "RGB as YBR", "RGB"],
)
def test_uncompressed_colour_whatever_the_label_says(
    picture: Rgb, photometric: str, content: Callable[[Rgb], bytes], tolerance: float
) -> None:
    [frame] = decode(raw(picture, photometric=photometric, PixelData=content(picture)))

    assert difference(frame, picture) <= tolerance


def test_ybr_labelled_rgb_is_seen_by_its_surround() -> None:
    [frame] = decode(raw(photometric="RGB", PixelData=rgb_to_ybr(FUNDUS).tobytes()))

    assert difference(frame, FUNDUS) <= 1.5


def test_without_evidence_the_label_is_believed() -> None:
    grey = np.full((32, 32, 3), 90, np.uint8)
    grey[..., 2] = 95

    assert samples_are_ybr(grey, stated_ybr=True)
    assert not samples_are_ybr(grey, stated_ybr=False)
    assert not samples_are_ybr(rgb_to_ybr(cropped()), stated_ybr=False)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422", "", "nonsense"])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_a_jpeg_streams_own_markers_count_not_the_label(photometric: str, subsampling: str) -> None:
    stream = as_jpeg(FUNDUS, subsampling=subsampling)

    [frame] = decode(make_fundus(stream, photometric=photometric))

    assert difference(frame, FUNDUS) < 5


def without_jfif(stream: bytes) -> bytes:
    length = int.from_bytes(stream[4:6], "big")
    return stream[:2] + stream[4 + length :]


def rgb_jpeg() -> bytes:
    """A JPEG stream whose components are R, G, B: encoded as if they were Y, Cb, Cr."""
    as_if_ybr = ybr_to_rgb(FUNDUS)
    # Colours outside RGB's gamut do not survive that detour, so compare with what does.
    return without_jfif(as_jpeg(as_if_ybr, quality=98, subsampling="444"))


def test_a_jpeg_stream_with_an_adobe_marker_for_rgb_is_rgb() -> None:
    stream = rgb_jpeg()
    marked = stream[:2] + NO_TRANSFORM + stream[2:]

    [by_marker] = decode(make_fundus(marked, photometric="YBR_FULL_422"))
    ds = make_fundus(marked)

    assert ds.PhotometricInterpretation == "RGB"
    assert difference(by_marker, rgb_to_ybr(ybr_to_rgb(FUNDUS))) < 4


def test_an_unmarked_jpeg_stream_is_read_by_the_label_and_its_content() -> None:
    ycc = without_jfif(as_jpeg(FUNDUS, quality=95, subsampling="444"))

    [by_label] = decode(make_fundus(ycc, photometric="YBR_FULL"))
    [by_content] = decode(make_fundus(ycc, photometric="RGB"))

    assert difference(by_label, FUNDUS) < 4
    assert difference(by_content, FUNDUS) < 4

    picture = without_jfif(as_jpeg(ybr_to_rgb(cropped()), quality=98, subsampling="444"))
    [believed] = decode(make_fundus(picture, photometric="RGB"))
    assert difference(believed, rgb_to_ybr(ybr_to_rgb(cropped()))) < 4


def coded_as_rgb() -> tuple[bytes, Rgb]:
    """A JPEG stream without markers whose components are R, G, B, and the picture in it."""
    picture = rgb_to_ybr(ybr_to_rgb(FUNDUS))
    return without_jfif(as_jpeg(ybr_to_rgb(FUNDUS), quality=98, subsampling="444")), picture


JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
YCBCR_MARKER = NO_TRANSFORM[:-1] + b"\x01"


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("marker", [b"", NO_TRANSFORM, YCBCR_MARKER, JFIF], ids=["", "RGB", "YCC", "JFIF"])
@pytest.mark.parametrize("rgb", [True, False], ids=["RGB inside", "YCbCr inside"])
def test_a_jpeg_streams_content_beats_its_marker_and_the_label(
    rgb: bool, marker: bytes, photometric: str
) -> None:
    ycbcr = without_jfif(as_jpeg(FUNDUS, quality=98, subsampling="444"))
    stream, picture = coded_as_rgb() if rgb else (ycbcr, FUNDUS)

    [frame] = decode(make_fundus(stream[:2] + marker + stream[2:], photometric=photometric))

    assert difference(frame, picture) < 4


def test_a_green_picture_on_black_is_not_taken_for_a_converted_one() -> None:
    green = FUNDUS * np.array([0, 1, 0], np.uint8)
    green[..., 1] = np.where(FUNDUS[..., 0] > 60, 135, 0)

    [frame] = decode(make_fundus(as_jpeg(green, quality=98, subsampling="444")))

    assert difference(frame, green) < 4


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_monochrome_is_no_colour(photometric: str) -> None:
    assert refusal(raw(photometric=photometric)).reason_code == "NOT_COLOUR"


def test_one_sample_is_no_colour() -> None:
    assert refusal(raw(SamplesPerPixel=1)).reason_code == "NOT_COLOUR"
    assert refusal(raw(SamplesPerPixel=1, photometric="PALETTE COLOR")).reason_code == "PIXELS_UNREADABLE"


def test_a_grey_jpeg_stream_is_no_colour() -> None:
    grey = simplejpeg.encode_jpeg(FUNDUS[..., :1].copy(), colorspace="GRAY", colorsubsampling="Gray")

    assert refusal(make_fundus(PixelData=encapsulate([grey]))).reason_code == "NOT_COLOUR"


def test_other_transfer_syntaxes_are_named() -> None:
    ds = make_fundus()
    ds.file_meta.TransferSyntaxUID = HTJ2KLossless

    error = refusal(ds)

    assert error.reason_code == "UNSUPPORTED_TRANSFER_SYNTAX"
    assert "High-Throughput JPEG 2000" in error.detail


@pytest.mark.parametrize("changes", [{"PixelData": None}, {"PixelData": b""}])
def test_missing_pixels(changes: dict[str, Any]) -> None:
    assert refusal(raw(transfer_syntax=ImplicitVRLittleEndian, **changes)).reason_code == "PIXELS_MISSING"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Rows": 40_000, "Columns": 40_000}, "IMAGE_TOO_LARGE"),
        ({"Rows": 60_000, "Columns": 10}, "IMAGE_TOO_LARGE"),
        ({"NumberOfFrames": 2_000_000_000}, "IMAGE_TOO_LARGE"),
        ({"Rows": 0}, "PIXELS_UNREADABLE"),
        ({"Rows": 64}, "PIXELS_UNREADABLE"),
        ({"Rows": 129}, "PIXELS_UNREADABLE"),
        ({"NumberOfFrames": 2}, "PIXELS_UNREADABLE"),
        ({"BitsAllocated": 32}, "PIXELS_UNREADABLE"),
        ({"SamplesPerPixel": 4}, "PIXELS_UNREADABLE"),
        ({"PixelData": halved(FUNDUS)}, "PIXELS_UNREADABLE"),
        ({"PhotometricInterpretation": "YBR_FULL", "PixelData": halved(FUNDUS)}, "PIXELS_UNREADABLE"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, Any], reason: str) -> None:
    assert refusal(raw(**changes)).reason_code == reason


def test_an_absurd_jpeg_frame_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = bytearray(as_jpeg(FUNDUS))
    position = stream.index(b"\xff\xc0") + 5
    stream[position : position + 4] = b"\xff\x00\xff\x00"

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)

    assert refusal(make_fundus(PixelData=encapsulate([bytes(stream)]))).reason_code == "IMAGE_TOO_LARGE"


def test_a_cut_off_file_is_unreadable() -> None:
    content = encoded(raw())
    assert refusal(content[:-1000]).detail == "frame 1 is cut off"
    assert refusal(content[:100]).reason_code == "PIXELS_UNREADABLE"
    assert refusal(content[: content.index(b"\xe0\x7f\x10\x00")]).reason_code == "PIXELS_MISSING"


def test_undefined_length_without_encapsulation_is_unreadable() -> None:
    content = encoded(raw())
    start = content.index(b"\xe0\x7f\x10\x00") + 8
    assert "no length" in refusal(content[:start] + b"\xff" * 4 + content[start + 4 :]).detail


@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[: len(stream) // 2],
        lambda stream: stream[:-200],
        lambda stream: stream[:20],
        lambda stream: b"\0\0",
        lambda stream: b"GIF89a" + stream,
        lambda stream: stream[:2] + stream[stream.index(b"\xff\xda") :],
        lambda stream: stream.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        lambda stream: stream.replace(b"\xff\xc0", b"\xff\xc3"),
        lambda stream: stream[:2] + b"\xff\xc0\x00\x04\x08\x00" + stream[2:],
    ],
    ids=[
        "half",
        "tail",
        "start",
        "empty",
        "not JPEG",
        "no frame header",
        "12 bits",
        "lossless",
        "short frame",
    ],
)
def test_a_damaged_jpeg_stream_is_unreadable(damage: Callable[[bytes], bytes]) -> None:
    stream = damage(as_jpeg(FUNDUS))
    ds = make_fundus(PixelData=encapsulate([stream + b"\0" * (len(stream) % 2)]))

    assert refusal(ds).reason_code == "PIXELS_UNREADABLE"


def test_four_components_are_unreadable() -> None:
    stream = as_jpeg(FUNDUS)
    start = stream.index(b"\xff\xc0")
    four = stream[:start] + b"\xff\xc0\x00\x14\x08\x00\x80\x00\x80\x04" + b"\x01\x11\x00" * 4
    four += stream[start + 19 :]

    assert "4 components" in refusal(make_fundus(PixelData=encapsulate([four]))).detail


def test_damaged_encapsulation_is_unreadable() -> None:
    content = encoded(make_fundus())
    start = content.index(b"\xe0\x7f\x10\x00") + 12

    assert refusal(content[:start] + b"\x00" * 60).reason_code == "PIXELS_UNREADABLE"


def test_a_missing_frame_is_unreadable() -> None:
    ds = make_fundus(NumberOfFrames=2, PixelData=encapsulate([as_jpeg(FUNDUS)]))

    assert refusal(ds).reason_code == "PIXELS_UNREADABLE"


def test_fill_bytes_and_stand_alone_markers_before_the_scan_are_legal() -> None:
    stream = as_jpeg(FUNDUS)
    [frame] = decode(make_fundus(stream[:2] + b"\xff\xff\xff" + stream[3:]))

    assert difference(frame, FUNDUS) < 4


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_conversion_follows_the_standard(red: int, green: int, blue: int) -> None:
    rgb = np.array([[[red, green, blue]]], np.uint8)

    assert np.abs(ybr_to_rgb(rgb_to_ybr(rgb)).astype(int) - rgb).max() <= 2


def test_expand_422_takes_pairs_apart() -> None:
    content = np.array([10, 20, 100, 200, 30, 40, 110, 210], np.uint8)

    expected = [[[10, 100, 200], [20, 100, 200], [30, 110, 210], [40, 110, 210]]]
    np.testing.assert_array_equal(expand_422(content, 1, 4), expected)


JPEG_OBJECT = encoded(make_fundus(synthetic_fundus(32)))


@given(
    edits=st.lists(st.tuples(st.integers(132, len(JPEG_OBJECT) - 1), st.integers(0, 255)), max_size=10),
    end=st.integers(0, len(JPEG_OBJECT)),
)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_gives_frames_or_a_contracted_refusal(edits: list[tuple[int, int]], end: int) -> None:
    content = bytearray(JPEG_OBJECT)
    for position, value in edits:
        content[position] = value

    outcome: list[Rgb] | RefusedPixelsError
    try:
        outcome = list(frames(bytes(content[:end])))
    except RefusedPixelsError as error:
        outcome = error

    if isinstance(outcome, RefusedPixelsError):
        assert outcome.reason_code in (
            "PIXELS_MISSING",
            "PIXELS_UNREADABLE",
            "UNSUPPORTED_TRANSFER_SYNTAX",
            "NOT_COLOUR",
            "IMAGE_TOO_LARGE",
        )
    else:
        assert all(frame.ndim == 3 and frame.shape[2] == 3 for frame in outcome)


def test_the_test_picture_has_a_surround() -> None:
    assert SURROUND > 0.05
    assert JPEGBaseline8Bit == make_fundus().file_meta.TransferSyntaxUID
