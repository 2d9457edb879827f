"""Values of a data set read with tolerance: an odd optional element becomes its default."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from pydicom import charset, config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

# Headers of real cameras break rules of the value representations daily; none of that is worth a
# warning for each image, and what is copied into a report is checked there.
config.settings.reading_validation_mode = config.IGNORE

_UID = re.compile(r"[0-9.]{1,64}")
_PADDING = " \0"
_LONGEST_TEXT = 1024
_ITEM = (0xFFFE, 0xE000)
_ITEM_MARKS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_MOST_ITEMS = 20_000
"""In a sequence, nested ones included; a thousand frames have ten each. An item takes a kilobyte."""
_UNDEFINED_LENGTH = 0xFFFFFFFF
_TEXT_VR = ("IS", "DS", "LO", "SH", "CS", "ST", "LT")


def raw_bytes(ds: Dataset, tag: int) -> bytes:
    """Encoded value of `tag`, empty when it is absent or a sequence."""
    # Not read later: what the library has not read is empty, of a VR that it may not know.
    element = ds.get_item(BaseTag(tag), keep_deferred=True)
    value = element.value if isinstance(element, RawDataElement | DataElement) else None
    if isinstance(value, bytes):
        return value
    if isinstance(value, MultiValue):  # an element that the library has taken apart: Specific Character Set
        value = "\\".join(str(each) for each in value)
    return b"" if value is None or isinstance(value, Sequence) else str(value).encode()


def texts(ds: Dataset, tag: int) -> tuple[str, ...]:
    """Values of a text element, decoded by the data set's character set, without padding.

    A wrong character set declaration gives replacement characters, never an error.
    """
    value = raw_bytes(ds, tag)[:_LONGEST_TEXT]
    if not value:
        return ()
    decoded = value.decode("ascii") if value.isascii() and b"\x1b" not in value else _decoded(ds, value)
    return tuple(part.strip(_PADDING) for part in decoded.split("\\"))


def text(ds: Dataset, tag: int) -> str:
    """First value of a text element, empty when absent."""
    values = texts(ds, tag)
    return values[0] if values else ""


def uid(ds: Dataset, tag: int) -> str:
    """A UID of at most 64 digits and dots, empty when absent or malformed (PS3.5 section 9)."""
    value = text(ds, tag)
    return value if _UID.fullmatch(value) else ""


def integer_string(ds: Dataset, tag: int, default: int) -> int:
    """A non-negative number in IS form (PS3.5 6.2); `default` when absent or odd."""
    characters = text(ds, tag).removeprefix("+")
    return int(characters[:18]) if characters.isascii() and characters.isdigit() else default


def unsigned(ds: Dataset, tag: int, default: int) -> int:
    """A number in US or UL form, also where a writer stated IS; `default` when absent or odd."""
    element = ds.get_item(BaseTag(tag))
    content = raw_bytes(ds, tag)
    if not isinstance(element, RawDataElement) or element.VR in _TEXT_VR:
        return integer_string(ds, tag, default)
    if len(content) not in (2, 4):
        return default
    return int.from_bytes(content, "little" if element.is_little_endian else "big")


def items(ds: Dataset, tag: int) -> list[Dataset]:
    """Items of a sequence; none when it is absent, is no sequence or cannot be parsed."""
    return _parsed(ds, tag) or []


def readable_items(ds: Dataset, tag: int) -> list[Dataset] | None:
    """Items of a sequence, none when it is absent or empty; None when it is there and cannot be read.

    The parser makes items of any bytes, so those that it has not looked at yet are checked first.
    """
    element = ds.get_item(BaseTag(tag))
    if isinstance(element, RawDataElement) and not _are_items(element):
        return None
    return _parsed(ds, tag)


def _are_items(element: RawDataElement) -> bool:
    """Whether the bytes are items up to their end (PS3.5 7.5), as far as their lengths are stated."""
    content, order = element.value or b"", "<" if element.is_little_endian else ">"
    position = 0
    while position < len(content):
        head = content[position : position + 8]
        if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != _ITEM:
            return False
        length = struct.unpack(f"{order}L", head[4:])[0]
        if length == _UNDEFINED_LENGTH:
            return True  # its end is found by parsing what is in it
        position += 8 + length
    return position == len(content)


def _parsed(ds: Dataset, tag: int) -> list[Dataset] | None:
    """Items as the parser sees them, None when it sees no sequence."""
    if BaseTag(tag) not in ds:
        return []
    if any(raw_bytes(ds, tag).count(mark) > _MOST_ITEMS for mark in _ITEM_MARKS):
        return None
    try:
        value = ds[BaseTag(tag)].value
    except Exception:  # the parser raises many types on a broken sequence; all mean "not readable"
        return None
    if isinstance(value, Sequence):
        return list(value)
    return None if value else []


def codes(ds: Dataset, tag: int) -> Iterator[str]:
    """Code values of a code sequence (PS3.3 table 8.8-1), nested ones included."""
    for item in items(ds, tag):
        value = text(item, 0x00080100) or text(item, 0x00080119)
        if value:
            yield value


def _decoded(ds: Dataset, value: bytes) -> str:
    """`value` by Specific Character Set (0008,0005); what it cannot explain becomes U+FFFD."""
    names = raw_bytes(ds, 0x00080005)[:_LONGEST_TEXT].decode("latin_1").split("\\")
    encodings = [charset.python_encoding.get(name.strip(_PADDING), "latin_1") for name in names]
    if b"\x1b" in value:
        try:
            return str(charset.decode_bytes(value, encodings, {0x5C}))
        except (LookupError, UnicodeError, Warning):
            return value.replace(b"\x1b", b"").decode("latin_1")
    return value.decode(encodings[0], errors="replace")
