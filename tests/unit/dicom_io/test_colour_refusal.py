from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories.dicom import write_fundus
from pydicom.dataset import Dataset

from dicom_io.header import FundusHeader, colour_refusal, read_header

COLOUR = FundusHeader(
    "1.2.840.10008.5.1.4.1.1.77.1.5.1",
    "1.2",
    "1.3",
    "1.4",
    "1.2.840.10008.1.2.4.50",
    samples_per_pixel=3,
    photometric="YBR_FULL_422",
    image_type=("ORIGINAL", "PRIMARY", "", "COLOR"),
    device_type_codes=("409898007",),
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"photometric": "RGB"},
        {"device_type_codes": ()},
        {"device_type_codes": ("392001008",)},
        {"device_type_codes": ("409898007", "397247004")},
        {"device_type_codes": ("R-1021A",)},
        {"samples_per_pixel": 0, "photometric": ""},
        {"samples_per_pixel": 1, "photometric": "PALETTE COLOR"},
        {"filter_codes": ("111609",)},
        {"image_filter_codes": ("445169002",)},
        {"channel_codes": ("371240000", "371246006", "405738005")},
        {"channel_codes": ("414298005",)},
        {"image_type": ("DERIVED", "SECONDARY", "MONTAGE", "COLOR")},
        {"image_type": ()},
    ],
)
def test_colour_and_what_the_header_leaves_open_pass(changes: dict[str, Any]) -> None:
    assert colour_refusal(replace(COLOUR, **changes)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"photometric": "MONOCHROME2", "samples_per_pixel": 1},
        {"photometric": "MONOCHROME1"},
        {"samples_per_pixel": 1},
        {"filter_codes": ("445169002",)},
        {"filter_codes": ("445084008",)},
        {"illumination_codes": ("414497003",)},
        {"filter_codes": ("A-010DA",)},
        {"filter_codes": ("111609", "445465004")},
        {"image_filter_codes": ("445340000",)},
        {"channel_codes": ("405739002",)},
        {"channel_codes": ("414497003",)},
        {"channel_codes": ("371246006", "371246006", "371246006")},
        {"contrast_codes": ("C-B02CC",)},
        {"image_type": ("ORIGINAL", "PRIMARY", "", "FA")},
        {"image_type": ("ORIGINAL", "PRIMARY", "", "RED FREE")},
        {"image_type": ("ORIGINAL", "PRIMARY", "FAF")},
    ],
)
def test_infrared_red_free_autofluorescence_and_angiography_are_no_colour(changes: dict[str, Any]) -> None:
    assert colour_refusal(replace(COLOUR, **changes)) == "NOT_COLOUR"


@pytest.mark.parametrize("code", ["397247004", "A-2B201", "409899004"])
def test_devices_for_other_parts_of_the_eye_make_no_fundus_photograph(code: str) -> None:
    assert colour_refusal(replace(COLOUR, device_type_codes=(code,))) == "NOT_A_FUNDUS_PHOTOGRAPH"


def test_codes_are_read_from_their_sequences(tmp_path: Path) -> None:
    infrared = Dataset()
    infrared.CodeValue, infrared.CodingSchemeDesignator, infrared.CodeMeaning = "445169002", "SCT", "Infrared"
    write_fundus(tmp_path / "ir.dcm", LightPathFilterTypeStackCodeSequence=[infrared])
    write_fundus(tmp_path / "colour.dcm")

    assert read_header(tmp_path / "ir.dcm").filter_codes == ("445169002",)
    assert colour_refusal(read_header(tmp_path / "ir.dcm")) == "NOT_COLOUR"
    assert colour_refusal(read_header(tmp_path / "colour.dcm")) is None


def test_a_long_code_value_is_read_too(tmp_path: Path) -> None:
    code = Dataset()
    code.LongCodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "445169002", "SCT", "Infrared"
    write_fundus(tmp_path / "ir.dcm", LightPathFilterTypeStackCodeSequence=[code, Dataset()])

    assert read_header(tmp_path / "ir.dcm").filter_codes == ("445169002",)
