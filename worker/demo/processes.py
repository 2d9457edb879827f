"""Real processes for the demonstration, each with its log, all stopped at the end whatever happens."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from worker.demo.errors import DemoSetupError, DemoTimeoutError, ProgramEndedError

STOP_TIMEOUT_S = 20.0
"""How long a process may take to end before it is killed."""
_POLL_S = 0.1
_LAST_LINES = 15
_LOWEST_PORT, _PORTS = 20_000, 12_000
_REDIS_NAMES = ("redis-server", "valkey-server")
_SYSTEM_FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin")


@dataclass(frozen=True)
class Program:
    """A running process.

    Attributes:
        name: What to call it.
        process: The leader of a process group of its own.
        log: Where its output goes.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def require_alive(self) -> None:
        """Raise `ProgramEndedError` when it ended by itself."""
        status = self.process.poll()
        if status is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            raise ProgramEndedError(self.name, status, self.log, "\n".join(lines))

    def has_logged(self, text: str) -> bool:
        """Whether a text stands in its log."""
        return text in self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Signal the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Programs:
    """Starts processes; leaving the `with` block stops them all.

    Args:
        logs: Folder for the logs.
        environ: Environment of the processes.
    """

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        self._logs = logs
        self._environ = dict(environ)
        self._running: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str]) -> Program:
        """Start a process; its output goes to `<name>.log`."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environ,
                start_new_session=True,  # Ctrl-C reaches the demonstration alone, which then stops the rest
            )
        program = Program(name, process, log)
        self._running.append(program)
        return program

    def wait_until(self, done: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait for something that these processes bring about.

        Raises:
            ProgramEndedError: One of them ended.
            DemoTimeoutError: It did not happen in time.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            for program in self._running:
                program.require_alive()
            if time.monotonic() > deadline:
                raise DemoTimeoutError(what, timeout_s)
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Ask all of them to end, then kill what does not; a second interruption kills at once."""
        try:
            for program in self._running:
                program.signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for program in self._running:
                with suppress(subprocess.TimeoutExpired):
                    program.process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for program in self._running:
                if program.process.poll() is None:
                    program.signal(signal.SIGKILL)
                    program.process.wait()
            self._running.clear()


def worker_command(role: str, configuration: Path) -> list[str]:
    """Command line of one role of the worker; -P keeps modules of the current folder out."""
    return [sys.executable, "-P", "-m", "worker.cli", role, "--config", str(configuration)]


def free_port() -> int:
    """A TCP port at 127.0.0.1 that nobody used a moment ago, outside the range of outgoing connections."""
    while True:
        port = _LOWEST_PORT + secrets.randbelow(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def find_redis(search_path: str | None = None) -> str:
    """Path of a Redis (or Valkey) server program.

    Args:
        search_path: Folders to look in, as in PATH; None for PATH and the usual places.

    Raises:
        DemoSetupError: There is none.
    """
    places = search_path or os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
    for name in _REDIS_NAMES:
        if found := shutil.which(name, path=places):
            return found
    raise DemoSetupError(
        "no redis-server was found; install it (Debian and Ubuntu: apt-get install redis-server), "
        "or run the demonstration without a broker (--broker local)"
    )


def start_redis(programs: Programs, binary: str, folder: Path, timeout_s: float) -> str:
    """Start a Redis server without persistence on a free loopback port; return its URL."""
    folder.mkdir()
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
    programs.start("redis", [binary, *(part for key in options for part in (f"--{key}", str(options[key])))])
    programs.wait_until(lambda: _answers(port), "starting Redis", timeout_s)
    return f"redis://127.0.0.1:{port}/0"


def _answers(port: int) -> bool:
    with redis.Redis(port=port, socket_timeout=2) as client, suppress(redis.ConnectionError):
        return bool(client.ping())
    return False
