"""The door's settings as `dicom_io` takes them, and its certificates' dates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from dicom_io.limits import Limits
from dicom_io.tls import TlsFiles, TlsFilesError, expires_at, server_context
from worker.settings import ListenerSettings, Settings

WARN_DAYS = 30


@dataclass(frozen=True)
class Certificate:
    """One file of `[tls]` that is in use.

    Attributes:
        setting: Its key in `[tls]`.
        path: The file.
        expires_at: When the first certificate in it expires (UTC); None when it cannot be read.
        problem: What a person has to do, in one sentence; None while it is good for `WARN_DAYS` more days.
    """

    setting: str
    path: Path
    expires_at: datetime | None
    problem: str | None


def limits_of(door: ListenerSettings) -> Limits:
    """Return what callers are granted."""
    return Limits(
        connections=door.maximum_connections,
        associations=door.maximum_associations,
        associations_per_caller=door.maximum_per_caller,
        requests_per_minute=door.requests_per_minute,
        object_bytes=door.maximum_object_mb * 1_000_000,
        bytes_per_s=door.minimum_bytes_per_s,
        association_s=door.association_s,
    )


def listener_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context for the listener; None without TLS.

    Raises:
        TlsFilesError: A file is missing or unusable.
    """
    clients = settings.listener.tls
    return None if clients == "off" else server_context(tls_files(settings), clients)


def tls_files(settings: Settings) -> TlsFiles:
    """Return the files of `[tls]`."""
    tls = settings.tls
    return TlsFiles(tls.certificate_file, tls.key_file, tls.ca_file)


def certificates(settings: Settings, at: datetime) -> list[Certificate]:
    """Return the certificate files that are configured, with what is wrong with them at a time (UTC)."""
    named = (("certificate_file", settings.tls.certificate_file), ("ca_file", settings.tls.ca_file))
    return [_certificate(setting, path, at) for setting, path in named if path is not None]


def _certificate(setting: str, path: Path, at: datetime) -> Certificate:
    try:
        ends = expires_at(path)
    except TlsFilesError as error:
        return Certificate(setting, path, None, str(error))
    problem = None
    if ends - at < timedelta(days=WARN_DAYS):
        word = "expired" if ends <= at else "expires"
        problem = f"{path} ([tls] {setting}) {word} on {ends:%Y-%m-%d}: replace it and restart the worker"
    return Certificate(setting, path, ends, problem)
