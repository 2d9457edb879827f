"""The door's settings as `dicom_io` takes them, and its certificates' dates."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from dicom_io.callers import CallerRule
from dicom_io.limits import Limits
from dicom_io.tls import TlsFiles, TlsFilesError, expires_at, server_context
from worker.settings import CallerSettings, ListenerSettings, Settings

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


def allowed_callers(settings: Settings) -> tuple[str, ...]:
    """Return the AE titles that may call beside those of `[[caller]]`; ("*",): all that are not forbidden.

    The list may be empty only where nobody but this machine can call, or where somebody has a table.
    """
    named = any(each.allowed for each in settings.callers)
    return settings.listener.allowed_callers or (() if named else ("*",))


def caller_rules(settings: Settings) -> list[CallerRule]:
    """Return `[[caller]]` as the listener takes it."""
    return [_rule(each, limits_of(settings.listener)) for each in settings.callers]


def caller_text(caller: CallerSettings) -> str:
    """Say in one line what holds for a caller: all that is not as for others."""
    if not caller.allowed:
        return f"{caller.ae_title} never"
    said = [f"from {', '.join(caller.hosts) or 'anywhere'}"]
    if caller.priority != "medium":
        said.append(f"priority {caller.priority}")
    if caller.destinations:
        said.append(f"reports to {', '.join(caller.destinations)}")
    if caller.camera_opt_in:
        said.append(f"also cameras {', '.join(caller.camera_opt_in)}")
    for value, text in (
        (caller.maximum_associations, "at most {} associations"),
        (caller.requests_per_minute, "{} requests a minute"),
        (caller.maximum_object_mb, "objects of {} MB"),
    ):
        if value is not None:
            said.append(text.format(value))
    return f"{caller.ae_title} {', '.join(said)}"


def _rule(caller: CallerSettings, limits: Limits) -> CallerRule:
    object_mb = caller.maximum_object_mb
    own = replace(
        limits,
        associations_per_caller=caller.maximum_associations or limits.associations_per_caller,
        requests_per_minute=caller.requests_per_minute or limits.requests_per_minute,
        object_bytes=limits.object_bytes if object_mb is None else object_mb * 1_000_000,
    )
    networks = tuple(ipaddress.ip_network(host) for host in caller.hosts)
    return CallerRule(caller.ae_title, caller.allowed, networks, None if own == limits else own)


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
