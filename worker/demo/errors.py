"""What can keep the demonstration from doing its work."""

from __future__ import annotations

from pathlib import Path

from worker.errors import WorkerError


class DemoError(WorkerError):
    """The demonstration failed; the text says at what."""


class DemoSetupError(DemoError):
    """The demonstration cannot begin; the text has the remedy."""


class ProgramEndedError(DemoError):
    """A process that the demonstration started ended by itself.

    Attributes:
        name: Which one.
        log: Its log file.
    """

    def __init__(self, name: str, status: int, log: Path, last_lines: str) -> None:
        self.name, self.log = name, log
        super().__init__(f"{name} ended with status {status}; the end of {log}:\n{last_lines}")


class DemoTimeoutError(DemoError):
    """Something did not happen in time."""

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(f"{what} took longer than {timeout_s:g} s")
