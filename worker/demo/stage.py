"""What the acts of the demonstration share."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rich.console import Console

from models.bundle import Bundle
from worker.demo.folder import DemoFolder
from worker.demo.pacs import ReceivingPacs
from worker.demo.processes import Programs
from worker.settings import Settings

_NARROWEST = 152


@dataclass(frozen=True)
class Stage:
    """Everything that is set up before the first photograph is sent.

    Attributes:
        console: Standard output.
        folder: Where everything is written.
        settings: The worker's configuration, as its processes read it.
        bundle: The models that will grade.
        programs: The worker's processes.
        pacs: The receiving PACS.
    """

    console: Console
    folder: DemoFolder
    settings: Settings
    bundle: Bundle
    programs: Programs
    pacs: ReceivingPacs

    @property
    def roles(self) -> tuple[str, ...]:
        """The processes that make up the worker."""
        return ("listen", "work", "sweep") if self.settings.broker_url else ("serve",)


def open_console() -> Console:
    """Standard output; wide enough for the table where no window limits it."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _NARROWEST
    return console
