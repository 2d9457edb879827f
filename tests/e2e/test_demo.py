from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import psutil
import pydicom
import pytest
from factories.bundle import write_tiny_bundle
from pydicom.uid import Comprehensive3DSRStorage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STUDIES, PHOTOGRAPHS = 7, 14


@dataclass(frozen=True)
class Outcome:
    status: int
    text: str
    output: Path


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return write_tiny_bundle(folder, size=128, adapters=("simulated-blue", "simulated-soft"))


def command(output: Path, *arguments: str) -> list[str]:
    # A shell without job control starts what it puts into the background with SIGINT ignored: undo that.
    attentive = ["/usr/bin/env", "--default-signal=INT"]
    return [*attentive, sys.executable, "-m", "worker.cli", "demo", "--output", str(output), *arguments]


def environment(bundle: Path | None) -> dict[str, str]:
    return os.environ | {"COLUMNS": "200"} | ({"FUNDUS_BUNDLE": str(bundle)} if bundle else {})


def run(output: Path, bundle: Path | None, *arguments: str) -> Outcome:
    done = subprocess.run(
        command(output, *arguments),
        env=environment(bundle),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, output)


def started_for(output: Path) -> list[psutil.Process]:
    """Processes whose command line names the folder: what a demonstration started and left behind."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(output) in " ".join(process.cmdline()):
                found.append(process)
    return found


def wait_until(done: Callable[[], bool], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def assert_complete(outcome: Outcome) -> None:
    """Every report is there, the database agrees, nothing runs on."""
    assert outcome.status == 0, outcome.text
    reports = [pydicom.dcmread(path) for path in (outcome.output / "pacs").iterdir()]
    assert Counter(str(each.StudyInstanceUID) for each in reports).most_common(1)[0][1] == 1
    assert len(reports) == STUDIES
    assert {each.SOPClassUID for each in reports} == {Comprehensive3DSRStorage}
    with sqlite3.connect(outcome.output / "data" / "fundus.db") as connection:
        rows = connection.execute("SELECT state, route FROM v_results").fetchall()
        delivered = connection.execute("SELECT COUNT(*) FROM v_eye_results WHERE delivered_at IS NOT NULL")
        assert delivered.fetchone()[0] == PHOTOGRAPHS
    connection.close()
    assert Counter(route for _, route in rows) == {"labelled": 4, "adapter": 6, "known": 2, "unknown": 2}
    assert {state for state, _ in rows} == {"ANALYSED"}
    assert started_for(outcome.output) == []


def assert_shown(outcome: Outcome) -> None:
    """What a person reads, and what they can do next."""
    rows = [line for line in outcome.text.splitlines() if line.startswith("│ DEMO-")]
    assert len(rows) == PHOTOGRAPHS
    assert sum("withheld: CAMERA_NOT_VALIDATED" in row for row in rows) == 4
    assert "Imaging Measurement Report" in outcome.text
    assert f"All {STUDIES} reports arrived" in outcome.text
    sheet = cv2.imread(str(outcome.output / "contact-sheet.png"))
    assert sheet is not None
    assert sheet.shape[0] > PHOTOGRAPHS * 200
    queries = [line.strip() for line in outcome.text.splitlines() if "fundus.db" in line]
    assert len(queries) >= 2
    for query in queries:
        answer = subprocess.run(shlex.split(query), capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.strip()


def assert_nobody_is_named(outcome: Outcome) -> None:
    for path in (outcome.output / "logs").iterdir():
        log = path.read_text(errors="replace")
        assert "DEMO^" not in log
        assert "DEMO-P" not in log


def test_the_demonstration_works_and_works_again_in_the_same_folder(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    output = tmp_path / "an output folder"
    for _ in range(2):
        outcome = run(output, tiny_bundle)

        assert_complete(outcome)
        assert_shown(outcome)
        assert_nobody_is_named(outcome)


def test_it_works_with_the_bundle_that_comes_with_the_program(tmp_path: Path) -> None:
    outcome = run(tmp_path / "output", None)

    assert_complete(outcome)
    assert "(bundle reference" in outcome.text


@pytest.mark.redis
def test_it_works_through_celery_and_redis(tmp_path: Path, tiny_bundle: Path, redis_server_url: str) -> None:
    assert redis_server_url  # skips where no redis-server is installed, and fails in CI

    outcome = run(tmp_path / "output", tiny_bundle, "--broker", "redis")

    assert_complete(outcome)
    assert {path.stem for path in (tmp_path / "output" / "logs").iterdir()} == {
        "demo",
        "listen",
        "redis",
        "sweep",
        "work",
    }
    assert "consuming" in (tmp_path / "output" / "logs" / "work.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_everything(tmp_path: Path, tiny_bundle: Path, number: signal.Signals) -> None:
    output = tmp_path / "output"
    process = subprocess.Popen(
        command(output), env=environment(tiny_bundle), stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(started_for(output)) == 2)  # the demonstration and its worker

    process.send_signal(number)
    text, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "everything that was started has been stopped" in text
    assert started_for(output) == []


def test_with_keep_the_worker_goes_on_until_it_is_interrupted(tmp_path: Path, tiny_bundle: Path) -> None:
    output, log = tmp_path / "output", tmp_path / "console.txt"
    with log.open("w") as console:
        process = subprocess.Popen(
            command(output, "--keep"), env=environment(tiny_bundle), stdout=console, text=True
        )
    wait_until(lambda: "goes on listening" in log.read_text())
    assert len(started_for(output)) == 2

    process.send_signal(signal.SIGINT)

    assert process.wait(60) == 0
    assert started_for(output) == []


def test_a_worker_that_does_not_start_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("needs an engine that is not installed")
    monkeypatch.setenv("FUNDUS_ENGINE", "tensorrt")

    outcome = run(tmp_path / "output", tiny_bundle)

    assert outcome.status == 1
    assert "The demonstration failed: serve ended with status 2" in outcome.text
    assert "TensorRT" in outcome.text
    assert "Logs:" in outcome.text
    assert started_for(tmp_path / "output") == []


def test_a_damaged_bundle_is_an_error_before_anything_is_started(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    (bundle / "classifier.onnx").write_bytes(b"no graph")

    outcome = run(tmp_path / "output", bundle)

    assert outcome.status == 1
    assert "classifier.onnx" in outcome.text.replace("\n", "")
    assert not (tmp_path / "output" / "logs" / "serve.log").exists()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()

    outcome = run(tmp_path, None)

    assert outcome.status == 2
    assert "choose another --output" in outcome.text
