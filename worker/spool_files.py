"""The spool's files as the retention removes them. A spool that is not there has not lost its files."""

from __future__ import annotations

import uuid

from dicom_io.spool import Spool
from worker.settings import Settings
from worker.spool_marker import require_own_spool


class SpoolFiles:
    """The files of this installation's spool.

    Args:
        spool: The spool.
        namespace: Of the installation: a spool that vanished is not taken for one whose files are gone.
    """

    def __init__(self, spool: Spool, namespace: uuid.UUID) -> None:
        self.spool = spool
        self._namespace = namespace

    def size(self, spool_path: str) -> int:
        """Bytes of a file; 0 when it is not there.

        Raises:
            ForeignSpoolError: The spool is not there, or is not this installation's.
        """
        try:
            return self.spool.path(spool_path).stat().st_size
        except FileNotFoundError:
            self._require_spool()
            return 0

    def remove(self, spool_path: str) -> None:
        """Remove a file; nothing happens when it is gone already.

        Raises:
            ForeignSpoolError: The spool is not there, or is not this installation's.
        """
        self._require_spool()
        self.spool.discard(spool_path)

    def _require_spool(self) -> None:
        require_own_spool(self.spool.incoming.parent, self._namespace, has_images=True)


def own_files(settings: Settings, namespace: uuid.UUID) -> SpoolFiles:
    """Open the spool for a command that runs beside the service.

    Raises:
        ForeignSpoolError: It is not there, or is another installation's.
    """
    require_own_spool(settings.spool_dir, namespace, has_images=True)
    return SpoolFiles(Spool(settings.spool_dir), namespace)
