from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import openjpeg.utils
import pytest
import simplejpeg
from factories.dicom import ExplicitVRLittleEndian, make_fundus, synthetic_fundus
from factories.encodings import (
    FUNDUS,
    LOSSLESS,
    Rgb,
    as_j2k,
    as_rle,
    by_dcmtk,
    compressed,
    encoded,
    refusal,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.errors import RefusedPixelsError
from dicom_io.pixels import frames

lossless = pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)


@lossless
@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[: len(stream) // 2],
        lambda stream: stream[:50],
        lambda stream: stream[:4],
        lambda stream: b"\0\0",
        lambda stream: b"GIF89a" + stream,
    ],
    ids=["half", "start", "four bytes", "nothing", "something else"],
)
def test_a_damaged_stream_is_unreadable(syntax: UID, damage: Callable[[bytes], bytes]) -> None:
    assert refusal(compressed(damage(LOSSLESS[syntax](FUNDUS)), syntax)).reason_code == "PIXELS_UNREADABLE"


@lossless
def test_empty_pixel_data_is_missing(syntax: UID) -> None:
    ds = compressed(b"\0\0", syntax)
    empty = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    content = encoded(ds)
    start = content.index(b"\xe0\x7f\x10\x00") + 12

    assert refusal(content[:start] + empty).reason_code in ("PIXELS_MISSING", "PIXELS_UNREADABLE")
    ds.PixelData = None
    assert refusal(content[: content.index(b"\xe0\x7f\x10\x00")]).reason_code == "PIXELS_MISSING"


@lossless
def test_one_component_is_no_colour(syntax: UID) -> None:
    error = refusal(compressed(LOSSLESS[syntax](np.ascontiguousarray(FUNDUS[..., 0])), syntax))

    assert error.reason_code == ("PIXELS_UNREADABLE" if syntax == RLELossless else "NOT_COLOUR")


def claiming(stream: bytes, syntax: UID, rows: int, columns: int) -> bytes:
    """`stream` with another size in its own header."""
    if syntax == JPEG2000Lossless:
        return (
            stream[:8]
            + struct.pack(">LL", columns, rows)
            + stream[16:24]
            + struct.pack(">LL", columns, rows)
            + stream[32:]
        )
    at = stream.index(b"\xff\xf7") + 5
    return stream[:at] + struct.pack(">HH", rows, columns) + stream[at + 4 :]


