"""Whose spool is it? A file in its root says so, so that a folder that is not mounted is not taken for empty.

The marker is made while the database knows no image yet. From then on a process whose spool has no marker, or
another installation's, does not start: it would take every acknowledged file for lost.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from dicom_io.spool import Spool
from worker.errors import ForeignSpoolError

MARKER = "installation"
"""Name of the file in the spool's root; it holds the namespace of the installation's UIDs."""


def require_own_spool(folder: Path, namespace: uuid.UUID, *, has_images: bool) -> None:
    """Refuse a spool that is not this installation's; one without a marker passes while there is no image.

    Raises:
        ForeignSpoolError: With what to do about it.
    """
    file = folder / MARKER
    found = _content(file)
    if found == str(namespace):
        return
    if found is not None:
        raise ForeignSpoolError(
            f"the spool {folder} belongs to another installation than the database; correct data_dir or "
            f"database_url. If the other database is gone for good and its files are to be taken in here, "
            f"delete {file}" + (_lost(namespace, file) if has_images else "")
        )
    if has_images:
        raise ForeignSpoolError(
            f"the database has images, but the spool {folder} is not theirs: {file} is missing. Mount the "
            "spool, or correct data_dir. If its files are lost for good, say so" + _lost(namespace, file)
        )


def mark(spool: Spool, namespace: uuid.UUID) -> None:
    """Make a spool this installation's, durably."""
    if _content(spool.path(MARKER)) is None:
        spool.write_durable(MARKER, f"{namespace}\n".encode())


def _content(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None


def _lost(namespace: uuid.UUID, file: Path) -> str:
    return f" with `echo {namespace} > {file}`: images that wait are then refused as SPOOL_FILE_DAMAGED"
