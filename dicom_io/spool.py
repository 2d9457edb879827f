"""Received objects on disk: durable, content-addressed, never half a file under a final name.

Layout below the root::

    incoming/                    temporary files of objects on the wire
    objects/<aa>/<sha256>.dcm    acknowledged objects, <aa> = first two digits of the SHA-256
    quarantine/<sha256>.dcm      objects kept aside (other pixels under a known UID)
    <anything>/…                 files of `write_durable` (reports)

A final name appears by rename only, so it holds the whole content or does not exist; after
`sync` it also survives loss of power.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dicom_io.errors import SpoolDamagedError, SpoolFullError

_OUT_OF_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_OPENED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM}
_SUFFIX = ".dcm"


@dataclass(frozen=True)
class SpooledFile:
    """A file of the spool.

    Attributes:
        relative_path: Path below the spool's root, with forward slashes.
        sha256: Lower-case hexadecimal SHA-256 of the content.
        size_bytes: Length of the content.
        new: Whether the `place` that returned this put the file there, so that it is not durable yet.
    """

    relative_path: str
    sha256: str
    size_bytes: int
    new: bool = field(default=False, compare=False, kw_only=True)


@dataclass(frozen=True)
class StoredObject(SpooledFile):
    """A spooled object as the sweep finds it: the name tells the digest, the content is not read.

    Attributes:
        modified_at: Time of last modification, seconds since the epoch.
    """

    modified_at: float


class Spool:
    """Folder of received objects.

    Args:
        root: Folder to use; made with its sub-folders when missing.

    Raises:
        SpoolFullError: When there is no room for the folders.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.incoming = self._root / "incoming"
        self._objects = self._root / "objects"
        self._quarantine = self._root / "quarantine"
        with _room():
            for folder in (self.incoming, self._objects, self._quarantine):
                _make_folder(folder)
            # All 256 at once, so that no object waits for, or misses, the sync of a new folder.
            for first_byte in range(256):
                (self._objects / f"{first_byte:02x}").mkdir(exist_ok=True)
            _fsync_up(self._objects, self._root)

    def path(self, relative_path: str) -> Path:
        """Absolute path of `relative_path`.

        Raises:
            ValueError: When the path leads out of the spool.
        """
        relative = PurePosixPath(relative_path)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise ValueError(f"{relative_path!r} does not lie inside the spool")
        return self._root / relative

    def place(self, temporary: Path) -> SpooledFile:
        """Move a complete temporary file of the spool's file system to its final name.

        Idempotent: identical content that is there already stays, since replacing a durable file by
        one that is not would lose it in a crash; a damaged one is replaced. It gets a new time of
        modification, which keeps `discard_unchanged` away from it.
        Nothing is synced; the object may be acknowledged only after `sync`.

        Raises:
            SpoolFullError: When there is no room for the new name.
        """
        digest, size = _digest(temporary)
        relative = f"objects/{digest[:2]}/{digest}{_SUFFIX}"
        final = self._root / relative
        new = True
        with _room():
            if not _touched(final):
                temporary.rename(final)
            elif _digest(final) == (digest, size):
                temporary.unlink()
                new = False
            else:
                _fsync(temporary)
                temporary.rename(final)
        return SpooledFile(relative, digest, size, new=new)

    def sync(self, spooled: SpooledFile) -> None:
        """Make a placed file durable: its content, its name, and its folder's name.

        A new file that cannot be made durable is removed: after a failed sync the system takes its content
        for written, so that a later sync of the same file would succeed without writing anything.

        Raises:
            SpoolDamagedError: When the file is gone.
            SpoolFullError: When the file system has no room to write it out.
        """
        final = self.path(spooled.relative_path)
        with _room():
            try:
                _fsync(final)
                _fsync(final.parent)
            except FileNotFoundError:
                raise SpoolDamagedError(f"{spooled.relative_path} is not in the spool") from None
            except OSError as error:
                # One that could not even be opened was not synced either, and somebody else may hold it.
                if spooled.new and error.errno not in _NOT_OPENED:
                    final.unlink(missing_ok=True)
                raise

    def read_verified(self, spooled_path: str, sha256: str) -> bytes:
        """Content of a spooled file, checked against its digest.

        Raises:
            SpoolDamagedError: When the file is missing or has other bytes.
            OSError: When the device or the process cannot read now; the file may be sound.
        """
        try:
            content = self.path(spooled_path).read_bytes()
        except FileNotFoundError as error:
            if not self._objects.is_dir():
                raise OSError(errno.ESTALE, "the spool itself is missing; is it mounted?") from error
            raise SpoolDamagedError(f"{spooled_path} is not in the spool") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise SpoolDamagedError(f"{spooled_path} does not have the bytes that were acknowledged")
        return content

    def quarantine(self, spooled: SpooledFile) -> SpooledFile:
        """Move a spooled file to the quarantine, durably.

        Raises:
            SpoolDamagedError: When the file is gone.
            SpoolFullError: When there is no room for the new name.
        """
        source = self.path(spooled.relative_path)
        relative = f"quarantine/{spooled.sha256}{_SUFFIX}"
        with _room():
            try:
                _fsync(source)
                source.rename(self._root / relative)
            except FileNotFoundError:
                raise SpoolDamagedError(f"{spooled.relative_path} is not in the spool") from None
            _fsync(self._quarantine)
            _fsync(source.parent)
        return SpooledFile(relative, spooled.sha256, spooled.size_bytes)

    def write_durable(self, relative_path: str, data: bytes) -> None:
        """Write `data` under `relative_path`; durable on return, all or nothing.

        Raises:
            SpoolFullError: When there is no room.
        """
        final = self.path(relative_path)
        temporary = self.incoming / f"{uuid.uuid4().hex}.part"
        with _room():
            _make_folder(final.parent)
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(final)
            finally:
                temporary.unlink(missing_ok=True)
            _fsync_up(final.parent, self._root)

    def discard(self, relative_path: str) -> None:
        """Remove a file; nothing happens when it is gone already."""
        self.path(relative_path).unlink(missing_ok=True)

    def discard_unchanged(self, found: StoredObject) -> bool:
        """Remove an object unless it was placed again since it was listed; return whether it is gone."""
        if not self.is_unchanged(found):
            return False
        self.path(found.relative_path).unlink(missing_ok=True)
        return True

    def is_unchanged(self, found: StoredObject) -> bool:
        """Whether an object was not placed again since it was listed; also true when it is gone."""
        return _modified_at(self.path(found.relative_path)) in (None, found.modified_at)

    def stale_incoming(self, older_than_s: float) -> Iterator[Path]:
        """Temporary files untouched for `older_than_s` seconds: left by a process that died."""
        limit = self.clock() - older_than_s
        for path in self.incoming.iterdir():
            modified_at = _modified_at(path)
            if modified_at is not None and modified_at <= limit:
                yield path

    def clock(self) -> float:
        """Seconds since 1970 by the disk's clock; a shared disk's need not be this machine's."""
        with tempfile.NamedTemporaryFile(dir=self.incoming, prefix="clock-") as file:
            return os.fstat(file.fileno()).st_mtime

    def folders(self) -> Iterator[tuple[str, int]]:
        """Name of each folder of objects, and when a name in it came or went last (ns since 1970)."""
        for folder in sorted(self._objects.iterdir()):
            yield folder.name, folder.stat().st_mtime_ns

    def objects(self, folder_name: str | None = None) -> Iterator[StoredObject]:
        """Every object under its final name, of one folder or of all; for the sweep's orphans."""
        folders = self._objects.iterdir() if folder_name is None else [self._objects / folder_name]
        for folder in sorted(folders):
            for path in sorted(folder.glob(f"*{_SUFFIX}")):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue  # moved or purged since the folder was listed
                yield StoredObject(
                    f"objects/{folder.name}/{path.name}", path.stem, stat.st_size, stat.st_mtime
                )

    def quarantined(self) -> Iterator[str]:
        """Relative path of every object in quarantine."""
        for path in self._quarantine.glob(f"*{_SUFFIX}"):
            yield f"quarantine/{path.name}"

    def free_bytes(self) -> int:
        """Bytes that an unprivileged process can still write to the spool's file system."""
        stat = os.statvfs(self._root)
        return stat.f_bavail * stat.f_frsize


@contextmanager
def _room() -> Iterator[None]:
    """Turn "no room on the device" into `SpoolFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _OUT_OF_ROOM:
            raise SpoolFullError(f"the spool has no room: {error.strerror}") from error
        raise


def _touched(path: Path) -> bool:
    """Set a file's time of modification to now; say whether there is one."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 and length in bytes of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def _make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, each made durable in its parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync(folder.parent)


def _fsync_up(folder: Path, root: Path) -> None:
    """Sync `folder` and each folder above it up to `root`: another thread may have just made them."""
    _fsync(folder)
    if folder != root:
        _fsync_up(folder.parent, root)


def _modified_at(path: Path) -> float | None:
    """Time of last modification, None when the file is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _fsync(path: Path) -> None:
    """Sync a file or folder to the device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
