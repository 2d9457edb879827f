"""Every error the application raises.

    WorkerError
    ├── SettingsError              the configuration; lists every problem at once
    ├── DatabaseError
    │   ├── DatabaseUnreachableError   (retryable)
    │   ├── SchemaMissingError         no tables yet
    │   ├── SchemaOutdatedError        the tables are older than the program
    │   └── SchemaTooNewError          the tables are newer than the program
    ├── ClaimLostError             another worker took the row over; the result is dropped
    ├── MapsDifferError            the models, run again, come to another grade
    ├── ReportChangedError         a document's report is not what would be written now
    ├── BatchError
    │   ├── BatcherFullError           (retryable) the queue in front of the engine stayed full
    │   ├── BatcherClosedError         (retryable) the worker is shutting down
    │   ├── EngineEndedError           (retryable) the engine wanted to end its thread instead of answering
    │   └── BatchContractError         the engine returned a wrong number of results
    ├── BrokerError                (retryable) the message broker cannot be reached
    ├── ForeignSpoolError          the spool is not mounted, or is another installation's
    └── IdentityKeyError           the key for patient pseudonyms is missing, empty or readable by others

A caller decides on two attributes: ``retryable`` ("expected, try later", as opposed to a bug) and
``reason_code`` (a key of `worker.reasons.REASONS`). Texts are written by this program, never taken from an
image or a database row, so they may stand in a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class WorkerError(Exception):
    """Root of everything that `worker` raises on purpose.

    Attributes:
        retryable: True when the same call may succeed later without anybody changing anything.
        reason_code: The code that a row gets when this error ends its work.
    """

    retryable: ClassVar[bool] = False
    reason_code: ClassVar[str] = "INTERNAL_ERROR"


class SettingsError(WorkerError):
    """The configuration cannot be used.

    Attributes:
        problems: One sentence a problem, each naming the file or variable, the key and the remedy.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        count = f"{len(self.problems)} problem" + ("" if len(self.problems) == 1 else "s")
        super().__init__(
            "\n".join((f"{count} in the configuration:", *(f"  - {each}" for each in self.problems)))
        )


class DatabaseError(WorkerError):
    """The database cannot be used as it is."""


class DatabaseUnreachableError(DatabaseError):
    """No connection to the database, or it was cut."""

    retryable = True


class SchemaMissingError(DatabaseError):
    """The database has no tables of this program yet."""

    def __init__(self) -> None:
        super().__init__("the database has no tables yet; run `fundus-worker db upgrade`")


class SchemaOutdatedError(DatabaseError):
    """The tables are older than the program."""

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(
            f"the database is at schema version {found}, this program needs {expected}; "
            "run `fundus-worker db upgrade`"
        )


class SchemaTooNewError(DatabaseError):
    """The tables were made by a newer release."""

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(
            f"the database is at schema version {found}, which this program (made for {expected}) does not "
            "know; install the newer release that made it"
        )


class ClaimLostError(WorkerError):
    """The claim on a row ran out and somebody else took it over: what was computed is dropped."""


class BatchError(WorkerError):
    """A batch could not be run."""


class BatcherFullError(BatchError):
    """The queue in front of the engine stayed full for as long as the caller would wait."""

    retryable = True

    def __init__(self, capacity: int, timeout_s: float) -> None:
        super().__init__(
            f"{capacity} images were waiting for the engine and none left within {timeout_s:g} s"
        )


class BatcherClosedError(BatchError):
    """The batcher takes no more images because the worker is shutting down."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("the worker is shutting down and takes no more images")


class EngineEndedError(BatchError):
    """The engine raised what ends a thread or a program (SystemExit): to its callers that is an error."""

    retryable = True

    def __init__(self, kind: str) -> None:
        super().__init__(f"the engine raised {kind}, which ends programs, instead of answering")


class BatchContractError(BatchError):
    """The engine broke its contract: one result an image, in the same order."""

    def __init__(self, images: int, results: int) -> None:
        self.images, self.results = images, results
        super().__init__(f"the engine was given {images} images and returned {results} results")


class MapsDifferError(WorkerError):
    """Run again on the same photograph, the models come to another grade: their maps are not the result's."""


class ReportChangedError(WorkerError):
    """What the report says is not what would be said now: nothing can be made to go with it."""


class BrokerError(WorkerError):
    """The message broker cannot be reached; the rows stay, the sweep will find them."""

    retryable = True


class ForeignSpoolError(WorkerError):
    """The folder for received files is not the one that the database's files are in."""


class IdentityKeyError(WorkerError):
    """The key that turns patient identities into pseudonyms cannot be used."""
