from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from factories.dicom import ExplicitVRLittleEndian, make_fundus, synthetic_fundus
from factories.encodings import FUNDUS, as_j2k, compressed, decode
from PIL import Image, ImageCms
from pydicom.uid import JPEG2000Lossless
from structlog.testing import capture_logs

from dicom_io.colour_profile import read_profile
from dicom_io.errors import ColourProfileError

ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
GAMMA = b"curv" + bytes(4) + struct.pack(">LH", 1, round(2.2 * 256)) + bytes(2)
LINEAR = b"curv" + bytes(4) + struct.pack(">L", 0)


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}l", *(round(number * 65536) for number in numbers))


def parametric(kind: int, *numbers: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + fixed(*numbers)


SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
TABLE = b"curv" + bytes(4) + struct.pack(">L", 256)
TABLE += struct.pack(">256H", *(round((n / 255) ** 1.8 * 65535) for n in range(256)))


def profile(primaries: tuple[tuple[float, ...], ...], curve: bytes, **tags: bytes) -> bytes:
    """A display profile of ICC version 4."""
    data = {f"{c}XYZ": b"XYZ " + bytes(4) + fixed(*xyz) for c, xyz in zip("rgb", primaries, strict=True)}
    data |= (
        {f"{c}TRC": curve for c in "rgb"} | {"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.82491)} | tags
    )
    table, body, at = b"", b"", 132 + 12 * len(data)
    for name, content in data.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sLL", name.encode(), at + len(body), len(content))
        body += padded
    head = struct.pack(">L4sL4s4s4s", at + len(body), b"none", 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s4sLLLQLlllL", 2026, 1, 1, 0, 0, 0, b"acsp", b"none", 0, 0, 0, 0, 0, *(0,) * 4)
    head = head[:68] + fixed(0.9642, 1, 0.82491)
    return head.ljust(128, b"\0") + struct.pack(">L", len(data)) + table + body


def by_littlecms(content: bytes, picture: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, Any]:
    source = ImageCms.ImageCmsProfile(BytesIO(content))
    done = ImageCms.profileToProfile(
        Image.fromarray(picture),
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert done is not None
    return np.asarray(done)


@pytest.mark.parametrize(
    ("primaries", "curve"),
    [
        (ADOBE, GAMMA),
        (ADOBE, SRGB_CURVE),
        (SRGB, LINEAR),
        (SRGB, TABLE),
        (ADOBE, parametric(0, 1.8)),
        (ADOBE, parametric(1, 2.0, 0.9, 0.1)),
        (ADOBE, parametric(2, 2.0, 0.8, 0.1, 0.05)),
        (ADOBE, parametric(4, 2.4, 0.9479, 0.0521, 0.0774, 0.0405, 0.01, 0.02)),
    ],
    ids=["Adobe", "wide", "linear", "table", "para 0", "para 1", "para 2", "para 4"],
)
def test_colours_become_those_of_littlecms(primaries: tuple[tuple[float, ...], ...], curve: bytes) -> None:
    content = profile(primaries, curve)
    ds = compressed(as_j2k(FUNDUS), JPEG2000Lossless, photometric="RGB", ICCProfile=content)

    frame = decode(ds)

    assert np.abs(frame.astype(int) - FUNDUS).max() > 10
    assert np.abs(frame.astype(int) - by_littlecms(content, FUNDUS)).max() <= 2


def test_srgb_and_no_profile_leave_every_bit() -> None:
    for content in (
        b"",
        b"\0\0",
        profile(SRGB, SRGB_CURVE),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ):
        assert read_profile(content) is None
        ds = make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, ICCProfile=content)
        np.testing.assert_array_equal(decode(ds), FUNDUS)


GOOD = profile(ADOBE, GAMMA)


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        GOOD[:140],
        GOOD[:200],
        GOOD.replace(b"RGB ", b"CMYK"),
        GOOD.replace(b"rXYZ", b"aXYZ"),
        GOOD.replace(b"curv", b"none"),
        profile(ADOBE, parametric(9, 1.0)),
        profile(ADOBE, GAMMA, A2B0=b"mft2"),
        profile(ADOBE, b"curv" + bytes(4) + b"\xff" * 4),
        profile(ADOBE, parametric(1, -5.0, 0.0, 0.0)),
        GOOD + bytes(1 << 20),
    ],
)
def test_a_profile_that_cannot_be_applied_is_said_and_changes_nothing(content: bytes) -> None:
    with pytest.raises(ColourProfileError):
        read_profile(content)
    picture = synthetic_fundus(48)
    ds = make_fundus(picture, transfer_syntax=ExplicitVRLittleEndian, ICCProfile=content)

    with capture_logs() as logs:
        np.testing.assert_array_equal(decode(ds), picture)

    assert [each["event"] for each in logs] == ["colour_profile_not_applied"]
