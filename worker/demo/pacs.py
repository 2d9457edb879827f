"""A small receiving PACS: takes reports over C-STORE and writes each to a file."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import structlog
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_io.sop_classes import VERIFICATION

log = structlog.get_logger(__name__)
_SUCCESS, _CANNOT_UNDERSTAND, _OUT_OF_RESOURCES = 0x0000, 0xC000, 0xA700


class ReceivingPacs:
    """A storage SCP for Comprehensive 3D SR on a free loopback port.

    Args:
        folder: Where the files go, each `<SOP Instance UID>.dcm`.
        ae_title: Its AE title; associations that call another are rejected.
    """

    def __init__(self, folder: Path, ae_title: str) -> None:
        self._folder = folder
        self._entity = AE(ae_title=ae_title)
        self._entity.require_called_aet = True
        self._entity.add_supported_context(VERIFICATION)
        self._entity.add_supported_context(
            Comprehensive3DSRStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        )
        self._lock = Lock()
        self._received: set[str] = set()
        self.port = 0

    @property
    def received(self) -> int:
        """Different objects received so far."""
        with self._lock:
            return len(self._received)

    def __enter__(self) -> Self:
        server = self._entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        if server is None:
            raise RuntimeError("pynetdicom started no server in the background")
        self.port = int(server.server_address[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        """Write the object's bytes as they came; a name that appears is a complete file."""
        name = UID(str(getattr(event.request, "AffectedSOPInstanceUID", "")))
        if not name.is_valid:
            return _CANNOT_UNDERSTAND
        partial = self._folder / f"{name}.part"
        try:
            partial.write_bytes(event.encoded_dataset())
            partial.replace(self._folder / f"{name}.dcm")
        except OSError:
            log.exception("pacs_write_failed", sop_instance_uid=str(name))
            return _OUT_OF_RESOURCES
        with self._lock:
            self._received.add(str(name))
        return _SUCCESS