def never(*arguments: Any, **options: Any) -> None:
    raise AssertionError("decoded")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize(
    ("rows", "columns", "reason"), [(40_000, 40_000, "IMAGE_TOO_LARGE"), (9_900, 9_900, "PIXELS_UNREADABLE")]
)
def test_a_stream_that_claims_too_much_is_refused_before_it_is_decoded(
    syntax: UID, rows: int, columns: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    black = LOSSLESS[syntax](np.eye(64, dtype=np.uint8)[..., None].repeat(3, 2) * 255)
    for module, name in (
        (openjpeg.utils, "decode"),
        (jpeg_ls, "decode_pixel_data"),
        (simplejpeg, "decode_jpeg"),
    ):
        monkeypatch.setattr(module, name, never)

    error = refusal(compressed(claiming(black, syntax, rows, columns), syntax))

    assert error.reason_code == reason
    assert str(rows) in error.detail


def test_run_lengths_that_cannot_hold_the_pixels_are_refused() -> None:
    ds = compressed(as_rle(FUNDUS), RLELossless, Rows=9_000, Columns=9_000)

    assert "cannot hold" in refusal(ds).detail


@lossless
def test_a_header_of_40_000_pixels_a_side_is_refused(syntax: UID) -> None:
    ds = compressed(LOSSLESS[syntax](FUNDUS), syntax, Rows=40_000, Columns=40_000)

    assert refusal(ds).reason_code == "IMAGE_TOO_LARGE"


@lossless
def test_frames_come_one_by_one_in_order(syntax: UID) -> None:
    series = [synthetic_fundus(64, seed) for seed in range(3)]
    ds = compressed(b"\0\0", syntax, photometric="RGB", NumberOfFrames=3, Rows=64, Columns=64)
    ds.PixelData = encapsulate([LOSSLESS[syntax](frame) for frame in series[:2]] + [b"broken"])

    coming = frames(encoded(ds))

    np.testing.assert_array_equal(next(coming), series[0])
    np.testing.assert_array_equal(next(coming), series[1])
    with pytest.raises(RefusedPixelsError, match="PIXELS_UNREADABLE"):
        next(coming)


CONTRACTED = (
    "PIXELS_MISSING",
    "PIXELS_UNREADABLE",
    "UNSUPPORTED_TRANSFER_SYNTAX",
    "NOT_COLOUR",
    "IMAGE_TOO_LARGE",
)
SMALL = synthetic_fundus(32, 5)
OBJECTS = {
    syntax: encoded(compressed(encode(SMALL), syntax, Rows=32, Columns=32))
    for syntax, encode in LOSSLESS.items()
}


@given(
    syntax=st.sampled_from(sorted(OBJECTS)),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    end=st.floats(0.2, 1),
)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_gives_frames_or_a_contracted_refusal(
    syntax: UID, edits: list[tuple[float, int]], end: float
) -> None:
    content = bytearray(OBJECTS[syntax])
    start = content.index(b"\xe0\x7f\x10\x00")
    for position, value in edits:
        content[start + int(position * (len(content) - start))] = value
    outcome: list[Rgb] | RefusedPixelsError
    try:
        outcome = list(frames(bytes(content[: int(len(content) * end)])))
    except RefusedPixelsError as error:
        outcome = error

    if isinstance(outcome, RefusedPixelsError):
        assert outcome.reason_code in CONTRACTED
    else:
        assert all(frame.ndim == 3 and frame.shape[2] == 3 for frame in outcome)


@pytest.mark.dcmtk
@pytest.mark.parametrize("part", [0.1, 0.5, 0.98])
def test_truncated_jpeg_lossless_is_unreadable(part: float, tmp_path: Path) -> None:
    content = by_dcmtk(raw_rgb(), tmp_path, "dcmcjpeg", "+e1")
    stream = content[content.index(b"\xff\xd8") :]

    error = refusal(compressed(stream[: int(len(stream) * part)], JPEGLosslessSV1))

    assert error.reason_code == "PIXELS_UNREADABLE"


@pytest.mark.dcmtk
def test_jpeg_lossless_that_claims_too_much_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = by_dcmtk(raw_rgb(), tmp_path, "dcmcjpeg", "+e1")
    stream = content[content.index(b"\xff\xd8") :]
    at = stream.index(b"\xff\xc3") + 5
    absurd = stream[:at] + struct.pack(">HH", 40_000, 40_000) + stream[at + 4 :]
    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)

    assert refusal(compressed(absurd, JPEGLosslessSV1)).reason_code == "IMAGE_TOO_LARGE"


def raw_rgb() -> FileDataset:
    return make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, photometric="RGB")


@lossless
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_compressed_monochrome_is_no_colour(syntax: UID, photometric: str) -> None:
    grey = LOSSLESS[syntax](np.ascontiguousarray(FUNDUS[..., 0]))

    error = refusal(compressed(grey, syntax, photometric=photometric, SamplesPerPixel=1))

    assert error.reason_code == "NOT_COLOUR"
    assert "monochrome" in error.detail


@pytest.mark.parametrize("at", [16, 20], ids=["across", "down"])
def test_jpeg_2000_with_an_image_offset_is_refused_before_it_is_decoded(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = as_j2k(FUNDUS)
    moved = stream[:at] + struct.pack(">L", 22) + stream[at + 4 :]
    monkeypatch.setattr(openjpeg.utils, "decode", never)

    assert "image offset" in refusal(compressed(moved, JPEG2000Lossless)).detail


@pytest.mark.parametrize("component", [0, 1, 2])
def test_jpeg_2000_with_components_of_unlike_depth_is_refused(component: int) -> None:
    stream = bytearray(as_j2k(FUNDUS))
    stream[42 + 3 * component] = 11  # Ssiz (T.800 A.5.1): 12 bits beside 8

    error = refusal(compressed(bytes(stream), JPEG2000Lossless, photometric="RGB"))

    assert error.reason_code == "PIXELS_UNREADABLE"
    assert "unlike depth" in error.detail
