"""A certification authority for tests, and certificates from it, made by the openssl program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from factories.servers import require_binary

from dicom_io.tls import TlsFiles


@dataclass(frozen=True)
class Authority:
    """A certification authority in a folder of its own.

    Attributes:
        folder: Where its files and those of the certificates are.
        certificate: Its own certificate, PEM.
    """

    folder: Path
    certificate: Path

    def issue(self, name: str, *, days: int = 365, address: str = "127.0.0.1") -> TlsFiles:
        """Make a key and a certificate for an IP address; `ca` is this authority's."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        _openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}"
        )
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:{address}\nbasicConstraints=CA:FALSE\n", encoding="ascii")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "ca.key"),
            *("-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", certificate),
        )
        return TlsFiles(certificate, key, self.certificate)


def authority(folder: Path) -> Authority:
    """Make a certification authority; the folder is made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate = folder / "ca.crt"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "ca.key"),
        *(
            "-days",
            "3650",
            "-subj",
            "/CN=Test CA",
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-out",
            certificate,
        ),
    )
    return Authority(folder, certificate)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run([require_binary("openssl"), *arguments], check=True, capture_output=True, timeout=60)
