"""Values of a data set read with tolerance: an odd optional element becomes its default."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom import charset, config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

# Headers of real cameras break rules of the value representations daily; none of that is worth a
# warning for each image, and what is copied into a report is checked there.
config.settings.reading_validation_mode = config.IGNORE

_UID = re.compile(r"[0-9.]{1,64}")
_PADDING = " \0"
_LONGEST_TEXT = 1024
_TEXT_VR = ("IS", "DS", "LO", "SH", "CS", "ST", "LT")


def raw_bytes(ds: Dataset, tag: int) -> bytes:
    """Encoded value of `tag`, empty when it is absent or a sequence."""
    element = ds.get_item(BaseTag(tag))
    value = element.value if isinstance(element, RawDataElement | DataElement) else None
    if isinstance(value, bytes):
        return value
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
    if BaseTag(tag) not in ds:
        return []
    try:
        value = ds[BaseTag(tag)].value
    except Exception:  # the parser raises many types on a broken sequence; all mean "not readable"
        return []
    return list(value) if isinstance(value, Sequence) else []


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
