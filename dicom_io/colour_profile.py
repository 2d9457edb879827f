"""ICC profiles of photographs, as far as they are matrices and curves (ICC.1:2022 sections 8.3.3, 9.2, 10).

The models learned from sRGB. A picture in a wider space, Adobe RGB say, looks paler than it was when its
numbers are taken for sRGB. Profiles made of tables are not applied; cameras do not have them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from dicom_io.errors import ColourProfileError

Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MAXIMUM_BYTES = 1 << 20
"""Longer profiles hold tables."""
_TAGS_AT, _MOST_TAGS = 128, 100
_MATRIX, _CURVES = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")
_TABLES = b"A2B0"
_TO_SRGB = np.linalg.inv(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
"""XYZ (D50) to linear sRGB: IEC 61966-2-1, its white adapted by Bradford."""
_STEPS = 4095
_SAME = 3
"""Levels by which a profile of sRGB may differ from it: vendors write its curve in many ways."""
_ROWS_AT_ONCE = 128
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
"""Numbers of a parametric curve of each type (10.18)."""


@dataclass(frozen=True, eq=False)
class ColourProfile:
    """From device values to sRGB.

    Attributes:
        curves: float32 (3, 256): linear light of each 8-bit value of R, G, B.
        matrix: float32 (3, 3): device's linear light to that of sRGB.
    """

    curves: Floats
    matrix: Floats

    def to_srgb(self, rgb: Rgb) -> Rgb:
        """The picture uint8 (H, W, 3) in sRGB, clipped to what that can show."""
        converted = np.empty(rgb.shape, np.uint8)
        for top in range(0, rgb.shape[0], _ROWS_AT_ONCE):  # bounds the memory of the floats
            block = rgb[top : top + _ROWS_AT_ONCE]
            linear = np.stack([self.curves[channel][block[..., channel]] for channel in range(3)], axis=-1)
            light = np.clip(linear @ self.matrix.T, 0, 1)
            converted[top : top + _ROWS_AT_ONCE] = _ENCODED[np.rint(light * _STEPS).astype(np.intp)]
        return converted


def read_profile(content: bytes) -> ColourProfile | None:
    """The conversion that a profile asks for; None without one, and for sRGB itself.

    Args:
        content: ICC Profile (0028,2000) (PS3.3 C.11.15).

    Raises:
        ColourProfileError: It is damaged, or of another kind.
    """
    if not content.strip(b"\0"):
        return None
    try:
        profile = _parsed(content)
    except (struct.error, ValueError, ArithmeticError) as error:
        raise ColourProfileError(f"the ICC profile is damaged ({type(error).__name__})") from None
    grid = np.array([*product(range(0, 256, 17), repeat=3)], np.uint8).reshape(-1, 16, 3)
    change = np.abs(profile.to_srgb(grid).astype(np.int16) - grid).max()
    return None if change <= _SAME else profile


def _parsed(content: bytes) -> ColourProfile:
    if len(content) > MAXIMUM_BYTES:
        raise ColourProfileError(f"an ICC profile of {len(content)} bytes is not read")
    if content[36:40] != b"acsp" or content[16:20] != b"RGB ":
        raise ColourProfileError("the ICC profile is none of RGB")
    tags = _tags(content)
    if _TABLES in tags or content[20:24] != b"XYZ " or not {*_MATRIX, *_CURVES} <= tags.keys():
        raise ColourProfileError("an ICC profile of tables is not applied")
    with np.errstate(all="raise", under="ignore"):
        columns = np.array([_xyz(tags[name]) for name in _MATRIX]).T
        curves = np.array([_curve(tags[name]) for name in _CURVES], np.float32)
    if not (np.isfinite(columns).all() and np.isfinite(curves).all()):
        raise ColourProfileError("the ICC profile has no finite numbers")
    return ColourProfile(np.clip(curves, 0, 1), (_TO_SRGB @ columns).astype(np.float32))


def _tags(content: bytes) -> dict[bytes, bytes]:
    """Tag table (7.3): each tag's data by its signature."""
    (count,) = struct.unpack_from(">L", content, _TAGS_AT)
    entries = [
        struct.unpack_from(">4sLL", content, _TAGS_AT + 4 + 12 * n) for n in range(min(count, _MOST_TAGS))
    ]
    return {signature: content[offset : offset + size] for signature, offset, size in entries}


def _xyz(data: bytes) -> list[float]:
    """XYZType (10.31), its first triple."""
    return [number / 65536 for number in struct.unpack_from(">3l", data, 8)]


def _curve(data: bytes) -> npt.NDArray[np.float64]:
    """A curveType (10.6) or parametricCurveType (10.18) at the 256 values of a byte, float64 (256,)."""
    x = np.arange(256) / 255
    if data[:4] == b"para":
        (kind,) = struct.unpack_from(">H", data, 8)
        if kind not in _PARAMETERS:
            raise ValueError
        return _parametric(
            kind, [n / 65536 for n in struct.unpack_from(f">{_PARAMETERS[kind]}l", data, 12)], x
        )
    if data[:4] != b"curv":
        raise ValueError
    (count,) = struct.unpack_from(">L", data, 8)
    if count == 0:
        return x
    if count == 1:
        return np.asarray(x ** (struct.unpack_from(">H", data, 12)[0] / 256))
    table = np.frombuffer(data, ">u2", count, 12) / 65535
    return np.interp(x, np.linspace(0, 1, count), table)


def _parametric(kind: int, given: list[float], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Y = (aX + b)^g + c from X = d on, else eX + f (10.18, table 68)."""
    g, a, b, c, d, e, f = (*given, *(0.0,) * (7 - len(given)))
    if kind == 0:
        return np.asarray(x**g)
    if kind in (1, 2):  # c is added on both sides of -b / a
        return np.asarray(np.where(x >= -b / a, np.maximum(a * x + b, 0) ** g, 0) + c)
    c, d, e, f = (0.0, d, c, 0.0) if kind == 3 else (e, d, c, f)
    return np.asarray(np.where(x >= d, np.maximum(a * x + b, 0) ** g + c, e * x + f))


def _encoded() -> Rgb:
    """The bytes in sRGB of evenly spaced linear light (IEC 61966-2-1)."""
    light = np.arange(_STEPS + 1) / _STEPS
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    encoded: Rgb = np.rint(curve * 255).astype(np.uint8)
    return encoded


_ENCODED = _encoded()
