from __future__ import annotations

import pytest
from pydicom.sr.coding import Code

from dicom_io import codes
from dicom_io.laterality import Laterality
from dicom_io.uids import PRODUCT_NAMESPACE, derived_uid

EVERY_CODE = [value for value in vars(codes).values() if isinstance(value, Code)]
EVERY_CODE += [*codes.SEVERITY, *codes.SEVERITY_NAME.values(), *codes.LATERALITY.values()]


@pytest.mark.parametrize("code", EVERY_CODE, ids=lambda code: code.value)
def test_a_code_fits_the_code_sequence_macro(code: Code) -> None:
    assert 0 < len(code.value) <= 16
    assert 0 < len(code.meaning) <= 64
    assert len(code.scheme_designator) <= 16
    assert (code.value + code.meaning).isascii()


def test_no_two_private_codes_share_a_value() -> None:
    values = [code.value for code in EVERY_CODE if code.scheme_designator == codes.PRIVATE_SCHEME]
    assert len(values) == len(set(values)) > 5


def test_the_codes_of_severity_are_those_of_loinc_in_the_order_of_the_grades() -> None:
    assert [code.value for code in codes.SEVERITY] == [
        "LA18643-9",
        "LA18644-7",
        "LA18645-4",
        "LA18646-2",
        "LA18648-8",
    ]
    assert codes.SEVERITY_NAME[Laterality.RIGHT].value == "71491-5"
    assert codes.SEVERITY_NAME[Laterality.LEFT].value == "71490-7"


def test_referable_says_in_its_meaning_what_it_is_and_what_was_not_assessed() -> None:
    assert codes.REFERABLE.scheme_designator == "99FUNDUS"
    assert "ICDR grade >= 2; macular oedema not assessed" in codes.REFERABLE.meaning
    assert "105914-6" not in {code.value for code in EVERY_CODE}


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        (0.0, codes.QUALITY_UNUSABLE),
        (0.399, codes.QUALITY_UNUSABLE),
        (0.4, codes.QUALITY_POOR),
        (0.699, codes.QUALITY_POOR),
        (0.7, codes.QUALITY_GOOD),
        (1.0, codes.QUALITY_GOOD),
    ],
)
def test_image_quality_is_unusable_below_the_minimum_and_poor_up_to_halfway(
    quality: float, expected: Code
) -> None:
    assert codes.image_quality(quality, minimum=0.4) == expected


def test_a_derived_uid_is_legal_stable_and_depends_on_where_its_parts_end() -> None:
    uid = derived_uid(PRODUCT_NAMESPACE, "a", "bc")
    assert uid == derived_uid(PRODUCT_NAMESPACE, "a", "bc")
    assert uid != derived_uid(PRODUCT_NAMESPACE, "ab", "c")
    assert uid.startswith("2.25.")
    assert 0 < int(uid.removeprefix("2.25.")) < 2**128
    assert len(uid) <= 44
