from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io.laterality import Laterality, LateralityReading, read_laterality

UNKNOWN = LateralityReading(None, "LATERALITY_UNKNOWN")
CONFLICT = LateralityReading(None, "LATERALITY_CONFLICT")


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], UNKNOWN),
        (["", "  ", "\0"], UNKNOWN),
        (["R"], LateralityReading(Laterality.RIGHT)),
        (["L", "", "L "], LateralityReading(Laterality.LEFT)),
        (["r"], LateralityReading(Laterality.RIGHT)),
        (["R", "L"], CONFLICT),
        (["R", "L", "B"], CONFLICT),
        (["B"], UNKNOWN),
        (["R", "B"], UNKNOWN),
        (["U"], UNKNOWN),
        (["OD"], UNKNOWN),
        (["RIGHT", "R"], UNKNOWN),
    ],
)
def test_statements_must_agree(statements: list[str], expected: LateralityReading) -> None:
    assert read_laterality(statements) == expected


@given(st.lists(st.one_of(st.sampled_from(["R", "L", "B", "U", "", " "]), st.text(max_size=3))))
def test_a_side_is_never_guessed(statements: list[str]) -> None:
    reading = read_laterality(statements)

    stated = [statement.strip(" \0").upper() for statement in statements if statement.strip(" \0")]
    if reading.value is not None:
        assert stated
        assert set(stated) == {reading.value.value}
        assert reading.reason_code is None
    else:
        assert reading.reason_code in ("LATERALITY_UNKNOWN", "LATERALITY_CONFLICT")
        assert set(stated) not in ({"R"}, {"L"})


@given(st.lists(st.sampled_from(["R", "L", "B", ""])), st.randoms())
def test_the_order_does_not_matter(statements: list[str], random: object) -> None:
    assert read_laterality(statements) == read_laterality(reversed(statements))
