"""The same jobs through Celery and a real Redis: a listener here, a `work` process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from factories.runtime import Pacs, create_tables, fundus_of_grade, make_settings, receiving_pacs, send

from worker.service import Role, Service
from worker.settings import Settings

QUICK: dict[str, Any] = {
    "listener": {"port": 0},
    "study": {"close_on": "association"},
    "jobs": {"sweep_interval_s": 0.2},
}


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with receiving_pacs() as running:
        yield running


def _eventually(holds: Callable[[], bool], seconds: int = 60) -> bool:
    moment = threading.Event()
    return any(holds() or moment.wait(0.1) for _ in range(10 * seconds))


def _configuration(settings: Settings, folder: Path) -> Path:
    (destination,) = settings.destinations
    path = folder / "fundus.toml"
    path.write_text(
        f"""
data_dir = "{settings.data_dir}"
broker_url = "{settings.broker_url}"
bundle = "{settings.bundle}"
engine = "onnx"
engine_threads = 1
identity_key_file = "{settings.identity_key_file}"
[spool]
reserve_mb = 0
[jobs]
sweep_interval_s = 0.2
[[destination]]
name = "{destination.name}"
ae_title = "{destination.ae_title}"
host = "{destination.host}"
port = {destination.port}
"""
    )
    return path


@contextmanager
def _working(settings: Settings, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = Path(sys.executable).with_name("fundus-worker")
    with (folder / "work.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "work", "--config", _configuration(settings, folder)], stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_from_the_wire_to_the_report_over_redis(tmp_path: Path, pacs: Pacs, redis_url: str) -> None:
    settings = make_settings(tmp_path, broker_url=redis_url, destination=[pacs.destination()], **QUICK)
    create_tables(settings)
    listening, sweeping = Service(settings, Role.LISTEN), Service(settings, Role.SWEEP)
    listening.start()
    sweeping.start()
    assert listening.listener is not None
    port = listening.listener.port
    images = [[fundus_of_grade(2, study_uid=f"1.2.{study}", sop_uid=f"1.2.{study}.1")] for study in (1, 2)]
    with _working(settings, tmp_path) as process:
        # Given a study through the broker
        assert send(port, images[0]) == [0]
        assert _eventually(lambda: len(pacs.received) >= 1), (tmp_path / "work.log").read_text()
        # When the broker loses everything that it holds
        with redis.Redis.from_url(redis_url) as client:
            assert send(port, images[1]) == [0]
            client.flushall()
        # Then the sweep brings it back
        assert _eventually(lambda: len(pacs.received) >= 2), (tmp_path / "work.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert [listening.stop(), sweeping.stop()] == [True, True]
    assert len(pacs.received) == len(set(pacs.uids)) == 2
