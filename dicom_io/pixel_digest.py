"""A digest that tells whether two objects have the same pixels, however their data sets are encoded.

Copies of one object in implicit and explicit VR, with other elements or padding behind the pixels, or with
other fragments and offset tables have equal digests. Copies that were compressed anew, losslessly too, do
not: that could be told only by decoding both. Nor do little and big endian copies of 16-bit words.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

from dicom_io.dataset import ParsedObject
from dicom_io.sequences import UNDEFINED_LENGTH

_BLOCK = 1 << 20
_ITEM = b"\xfe\xff\x00\xe0"
"""Tag of an item, (FFFE,E000); encapsulated pixel data is little endian (PS3.5 A.4)."""


def pixel_digest(parsed: ParsedObject) -> str | None:
    """SHA-256 over the value of Pixel Data, in lower-case hexadecimal; None without pixel data.

    Native pixels count as they are, without padding behind the element. Of encapsulated ones the bytes of all
    fragments count, without the offset table (PS3.5 section A.4).

    Args:
        parsed: The object; its stream stands at the Pixel Data element, and is read.
    """
    element = parsed.pixel_element()
    if element is None or element[1] == 0:
        return None
    length = element[1]
    value = _fragments(parsed.stream) if length == UNDEFINED_LENGTH else _blocks(parsed.stream, length)
    digest = hashlib.sha256()
    for block in value:
        digest.update(block)
    return digest.hexdigest()


def _fragments(stream: BinaryIO) -> Iterator[bytes]:
    """Bytes of the items after the first, which is the offset table; of what is no item, all that is left."""
    first = True
    while True:
        head = stream.read(8)
        if len(head) < 8 or head[:4] != _ITEM:
            break
        content = _blocks(stream, struct.unpack("<L", head[4:])[0])
        if first:
            for _ in content:
                pass
        else:
            yield from content
        first = False
    if first:  # not even an offset table: nothing is known of the structure
        yield head
        yield from iter(lambda: stream.read(_BLOCK), b"")


def _blocks(stream: BinaryIO, length: int) -> Iterator[bytes]:
    """The next `length` bytes, or what there is of them."""
    while length > 0 and (block := stream.read(min(_BLOCK, length))):
        length -= len(block)
        yield block
