from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories.runtime import caller, execute, fundus_of_grade, make_runtime, offer, past, rows, value

from worker import forgetting
from worker.forgetting import forget
from worker.intake import Intake
from worker.runtime import Runtime
from worker.store import door, processes
from worker.store.door import RejectionRow


@pytest.fixture
def runtime(tmp_path: Path, database_url: str) -> Iterator[Runtime]:
    made = make_runtime(tmp_path, database_url=database_url, jobs={"keep_days": 1})
    yield made
    made.close()


def _reject(runtime: Runtime, number: int) -> None:
    row = RejectionRow(
        kind="STORE",
        reason_code="UNREADABLE_OBJECT",
        status=0xC210,
        calling_ae="CAMERA",
        called_ae="FUNDUS",
        peer_host="",
        sop_class_uid=None,
        sop_instance_uid=f"1.2.{number}",
        transfer_syntax_uid=None,
        detail="",
    )
    runtime.database.write(door.reject, row)


def _counts(runtime: Runtime) -> tuple[Any, ...]:
    tables = (
        "associations",
        "association_studies",
        "processes",
        "rejections",
        "instances",
        "header_versions",
    )
    return tuple(value(runtime, f"SELECT count(*) FROM {table}") for table in tables)  # noqa: S608 - above


def _age(runtime: Runtime) -> None:
    for _ in range(2):  # a day each; the limit is one
        past(runtime, "associations", "closed_at")
        past(runtime, "processes", "stopped_at")
        past(runtime, "rejections", "last_at")


def test_what_ended_long_ago_goes_and_what_was_received_stays(runtime: Runtime) -> None:
    # Given an association that ended and one that is open, a process that stopped, something turned away
    for number in (1, 2):
        ds = fundus_of_grade(0, study_uid="1.2.3", sop_uid=f"1.2.3.{number}")
        assert offer(runtime, ds, peer=caller(number)) == 0
    Intake(runtime).association_closed(caller(1), "RELEASED")
    runtime.database.write(processes.started, "stopped", "work", "elsewhere", 1)
    runtime.database.write(processes.stopped, "stopped")
    _reject(runtime, 1)
    assert _counts(runtime) == (2, 2, 2, 1, 2, 2)
    # When they are not old enough
    assert forget(runtime) == 0
    # And when they are
    _age(runtime)
    assert forget(runtime) == 3
    assert _counts(runtime) == (1, 1, 1, 0, 2, 2)
    assert rows(runtime, "SELECT id FROM processes") == [{"id": runtime.process_id}]


def test_many_go_in_several_transactions(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "BATCH", 2)
    for number in range(5):
        _reject(runtime, number)
    _age(runtime)
    monkeypatch.setattr(forgetting, "_BATCHES", 1)
    assert forget(runtime) == 2
    monkeypatch.setattr(forgetting, "_BATCHES", 20)
    assert forget(runtime) == 3


def test_a_process_that_stops_leaves_the_rest_for_later(runtime: Runtime) -> None:
    _reject(runtime, 1)
    _age(runtime)
    runtime.stopping.set()
    assert forget(runtime) == 0


def test_a_process_that_came_back_to_life_stays(runtime: Runtime) -> None:
    from worker.store import keeping

    runtime.database.write(processes.stopped, runtime.process_id)
    _age(runtime)
    (found,) = runtime.database.read(keeping.old_processes, 1.0, 10)
    runtime.database.write(processes.seen, found)
    assert runtime.database.write(keeping.delete_processes, [found]) == 0
    execute(runtime, "DELETE FROM rejections")
