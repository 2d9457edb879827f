from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from factories.runtime import (
    Pacs,
    analyse_all,
    close_studies,
    deliver_all,
    execute,
    fundus_of_grade,
    make_runtime,
    offer,
    past,
    receiving_pacs,
    report_all,
    row,
    rows,
    run_to_report,
    value,
)

from dicom_io.sender import Outcome
from worker.delivery import deliver
from worker.runtime import Runtime
from worker.store import deliveries, leases


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with receiving_pacs() as running:
        yield running


@pytest.fixture
def runtime(tmp_path: Path, database_url: str, pacs: Pacs) -> Iterator[Runtime]:
    made = make_runtime(
        tmp_path, database_url=database_url, destination=[pacs.destination()], delivery={"max_attempts": 3}
    )
    yield made
    made.close()


def _reported(runtime: Runtime, studies: int = 1) -> None:
    for number in range(studies):
        offer(runtime, fundus_of_grade(2, study_uid=f"1.2.{number}", sop_uid=f"1.2.{number}.1"))
    run_to_report(runtime)


def _state(runtime: Runtime) -> tuple[Any, ...]:
    return tuple(row(runtime, "SELECT state, attempts, reason_code FROM deliveries").values())


def _now_due(runtime: Runtime) -> None:
    past(runtime, "deliveries", "due_at")


def test_one_association_drains_everything_that_is_due(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime, studies=3)
    deliver_all(runtime)
    sent = [each["sop_instance_uid"] for each in rows(runtime, "SELECT sop_instance_uid FROM reports")]
    assert sorted(pacs.uids) == sorted(sent)
    assert pacs.associations == 1
    assert {each["state"] for each in rows(runtime, "SELECT state FROM deliveries")} == {"ACCEPTED"}
    assert rows(runtime, "SELECT * FROM leases") == []


def test_one_that_refuses_is_tried_a_few_times_then_it_is_a_dead_letter(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime)
    pacs.status = 0xC000
    for attempt in (1, 2):
        deliver_all(runtime)
        assert _state(runtime) == ("PENDING", attempt, "STORE_REFUSED")
        _now_due(runtime)
    deliver_all(runtime)
    assert _state(runtime) == ("DEAD", 3, "STORE_REFUSED")
    # Nothing moves until a person requeues it
    _now_due(runtime)
    pacs.status = 0
    deliver_all(runtime)
    assert pacs.received == []
    assert runtime.database.write(deliveries.requeue, [value(runtime, "SELECT id FROM deliveries")]) == 1
    deliver_all(runtime)
    assert _state(runtime) == ("ACCEPTED", 1, None)
    assert len(pacs.received) == 1


def test_one_that_cannot_be_reached_is_never_dead_and_gets_everything_once(
    tmp_path: Path, database_url: str
) -> None:
    with receiving_pacs() as gone:
        settings = gone.destination()
    runtime = make_runtime(
        tmp_path, database_url=database_url, destination=[settings], delivery={"max_attempts": 1}
    )
    _reported(runtime, studies=3)
    for _ in range(4):
        deliver_all(runtime)
        found = rows(runtime, "SELECT state, attempts, reason_code FROM deliveries")
        assert {tuple(each.values()) for each in found} == {("PENDING", 0, "PEER_UNREACHABLE")}
        _now_due(runtime)
    with receiving_pacs(port=settings["port"]) as back:
        deliver_all(runtime)
        assert len(back.received) == len(set(back.uids)) == 3
    runtime.close()


def test_the_longer_it_is_away_the_longer_until_the_next_try(tmp_path: Path) -> None:
    with receiving_pacs() as gone:
        settings = gone.destination()
    runtime = make_runtime(tmp_path, destination=[settings], delivery={"retry_base_s": 2, "retry_max_s": 300})
    _reported(runtime)
    failures: list[int] = []

    def note(attempt: int, base_s: float, max_s: float) -> float:
        failures.append(attempt)
        return 3600.0

    with patch("worker.delivery.backoff_s", note):
        for _ in range(2):
            deliver(runtime, "pacs")
            past(runtime, "deliveries", "created_at")
            _now_due(runtime)
    assert failures[0] <= 4
    assert failures[1] >= 16
    runtime.close()


def test_a_lost_connection_fails_only_what_was_on_it_for_now(runtime: Runtime) -> None:
    _reported(runtime, studies=2)

    def lose(peer: Any, parcels: Any, **_: Any) -> Iterator[Outcome]:
        first, second = list(parcels)
        yield Outcome(first.key, False, True, None, "CONNECTION_LOST", "lost")
        yield Outcome(second.key, True, False, 0, None, "taken")

    with patch("worker.delivery.send", lose), patch("worker.delivery.backoff_s", return_value=3600.0):
        deliver(runtime, "pacs")
    found = rows(runtime, "SELECT state, attempts, reason_code FROM deliveries ORDER BY state")
    assert [tuple(each.values()) for each in found] == [
        ("ACCEPTED", 1, None),
        ("PENDING", 0, "CONNECTION_LOST"),
    ]


