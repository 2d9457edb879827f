from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from factories.runtime import Pacs, create_tables, fundus_of_grade, make_settings, receiving_pacs, send, value

from models.errors import BundleError
from worker.dispatch import Job, LocalDispatcher, SilentDispatcher
from worker.errors import SchemaMissingError
from worker.service import Role, Service, concurrency

QUICK: dict[str, Any] = {
    "listener": {"port": 0},
    "study": {"close_on": "association"},
    "jobs": {"sweep_interval_s": 0.2},
}


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with receiving_pacs() as running:
        yield running


def _eventually(holds: Callable[[], bool]) -> bool:
    """Wait, at most half a minute, for what other threads bring about."""
    moment = threading.Event()
    return any(holds() or moment.wait(0.05) for _ in range(600))


def _port(service: Service) -> int:
    assert service.listener is not None
    return service.listener.port


def _study(number: int) -> list[Any]:
    return [
        fundus_of_grade(grade, study_uid=f"1.2.{number}", sop_uid=f"1.2.{number}.{grade}", laterality=side)
        for grade, side in ((2, "R"), (0, "L"))
    ]


def test_from_the_wire_to_the_report_in_one_process(tmp_path: Path, pacs: Pacs) -> None:
    service = Service(make_settings(tmp_path, destination=[pacs.destination()], **QUICK), Role.SERVE)
    service.start()
    assert send(_port(service), _study(1)) == [0, 0]
    assert send(_port(service), _study(2)) == [0, 0]
    assert _eventually(lambda: len(pacs.received) >= 2)
    assert service.stop()
    assert service.stop()
    assert len(set(pacs.uids)) == len(pacs.uids) == 2


def test_from_the_wire_to_the_report_over_the_table(tmp_path: Path, pacs: Pacs, postgres_url: str) -> None:
    settings = make_settings(tmp_path, database_url=postgres_url, destination=[pacs.destination()], **QUICK)
    create_tables(settings)
    parts = [Service(settings, role) for role in (Role.LISTEN, Role.WORK, Role.SWEEP)]
    for part in parts:
        part.start()
    listen, work, sweeping = (part.runtime for part in parts)
    assert listen is not None
    assert work is not None
    assert sweeping is not None
    assert isinstance(listen.dispatcher, SilentDispatcher)
    assert isinstance(work.dispatcher, LocalDispatcher)
    assert send(_port(parts[0]), _study(1)) == [0, 0]
    assert _eventually(lambda: len(pacs.received) >= 1)
    assert value(listen, "SELECT count(*) FROM processes WHERE stopped_at IS NULL") >= 1
    assert [part.stop() for part in parts] == [True, True, True]
    assert len(pacs.received) == 1


def test_work_that_was_acknowledged_is_done_after_the_next_start(tmp_path: Path, pacs: Pacs) -> None:
    # Given a listener alone, which stops before anybody worked
    settings = make_settings(tmp_path, destination=[pacs.destination()], **QUICK)
    listening = Service(settings, Role.LISTEN)
    listening.start()
    assert send(_port(listening), _study(1)) == [0, 0]
    assert listening.stop()
    # Then the next process does it
    service = Service(settings, Role.SERVE)
    service.start()
    assert _eventually(lambda: len(pacs.received) >= 1)
    assert service.stop()
    assert len(pacs.received) == 1


def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **QUICK)
    (tmp_path / "bundle" / "classifier.onnx").write_bytes(b"broken")
    service = Service(settings, Role.SERVE)
    with pytest.raises(BundleError):
        service.start()
    assert service.stop()


def test_a_shared_database_without_tables_is_refused(tmp_path: Path, postgres_url: str) -> None:
    with pytest.raises(SchemaMissingError):
        Service(make_settings(tmp_path, database_url=postgres_url, **QUICK), Role.WORK).start()


def test_only_the_wanted_kinds_have_threads(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, batching={"max_batch": 3})
    assert concurrency(settings, {Job.ANALYSE: True, Job.REPORT: False}) == {Job.ANALYSE: 6}
    assert concurrency(settings, dict.fromkeys(Job, True)) == {Job.ANALYSE: 6, Job.REPORT: 2, Job.DELIVER: 1}
