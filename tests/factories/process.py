"""`fundus-worker serve` as users run it: a process of its own, started, stopped, killed, looked into."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from factories.bundle import write_tiny_bundle
from factories.servers import free_port, require_binary

from dicom_io.sender import Peer, echo

BUNDLE_VARIABLE = "FUNDUS_TEST_BUNDLE"
READY_TIMEOUT_S = 180.0
"""A loaded machine may take long to import everything; a process that ended is noticed at once."""
STOP_TIMEOUT_S = 60.0
"""More than the 30 s in which `serve` promises to stop: the rest is for a loaded machine."""
DRAIN_TIMEOUT_S = 180.0
POLL_S = 0.05
AE_TITLE = "FUNDUS"

QUICK: Mapping[str, Mapping[str, Any]] = {
    "study": {"close_on": "association", "quiet_s": 2},
    "jobs": {"sweep_interval_s": 0.5, "retry_base_s": 0.2, "retry_max_s": 2},
    "delivery": {"retry_base_s": 0.2, "retry_max_s": 1, "timeout_s": 10},
    "log": {"format": "json"},
}
"""Settings under which a test need not wait minutes for what time brings about."""


def bundle_to_test(folder: Path) -> Path | str:
    """The bundle that the environment variable `FUNDUS_TEST_BUNDLE` names, else the tiny one.

    The tiny bundle grades by mean green; its thresholds spread real photographs over all five grades.
    """
    chosen = os.environ.get(BUNDLE_VARIABLE)
    return chosen or write_tiny_bundle(folder, thresholds=(0.275, 0.098, 0.044, 0.029), minimum_quality=0.9)


class ProcessError(AssertionError):
    """The process under test did not do what was waited for; carries the end of its log."""


@dataclass(frozen=True)
class Footprint:
    """What a process takes of the machine at one moment.

    Attributes:
        resident_bytes: Its memory in RAM (resident set size), shared libraries included.
        threads: Its threads.
        descriptors: Its open files and sockets.
    """

    resident_bytes: int
    threads: int
    descriptors: int


def write_config(
    folder: Path, *, bundle: Path | str, port: int, pacs_port: int, **tables: Mapping[str, Any]
) -> Path:
    """Write `fundus.toml` for one process on loopback with one destination; returns its path.

    Args:
        folder: Gets the file; the data folder is made beside it.
        bundle: Path or name.
        port: The listener's.
        pacs_port: The destination's, at 127.0.0.1, AE title PACS.
        **tables: Further settings by table, over those of `QUICK`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    top = {"data_dir": "data", "bundle": str(bundle)}
    listener = {"ae_title": AE_TITLE, "port": port, **tables.pop("listener", {})}
    merged = {name: {**QUICK.get(name, {}), **tables.get(name, {})} for name in {*QUICK, *tables}}
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port}
    parts = [_keys(top), "[listener]", _keys(listener)]
    for name in sorted(merged):
        parts += [f"[{name}]", _keys(merged[name])]
    path = folder / "fundus.toml"
    path.write_text("\n".join([*parts, "[[destination]]", _keys(pacs)]) + "\n")
    return path


def _keys(table: Mapping[str, Any]) -> str:
    """Lines of a TOML table; its texts, numbers, booleans and lists are written as JSON writes them."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())


class Worker:
    """One installation: a configuration file, its data folder, and the process that serves it, if one runs.

    Args:
        config: From `write_config`.
        port: The listener's, as in the file.
    """

    def __init__(self, config: Path, port: int) -> None:
        self.config = config
        self.port = port
        self.data = config.parent / "data"
        self.log_file = config.parent / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process.

        Raises:
            ProcessError: None was started.
        """
        if self._process is None:
            raise ProcessError("the worker was not started")
        return self._process

    def launch(self) -> None:
        """Start the process and return at once; it dies with the test process."""
        program = Path(sys.executable).with_name("fundus-worker")
        guard: list[str | Path] = [require_binary("setpriv"), "--pdeathsig", "KILL", "--"]
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [*guard, program, "serve", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={key: value for key, value in os.environ.items() if not key.startswith("FUNDUS_")},
            )

    def start(self) -> None:
        """Start the process and wait until it answers a C-ECHO."""
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the process answers a C-ECHO; fail at once when it ends."""
        self.wait_for(self.answers, "the listener to answer a C-ECHO", READY_TIMEOUT_S)

    def answers(self) -> bool:
        """Whether the listener answers a C-ECHO."""
        return echo(Peer(AE_TITLE, "127.0.0.1", self.port, "PROBE", timeout_s=30)).ok

    def kill(self) -> None:
        """End the process as `kill -9` does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        """Ask the process to stop (SIGTERM) and return its exit status.

        Raises:
            ProcessError: It had not stopped in time.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"not stopped {STOP_TIMEOUT_S} s after SIGTERM\n{self.tail()}") from error

    def close(self) -> None:
        """Leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def footprint(self) -> Footprint:
        """What the process takes now."""
        process = psutil.Process(self.process.pid)
        return Footprint(process.memory_info().rss, process.num_threads(), process.num_fds())

    def query(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Rows of a query on the embedded database, as an administrator would ask; never changes anything."""
        with closing(sqlite3.connect(self.data / "fundus.db", timeout=30)) as connection:
            connection.execute("PRAGMA query_only = 1")
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def count(self, statement: str, *values: object) -> int:
        """First column of the only row of a query."""
        (row,) = self.query(statement, *values)
        return int(next(iter(row.values())) or 0)

    def backlog(self) -> dict[str, int]:
        """What waits, by kind, from `v_backlog`; empty when nothing does."""
        rows = self.query("SELECT kind, sum(items) AS items FROM v_backlog GROUP BY kind")
        return {row["kind"]: row["items"] for row in rows if row["items"]}

    def wait_drained(self, timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        """Wait until nothing waits any more: every study is closed, reported and delivered."""
        self.wait_for(
            lambda: not self.backlog(), lambda: f"an empty backlog, not {self.backlog()}", timeout_s
        )

    def wait_for(
        self,
        condition: Callable[[], object],
        what: str | Callable[[], str],
        timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        """Wait for a condition while the process runs.

        Raises:
            ProcessError: The process ended, or the condition did not come true; with the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise ProcessError(f"ended with status {self.process.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                expected = what if isinstance(what, str) else what()
                raise ProcessError(f"waited {timeout_s} s for {expected}\n{self.tail()}")
            time.sleep(POLL_S)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events of that name in the log so far, of every process that served this installation."""
        needle = f'"event": "{name}"'
        lines = self.log_file.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if needle in line and line.endswith("}")]

    def tail(self, characters: int = 3000) -> str:
        """The end of the log."""
        return self.log_file.read_text(errors="replace")[-characters:]


@contextmanager
def worker(
    folder: Path, *, bundle: Path | str, pacs_port: int, start: bool = True, **tables: Mapping[str, Any]
) -> Iterator[Worker]:
    """An installation in `folder` whose process is running and ready, and is gone when the block ends."""
    port = free_port()
    config = write_config(folder, bundle=bundle, port=port, pacs_port=pacs_port, **tables)
    installed = Worker(config, port)
    try:
        if start:
            installed.start()
        yield installed
    finally:
        installed.close()
