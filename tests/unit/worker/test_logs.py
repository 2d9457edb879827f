"""Whatever goes wrong, and whoever reports it: the kind and the place are in the log, the patient is not."""

from __future__ import annotations

import gc
import io
import json
import logging
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import sqlalchemy
import structlog

from worker.errors import ClaimLostError, WorkerError
from worker.logs import configure_logging, describe_exception

PATIENT = "Quisquilia"
log = structlog.get_logger("worker.example")


@pytest.fixture
def untouched() -> Iterator[None]:
    """Put back what configuring the log changes in the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning
    yield
    root.handlers[:], root.level = handlers, level
    sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = hooks
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def stream(untouched: None) -> io.StringIO:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    assert PATIENT not in stream.getvalue()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def only_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = lines(stream)
    return line


def test_an_event_is_one_json_line_with_its_fields(stream: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(association_id="a1")
    log.info("object_stored", sop_instance_uid="1.2.3", ms=4.5)
    line = only_line(stream)
    assert list(line)[:5] == ["timestamp", "level", "event", "logger", "pid"]
    assert line["event"] == "object_stored"
    assert (line["level"], line["logger"]) == ("info", "worker.example")
    assert (line["sop_instance_uid"], line["ms"], line["association_id"]) == ("1.2.3", 4.5, "a1")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == datetime.now(UTC).utcoffset()


def test_what_is_below_the_level_is_not_written(stream: io.StringIO) -> None:
    log.debug("too_fine")
    logging.getLogger("pydicom").info("too fine")
    assert lines(stream) == []
    configure_logging("json", "debug", stream)
    log.debug("wanted")
    assert only_line(stream)["event"] == "wanted"


class Side(Enum):
    LEFT = "L"


def test_fields_that_name_a_patient_are_dropped_however_deep(stream: io.StringIO) -> None:
    log.info(
        "study_seen",
        patient_name=PATIENT,
        PatientID=PATIENT,
        birth_date=PATIENT,
        name=PATIENT,
        nested={"patient": PATIENT, "rows": [{"PersonName": PATIENT, "frame": 1}]},
        destination="pacs",
    )
    line = only_line(stream)
    assert line["nested"] == {"rows": [{"frame": 1}]}
    assert line["destination"] == "pacs"
    assert not {"patient_name", "PatientID", "birth_date", "name"} & line.keys()


def test_objects_are_reduced_to_their_type(stream: io.StringIO) -> None:
    ds = pydicom.Dataset()
    ds.PatientName = PATIENT
    log.info(
        "seen", ds=ds, element=ds["PatientName"], value=ds.PatientName, error=ValueError(PATIENT), none=None
    )
    line = only_line(stream)
    assert line["ds"] == "<pydicom.dataset.Dataset>"
    assert line["element"] == "<pydicom.dataelem.DataElement>"
    assert line["value"] == "<pydicom.valuerep.PersonName>"
    assert line["error"] == "<ValueError>"
    assert line["none"] is None


def test_plain_values_are_kept(stream: io.StringIO) -> None:
    log.info(
        "seen",
        path=Path("a/b"),
        flag=True,
        side=Side.LEFT,
        count=np.int64(3),
        share=np.float32(0.5),
        endless=float("inf"),
        day=datetime(2026, 1, 2, tzinfo=UTC),
        ids={7},
        error=ClaimLostError("taken over"),
    )
    line = only_line(stream)
    assert (line["path"], line["flag"], line["side"]) == ("a/b", True, "L")
    assert (line["count"], line["share"], line["endless"], line["ids"]) == (3, 0.5, "inf", [7])
    assert line["day"] == "2026-01-02 00:00:00+00:00"
    assert line["error"] == "worker.errors.ClaimLostError: taken over"


def test_a_peers_text_cannot_begin_a_line_of_its_own(untouched: None) -> None:
    stream = io.StringIO()
    configure_logging("console", "info", stream)
    log.info("association_opened", calling_ae="X\n2026 [info] all_well\x1b[2J")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b[2J" not in stream.getvalue()


def test_a_sentence_in_place_of_an_event_name_is_not_written(stream: io.StringIO) -> None:
    log.info(f"stored image of {PATIENT}")  # noqa: G004  (what must not be done)
    line = only_line(stream)
    assert line["event"] == "event_without_a_name"
    assert line["place"].startswith("test_logs.py:")


@pytest.mark.parametrize(
    "name", ["pydicom", "pynetdicom.acse", "sqlalchemy.engine", "celery.task", "alembic"]
)
def test_of_a_library_message_only_the_place_is_left(stream: io.StringIO, name: str) -> None:
    logger = logging.getLogger(name)
    logger.warning("invalid value %r", PATIENT, extra={"patient": PATIENT}, stack_info=True)
    line = only_line(stream)
    assert {k: v for k, v in line.items() if k not in {"timestamp", "pid", "place"}} == {
        "level": "warning",
        "event": "library_message",
        "logger": name,
    }
    assert line["place"].startswith("test_logs.py:")


def test_a_library_cannot_go_round_the_chain_with_a_handler_of_its_own(untouched: None) -> None:
    its_own, stream = io.StringIO(), io.StringIO()
    logger = logging.getLogger("some.library")
    logger.addHandler(logging.StreamHandler(its_own))
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    configure_logging("json", "info", stream)
    logger.error(PATIENT)
    assert its_own.getvalue() == ""
    assert only_line(stream)["logger"] == "some.library"


def test_a_message_that_does_not_fit_its_arguments_is_not_quoted(
    untouched: None, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)  # here, as pytest adds a handler of its own before the test
    logging.getLogger("pydicom").warning("%d %d", PATIENT)  # noqa: PLE1206  (what must not be done)
    assert only_line(stream)["event"] == "library_message"
    assert capfd.readouterr().err == ""


class Unprintable:
    def __str__(self) -> str:
        raise ValueError(PATIENT)


def test_a_record_that_cannot_be_written_is_reported_without_its_content(
    untouched: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging("json", "info", io.StringIO())
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    logging.getLogger("pydicom").warning(Unprintable())
    seen = capfd.readouterr().err
    assert seen.startswith("log_record_lost: ValueError while writing a record of pydicom (test_logs.py:")
    assert PATIENT not in seen
    monkeypatch.setattr(sys, "__stderr__", None)  # as under pythonw or a closed console
    logging.getLogger("pydicom").warning(Unprintable())


def pydicom_error() -> None:
    pydicom.DataElement(0x00100030, "DA", PATIENT, validation_mode=pydicom.config.RAISE)


def value_error() -> None:
    int(PATIENT)


def sql_error() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO nowhere VALUES (:who)"), {"who": PATIENT})
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("fail", "kind", "place"),
    [
        (pydicom_error, "ValueError", "pydicom_error"),
        (value_error, "ValueError", "value_error"),
        (sql_error, "sqlalchemy.exc.OperationalError", "sql_error"),
    ],
)
def test_a_library_exception_is_shown_by_kind_and_place(
    stream: io.StringIO, fail: Callable[[], None], kind: str, place: str
) -> None:
    try:
        fail()
    except Exception as error:
        shown_by_python = "".join(traceback.format_exception(error))
        log.exception("job_failed", sop_instance_uid="1.2.3")
        logging.getLogger("pynetdicom").exception("%s", error)
    assert PATIENT in shown_by_python, "else the test would prove nothing"
    ours, theirs = lines(stream)
    for line in (ours, theirs):
        described = line["exception"][0]
        assert described["type"] == kind
        assert "message" not in described
        assert any(frame.endswith(f" {place}") for frame in described["frames"])


def test_our_own_exceptions_keep_their_text_and_their_causes(stream: io.StringIO) -> None:
    try:
        try:
            value_error()
        except ValueError as error:
            raise WorkerError("the file 1.2.3.dcm is damaged") from error
    except WorkerError as error:
        log.error("job_failed", exc_info=error)
    ours, cause = only_line(stream)["exception"]
    assert (ours["type"], ours["message"]) == ("worker.errors.WorkerError", "the file 1.2.3.dcm is damaged")
    assert cause["type"] == "ValueError"
    assert cause["frames"][-1].endswith(" value_error")


def test_exceptions_in_groups_and_circles_are_each_shown_once() -> None:
    first, second = ValueError(PATIENT), KeyError(PATIENT)
    first.__context__, second.__context__ = second, first
    hidden = RuntimeError()
    hidden.__context__, hidden.__suppress_context__ = OSError(), True
    group = ExceptionGroup("group", [first, second, hidden])
    described = describe_exception(group)
    assert [each["type"] for each in described] == [
        "ExceptionGroup",
        "ValueError",
        "KeyError",
        "RuntimeError",
    ]


def test_long_chains_and_deep_stacks_are_cut() -> None:
    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError
        dive(depth - 1)

    error = ValueError()
    for _ in range(20):
        error, error.__context__ = ValueError(), error
    assert len(describe_exception(error)) == 8
    with pytest.raises(ValueError, match=r"^$") as caught:
        dive(200)
    frames = describe_exception(caught.value)[0]["frames"]
    assert len(frames) == 41
    assert frames[10] == "… 162 more …"
    assert frames[-1].endswith("dive")


def test_exc_info_without_an_exception_adds_nothing(stream: io.StringIO) -> None:
    log.info("done", exc_info=True)
    log.info("done", exc_info=(None, None, None))
    assert all("exception" not in line for line in lines(stream))


def test_uncaught_exceptions_go_to_the_log(stream: io.StringIO) -> None:
    error = ValueError(PATIENT)
    sys.excepthook(ValueError, error, None)
    line = only_line(stream)
    assert (line["event"], line["level"], line["logger"]) == ("uncaught_exception", "critical", "worker.logs")
    assert line["exception"][0]["type"] == "ValueError"


def test_a_thread_that_dies_is_in_the_log(stream: io.StringIO) -> None:
    for target in (value_error, sys.exit):
        thread = threading.Thread(target=target, name="listener")
        thread.start()
        thread.join()
    line = only_line(stream)
    assert (line["event"], line["thread"]) == ("thread_died", "listener")
    assert line["exception"][0]["frames"][-1].endswith(" value_error")


def test_exceptions_that_python_ignores_are_in_the_log(stream: io.StringIO) -> None:
    class Dying:
        def __del__(self) -> None:
            raise ValueError(PATIENT)

    Dying()
    gc.collect()
    line = only_line(stream)
    assert (line["event"], line["exception"][0]["type"]) == ("exception_ignored", "ValueError")


def test_warnings_go_to_the_log_by_category_and_place(untouched: None) -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        configure_logging("json", "info", stream)
        warnings.simplefilter("always")
        warnings.warn(f"invalid {PATIENT}", UserWarning, stacklevel=1)
    line = only_line(stream)
    assert (line["event"], line["category"]) == ("warning_issued", "UserWarning")
    assert line["place"].startswith("test_logs.py:")


def test_people_get_lines_and_indented_frames(untouched: None) -> None:
    stream = io.StringIO()
    configure_logging("console", "info", stream)
    log.info("object_stored", ms=4)
    try:
        raise WorkerError("no disk") from ValueError(PATIENT)
    except WorkerError:
        log.exception("job_failed")
    text = stream.getvalue()
    assert "object_stored" in text
    assert "ms=4" in text
    assert "worker.errors.WorkerError: no disk\n    " in text
    assert "\nValueError" in text
    assert PATIENT not in text
    assert "\x1b[" not in text, "no colours into a file"


PROGRAM = """
import logging, threading, warnings
from worker.logs import configure_logging
configure_logging({format!r}, "info")
patient = "".join(["Quis", "quilia"])
warnings.simplefilter("always")
warnings.warn("bad " + patient)
logging.getLogger("pydicom").error(patient)
class Dying:
    def __del__(self): raise ValueError(patient)
Dying()
thread = threading.Thread(target=lambda: int(patient)); thread.start(); thread.join()
{{}}[patient]
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_whole_process_says_nothing_else(log_format: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(format=log_format)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert PATIENT not in done.stderr
    for event in (
        "warning_issued",
        "library_message",
        "exception_ignored",
        "thread_died",
        "uncaught_exception",
    ):
        assert event in done.stderr
    assert "KeyError" in done.stderr
