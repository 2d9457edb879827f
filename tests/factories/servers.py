"""Real Redis and PostgreSQL servers for tests, from Debian's packages, on free loopback ports.

Each server also dies with the test process (`setpriv --pdeathsig`), so that an
interrupted run leaves nothing behind.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest
import redis

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
START_ATTEMPTS = 3  # another process may take the free port between our look and the server's bind


class ServerStartError(RuntimeError):
    """The server ended, or did not answer in time; carries the end of its log."""


def require_binary(name: str, *folders: Path) -> Path:
    """Return the path of an executable.

    Args:
        name: The executable's name, for instance `storescu`.
        folders: Where to look, in this order, before /usr/bin, /usr/sbin and PATH. (The system's come before
            PATH because pynetdicom installs scripts under the names of DCMTK's tools.)

    Absent: the test is skipped on a developer's machine and fails in CI (environment variable CI is set).
    """
    for folder in (*folders, Path("/usr/bin"), Path("/usr/sbin")):
        candidate = folder / name
        if os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which(name)
    if found:
        return Path(found)
    message = f"the program {name!r} is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{message}, and nothing may be skipped in CI")
    pytest.skip(message)


def free_port() -> int:
    """Return a TCP port that nobody listened on at 127.0.0.1 a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def redis_server(tmp_path: Path) -> Iterator[str]:
    """Run a Redis server without persistence; yields `redis://127.0.0.1:<port>/0`."""
    binary = require_binary("redis-server")

    def command(port: int) -> list[str]:
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": tmp_path}
        return _guarded(str(binary), *(part for key in options for part in (f"--{key}", str(options[key]))))

    def ready(port: int) -> bool:
        with redis.Redis(port=port, socket_timeout=2) as client, suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    with _running(command, ready, tmp_path / "redis.log") as port:
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def postgres_server(tmp_path: Path) -> Iterator[str]:
    """Run PostgreSQL (user and database `postgres`, fsync off); yields a `postgresql+psycopg://` URL.

    Started by root, the server runs as the account `postgres`, as it refuses to run as root. Its time zone is
    an odd one, so that a query that leans on the server's time zone fails.
    """
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)
    initdb, postgres = (require_binary(name, *newest_first) for name in ("initdb", "postgres"))
    account = "postgres" if os.geteuid() == 0 else None
    with _folder_for(account, tmp_path) as folder:
        data = folder / "data"
        _initialise(initdb, data, account)

        def command(port: int) -> list[str]:
            settings = (
                "fsync=off",
                "full_page_writes=off",
                "unix_socket_directories=",
                "timezone=Asia/Kathmandu",
            )
            flags = [part for setting in settings for part in ("-c", setting)]
            address = ("-h", "127.0.0.1", "-p", str(port))
            return _guarded(str(postgres), "-D", str(data), *address, *flags, account=account)

        with _running(command, _postgres_answers, tmp_path / "postgres.log", cwd=folder) as port:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def _postgres_answers(port: int) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(
            f"host=127.0.0.1 port={port} user=postgres dbname=postgres", connect_timeout=2
        ).close()
        return True
    return False


def _major_version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _initialise(initdb: Path, data: Path, account: str | None) -> None:
    arguments = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
    command = _guarded(str(initdb), "-D", str(data), *arguments, account=account)
    done = subprocess.run(command, cwd=data.parent, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise ServerStartError(f"initdb failed: {done.stderr[-2000:]}")


def _guarded(*command: str, account: str | None = None) -> list[str]:
    """Run a command that ends with this process, with another account's rights if one is named."""
    identity = [f"--reuid={account}", f"--regid={account}", "--init-groups"] if account else []
    return [str(require_binary("setpriv")), *identity, "--pdeathsig", "INT", "--", *command]


@contextmanager
def _folder_for(account: str | None, tmp_path: Path) -> Iterator[Path]:
    """A folder that the server's account can reach: pytest's own are readable by its user only."""
    if account is None:
        yield tmp_path
        return
    owner = pwd.getpwnam(account)
    folder = Path(tempfile.mkdtemp(prefix="fundus-postgres-", dir="/tmp"))
    try:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(
    command: Callable[[int], list[str]], ready: Callable[[int], bool], log: Path, cwd: Path | None = None
) -> Iterator[int]:
    """Start a server on a free port, wait until it answers, stop it in the end; yields the port."""
    process, port = _start(command, ready, log, cwd)
    try:
        yield port
    finally:
        process.send_signal(
            signal.SIGINT
        )  # PostgreSQL: "fast", cuts connections that a failed test left open
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(
    command: Callable[[int], list[str]], ready: Callable[[int], bool], log: Path, cwd: Path | None
) -> tuple[subprocess.Popen[bytes], int]:
    for _attempt in range(START_ATTEMPTS):
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(command(port), stdout=output, stderr=output, cwd=cwd)
        if _wait_until_ready(process, partial(ready, port)):
            return process, port
        process.kill()
        process.wait()
    raise ServerStartError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return True
        time.sleep(0.05)
    return False