def test_a_second_drain_is_kept_out_and_what_came_meanwhile_is_sent_after_the_first(
    runtime: Runtime, pacs: Pacs
) -> None:
    # Given a drain that the PACS holds up
    _reported(runtime)
    pacs.gate.clear()
    first = threading.Thread(target=deliver, args=(runtime, "pacs"))
    first.start()
    assert pacs.arrived.wait(20)
    # When another report is ready, and its wake-up finds the lease taken
    offer(runtime, fundus_of_grade(0, study_uid="1.2.99", sop_uid="1.2.99.1"))
    run_to_report(runtime)
    deliver(runtime, "pacs")
    assert pacs.associations == 1
    assert value(runtime, "SELECT count(*) FROM deliveries WHERE state = 'ACCEPTED'") == 0
    # Then the first one sees to it
    pacs.gate.set()
    first.join(30)
    assert len(pacs.received) == len(set(pacs.uids)) == 2


def test_the_lease_is_renewed_while_it_sends_and_lost_means_stop(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime, studies=3)

    # Given a lease that is lost after the first report
    with (
        patch("worker.delivery._RENEW_S", -1.0),
        patch.object(leases, "renew", side_effect=[True, False]),
        patch.object(leases, "acquire", side_effect=["token", None]),
    ):
        deliver(runtime, "pacs")
    assert len(pacs.received) == 1


def test_a_lease_of_somebody_else_that_ran_out_is_taken(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime)
    token = runtime.database.write(leases.acquire, "deliver:pacs", "dead", 3600.0)
    assert token is not None
    deliver(runtime, "pacs")
    assert pacs.received == []
    past(runtime, "leases", "expires_at")
    deliver(runtime, "pacs")
    assert len(pacs.received) == 1
    assert runtime.database.write(leases.renew, "deliver:pacs", token, 60.0) is False


def test_a_destination_that_is_configured_no_longer_keeps_its_reports(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime)
    execute(runtime, "UPDATE deliveries SET destination = 'gone'")
    deliver(runtime, "gone")
    assert _state(runtime) == ("PENDING", 0, None)
    assert runtime.database.read(deliveries.unknown_destinations, ["pacs"]) == ["gone"]


def test_a_stopping_process_leaves_the_rest(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime, studies=2)
    real = deliveries.accepted

    def then_stop(*arguments: Any) -> bool:
        runtime.stopping.set()
        return real(*arguments)

    with patch.object(deliveries, "accepted", then_stop):
        deliver(runtime, "pacs")
    assert len(pacs.received) == 1
    runtime.stopping.clear()
    deliver(runtime, "pacs")
    assert len(pacs.received) == len(set(pacs.uids)) == 2


def test_a_study_in_conflict_is_not_sent(runtime: Runtime, pacs: Pacs) -> None:
    # Given a report that was written, and a conflict before it was sent
    _reported(runtime)
    offer(runtime, fundus_of_grade(4, study_uid="1.2.0", sop_uid="1.2.0.1"))
    assert value(runtime, "SELECT withheld_reason FROM studies") == "UID_CONFLICT"
    deliver_all(runtime)
    assert pacs.received == []
    assert runtime.database.read(deliveries.due_destinations) == []


def test_every_resend_is_the_stored_bytes(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime)
    deliver_all(runtime)
    execute(runtime, "UPDATE deliveries SET state = 'PENDING'")
    deliver_all(runtime)
    assert len(pacs.bytes) == 2
    assert pacs.bytes[0] == pacs.bytes[1]
    stored = runtime.spool.path(value(runtime, "SELECT spool_path FROM reports")).read_bytes()
    assert stored.endswith(pacs.bytes[0])


def test_a_report_that_was_superseded_on_its_way_counts_as_sent(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime)
    pacs.gate.clear()
    sending = threading.Thread(target=deliver, args=(runtime, "pacs"))
    sending.start()
    assert pacs.arrived.wait(20)
    offer(runtime, fundus_of_grade(4, study_uid="1.2.0", laterality="L"))
    analyse_all(runtime)
    close_studies(runtime)
    report_all(runtime)
    found = rows(runtime, "SELECT state FROM deliveries ORDER BY id")
    assert [each["state"] for each in found] == ["SUPERSEDED", "PENDING"]
    pacs.gate.set()
    sending.join(30)
    found = rows(runtime, "SELECT state FROM deliveries ORDER BY id")
    assert [each["state"] for each in found] == ["ACCEPTED", "ACCEPTED"]
