from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from factories.commands import Installation, install, run
from factories.runtime import make_settings

from dicom_io.sender import Peer, echo
from worker.celery_worker import _end_when_failed, _worker, run_celery_worker
from worker.commands import services
from worker.commands.services import stop_signals
from worker.dispatch import Job
from worker.service import Role, Service
from worker.tasks import make_app


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return install(tmp_path)


@contextmanager
def terminated_once_it_answers(port: int) -> Iterator[None]:
    """Send this process SIGTERM as soon as a listener on the port answers, as the service's manager would."""
    given_up = threading.Event()

    def wait() -> None:
        peer = Peer("FUNDUS", "127.0.0.1", port, "PROBE", timeout_s=30)
        while not echo(peer).ok:
            if given_up.wait(0.05):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        given_up.set()
        thread.join()


def test_serve_until_sigterm(installed: Installation) -> None:
    # When
    with terminated_once_it_answers(installed.port):
        answer = installed.run("serve")
    # Then
    assert answer.status == 0
    for event in ("service_started", "listening", "service_stopping", "service_stopped"):
        assert f'"event": "{event}"' in answer.err
    assert "engine_started" in answer.err
    assert installed.run("status", "--json").out.count('"pid"') == 0


def test_listen_until_sigterm(installed: Installation) -> None:
    with terminated_once_it_answers(installed.port):
        answer = installed.run("listen")
    assert (answer.status, '"role": "listen"' in answer.err) == (0, True)
    assert "engine_started" not in answer.err


@contextmanager
def stopped_as_soon_as_started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Service]]:
    """Services that get SIGTERM when their start is done."""
    started: list[Service] = []
    start = Service.start

    def start_and_ask(self: Service) -> None:
        start(self)
        started.append(self)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Service, "start", start_and_ask)
        yield started


@pytest.mark.parametrize(
    ("command", "role"),
    [(["sweep"], Role.SWEEP), (["work", "--queues", "report, deliver", "--concurrency", "3"], Role.WORK)],
)
def test_the_other_processes_until_sigterm(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, command: list[str], role: Role
) -> None:
    with stopped_as_soon_as_started(monkeypatch) as started:
        answer = installed.run(*command)
    assert answer.status == 0
    (service,) = started
    assert service.role is role
    assert service.settings.resolved_analyse_concurrency == (3 if role is Role.WORK else 16)


