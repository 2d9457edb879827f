"""One object on its way in: a temporary file on the spool's file system (PS3.10 section 7)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dicom_io.errors import DicomIoError, ObjectTooLargeError

IMPLEMENTATION_CLASS_UID = "2.25.2312586551787291646778285042296701279"
"""Of this software, from a random UUID (PS3.5 B.2); part of every stored file, so it never changes."""

IMPLEMENTATION_VERSION_NAME = "FUNDUS_WORKER"

_ASK_EVERY_BYTES = 1 << 24

_PREAMBLE = bytes(128) + b"DICM"


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and file meta information group (PS3.10 table 7.1-1), explicit little endian.

    Only the object's own identifiers go in, so that equal objects make equal files, whoever sent them.
    """
    group = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01" + b"".join(
        (
            _element(0x02, b"UI", sop_class_uid),
            _element(0x03, b"UI", sop_instance_uid),
            _element(0x10, b"UI", transfer_syntax_uid),
            _element(0x12, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x13, b"SH", IMPLEMENTATION_VERSION_NAME),
        )
    )
    return _PREAMBLE + b"\x02\x00\x00\x00UL\x04\x00" + len(group).to_bytes(4, "little") + group


def _element(number: int, vr: bytes, text: str) -> bytes:
    """One short element of group 0002."""
    value = text.encode("ascii", "replace")[:0xFFFE]
    value += (b" " if vr == b"SH" else b"\x00") * (len(value) % 2)
    return b"\x02\x00" + number.to_bytes(2, "little") + vr + len(value).to_bytes(2, "little") + value


class IncomingFile:
    """The temporary file that one data set is written to while it arrives.

    An error while writing is kept in `error`, and the rest of the object is dropped, so that the
    sender can be answered properly when the object is complete.

    Args:
        folder: Folder for temporary files.
        sop_class_uid: Affected SOP Class UID of the request.
        sop_instance_uid: Affected SOP Instance UID of the request.
        transfer_syntax_uid: Transfer syntax of the presentation context.
        maximum_bytes: Longest data set; the file never gets longer.
        pressure: Why no object can be taken in now, None when one can; asked at the beginning and every
            16 MiB.

    Attributes:
        offered: Bytes of the data set that have arrived, those that were dropped included.
    """

    def __init__(
        self,
        folder: Path,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        *,
        maximum_bytes: int,
        pressure: Callable[[], DicomIoError | None],
    ) -> None:
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.transfer_syntax_uid = transfer_syntax_uid
        self.path = folder / f"{uuid.uuid4().hex}.dcm"
        self.error: OSError | DicomIoError | None = None
        self.complete = False
        self.offered = 0
        self._maximum_bytes = maximum_bytes
        self._pressure = pressure
        self._asked_at = 0
        self._descriptor = -1
        self._look()
        if self.error is not None:
            return
        try:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            self.error = error
        self._append(memoryview(file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid)))

    @property
    def name(self) -> str:
        """Path as text, as Python's file objects have it."""
        return str(self.path)

    @property
    def file(self) -> IncomingFile:
        """The file itself, as `tempfile`'s wrappers have it."""
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append to the data set; unbuffered, so the file is complete when the last write returns."""
        self.offered += len(data)
        if self.error is None and self.offered > self._maximum_bytes:
            self.error = ObjectTooLargeError(self._maximum_bytes)
        if self.error is None and self.offered - self._asked_at > _ASK_EVERY_BYTES:
            self._asked_at = self.offered
            self._look()
        self._append(memoryview(data))

    def _look(self) -> None:
        """Ask whether an object can be taken in; a disk that does not even say so cannot take one."""
        try:
            self.error = self._pressure()
        except OSError as error:
            self.error = error

    def _append(self, remaining: memoryview) -> None:
        try:
            while self.error is None and remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
        except OSError as error:
            self.error = error

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close the file, once."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.close(descriptor)
            except OSError as error:
                self.error = self.error or error

    def discard(self) -> None:
        """Close the file and remove it, unless it has been moved away."""
        self.close()
        with suppress(OSError):  # a leftover is found by the sweep of stale temporary files
            self.path.unlink(missing_ok=True)
