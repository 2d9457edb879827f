from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from factories.listening import wait_until

from worker.demo import processes
from worker.demo.errors import DemoSetupError, DemoTimeoutError, ProgramEndedError
from worker.demo.processes import Programs, find_redis, free_port, start_redis, worker_command

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    "time.sleep(60)"
)
WITH_CHILD = (
    "import subprocess, time; subprocess.Popen(['sleep', '60']); print('up', flush=True); time.sleep(60)"
)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    with Programs(tmp_path, os.environ) as each:
        yield each


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_everything_is_stopped_at_the_end_with_what_it_started(tmp_path: Path) -> None:
    with Programs(tmp_path, os.environ) as programs:
        program = programs.start("parent", python(WITH_CHILD))
        programs.wait_until(lambda: program.has_logged("up"), "starting", 20)
        (child,) = psutil.Process(program.process.pid).children()

    assert program.process.returncode == -signal.SIGTERM
    # The signal has been sent to the whole group; the child's own end is waited for by nobody but this test.
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_what_does_not_end_is_killed(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.2)
    program = programs.start("stubborn", python(STUBBORN))
    programs.wait_until(lambda: program.has_logged("up"), "starting", 20)

    programs.stop()

    assert program.process.returncode == -signal.SIGKILL


def test_a_failure_in_the_block_stops_everything_too(tmp_path: Path) -> None:
    programs = Programs(tmp_path, os.environ)
    program = programs.start("sleeper", python("import time; time.sleep(60)"))

    with pytest.raises(ZeroDivisionError), programs:
        raise ZeroDivisionError

    assert program.process.returncode is not None


def test_a_process_that_ends_by_itself_is_named_with_the_end_of_its_log(
    programs: Programs, tmp_path: Path
) -> None:
    programs.start("serve", python("print('cannot bind'); raise SystemExit(2)"))

    with pytest.raises(ProgramEndedError, match=r"(?s)serve ended with status 2.*cannot bind") as caught:
        programs.wait_until(lambda: False, "starting", 20)

    assert caught.value.name == "serve"
    assert caught.value.log == tmp_path / "serve.log"
    programs.stop()  # its group is gone: nothing to signal, nothing to fail


def test_what_does_not_happen_in_time_is_named(programs: Programs) -> None:
    programs.start("sleeper", python("import time; time.sleep(60)"))

    with pytest.raises(DemoTimeoutError, match=r"analysing took longer than 0.05 s"):
        programs.wait_until(lambda: False, "analysing", 0.05)


def test_processes_get_the_environment_that_was_given(tmp_path: Path) -> None:
    environ = {**os.environ, "FUNDUS_BUNDLE": "some-bundle"}

    with Programs(tmp_path, environ) as programs:
        program = programs.start("shown", python("import os; print(os.environ['FUNDUS_BUNDLE'])"))
        program.process.wait(20)

    assert program.has_logged("some-bundle")


def test_the_worker_runs_from_the_installed_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "__init__.py").write_text("raise SystemExit('a stranger of the same name')")
    monkeypatch.chdir(tmp_path)

    with Programs(tmp_path, os.environ) as programs:
        command = worker_command("status", tmp_path / "missing.toml")
        program = programs.start("status", command)
        program.process.wait(60)

    assert program.has_logged("there is no such file")


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


def test_a_port_in_use_is_not_called_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        free = free_port()
        offered = iter((port, free))
        monkeypatch.setattr(processes, "_LOWEST_PORT", 0)
        monkeypatch.setattr("worker.demo.processes.secrets.randbelow", lambda _: next(offered))

        assert free_port() == free


def test_redis_is_found_under_either_name(tmp_path: Path) -> None:
    valkey = tmp_path / "valkey-server"
    valkey.touch(0o755)

    assert find_redis(str(tmp_path)) == str(valkey)


def test_a_missing_redis_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(DemoSetupError, match=r"apt-get install redis-server.*--broker local"):
        find_redis(str(tmp_path))


@pytest.mark.redis
def test_redis_answers_and_ends(tmp_path: Path, redis_server_url: str) -> None:
    assert redis_server_url  # skips where no redis-server is installed, and fails in CI
    with Programs(tmp_path, os.environ) as programs:
        url = start_redis(programs, find_redis(), tmp_path / "redis", 30)
        port = int(url.removeprefix("redis://127.0.0.1:").removesuffix("/0"))
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(16) == b"+PONG\r\n"

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