def test_a_stop_that_took_too_long_is_told_by_the_exit_status(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Service.stop

    def not_in_time(self: Service, timeout_s: float = 30.0) -> bool:
        stop(self, timeout_s)
        return False

    monkeypatch.setattr(Service, "stop", not_in_time)
    with stopped_as_soon_as_started(monkeypatch):
        assert installed.run("sweep").status == 1


def test_a_process_that_lost_a_thread_ends_with_a_status_that_starts_it_again(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Service.start

    def start_and_fail(self: Service) -> None:
        start(self)
        self.failed.set()

    monkeypatch.setattr(Service, "start", start_and_fail)
    answer = installed.run("sweep")
    assert (answer.status, "service_stopped" in answer.err) == (1, True)


def test_serve_without_destination_has_to_be_meant(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    installed.config.write_text(installed.config.read_text().partition("[[destination]]")[0])
    # When, Then
    for command in (["serve"], ["work"], ["work", "--queues", "deliver"], ["work", "--queues", "report"]):
        answer = installed.run(*command)
        assert answer.status == 2
        assert "add a [[destination]] to the configuration, or say --no-delivery" in answer.words
    # And when it is meant, or when the process delivers nothing
    for command in (["serve", "--no-delivery"], ["work", "--queues", "analyse"]):
        with stopped_as_soon_as_started(monkeypatch):
            assert installed.run(*command).status == 0


@pytest.mark.parametrize(("queues", "wrong"), [("analyse,nalyse", "nalyse:"), (" , ", "nothing:")])
def test_unknown_queues(installed: Installation, queues: str, wrong: str) -> None:
    answer = installed.run("work", "--queues", queues)
    assert answer.status == 2
    assert f"{wrong} choose from analyse, deliver, report" in answer.words


def test_a_port_in_use(installed: Installation) -> None:
    with socket.create_server(("127.0.0.1", installed.port)):
        answer = installed.run("serve")
    assert answer.status == 2
    assert f"error: 127.0.0.1:{installed.port} cannot be listened on (Address already in use)" in answer.err
    assert "Traceback" not in answer.err


def test_a_data_folder_that_cannot_be_made(installed: Installation) -> None:
    answer = installed.run("serve", env={"FUNDUS_DATA_DIR": "/proc/fundus"})
    assert answer.status == 2
    assert "error: /proc/fundus: No such file or directory; check that it is there" in answer.err


def test_a_disk_that_fails_without_naming_a_file(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(services, "_run", fail)
    answer = installed.run("sweep")
    assert (answer.status, "error: Input/output error; check the disk" in answer.err) == (2, True)


def test_a_reader_that_hung_up_is_no_error_of_ours(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(services, "_run", fail)
    answer = installed.run("sweep")
    assert (answer.status, "error" in answer.err) == (1, False)


def test_an_identity_key_that_others_can_read(installed: Installation) -> None:
    installed.data.mkdir()
    key = installed.data / "identity.key"
    key.write_text("k" * 64)
    key.chmod(0o644)
    answer = installed.run("serve")
    assert (answer.status, f"run `chmod 600 {key}`" in answer.err) == (2, True)


def test_a_bundle_that_is_not_there(installed: Installation) -> None:
    answer = installed.run("serve", env={"FUNDUS_BUNDLE": str(installed.folder / "nowhere")})
    assert (answer.status, "Set `bundle` to the folder" in answer.err) == (2, True)


def test_a_second_signal_ends_the_process_at_once() -> None:
    # Given
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop:
        # When the first comes
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(10)
        # Then the next one is not caught any more
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_celery_worker_needs_a_service_that_started(tmp_path: Path) -> None:
    class Unstarted(Service):
        def start(self) -> None: ...

    with pytest.raises(RuntimeError, match="without a runtime"):
        run_celery_worker(Unstarted(make_settings(tmp_path), Role.WORK), frozenset(Job))


def test_a_celery_worker_is_asked_to_stop_when_the_service_has_failed(tmp_path: Path) -> None:
    service = Service(make_settings(tmp_path), Role.WORK)
    ended = threading.Event()
    with stop_signals() as stop:
        # When nothing failed, and consuming ended
        ended.set()
        _end_when_failed(service, ended)
        assert not stop.is_set()
        # And when it has
        ended.clear()
        service.failed.set()
        _end_when_failed(service, ended)
        assert stop.wait(10)


def test_a_celery_worker_needs_the_main_thread(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            app: Any = make_app(make_settings(tmp_path))
            _worker(app, 1, frozenset(Job), "p1")
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_db_upgrade_makes_the_tables_and_may_run_again(installed: Installation) -> None:
    for _ in range(2):
        answer = installed.run("db", "upgrade")
        assert answer.status == 0
        assert f"the database sqlite:///{installed.data / 'fundus.db'} is up to date" in answer.words
    assert installed.run("status").status == 1  # there, but nobody runs


def test_db_upgrade_of_a_database_that_is_away(installed: Installation, tmp_path: Path) -> None:
    key = tmp_path / "shared.key"
    key.touch(mode=0o600)
    key.write_text("k" * 64)
    url = "postgresql+psycopg://u:secret@127.0.0.1:1/x"
    env = {"FUNDUS_DATABASE_URL": url, "FUNDUS_IDENTITY_KEY_FILE": str(key)}
    answer = installed.run("db", "upgrade", env=env)
    assert (answer.status, "check database_url" in answer.err, "secret" in answer.err) == (2, True, False)


def test_the_demo_knows_two_brokers(tmp_path: Path) -> None:
    answer = run("demo", "--output", tmp_path / "out", "--broker", "rabbit")
    assert (answer.status, "rabbit: choose local or redis" in answer.words) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("broker", "passed"), [("local", ""), ("redis", "redis")])
def test_the_demo_is_given_its_folder_and_its_outcome_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str, passed: str
) -> None:
    given: list[object] = []

    def perform(*arguments: object) -> int:
        given.extend(arguments)
        return 1

    monkeypatch.setattr("worker.demo.run.run_demo", perform)
    assert run("demo", "--output", tmp_path, "--broker", broker, "--keep").status == 1
    assert given == [tmp_path, passed, True]
