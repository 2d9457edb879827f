from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
import structlog
from factories.runtime import Pacs, create_tables, fundus_of_grade, make_settings, receiving_pacs, send, value

from dicom_io.listener import Listener
from models.errors import BundleError
from worker.claims import ClaimKeeper
from worker.dispatch import Job, LocalDispatcher, SilentDispatcher
from worker.errors import SchemaMissingError
from worker.service import Role, Service, concurrency
from worker.transactions import Database

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


def test_serve_with_a_broker_says_that_it_does_not_use_it(tmp_path: Path) -> None:
    service = Service(make_settings(tmp_path, broker_url="redis://127.0.0.1:1/0", **QUICK), Role.SERVE)
    with structlog.testing.capture_logs() as logs:
        service.start()
    (said,) = [each for each in logs if each["event"] == "broker_not_used"]
    assert "run listen, work and sweep instead" in said["remedy"]
    assert service.stop()


def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **QUICK)
    (tmp_path / "bundle" / "classifier.onnx").write_bytes(b"broken")
    service = Service(settings, Role.SERVE)
    with pytest.raises(BundleError):
        service.start()
    assert service.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is the point
def test_a_process_that_lost_a_thread_says_so_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.service._WATCH_S", 0.02)
    service = Service(make_settings(tmp_path, **QUICK), Role.SWEEP)
    service.start()
    assert not service.failed.wait(0.2)
    # When the sweep's thread ends, by what no handler expects
    monkeypatch.setattr("worker.service.sweep", Mock(side_effect=SystemExit))
    with structlog.testing.capture_logs() as logs:
        assert service.failed.wait(30)
    assert [each["parts"] for each in logs if each["event"] == "essential_thread_ended"] == [["sweep"]]
    assert service.runtime is not None
    assert service.runtime.stopping.is_set()
    assert service.stop()


@pytest.mark.parametrize("part", ["engine", "claim-keeper", "database-writer", "listener"])
def test_each_essential_thread_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    service = Service(make_settings(tmp_path, **QUICK), Role.SERVE)
    service.start()
    runtime = service.runtime
    assert runtime is not None
    assert service._ended_parts(runtime) == []
    owners = {
        "engine": type(runtime.batcher),
        "claim-keeper": ClaimKeeper,
        "database-writer": Database,
        "listener": Listener,
    }
    name = "accepting" if part == "listener" else "running"
    with monkeypatch.context() as patched:
        patched.setattr(owners[part], name, False)
        assert service._ended_parts(runtime) == [part]
        assert service.failed.wait(30)
    assert service.stop()


def test_a_stop_with_an_engine_that_hangs_ends_and_says_what_still_ran(tmp_path: Path) -> None:
    service = Service(make_settings(tmp_path, **QUICK), Role.SERVE)
    service.start()
    runtime = service.runtime
    assert runtime is not None
    go_on = threading.Event()

    def hang(*_: object) -> Any:
        go_on.wait(60)
        raise RuntimeError

    with patch.object(runtime.batcher, "_predict", hang):
        assert send(_port(service), _study(1)) == [0, 0]
        assert _eventually(lambda: value(runtime, "SELECT max(claims) FROM instances") == 1)
        with structlog.testing.capture_logs() as logs:
            assert not service.stop(timeout_s=0.1)
    parts = [part for each in logs if each["event"] == "still_running" for part in each["parts"]]
    assert sorted(parts) == ["engine", "jobs"]
    # And what was in its hands is free for the next process
    after = Service(make_settings(tmp_path, **QUICK), Role.LISTEN)
    after.start()
    assert after.runtime is not None
    assert value(after.runtime, "SELECT count(*) FROM instances WHERE claim_token IS NOT NULL") == 0
    assert after.stop()
    go_on.set()


def test_a_shared_database_without_tables_is_refused(tmp_path: Path, postgres_url: str) -> None:
    with pytest.raises(SchemaMissingError):
        Service(make_settings(tmp_path, database_url=postgres_url, **QUICK), Role.WORK).start()


def test_only_the_wanted_kinds_have_threads(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, batching={"max_batch": 3})
    assert concurrency(settings, {Job.ANALYSE: True, Job.REPORT: False}) == {Job.ANALYSE: 6}
    assert concurrency(settings, dict.fromkeys(Job, True)) == {Job.ANALYSE: 6, Job.REPORT: 2, Job.DELIVER: 1}
