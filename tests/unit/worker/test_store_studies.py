from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories.runtime import (
    caller,
    execute,
    fundus_of_grade,
    make_runtime,
    offer,
    past,
    row,
    rows,
    value,
    woken,
)
from sqlalchemy import Connection

from worker.dispatch import Job
from worker.intake import Intake
from worker.runtime import Runtime
from worker.store import door, studies


def _sent(runtime: Runtime, number: int, association: int = 1, **options: Any) -> None:
    ds = fundus_of_grade(0, study_uid="1.2.3", sop_uid=f"1.2.3.{number}", **options)
    assert offer(runtime, ds, peer=caller(association)) == 0


def _ended(runtime: Runtime, association: int = 1, outcome: str = "RELEASED") -> None:
    Intake(runtime).association_closed(caller(association), outcome)


def _state(runtime: Runtime) -> str:
    return str(value(runtime, "SELECT state FROM studies"))


def _look(runtime: Runtime) -> str:
    runtime.database.write(studies.close_due, runtime.closing_policy)
    return _state(runtime)


@pytest.fixture
def make(tmp_path: Path, database_url: str) -> Iterator[Any]:
    made: list[Runtime] = []

    def build(**study: Any) -> Runtime:
        made.append(make_runtime(tmp_path, database_url=database_url, study=study))
        return made[-1]

    yield build
    for each in made:
        each.close()


class TestByQuiet:
    def test_after_the_last_image_and_the_last_association(self, make: Any) -> None:
        runtime = make()
        _sent(runtime, 1, association=1)
        _sent(runtime, 2, association=2)
        assert _look(runtime) == "OPEN"
        past(runtime, "studies", "close_due_at")
        _ended(runtime, 1)
        assert _look(runtime) == "OPEN"
        _ended(runtime, 2, "ABORTED")
        assert _look(runtime) == "CLOSED"

    def test_an_open_association_holds_it_no_longer_than_the_limit(self, make: Any) -> None:
        runtime = make()
        _sent(runtime, 1)
        past(runtime, "studies", "close_due_at")
        past(runtime, "studies", "opened_at")
        assert _look(runtime) == "CLOSED"

    def test_each_image_begins_the_quiet_anew(self, make: Any) -> None:
        runtime = make()
        _sent(runtime, 1)
        past(runtime, "studies", "close_due_at")
        _sent(runtime, 2)
        _ended(runtime)
        assert _look(runtime) == "OPEN"

    def test_it_ends_with_the_limit_however_many_come(self, make: Any) -> None:
        runtime = make(quiet_s=100, max_open_s=50)
        _sent(runtime, 1)
        found = row(runtime, "SELECT opened_at, close_due_at FROM studies")
        _sent(runtime, 2)
        assert row(runtime, "SELECT opened_at, close_due_at FROM studies") == found

    def test_a_late_image_reopens_it(self, make: Any) -> None:
        runtime = make()
        _sent(runtime, 1)
        _ended(runtime)
        past(runtime, "studies", "close_due_at")
        assert _look(runtime) == "CLOSED"
        _sent(runtime, 2, association=2)
        found = row(runtime, "SELECT state, content_version, closed_at, report_deadline_at FROM studies")
        assert tuple(found.values()) == ("OPEN", 2, None, None)


class TestByAssociation:
    def test_at_its_release(self, make: Any) -> None:
        runtime = make(close_on="association")
        _sent(runtime, 1)
        _ended(runtime)
        assert _state(runtime) == "CLOSED"
        assert woken(runtime, Job.REPORT) == [value(runtime, "SELECT id FROM studies")]
        _ended(runtime)
        assert len(woken(runtime, Job.REPORT)) == 1

    def test_of_two_at_the_release_of_the_second(self, make: Any) -> None:
        runtime = make(close_on="association")
        _sent(runtime, 1, association=1)
        _sent(runtime, 2, association=2)
        _ended(runtime, 1)
        assert _state(runtime) == "OPEN"
        _ended(runtime, 2)
        assert _state(runtime) == "CLOSED"

    def test_after_an_abort_the_sender_has_some_time_to_come_back(self, make: Any) -> None:
        runtime = make(close_on="association", quiet_s=60)
        _sent(runtime, 1)
        before = value(runtime, "SELECT close_due_at FROM studies")
        _ended(runtime, 1, "ABORTED")
        assert _state(runtime) == "OPEN"
        assert value(runtime, "SELECT close_due_at FROM studies") < before
        past(runtime, "studies", "close_due_at")
        assert _look(runtime) == "CLOSED"

    def test_one_that_stored_nothing_closes_nothing(self, make: Any) -> None:
        runtime = make(close_on="association")
        _sent(runtime, 1, association=1)
        _ended(runtime, 7)
        assert _state(runtime) == "OPEN"


