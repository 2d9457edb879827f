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
_TO_GB2312 = "\x1b$)A"
"""ISO 2022 IR 58: Python's codec reads what follows, but leaves the escape sequence itself in the text."""
_UNDECODABLE = (LookupError, UnicodeError, Warning)
"""What decoding raises; pydicom only warns of some bytes, and then puts U+FFFD in their place."""


def _spelling(name: str) -> str:
    """The name of a character set without what senders get wrong in it: "ISO-IR 100" is ISO_IR 100."""
    return re.sub(r"[-_ ]+", " ", name.strip(_PADDING)).upper()


_ENCODINGS = {
    **{_spelling(name): encoding for name, encoding in charset.python_encoding.items()},
    **{_spelling(name): "ascii" for name in _ASCII_NAMES},
}


def strict_text(ds: Dataset, keyword: str) -> str | None:
    """Return the one value of a text element, without padding.

    Args:
        ds: Where it is.
        keyword: DICOM keyword of the element.

    Returns:
        None when the element is absent, empty, has several values, or bytes that Specific Character Set
        (0008,0005) does not explain.
    """
    try:
        decoded = _decoded(ds, raw_bytes(ds, Tag(keyword)))
    except _UNDECODABLE:
        return None
    text = decoded.strip(_PADDING)
    return text if text and "\\" not in text else None


def identifying_text(ds: Dataset, keyword: str) -> str:
    """Return a text that two elements share only when they have the same value; empty when there is none.

    `dicom_io.elements.text` puts U+FFFD for what it cannot decode, so that two names may become one. Here
    such bytes stand for themselves. All values count, not the first only.
    """
    encoded = raw_bytes(ds, Tag(keyword)).strip(_PADDING.encode())
    try:
        return _decoded(ds, encoded).strip(_PADDING)
    except _UNDECODABLE:
        return f"bytes {encoded.hex()}"


def _decoded(ds: Dataset, encoded: bytes) -> str:
    """The text of bytes by the data set's character sets.

    ASCII needs no declaration that is understood: it is part of every character set that DICOM has.
    """
    if encoded.isascii() and b"\x1b" not in encoded:
        return encoded.decode("ascii")
    return _decode(encoded, _encodings(ds))


def _encodings(ds: Dataset) -> list[str]:
    """Python's names of the declared character sets; LookupError for one that DICOM does not define."""
    names = raw_bytes(ds, 0x00080005).decode("latin_1").split("\\")
    return [_ENCODINGS[_spelling(name)] for name in names]


def _decode(encoded: bytes, encodings: list[str]) -> str:
    if b"\x1b" not in encoded:
        return encoded.decode(encodings[0])
    escapes = _ESCAPE.findall(encoded)
    if len(escapes) != encoded.count(b"\x1b"):
        raise LookupError("an escape sequence is not one")
    for escape in escapes:
        if escape != _TO_ASCII and charset.CODES_TO_ENCODINGS[escape] not in encodings:
            raise LookupError("a character set is used that was not declared")
    decoded = charset.decode_bytes(encoded, encodings, _DELIMITERS)
    return decoded.replace(_TO_GB2312, "")
