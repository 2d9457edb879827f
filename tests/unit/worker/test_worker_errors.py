from __future__ import annotations

from collections.abc import Iterator

import pytest

from worker import errors
from worker.reasons import REASONS


def family(kind: type[errors.WorkerError]) -> Iterator[type[errors.WorkerError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


EVERY = list(family(errors.WorkerError))


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_has_one_root_a_known_code_and_a_place_in_the_drawing(
    kind: type[errors.WorkerError],
) -> None:
    assert issubclass(kind, errors.WorkerError)
    assert kind.reason_code in REASONS
    assert kind.__name__ in (errors.__doc__ or "")


def test_what_may_work_later_is_told_apart_from_what_will_not() -> None:
    assert {kind.__name__ for kind in EVERY if kind.retryable} == {
        "DatabaseUnreachableError",
        "BatcherFullError",
        "BatcherClosedError",
        "EngineEndedError",
        "BrokerError",
    }


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.SchemaMissingError(), "run `fundus-worker db upgrade`"),
        (
            errors.SchemaOutdatedError("1", "2"),
            "at schema version 1, this program needs 2; run `fundus-worker db",
        ),
        (
            errors.SchemaTooNewError("3", "2"),
            "version 3, which this program (made for 2) does not know; install",
        ),
        (
            errors.BatcherFullError(64, 0.5),
            "64 images were waiting for the engine and none left within 0.5 s",
        ),
        (errors.BatcherClosedError(), "shutting down"),
        (errors.EngineEndedError("SystemExit"), "the engine raised SystemExit"),
        (errors.BatchContractError(3, 2), "given 3 images and returned 2 results"),
        (errors.SettingsError(["a"]), "1 problem in the configuration:\n  - a"),
        (errors.SettingsError(["a", "b"]), "2 problems in the configuration:\n  - a\n  - b"),
    ],
)
def test_an_error_says_what_to_do(error: errors.WorkerError, said: str) -> None:
    assert said in str(error)
