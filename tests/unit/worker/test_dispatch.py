from __future__ import annotations

import threading
from typing import Any
from unittest.mock import patch

import pytest

from worker.dispatch import AGEING_S, Job, Key, LocalDispatcher, SilentDispatcher


class _Recorder:
    def __init__(self, expected: int) -> None:
        self.ran: list[tuple[Job, Key]] = []
        self.done = threading.Event()
        self._expected = expected

    def __call__(self, job: Job, key: Key) -> None:
        self.ran.append((job, key))
        if len(self.ran) >= self._expected:
            self.done.set()
        if key == "bad":
            raise ValueError("a job's error is its own")


def _run(recorder: _Recorder, dispatcher: LocalDispatcher) -> list[Key]:
    dispatcher.start()
    assert recorder.done.wait(20)
    assert dispatcher.stop(20)
    return [key for _, key in recorder.ran]


def test_the_most_urgent_first_and_of_equal_ones_the_oldest() -> None:
    recorder = _Recorder(4)
    dispatcher = LocalDispatcher(recorder, {Job.ANALYSE: 1})
    for key, priority in ((1, 3), (2, 2), (3, 0), (4, 2)):
        dispatcher.wake(Job.ANALYSE, key, priority)
    assert _run(recorder, dispatcher) == [3, 2, 4, 1]


def test_waiting_makes_urgent() -> None:
    # Given something that can wait, and has waited longer than three steps of priority are worth
    recorder = _Recorder(2)
    dispatcher = LocalDispatcher(recorder, {Job.ANALYSE: 1})
    with patch("worker.dispatch.time.monotonic", side_effect=[0.0, 3 * AGEING_S + 1]):
        dispatcher.wake(Job.ANALYSE, "old", 3)
        dispatcher.wake(Job.ANALYSE, "urgent", 0)
    assert _run(recorder, dispatcher) == ["old", "urgent"]


def test_a_waiting_one_is_not_queued_twice_and_one_that_runs_may_be() -> None:
    entered, go = threading.Event(), threading.Event()
    ran: list[Key] = []

    def run(job: Job, key: Key) -> None:
        ran.append(key)
        entered.set()
        assert go.wait(20)
        if len(ran) == 2:
            done.set()

    done = threading.Event()
    dispatcher = LocalDispatcher(run, {Job.DELIVER: 1})
    dispatcher.start()
    dispatcher.wake(Job.DELIVER, "pacs")
    assert entered.wait(20)
    for _ in range(3):
        dispatcher.wake(Job.DELIVER, "pacs")
    go.set()
    assert done.wait(20)
    assert dispatcher.stop(20)
    assert ran == ["pacs", "pacs"]


def test_a_job_that_fails_ends_alone(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = _Recorder(2)
    dispatcher = LocalDispatcher(recorder, {Job.ANALYSE: 1})
    dispatcher.wake(Job.ANALYSE, "bad")
    dispatcher.wake(Job.ANALYSE, "good")
    assert _run(recorder, dispatcher) == ["bad", "good"]


def test_a_full_queue_takes_no_more_and_says_so() -> None:
    recorder = _Recorder(2)
    dispatcher = LocalDispatcher(recorder, {Job.ANALYSE: 1}, capacity=2)
    assert dispatcher.room(Job.ANALYSE) == 2
    for key in range(5):
        dispatcher.wake(Job.ANALYSE, key)
    assert dispatcher.room(Job.ANALYSE) == 0
    assert _run(recorder, dispatcher) == [0, 1]


def test_kinds_that_are_not_run_here_are_ignored() -> None:
    dispatcher = LocalDispatcher(_Recorder(1), {Job.ANALYSE: 1})
    dispatcher.wake(Job.REPORT, 1)
    assert dispatcher.room(Job.REPORT) == 0


def test_a_stopped_one_drops_what_waits_and_reports_what_still_runs() -> None:
    entered, go = threading.Event(), threading.Event()
    ran: list[Any] = []

    def run(job: Job, key: Key) -> None:
        ran.append(key)
        entered.set()
        go.wait(20)

    dispatcher = LocalDispatcher(run, {Job.ANALYSE: 1})
    dispatcher.start()
    dispatcher.wake(Job.ANALYSE, 1)
    assert entered.wait(20)
    dispatcher.wake(Job.ANALYSE, 2)
    assert dispatcher.stop(0.01) is False
    dispatcher.wake(Job.ANALYSE, 3)
    go.set()
    assert dispatcher.stop(20) is True
    assert ran == [1]


def test_one_that_never_started_stops() -> None:
    assert LocalDispatcher(_Recorder(1), {Job.ANALYSE: 2}).stop(1) is True


def test_the_silent_one_does_nothing() -> None:
    silent = SilentDispatcher()
    silent.start()
    silent.wake(Job.ANALYSE, 1)
    assert silent.room(Job.ANALYSE) == 0
    assert silent.stop(1) is True
