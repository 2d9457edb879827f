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
from sqlalchemy import text

from dicom_io.sender import Outcome
from worker.delivery import deliver
from worker.runtime import Runtime
from worker.store import deliveries, leases
from worker.store.reports import DestinationRow
from worker.sweep import sweep


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


@pytest.mark.parametrize("code", ["PEER_REJECTED_ASSOCIATION", "CONTEXT_NOT_ACCEPTED"])
def test_a_refused_association_kills_no_report_however_permanent_it_is_called(
    tmp_path: Path, pacs: Pacs, code: str
) -> None:
    runtime = make_runtime(tmp_path, destination=[pacs.destination()], delivery={"max_attempts": 1})
    _reported(runtime, studies=3)

    def refuse(peer: Any, parcels: Any, **_: Any) -> Iterator[Outcome]:
        for each in parcels:
            yield Outcome(each.key, False, False, None, code, "rejected permanently")

    with patch("worker.delivery.send", refuse):
        for _ in range(3):
            deliver(runtime, "pacs")
            _now_due(runtime)
    found = rows(runtime, "SELECT state, attempts, reason_code FROM deliveries")
    assert {tuple(each.values()) for each in found} == {("PENDING", 0, code)}
    # And after a quarter of an hour somebody is told
    assert rows(runtime, "SELECT * FROM v_failures") == []
    past(runtime, "deliveries", "created_at")
    failures = rows(runtime, "SELECT kind, destination, reason_code FROM v_failures")
    assert [tuple(each.values()) for each in failures] == [("delivery_overdue", "pacs", code)] * 3
    deliver(runtime, "pacs")
    assert len(pacs.received) == 3
    assert rows(runtime, "SELECT * FROM v_failures") == []
    runtime.close()


@pytest.mark.parametrize("damage", ["altered", "lost"])
def test_a_damaged_report_is_never_sent_and_a_new_revision_takes_its_place(
    runtime: Runtime, pacs: Pacs, damage: str
) -> None:
    _reported(runtime)
    path = runtime.spool.path(value(runtime, "SELECT spool_path FROM reports"))
    if damage == "lost":
        path.unlink()
    else:
        data = path.read_bytes()
        assert b"moderate" in data
        path.write_bytes(data.replace(b"moderate", b"no visib"))
    deliver(runtime, "pacs")
    assert pacs.received == []
    assert _state(runtime) == ("PENDING", 0, "SPOOL_FILE_DAMAGED")
    _now_due(runtime)
    deliver(runtime, "pacs")
    assert pacs.received == []
    report_all(runtime)
    deliver_all(runtime)
    found = rows(
        runtime, "SELECT r.state, d.state AS sent FROM reports r JOIN deliveries d ON d.report_id = r.id"
    )
    assert sorted(tuple(each.values()) for each in found) == [
        ("SUPERSEDED", "SUPERSEDED"),
        ("WRITTEN", "ACCEPTED"),
    ]
    assert [str(ds.PredecessorDocumentsSequence[0].StudyInstanceUID) for ds in pacs.received] == ["1.2.0"]


def test_a_file_that_cannot_be_read_now_is_sent_later_and_keeps_no_other_back(
    runtime: Runtime, pacs: Pacs
) -> None:
    _reported(runtime, studies=2)
    real = runtime.spool.read_verified
    first = value(runtime, "SELECT min(spool_path) FROM reports")

    def stall(path: str, sha256: str) -> bytes:
        if path == first:
            raise PermissionError("not now")
        return real(path, sha256)

    with (
        patch.object(runtime.spool, "read_verified", stall),
        patch("worker.delivery.backoff_s", return_value=3600.0),
    ):
        deliver(runtime, "pacs")
    assert len(pacs.received) == 1
    _now_due(runtime)
    deliver(runtime, "pacs")
    assert len(set(pacs.uids)) == 2


def test_what_is_withheld_while_others_are_sent_is_not_sent_any_more(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime, studies=2)
    real = deliveries.accepted

    def then_conflict(tx: Any, *accepted: Any) -> bool:
        tx.execute(text("UPDATE studies SET withheld_reason = 'PATIENT_CONFLICT'"))
        return real(tx, *accepted)

    with patch.object(deliveries, "accepted", then_conflict):
        deliver(runtime, "pacs")
    assert len(pacs.received) == 1
    assert value(runtime, "SELECT count(*) FROM deliveries WHERE state = 'PENDING'") == 1


def test_a_destination_that_a_report_s_writer_did_not_know_gets_it_all_the_same(
    tmp_path: Path, database_url: str, pacs: Pacs
) -> None:
    # Given a report that was written by a process with an older list of destinations
    older = make_runtime(tmp_path, database_url=database_url, destination=[pacs.destination("archive")])
    _reported(older)
    older.close()
    both = [pacs.destination("archive"), pacs.destination("pacs"), pacs.destination("spare", required=False)]
    runtime = make_runtime(tmp_path, database_url=database_url, destination=both)
    # When any process that knows better looks, twice
    sweep(runtime)
    sweep(runtime)
    # Then the required one gets it
    found = rows(runtime, "SELECT destination, state FROM deliveries ORDER BY id")
    assert [tuple(each.values()) for each in found] == [("archive", "PENDING"), ("pacs", "PENDING")]
    runtime.close()


def test_a_destination_is_added_once_when_two_look_at_the_same_time(tmp_path: Path, pacs: Pacs) -> None:
    older = make_runtime(tmp_path, destination=[pacs.destination("archive")])
    _reported(older)
    older.close()
    runtime = make_runtime(tmp_path, destination=[pacs.destination("archive"), pacs.destination("pacs")])
    found = runtime.database.read(deliveries.missing, "pacs", 10)
    row = DestinationRow("pacs", True)
    assert runtime.database.write(deliveries.add, row, 10) == 1
    with patch.object(deliveries, "missing", return_value=found):
        assert runtime.database.write(deliveries.add, row, 10) == 0
    assert value(runtime, "SELECT count(*) FROM deliveries") == 2
    runtime.close()


def test_a_delivery_of_a_superseded_report_is_never_sent(runtime: Runtime, pacs: Pacs) -> None:
    _reported(runtime)
    execute(runtime, "UPDATE reports SET state = 'SUPERSEDED'")
    deliver(runtime, "pacs")
    assert pacs.received == []


def test_reports_that_were_to_stay_here_stay_and_so_do_old_ones(tmp_path: Path, pacs: Pacs) -> None:
    silent = make_runtime(tmp_path)
    _reported(silent)
    silent.close()
    older = make_runtime(tmp_path, destination=[pacs.destination("archive")])
    offer(older, fundus_of_grade(2, study_uid="1.2.9", sop_uid="1.2.9.1"))
    run_to_report(older)
    for _ in range(8):
        past(older, "reports", "written_at")
    older.close()
    runtime = make_runtime(tmp_path, destination=[pacs.destination("pacs")])
    sweep(runtime)
    assert value(runtime, "SELECT count(*) FROM deliveries WHERE destination = 'pacs'") == 0
    runtime.close()


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
