"""Patient pseudonyms: an HMAC under a key file, so that no table holds an identity.

Source: HMAC with SHA-256, RFC 2104. The same key on every machine gives the same pseudonym; without the key a
pseudonym cannot be traced back by trying identifiers.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from worker.errors import IdentityKeyError

_KEY_BYTES = 32


class Identity:
    """Turns a patient identity into a pseudonym.

    Args:
        key: The secret, at least 16 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path, *, create: bool) -> Identity:
        """Read the key file; make it (mode 0600) when it is missing and `create` says so.

        Raises:
            IdentityKeyError: Missing, shorter than 16 bytes, or readable by others.
        """
        try:
            if create and not path.exists():
                _make_key(path)
            key = path.read_bytes().strip()
            mode = path.stat().st_mode
        except OSError as error:
            raise IdentityKeyError(
                f"the identity key {path} cannot be read ({type(error).__name__}); "
                "create it with `head -c 32 /dev/urandom > FILE; chmod 600 FILE` and give all machines a copy"
            ) from error
        if len(key) < 16:
            raise IdentityKeyError(f"the identity key {path} is shorter than 16 bytes; make a new one")
        if mode & 0o077:
            raise IdentityKeyError(f"the identity key {path} can be read by others; run `chmod 600 {path}`")
        return cls(key)

    def pseudonym(self, patient_id: str) -> str:
        """Return 64 hexadecimal digits that stand for the patient's identifier (0010,0020)."""
        return self._digest("patient", patient_id.strip())

    def issuer_pseudonym(self, issuer: str) -> str | None:
        """Return 64 hexadecimal digits that stand for the issuer (0010,0021), or for what takes its place."""
        return self._digest("issuer", issuer.strip()) if issuer.strip() else None

    def header_key(self, content: str) -> str:
        """Return 64 hexadecimal digits that stand for a header's `decisive_content`."""
        return self._digest("header", content)

    def _digest(self, kind: str, text: str) -> str:
        return hmac.new(self._key, f"{kind}\x00{text}".encode(), hashlib.sha256).hexdigest()


def _make_key(path: Path) -> None:
    """Write a new key under a temporary name, so that a second process never reads half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_hex(_KEY_BYTES).encode())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first: its key counts
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name durable: rows with pseudonyms of a key that a power failure took are nobody's."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
