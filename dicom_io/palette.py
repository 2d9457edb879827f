"""Palette colour: the three lookup tables of the Palette Color Lookup Table module (PS3.3 C.7.9)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_io.elements import raw_bytes
from dicom_io.errors import RefusedPixelsError

_DESCRIPTORS = (0x00281101, 0x00281102, 0x00281103)
_TABLES = (0x00281201, 0x00281202, 0x00281203)
_SEGMENTED = (0x00281221, 0x00281222, 0x00281223)
PALETTE_TAGS = (*_DESCRIPTORS, *_TABLES, *_SEGMENTED)
_DISCRETE, _LINEAR = 0, 1
_MOST_ENTRIES = 65_536
_PIXELS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours by stored value.

    Attributes:
        first: Stored value of the first entry; lower values have its colour.
        colours: uint8 (entries, 3), RGB; values beyond the last entry have its colour (PS3.3 C.7.6.3.1.5).
    """

    first: int
    colours: npt.NDArray[np.uint8]

    def apply(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Colours of `indices`, unsigned integers (H, W), as uint8 RGB (H, W, 3), C-contiguous."""
        flat, rgb = indices.reshape(-1), np.empty((indices.size, 3), np.uint8)
        for start in range(0, flat.size, _PIXELS_AT_ONCE):  # bounds the memory of the wide integers
            entry = flat[start : start + _PIXELS_AT_ONCE].astype(np.int32) - self.first
            rgb[start : start + _PIXELS_AT_ONCE] = self.colours[np.clip(entry, 0, len(self.colours) - 1)]
        return rgb.reshape(*indices.shape, 3)


class _Shape(NamedTuple):
    """What a descriptor says: number of entries, stored value of the first, bits an entry; byte order."""

    entries: int
    first: int
    bits: int
    order: str


def read_palette(ds: Dataset, little_endian: bool) -> Palette:
    """The palette of a data set that was read with `PALETTE_TAGS`.

    Entries of 16 bits are scaled to 8, unless none is above 255: those are 8-bit values in wide words. What
    the entries are decides, whatever the descriptor says of their bits.

    Raises:
        RefusedPixelsError: PIXELS_UNREADABLE when a table is missing, or does not fit its descriptor.
    """
    order = "<" if little_endian else ">"
    descriptors = [_descriptor(ds, tag, order) for tag in _DESCRIPTORS]
    if len(set(descriptors)) != 1:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "the palette's three descriptors differ")
    shape = descriptors[0]
    channels = []
    for tag, segmented in zip(_TABLES, _SEGMENTED, strict=True):
        content = raw_bytes(ds, tag)
        whole = _table(content, shape) if content else _expanded(raw_bytes(ds, segmented), shape)
        channels.append(whole)
    wide = np.stack(channels, axis=1)
    # Also where the descriptor says 8: entries of 16 bits under it are a known fault of writers.
    scaled = np.right_shift(wide, 8) if wide.max() > 255 else wide
    return Palette(shape.first, np.ascontiguousarray(scaled.astype(np.uint8)))


def _descriptor(ds: Dataset, tag: int, order: str) -> _Shape:
    """Shape of one channel's table (PS3.3 C.7.6.3.1.5)."""
    content = raw_bytes(ds, tag)
    if len(content) != 6:
        raise RefusedPixelsError("PIXELS_UNREADABLE", "a palette descriptor is missing")
    entries, first, bits = struct.unpack(f"{order}HHH", content)
    if bits not in (8, 16):
        raise RefusedPixelsError("PIXELS_UNREADABLE", f"a palette with entries of {bits} bits")
    return _Shape(entries or _MOST_ENTRIES, first, bits, order)


def _table(content: bytes, shape: _Shape) -> npt.NDArray[np.uint16]:
    """Entries of one channel, uint16 (entries,)."""
    entries, bits, order = shape.entries, shape.bits, shape.order
    if len(content) >= 2 * entries:
        return np.frombuffer(content, f"{order}u2", entries).astype(np.uint16)
    if bits == 8 and len(content) >= entries:
        return _narrow(content, order)[:entries].astype(np.uint16)
    detail = f"{len(content)} bytes of palette for {entries} entries of {bits} bits"
    raise RefusedPixelsError("PIXELS_UNREADABLE", detail)


def _narrow(content: bytes, order: str) -> npt.NDArray[np.uint8]:
    """Bytes that stand two in a word, first in the low one (PS3.3 C.7.6.3.1.6)."""
    words = np.frombuffer(content[: len(content) & ~1], f"{order}u2").astype("<u2").view(np.uint8)
    last = np.frombuffer(content[len(content) & ~1 :], np.uint8)
    return np.concatenate([words, last])


def _expanded(content: bytes, shape: _Shape) -> npt.NDArray[np.uint16]:
    """Entries of a segmented table (PS3.3 C.7.9.2) of discrete and linear segments, uint16 (entries,)."""
    wide = np.frombuffer(content[: len(content) & ~1], f"{shape.order}u2")
    words: npt.NDArray[np.integer] = wide if shape.bits == 16 else _narrow(content, shape.order)
    entries = shape.entries
    table, filled, at = np.zeros(entries, np.uint16), 0, 0
    while at + 2 <= len(words) and filled < entries:
        kind, length = int(words[at]), int(words[at + 1])
        at += 2
        if kind == _DISCRETE and 0 < length <= min(len(words) - at, entries - filled):
            table[filled : filled + length] = words[at : at + length]
            at += length
        elif kind == _LINEAR and 0 < length <= entries - filled and filled and at < len(words):
            ramp = np.linspace(int(table[filled - 1]), int(words[at]), length + 1)[1:]
            table[filled : filled + length] = np.rint(ramp)
            at += 1
        else:
            break
        filled += length
    if filled != entries:
        detail = f"the palette has {filled} of {entries} entries that can be read"
        raise RefusedPixelsError("PIXELS_UNREADABLE", detail)
    return table
