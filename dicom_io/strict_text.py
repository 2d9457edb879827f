"""Text of a data set decoded strictly: what its declared character set cannot explain is no text at all.

`dicom_io.elements` reads with tolerance, to recognise; this reads what is going to be written again.
"""

from __future__ import annotations

import re

from pydicom import charset
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.elements import raw_bytes

_ASCII_NAMES = ("", "ISO_IR 6", "ISO 2022 IR 6")
_PADDING = " \0"
_DELIMITERS = {
    ord("\\"),
    ord("^"),
    ord("="),
}  # each returns to the first character set (PS3.5 section 6.1.2.5.3)
_ESCAPE = re.compile(rb"\x1b(?:\$[()].|[-()$].)", re.DOTALL)
_TO_ASCII = b"\x1b(B"


def strict_text(ds: Dataset, keyword: str) -> str | None:
    """Return the one value of a text element, without padding.

    Args:
        ds: Where it is.
        keyword: DICOM keyword of the element.

    Returns:
        None when the element is absent, empty, has several values, or bytes that Specific Character Set
        (0008,0005) does not explain.
    """
    encoded = raw_bytes(ds, Tag(keyword))
    try:
        decoded = _decode(encoded, _encodings(ds))
    except (LookupError, UnicodeError):
        return None
    text = decoded.strip(_PADDING)
    return text if text and "\\" not in text else None


def _encodings(ds: Dataset) -> list[str]:
    """Python's names of the declared character sets; LookupError for one that DICOM does not define."""
    names = [name.strip(_PADDING) for name in raw_bytes(ds, 0x00080005).decode("latin_1").split("\\")]
    return ["ascii" if name in _ASCII_NAMES else charset.python_encoding[name] for name in names]


def _decode(encoded: bytes, encodings: list[str]) -> str:
    if b"\x1b" not in encoded:
        return encoded.decode(encodings[0])
    escapes = _ESCAPE.findall(encoded)
    if len(escapes) != encoded.count(b"\x1b"):
        raise LookupError("an escape sequence is not one")
    for escape in escapes:
        if escape != _TO_ASCII and charset.CODES_TO_ENCODINGS[escape] not in encodings:
            raise LookupError("a character set is used that was not declared")
    return charset.decode_bytes(encoded, encodings, _DELIMITERS)