def test_of_two_associations_that_end_at_once_one_closes_the_study(tmp_path: Path, postgres_url: str) -> None:
    # Given two transactions, neither of which sees that the other has ended its association
    runtime = make_runtime(tmp_path, database_url=postgres_url, study={"close_on": "association"})
    _sent(runtime, 1, association=1)
    _sent(runtime, 2, association=2)
    first_did, second_may = threading.Event(), threading.Event()
    closed: list[Any] = []

    def end(tx: Connection) -> None:
        policy = runtime.closing_policy
        closed.extend(door.association_closed(tx, caller(1).association_id, "RELEASED", policy))
        first_did.set()
        assert second_may.wait(20)

    def end_second() -> None:
        policy = runtime.closing_policy
        closed.extend(
            runtime.database.write(door.association_closed, caller(2).association_id, "RELEASED", policy)
        )

    first = threading.Thread(target=runtime.database.write, args=(end,))
    first.start()
    assert first_did.wait(20)
    second = threading.Thread(target=end_second)
    second.start()
    second.join(0.3)
    second_may.set()
    first.join(20)
    second.join(20)
    assert len(closed) == 1
    assert _state(runtime) == "CLOSED"
    runtime.close()


class TestByCount:
    def test_when_the_number_that_the_header_states_is_in(self, make: Any) -> None:
        runtime = make(close_on="count", expected_images=5)
        _sent(runtime, 1, NumberOfStudyRelatedInstances="2")
        assert _look(runtime) == "OPEN"
        _sent(runtime, 2, NumberOfStudyRelatedInstances="2")
        assert _look(runtime) == "CLOSED"

    def test_else_when_the_configured_number_is(self, make: Any) -> None:
        runtime = make(close_on="count", expected_images=2)
        _sent(runtime, 1)
        assert _look(runtime) == "OPEN"
        _sent(runtime, 2)
        assert _look(runtime) == "CLOSED"

    def test_without_a_number_at_the_limit(self, make: Any) -> None:
        runtime = make(close_on="count")
        _sent(runtime, 1)
        _ended(runtime)
        assert _look(runtime) == "OPEN"
        past(runtime, "studies", "close_due_at")
        past(runtime, "studies", "opened_at")
        assert _look(runtime) == "CLOSED"


class TestClaims:
    def test_of_many_exactly_one_gets_it(self, make: Any) -> None:
        from concurrent.futures import ThreadPoolExecutor

        runtime = make()
        _sent(runtime, 1)
        execute(runtime, "UPDATE instances SET state = 'REFUSED', reason_code = 'NOT_COLOUR'")
        past(runtime, "studies", "opened_at")
        past(runtime, "studies", "close_due_at")
        assert _look(runtime) == "CLOSED"
        study = value(runtime, "SELECT id FROM studies")
        with ThreadPoolExecutor(6) as pool:
            taken = list(
                pool.map(lambda n: runtime.database.write(studies.claim, study, f"w{n}", 60.0), range(6))
            )
        (claimed,) = [each for each in taken if each is not None]
        runtime.database.write(studies.give_back, claimed)
        assert runtime.database.read(studies.ready_for_report, study) == 2
        runtime.database.write(studies.claim, study, "dead", 60.0)
        runtime.database.write(studies.release_owner, "dead")
        assert rows(runtime, "SELECT id FROM studies WHERE claim_owner IS NOT NULL") == []
