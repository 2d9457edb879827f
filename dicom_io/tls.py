"""DICOM over TLS (PS3.15 annex B.12, BCP 195: TLS 1.2 and later): contexts, and when certificates expire."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dicom_io.errors import DicomIoError

Clients = Literal["server", "optional", "required"]
"""Whether a listener looks at its callers' certificates: not at all, when one is given, or always."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class TlsFilesError(DicomIoError):
    """A certificate, key or CA file cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files.

    Attributes:
        certificate: Own certificate, with those between it and its CA; None without one.
        key: Its private key, without a passphrase.
        ca: Certificates of the CAs that peers' certificates come from.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


def server_context(files: TlsFiles, clients: Clients) -> ssl.SSLContext:
    """Context of a listener.

    Raises:
        TlsFilesError: A file is missing or unusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # no session is ever resumed, and none waits unread at the peer
    if files.certificate is None:
        raise TlsFilesError(
            "TLS needs a certificate on the listener: set [tls] certificate_file and key_file"
        )
    _load_own(context, files)
    if clients != "server":
        context.verify_mode = ssl.CERT_REQUIRED if clients == "required" else ssl.CERT_OPTIONAL
        _load_ca(context, files, "to check callers' certificates")
    return context


def client_context(files: TlsFiles, *, check_name: bool = True) -> ssl.SSLContext:
    """Context of a sender: the peer's certificate is always checked against the CA file.

    Args:
        files: Own certificate, if there is one, is shown to a peer that asks.
        check_name: Whether the certificate must be for the name or address that is called.

    Raises:
        TlsFilesError: A file is missing or unusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = check_name
    _load_ca(context, files, "to check destinations' certificates")
    if files.certificate is not None:
        _load_own(context, files)
    return context


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.certificate is None or files.key is None:
        raise TlsFilesError("certificate and key belong together: set [tls] certificate_file and key_file")
    try:
        # Without the callable OpenSSL would ask for a passphrase at the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except ssl.SSLError as error:
        said = tls_reason(error)
        raise TlsFilesError(
            f"{files.certificate} and {files.key} are not a certificate and its key ({said}); give PEM "
            "files that belong together, the key without a passphrase"
        ) from error
    except OSError as error:
        names = f"{files.certificate} or {files.key}"
        raise TlsFilesError(
            f"{names} cannot be read ({error.strerror}); let the user of the service read both"
        ) from error


def _load_ca(context: ssl.SSLContext, files: TlsFiles, purpose: str) -> None:
    if files.ca is None:
        raise TlsFilesError(f"a CA file is needed {purpose}: set [tls] ca_file")
    try:
        context.load_verify_locations(files.ca)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a peer's own certificate will do as well
    except ssl.SSLError as error:
        said = tls_reason(error)
        raise TlsFilesError(f"{files.ca} holds no certificates ({said}); give a PEM file") from error
    except OSError as error:
        raise TlsFilesError(f"{files.ca} cannot be read ({error.strerror}); correct [tls] ca_file") from error


def tls_reason(error: OSError) -> str:
    """Say in few words why TLS failed; no text of the peer's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or type(error).__name__).lower().replace("_", " ")
    return "timed out" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__


def expires_at(path: Path) -> datetime:
    """When the first certificate of a PEM file to expire does so (RFC 5280 section 4.1.2.5).

    Raises:
        TlsFilesError: The file cannot be read or holds no certificate.
    """
    try:
        found = _PEM.findall(path.read_bytes())
    except OSError as error:
        raise TlsFilesError(f"{path} cannot be read ({error.strerror}); correct its name in [tls]") from error
    try:
        ends = [_not_after(ssl.PEM_cert_to_DER_cert(text.decode("ascii"))) for text in found]
    except (ValueError, IndexError) as error:
        raise TlsFilesError(f"{path} holds a damaged certificate; give a PEM file") from error
    if not ends:
        raise TlsFilesError(f"{path} holds no certificate; give a PEM file")
    return min(ends)


def _not_after(der: bytes) -> datetime:
    """Certificate → tbsCertificate → validity (the fourth element behind the version) → notAfter."""
    fields = _elements(_elements(_elements(der)[0][1])[0][1])
    validity = fields[4 if fields[0][0] == _VERSION else 3]
    kind, text = _elements(validity[1])[1]
    if validity[0] != _SEQUENCE or kind not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError
    date = text.decode("ascii")
    if kind == _UTC_TIME:  # years from 1950 to 2049
        date = ("19" if date >= "50" else "20") + date
    return datetime.strptime(date, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each DER element (X.690 section 8.1) in `data`."""
    found, at = [], 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        found.append((tag, data[at : at + length]))
        at += length
    return found
