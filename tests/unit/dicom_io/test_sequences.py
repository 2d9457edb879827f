from __future__ import annotations

import struct
from io import BytesIO

import pytest

from dicom_io.sequences import SequenceError, skip_undefined

ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
OPEN = b"\xff\xff\xff\xff"
TEXT = b"\x08\x00\x00\x01SH\x02\x00ab"
IMPLICIT_TEXT = b"\x08\x00\x00\x01\x02\x00\x00\x00ab"
UNKNOWN = b"\x29\x00\x01\x10UN\0\0\xff\xff\xff\xff"
SEQUENCE = b"\x08\x00\x51\x00SQ\0\0\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        ITEM + OPEN + TEXT + ITEM_END,
        ITEM + struct.pack("<L", len(TEXT)) + TEXT,
        ITEM + struct.pack("<L", 8) + END,  # a length that is known hides what looks like an end
        ITEM + OPEN + SEQUENCE + ITEM + OPEN + TEXT + ITEM_END + END + TEXT + ITEM_END,
        ITEM + OPEN + UNKNOWN + ITEM + OPEN + IMPLICIT_TEXT + ITEM_END + END + ITEM_END,
        ITEM + OPEN + IMPLICIT_TEXT + ITEM_END,  # no value representation: implicit from here on
        (ITEM + OPEN + SEQUENCE) * 5000 + (END + ITEM_END) * 5000,
    ],
)  # fmt: skip
def test_a_value_is_passed_up_to_its_delimiter(value: bytes) -> None:
    stream = BytesIO(value + END + b"next")

    length = skip_undefined(stream, implicit_vr=False, little_endian=True)

    assert length == len(value)
    assert stream.read() == b"next"


def test_implicit_and_big_endian_values_are_passed_too() -> None:
    big_item, big_end = b"\xff\xfe\xe0\x00\x00\x00\x00\x0a", b"\xff\xfe\xe0\xdd\0\0\0\0"
    big = BytesIO(big_item + b"\x00\x08\x01\x00SH\x00\x02ab" + big_end)
    implicit = BytesIO(ITEM + OPEN + IMPLICIT_TEXT + ITEM_END + END)

    assert skip_undefined(big, implicit_vr=False, little_endian=False) == 18
    assert skip_undefined(implicit, implicit_vr=True, little_endian=True) == 26


@pytest.mark.parametrize(
    "content", [ITEM + OPEN + TEXT, TEXT + END, ITEM + OPEN + b"\x08\x00\x51\x00SQ\0\0", b"\xfe\xff"]
)
def test_a_value_without_an_end_or_items_is_an_error(content: bytes) -> None:
    with pytest.raises(SequenceError):
        skip_undefined(BytesIO(content), implicit_vr=False, little_endian=True)
