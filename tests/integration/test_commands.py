"""The program as a person or a service manager starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from factories.commands import PROGRAM, Installation, ago, install, program, run
from factories.process import READY_TIMEOUT_S, STOP_TIMEOUT_S, Worker
from factories.rows import Rows
from factories.runtime import fundus_of_grade, receiving_pacs, send
from factories.servers import postgres_server, redis_server, require_binary
from sqlalchemy.orm import Session

from dicom_io.sender import Peer, echo
from worker.database import create_database_engine

COMMANDS = (
    ["serve"],
    ["listen"],
    ["work"],
    ["sweep"],
    ["demo"],
    ["status"],
    ["check"],
    ["requeue"],
    ["db", "upgrade"],
    ["cameras", "explain"],
    ["bundle", "show"],
    ["bundle", "verify"],
    ["export-training-set"],
)
HEAVY = (
    "sqlalchemy",
    "alembic",
    "pydicom",
    "pynetdicom",
    "highdicom",
    "numpy",
    "cv2",
    "onnxruntime",
    "celery",
)


@contextmanager
def running(installed: Installation, *arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the installation, its log in `<role>.log`; killed when the block ends."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("FUNDUS_")}
    command: list[str | Path] = [require_binary("setpriv"), "--pdeathsig", "KILL", "--", PROGRAM, *arguments]
    with (installed.folder / f"{arguments[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--config", installed.config], stdout=log, stderr=log, env={**own, **env}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], object], *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not condition():
        assert [each.poll() for each in processes] == [None] * len(processes), "a process ended"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def answers(installed: Installation) -> bool:
    return echo(Peer("FUNDUS", "127.0.0.1", installed.port, "PROBE", timeout_s=30)).ok


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(STOP_TIMEOUT_S)


def test_help_needs_nothing_heavy() -> None:
    code = f"import sys, worker.cli; print([each for each in {HEAVY} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_looking_needs_no_pixels_and_no_models(tmp_path: Path) -> None:
    # Given
    installed = install(tmp_path)
    with installed.rows() as rows:
        rows.bundle()
    code = (
        "import sys\nfrom worker.cli import app\n"
        f"try:\n    app(['status', '-c', {str(installed.config)!r}])\n"
        f"finally:\n    print([each for each in {HEAVY[2:]} if each in sys.modules], file=sys.stderr)"
    )
    # When
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # Then
    assert "Installation" in done.stdout
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_teaches(command: list[str]) -> None:
    answer = run(*command, "--help")
    assert answer.status == 0
    assert "Usage: " in answer.out
    if command != ["demo"]:
        assert "--config" in answer.out


def test_the_program_and_its_exit_statuses(tmp_path: Path) -> None:
    said = program("--help", cwd=tmp_path)
    assert (said.status, "fundus-worker check --example" in said.words) == (0, True)
    assert program("--version", cwd=tmp_path).out == f"fundus-worker {version('fundus-worker')}\n"
    assert program("nonsense", cwd=tmp_path).status == 2
    missing = program("status", "--config", "missing.toml", cwd=tmp_path)
    assert (missing.status, missing.out) == (2, "")
    assert missing.err == "error: 1 problem in the configuration:\n  - missing.toml: there is no such file\n"
    assert list(tmp_path.iterdir()) == []


def test_an_administrators_first_hour(tmp_path: Path) -> None:
    """Check, serve, send, look, a second process on the port, a PACS that comes late, stop."""
    # Given a PACS that refuses what it gets
    with receiving_pacs() as pacs:
        pacs.status = 0xA900
        installed = install(tmp_path, pacs_port=pacs.port, delivery={"max_attempts": 1, "timeout_s": 10})
        assert installed.run("check").status == 0
        worker = Worker(installed.config, installed.port)
        try:
            # When a study is sent
            worker.start()
            images = [fundus_of_grade(2, laterality=side, study_uid="1.2.3.4") for side in "RL"]
            assert send(installed.port, images) == [0, 0]
            worker.wait_for(
                lambda: worker.count("SELECT count(*) FROM deliveries WHERE state = 'DEAD'"), "a dead letter"
            )
            # Then status, in the middle of the work, says what to do
            said = installed.run("status")
            assert said.status == 1
            assert "fundus-worker requeue --dead --destination pacs" in said.words
            # And a second process does not get the port
            second = program("serve", "--config", installed.config, cwd=tmp_path)
            assert second.status == 2
            assert "cannot be listened on (Address already in use)" in second.err
            assert "Traceback" not in second.err
            # And when the PACS is mended
            pacs.status = 0
            assert "1 dead delivery will be sent again" in installed.run("requeue", "--dead").out
            worker.wait_drained()
            assert len(pacs.received) == 1
            found = json.loads(installed.run("status", "--json").out)
            assert found["attention"] == []
            assert found["destinations"][0]["delivered"] == 1
            assert found["bundle"]["engine"] == "onnx"
            assert "is served by a running FUNDUS" in installed.run("check").words
            # And it stops when it is told to
            assert worker.terminate() == 0
        finally:
            worker.close()
    assert "no process runs" in installed.run("status").words


@pytest.mark.redis
def test_separate_processes_over_a_broker(tmp_path: Path) -> None:
    # Given a listener, a worker and a sweep that share a broker
    installed = install(tmp_path, jobs={"sweep_interval_s": 0.5})
    key = tmp_path / "shared.key"
    key.touch(mode=0o600)
    key.write_text("k" * 64)
    with receiving_pacs() as pacs, redis_server(tmp_path) as broker:
        text = installed.config.read_text().replace(str(installed.pacs_port), str(pacs.port))
        installed.config.write_text(text)
        env = {"FUNDUS_BROKER_URL": broker, "FUNDUS_IDENTITY_KEY_FILE": str(key)}
        with (
            running(installed, "listen", **env) as listener,
            running(installed, "work", **env) as work,
            running(installed, "sweep", **env) as sweep,
        ):
            wait_for(lambda: answers(installed), listener)
            # When a study comes
            assert send(installed.port, [fundus_of_grade(1, study_uid="1.2.3.4")]) == [0]
            # Then its report arrives
            wait_for(lambda: pacs.received, listener, work, sweep)
            roles = {each["role"] for each in json.loads(installed.run("status", "--json").out)["processes"]}
            assert roles == {"listen", "work", "sweep"}
            assert (
                "ok broker: answers; used by listen, work and sweep, while serve"
                in installed.run("check", env=env).words
            )
            # And all stop when they are told to
            assert [stop(each) for each in (listener, work, sweep)] == [0, 0, 0]
    assert "Traceback" not in (installed.folder / "work.log").read_text()


@pytest.mark.postgres
def test_a_shared_database_on_postgresql(tmp_path: Path) -> None:
    # Given an empty database
    installed = install(tmp_path)
    installed.data.mkdir()
    key = tmp_path / "shared.key"
    key.touch(mode=0o600)
    key.write_text("k" * 64)
    with postgres_server(tmp_path) as url:
        env = {"FUNDUS_DATABASE_URL": url, "FUNDUS_IDENTITY_KEY_FILE": str(key)}
        # Then nothing makes its tables unasked
        assert "RED database: the database has no tables yet" in installed.run("check", env=env).words
        answer = installed.run("status", env=env)
        assert (answer.status, "run `fundus-worker db upgrade`" in answer.err) == (2, True)
        # And when they are made, and filled
        assert installed.run("db", "upgrade", env=env).status == 0
        _fill(url)
        # Then what is shown and requeued is the same as on SQLite
        found = json.loads(installed.run("status", "--json", env=env).out)
        assert {each["kind"]: each["items"] for each in found["failure_groups"]} == {
            "image_refused": 2,
            "delivery_dead": 1,
            "delivery_overdue": 1,
        }
        assert [each["recent"] for each in found["failure_groups"] if each["kind"] == "image_refused"] == [1]
        assert found["destinations"][0] | {"dead": 1, "pending": 1} == found["destinations"][0]
        assert found["rejections_24h"][0]["count"] == 3
        assert "! 3 failures to look into" in installed.run("status", env=env).words
        said = installed.run("requeue", "--refused", "--dead", env=env)
        assert "2 refused images will be analysed again 1 dead delivery will be sent again" in said.words
        left = json.loads(installed.run("status", "--json", env=env).out)["failure_groups"]
        assert [(each["kind"], each["items"]) for each in left] == [("delivery_overdue", 1)] * 2


def _fill(url: str) -> None:
    engine = create_database_engine(url)
    try:
        with Session(engine) as session, session.begin():
            rows = Rows(session)
            bundle, study = rows.bundle(), rows.study()
            rows.finding(rows.image(study, received_at=ago(hours=1)), bundle)
            rows.refused(study, analysed_at=ago(hours=1))
            rows.refused(study, analysed_at=ago(days=30))
            rows.delivery(rows.report(study, bundle), state="DEAD", due_at=ago(hours=1))
            rows.delivery(
                rows.report(rows.study(), bundle), reason_code="PEER_UNREACHABLE", due_at=ago(hours=1)
            )
            rows.rejection(count=3, last_at=ago(hours=1))
    finally:
        engine.dispose()
