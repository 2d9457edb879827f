"""Finds the end of a value of undefined length without building what is in it (PS3.5 section 7.5).

pydicom makes an object of every item, nested ones too: a sequence of a hundred thousand items that nobody
asked for then costs seconds and hundreds of megabytes, and one that is nested deeply the stack.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

UNDEFINED_LENGTH = 0xFFFFFFFF
LONG_VR = (b"OB", b"OW", b"UN", b"OD", b"OF", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"SV", b"UV")
"""Value representations whose length has four bytes in explicit encoding (PS3.5 table 7.1-1)."""
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


def is_vr(characters: bytes) -> bool:
    """Whether two bytes may be a value representation: some writers change to implicit in the middle."""
    return b"AA" <= characters <= b"ZZ"


class SequenceError(ValueError):
    """The value has no end, or something that is no item where an item has to be."""


def skip_undefined(stream: BinaryIO, *, implicit_vr: bool, little_endian: bool) -> int:
    """Move past a value of undefined length and its delimiter; return the length of the value without it.

    Args:
        stream: Stands at the first item.
        implicit_vr: Whether elements within items have implicit value representations.
        little_endian: Byte order.

    Raises:
        SequenceError: The value does not end, or is not made of items.
    """
    order = "<" if little_endian else ">"
    start = stream.tell()
    # For each level that is open: whether we are within an item of undefined length, and its encoding.
    levels = [(False, implicit_vr)]
    while levels:
        within_item, implicit = levels[-1]
        head = stream.read(8)
        if len(head) < 8:
            raise SequenceError("a sequence has no end")
        tag = _tag(head, order)
        if tag == (_ITEM_END if within_item else _SEQUENCE_END):
            levels.pop()
        elif within_item:
            length, inner = _element(stream, head, order, implicit)
            _enter(stream, length, levels, (False, inner))
        elif tag == _ITEM:
            _enter(stream, struct.unpack(f"{order}L", head[4:])[0], levels, (True, implicit))
        else:
            raise SequenceError("a sequence has something that is no item")
    return stream.tell() - start - 8


def _enter(stream: BinaryIO, length: int, levels: list[tuple[bool, bool]], level: tuple[bool, bool]) -> None:
    """Go into a value of undefined length; pass one whose length is known."""
    if length == UNDEFINED_LENGTH:
        levels.append(level)
    else:
        stream.seek(length, 1)


def _tag(head: bytes, order: str) -> int:
    group, element = struct.unpack(f"{order}HH", head[:4])
    return int(group) << 16 | int(element)


def _element(stream: BinaryIO, head: bytes, order: str, implicit: bool) -> tuple[int, bool]:
    """Length of an element, and whether what is in it is implicit: it is within UN (PS3.5 section 6.2.2)."""
    if implicit or not is_vr(head[4:6]):
        return int(struct.unpack(f"{order}L", head[4:])[0]), True
    if head[4:6] not in LONG_VR:
        return int(struct.unpack(f"{order}H", head[6:])[0]), False
    extended = stream.read(4)
    if len(extended) < 4:
        raise SequenceError("a sequence has no end")
    return int(struct.unpack(f"{order}L", extended)[0]), head[4:6] == b"UN"
