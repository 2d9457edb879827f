"""The folder that the demonstration fills; a later run may clear what an earlier one left, nothing else."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.demo.errors import DemoSetupError

_MARKER = ".fundus-demo"


@dataclass(frozen=True)
class DemoFolder:
    """Paths of everything that the demonstration writes.

    Attributes:
        root: The folder given by the user, absolute.
    """

    root: Path

    @property
    def configuration(self) -> Path:
        """The worker's configuration file."""
        return self.root / "fundus.toml"

    @property
    def data(self) -> Path:
        """The worker's spool, reports and database."""
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def photographs(self) -> Path:
        """The DICOM files that are sent."""
        return self.root / "photographs"

    @property
    def pacs(self) -> Path:
        """The reports as the PACS received them."""
        return self.root / "pacs"

    @property
    def contact_sheet(self) -> Path:
        """The picture of what went in and what was seen in it."""
        return self.root / "contact-sheet.png"

    @property
    def identity_key(self) -> Path:
        """Key of the patient pseudonyms, where several processes share it."""
        return self.root / "identity.key"


@contextmanager
def demo_folder(root: Path) -> Iterator[DemoFolder]:
    """Make the folder, or clear what an earlier demonstration left in it; hold it until the end.

    Raises:
        DemoSetupError: The folder holds something else, cannot be made, or another demonstration is using it.
    """
    folder = DemoFolder(root.absolute())
    marker = folder.root / _MARKER
    try:
        if folder.root.exists() and any(folder.root.iterdir()) and not marker.is_file():
            raise DemoSetupError(
                f"{root} is not empty and was not made by the demonstration; choose another --output"
            )
        folder.root.mkdir(parents=True, exist_ok=True)
        lock = marker.open("a")
    except OSError as error:
        raise DemoSetupError(
            f"{root} cannot be used ({type(error).__name__}); choose another --output"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoSetupError(
                f"another demonstration is running in {root}; wait for it, or choose another --output"
            ) from None
        _clear(folder)
        yield folder


def _clear(folder: DemoFolder) -> None:
    folders = (folder.data, folder.logs, folder.photographs, folder.pacs)
    for each in folders:
        if each.exists():
            shutil.rmtree(each)
        each.mkdir()
    for file in (folder.configuration, folder.contact_sheet, folder.identity_key):
        file.unlink(missing_ok=True)
