from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
from factories.runtime import make_settings
from factories.servers import free_port

from worker.dispatch import Job, Key
from worker.settings import Settings
from worker.tasks import CeleryDispatcher, make_app, queue_of, register


@pytest.fixture
def lost(tmp_path: Path) -> Settings:
    """Settings whose broker does not answer."""
    return make_settings(tmp_path, broker_url=f"redis://127.0.0.1:{free_port()}/0")


def test_a_broker_that_is_away_costs_nothing_and_is_complained_of_once(lost: Settings) -> None:
    dispatcher = CeleryDispatcher(make_app(lost))
    with structlog.testing.capture_logs() as logs:
        dispatcher.start()
        dispatcher.wake(Job.ANALYSE, 1)
        dispatcher.wake(Job.ANALYSE, 2, priority=99)
        assert dispatcher.room(Job.ANALYSE) == 0
        assert dispatcher.stop(60)
    assert [each["event"] for each in logs] == ["broker_unreachable"]


def test_what_piles_up_is_bounded(lost: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tasks._UNPUBLISHED", 2)
    dispatcher = CeleryDispatcher(make_app(lost))
    for key in range(5):
        dispatcher.wake(Job.ANALYSE, key)
    assert dispatcher._queue.qsize() == 2
    assert dispatcher.stop(1)


def test_a_task_runs_its_job_and_its_error_ends_there(lost: Settings) -> None:
    ran: list[tuple[Job, Key]] = []

    def run(job: Job, key: Key) -> None:
        ran.append((job, key))
        if key == "bad":
            raise ValueError

    app = make_app(lost)
    register(app, run)
    for job in Job:
        task: Any = app.tasks[queue_of(job)]
        task(7)
    app.tasks[queue_of(Job.DELIVER)]("bad")
    assert ran == [(Job.ANALYSE, 7), (Job.REPORT, 7), (Job.DELIVER, 7), (Job.DELIVER, "bad")]


def test_messages_are_json_late_and_leave_no_result(lost: Settings) -> None:
    conf = make_app(lost).conf
    assert conf.accept_content == ["json"]
    assert conf.task_acks_late
    assert conf.result_backend is None


def test_published_wake_ups_lie_in_their_queues_by_priority(tmp_path: Path, redis_url: str) -> None:
    app = make_app(make_settings(tmp_path, broker_url=redis_url))
    dispatcher = CeleryDispatcher(app)
    assert dispatcher.room(Job.ANALYSE) > 0
    dispatcher.start()
    for key in range(40):
        dispatcher.wake(Job.ANALYSE, key, priority=key % 4)
    assert dispatcher.stop(60)
    # Then a queue that is not nearly empty has no room for what is in it already
    assert dispatcher.room(Job.ANALYSE) == 0
    assert dispatcher.room(Job.REPORT) > 0
    app.close()
