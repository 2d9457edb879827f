from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from factories.bundle import write_tiny_bundle
from factories.demo import result
from rich.console import Console

from models.bundle import Bundle
from worker.demo import run, stage
from worker.demo.configuration import PACS_AE, write_configuration
from worker.demo.folder import demo_folder
from worker.demo.pacs import ReceivingPacs
from worker.demo.performing import Performance
from worker.demo.processes import Programs
from worker.demo.run import run_demo
from worker.demo.showing import show
from worker.demo.stage import Stage, open_console
from worker.demo.studies import make_studies
from worker.settings import load_settings


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Put back what the demonstration changes in its process: it is a command, and has one to itself."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning
    yield
    root.handlers[:], root.level = handlers, level
    sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = hooks
    structlog.reset_defaults()


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    folder = write_tiny_bundle(tmp_path / "bundle")
    monkeypatch.setenv("FUNDUS_BUNDLE", str(folder))
    return Bundle.load(folder)


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed."""
    output = io.StringIO()
    monkeypatch.setattr(run, "open_console", lambda: Console(file=output, width=140))
    return output


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(*_: object) -> None:
        raise error

    monkeypatch.setattr(run, "perform", perform)


@pytest.mark.usefixtures("bundle")
def test_a_mistake_in_the_program_is_in_the_log_and_fails(
    tmp_path: Path, text: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(ZeroDivisionError("DEMO^ONE"), monkeypatch)

    status = run_demo(tmp_path / "output", "")

    log = (tmp_path / "output" / "logs" / "demo.log").read_text()
    assert status == 1
    assert "The demonstration failed: ZeroDivisionError" in text.getvalue()
    assert "demonstration_failed" in log
    assert "DEMO^ONE" not in log + text.getvalue()


@pytest.mark.usefixtures("bundle")
def test_an_interruption_has_its_own_status(
    tmp_path: Path, text: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)

    assert run_demo(tmp_path / "output", "") == 130
    assert "Interrupted" in text.getvalue()


@pytest.mark.usefixtures("bundle")
def test_a_closed_terminal_ends_it_like_ctrl_c_and_handlers_are_put_back(
    tmp_path: Path, text: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(run, "perform", lambda *_: os.kill(os.getpid(), signal.SIGHUP))

    assert run_demo(tmp_path / "output", "") == 130
    assert signal.getsignal(signal.SIGHUP) is before
    assert "Interrupted" in text.getvalue()


@pytest.mark.usefixtures("bundle")
def test_on_another_thread_than_the_main_one_signals_are_left_alone(
    tmp_path: Path, text: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(ZeroDivisionError(), monkeypatch)
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(run_demo(tmp_path / "output", "")))

    thread.start()
    thread.join(60)

    assert statuses == [1]
    assert "ZeroDivisionError" in text.getvalue()


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def prepared(tmp_path: Path, bundle: Bundle, output: io.StringIO) -> Iterator[Stage]:
    """A stage on which no worker runs."""
    with ExitStack() as stack:
        folder = stack.enter_context(demo_folder(tmp_path / "output"))
        pacs = stack.enter_context(ReceivingPacs(folder.pacs, PACS_AE))
        programs = stack.enter_context(Programs(folder.logs, {}))
        write_configuration(folder, listener_port=20001, pacs_port=pacs.port)
        settings = load_settings(folder.configuration, environ={})
        yield Stage(Console(file=output, width=140), folder, settings, bundle, programs, pacs)


def test_it_says_what_is_wrong_when_no_report_arrived(prepared: Stage, output: io.StringIO) -> None:
    studies = make_studies(prepared.bundle.manifest, prepared.folder.photographs)[:1]
    results = tuple(
        result(
            study_instance_uid=studies[0].study_instance_uid,
            sop_instance_uid=each.sop_instance_uid,
            laterality=each.laterality,
        )
        for each in studies[0].photographs
    )

    well = show(prepared, Performance(tuple(studies), results, 1.0))

    assert not well
    assert "WRONG: DEMO-0001: the PACS has 0 reports instead of one" in output.getvalue()
    assert "reports arrived" not in output.getvalue()
    assert prepared.folder.contact_sheet.exists()


def test_the_roles_follow_from_the_broker(prepared: Stage) -> None:
    assert prepared.roles == ("serve",)


@pytest.mark.parametrize(("columns", "width"), [(None, 152), ("90", 90)])
def test_without_a_window_the_table_has_room(
    columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "Console", lambda highlight: Console(file=io.StringIO(), highlight=highlight))
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)

    assert open_console().width == width
