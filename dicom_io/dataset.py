"""A DICOM file parsed up to its pixels: data set, encoding, and where the Pixel Data element begins."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_io.elements import uid
from dicom_io.errors import UnreadableObjectError
from dicom_io.sequences import LONG_VR, UNDEFINED_LENGTH, is_vr, skip_undefined

MAXIMUM_INFLATED_BYTES = 1 << 29
"""A deflated data set that is larger than this is refused before it is held in memory."""

_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}


@dataclass(frozen=True)
class ParsedObject:
    """A DICOM object up to its pixels.

    Attributes:
        dataset: Elements before Pixel Data, those asked for.
        transfer_syntax_uid: (0002,0010); implicit little endian when the file does not say.
        stream: The data set, standing at the Pixel Data element or at its end.
        implicit_vr: Whether the data set has implicit value representations.
        little_endian: Byte order of the data set.
    """

    dataset: Dataset
    transfer_syntax_uid: str
    stream: BinaryIO
    implicit_vr: bool
    little_endian: bool

    def pixel_element(self) -> tuple[bytes, int] | None:
        """Encoded tag, VR and length of the Pixel Data element, and its length (PS3.5 7.1).

        Leaves `stream` at the element's value. None without pixel data.
        """
        order = "<" if self.little_endian else ">"
        head = self.stream.read(8)
        if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != (0x7FE0, 0x0010):
            return None
        if self.implicit_vr:
            return head, int(struct.unpack(f"{order}L", head[4:])[0])
        if head[4:6] not in LONG_VR:
            return head, int(struct.unpack(f"{order}H", head[6:])[0])
        extended = self.stream.read(4)
        return head + extended, int(struct.unpack(f"{order}L", extended)[0])


def parse_object(file: BinaryIO, tags: Collection[int]) -> ParsedObject:
    """Parse `file` (PS3.10 section 7) up to the Pixel Data element, keeping the elements in `tags`.

    Raises:
        UnreadableObjectError: When it is no DICOM file, cannot be parsed, or inflates beyond
            `MAXIMUM_INFLATED_BYTES`. The message never quotes a value.
    """
    if file.read(132)[128:] != b"DICM":
        raise UnreadableObjectError("the file has no DICOM prefix")
    try:
        meta = read_dataset(file, False, True, stop_when=_after_meta)
        syntax = uid(meta, 0x00020010)
        implicit, little = _encoding(syntax, file)
        stream = _inflated(file) if syntax == DeflatedExplicitVRLittleEndian else file
        ds = _elements(stream, implicit, little, [BaseTag(tag) for tag in tags])
    except UnreadableObjectError:
        raise
    except Exception as error:  # the parser raises many types on damaged input, OSError among them
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the device failed, not the parser
        raise UnreadableObjectError(f"the data set cannot be parsed ({type(error).__name__})") from None
    return ParsedObject(ds, syntax or ImplicitVRLittleEndian, stream, implicit, little)


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    """Whether file meta information, group 0002, has ended."""
    return tag >> 16 != 2


def _at_pixel_data_or_sequence(tag: BaseTag, vr: str | None, length: int) -> bool:
    """Whether the parser stands at Pixel Data, its float kinds, or a value of undefined length."""
    return tag in _PIXEL_DATA or length == UNDEFINED_LENGTH


def _elements(stream: BinaryIO, implicit: bool, little: bool, wanted: Sequence[BaseTag]) -> Dataset:
    """Elements before Pixel Data; values of undefined length are passed, or kept as bytes when wanted."""
    tags: list[BaseTag | int] = list(wanted)
    ds = Dataset()
    while True:
        part = read_dataset(
            stream, implicit, little, stop_when=_at_pixel_data_or_sequence, specific_tags=tags
        )
        ds.update({tag: part.get_item(tag) for tag in part.keys()})  # noqa: SIM118 - iterating would decode
        start = stream.tell()
        tag, vr = _head(stream, implicit, little)
        if tag is None or tag in _PIXEL_DATA:
            stream.seek(start)
            return ds
        first = stream.tell()
        inner = implicit or vr in (None, "UN")  # PS3.5 section 6.2.2
        length = skip_undefined(stream, implicit_vr=inner, little_endian=little)
        if tag in wanted:
            after = stream.tell()
            stream.seek(first)
            value = stream.read(length)
            ds[tag] = RawDataElement(tag, None if implicit else "SQ", length, value, first, inner, little)
            stream.seek(after)


def _head(stream: BinaryIO, implicit: bool, little: bool) -> tuple[BaseTag | None, str | None]:
    """Tag and value representation of the element at which the stream stands; it then stands at its value."""
    head = stream.read(8)
    if len(head) < 8:
        return None, None
    group, element = struct.unpack("<HH" if little else ">HH", head[:4])
    explicit = not implicit and is_vr(head[4:6])
    if explicit and head[4:6] in LONG_VR:
        stream.seek(4, os.SEEK_CUR)
    return BaseTag(group << 16 | element), head[4:6].decode("ascii") if explicit else None


def _encoding(syntax: str, file: BinaryIO) -> tuple[bool, bool]:
    """Implicit VR and little endian of the data set at which `file` stands (PS3.5 annex A)."""
    if syntax == ImplicitVRLittleEndian:
        return True, True
    if not syntax:
        start = file.read(6)
        file.seek(-len(start), os.SEEK_CUR)
        return not start[4:6].isalpha(), True
    return False, syntax != ExplicitVRBigEndian


def _inflated(file: BinaryIO) -> BytesIO:
    """The rest of `file`, deflated without a header (PS3.5 A.5), inflated within the limit."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    content = engine.decompress(file.read(), MAXIMUM_INFLATED_BYTES)
    if engine.unconsumed_tail:
        raise UnreadableObjectError(f"the data set inflates beyond {MAXIMUM_INFLATED_BYTES} bytes")
    return BytesIO(content)
