from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from factories.dicom import ExplicitVRLittleEndian, make_fundus
from factories.encodings import (
    FUNDUS,
    LOSSLESS,
    as_jpeg_ls,
    compressed,
    decode,
    refusal,
)
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    JPEGLSNearLossless,
)

lossless = pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)


COLOURS = np.stack([np.arange(256), np.arange(256) // 2, np.arange(256) // 4], axis=1).astype(np.uint8)
INDICES = FUNDUS[..., 0]


def indexed() -> FileDataset:
    return make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, PixelData=INDICES.tobytes())


def with_palette(ds: FileDataset, *, bits: int = 16, wide: bool = True) -> FileDataset:
    ds.PhotometricInterpretation, ds.SamplesPerPixel = "PALETTE COLOR", 1
    del ds.PlanarConfiguration
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        entries = COLOURS[:, channel].astype("<u2") * (257 if bits == 16 else 1)
        data = entries.tobytes() if wide else COLOURS[:, channel].tobytes()
        setattr(ds, f"{name}PaletteColorLookupTableData", data)
    return ds


@pytest.mark.parametrize(("bits", "wide"), [(16, True), (8, True), (8, False)])
def test_palette_colour_uncompressed(bits: int, wide: bool) -> None:
    ds = indexed()

    np.testing.assert_array_equal(decode(with_palette(ds, bits=bits, wide=wide)), COLOURS[INDICES])


@lossless
def test_palette_colour_compressed(syntax: UID) -> None:
    ds = compressed(LOSSLESS[syntax](np.ascontiguousarray(INDICES)), syntax)

    np.testing.assert_array_equal(decode(with_palette(ds)), COLOURS[INDICES])


def test_a_segmented_palette_is_expanded() -> None:
    ds = with_palette(
        make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, PixelData=INDICES.tobytes())
    )
    for channel, name in enumerate(("Red", "Green", "Blue")):
        delattr(ds, f"{name}PaletteColorLookupTableData")
        # One discrete entry 0, then a line of 255 entries up to the last.
        top = 255 * 257 >> channel
        words = struct.pack("<6H", 0, 1, 0, 1, 255, top)
        setattr(ds, f"Segmented{name}PaletteColorLookupTableData", words)

    assert np.abs(decode(ds).astype(int) - COLOURS[INDICES]).max() <= 1


@pytest.mark.parametrize(
    "damage",
    [
        {"RedPaletteColorLookupTableDescriptor": None},
        {"GreenPaletteColorLookupTableDescriptor": [128, 0, 16]},
        {"BluePaletteColorLookupTableData": b"\0" * 100},
        {"BluePaletteColorLookupTableData": None},
        {"SamplesPerPixel": 3},
    ],
)
def test_a_palette_that_does_not_fit_is_refused(damage: dict[str, Any]) -> None:
    ds = with_palette(
        make_fundus(FUNDUS, transfer_syntax=ExplicitVRLittleEndian, PixelData=INDICES.tobytes())
    )
    for keyword, value in damage.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)

    error = refusal(ds)

    assert error.reason_code == "PIXELS_UNREADABLE"
    assert "palette" in error.detail


def test_palette_colour_does_not_survive_lossy_compression() -> None:
    ds = with_palette(compressed(as_jpeg_ls(np.ascontiguousarray(INDICES), error=2), JPEGLSNearLossless))

    assert refusal(ds).reason_code == "PIXELS_UNREADABLE"


def test_entries_of_sixteen_bits_under_a_descriptor_of_eight_are_scaled() -> None:
    ds = with_palette(indexed(), bits=16)
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        data = (COLOURS[:, channel].astype("<u2") << 8).tobytes()
        setattr(ds, f"{name}PaletteColorLookupTableData", data)

    np.testing.assert_array_equal(decode(ds), COLOURS[INDICES])
