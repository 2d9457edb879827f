"""The log: one line an event, for people or for collectors, and never a patient's identity.

Our own events are names with fields. Whatever else writes to Python's log, warns or raises is not ours to
trust: a DICOM library may quote the value it stumbled over, a database error its parameters. Of those only
the kind and the place are kept: logger, level, file and line, type of exception, frames without values. The
text of an exception is kept for our own classes, whose texts are written without identity.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from datetime import date, time
from enum import Enum
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO
from uuid import UUID

import structlog
from structlog.typing import EventDict, Processor

OUR_PACKAGES = ("worker", "dicom_io", "models")

_EVENT_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FORBIDDEN_FIELD = re.compile(r"patient|^name$|birth|person_?name", re.IGNORECASE)
_FIRST_FIELDS = ("timestamp", "level", "event", "logger", "pid")
_MOST_FRAMES = 40
_MOST_EXCEPTIONS = 8

log = structlog.get_logger(__name__)


def configure_logging(
    log_format: Literal["console", "json"], level: str, stream: TextIO | None = None
) -> None:
    """Send every log record, warning and uncaught exception of this process through the scrubbing chain.

    May be called again; the last call counts. Handlers that libraries attached to their own loggers are
    removed, as they would print what this chain takes out.

    Args:
        log_format: "console" for people, "json" for one JSON object a line.
        level: "debug", "info", "warning" or "error": the least level of our own events. Libraries are heard
            from "warning" on, as nothing but the place is left of their messages.
        stream: Where to write; standard error by default.
    """
    output = sys.stderr if stream is None else stream
    handler = _ScrubbingHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_forget_message],
            processors=[_describe_record, scrub, *_renderers(log_format, output.isatty())],
            use_get_message=False,
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    _take_over(handler, level.upper())
    _install_hooks()


def _renderers(log_format: str, colours: bool) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.JSONRenderer(ensure_ascii=False)]
    plain = structlog.dev.plain_traceback
    return [_exceptions_as_text, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]


def _take_over(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers[:] = [each for each in logger.handlers if isinstance(each, logging.NullHandler)]
            logger.propagate = True
    for package in OUR_PACKAGES:
        logging.getLogger(package).setLevel(level)


class _ScrubbingHandler(logging.StreamHandler[TextIO]):
    """A stream handler that, when a record cannot be written, does not print the record instead."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say which record was lost and why, by kind and place only."""
        kind = _type_name(type(sys.exc_info()[1]))
        if sys.__stderr__ is not None:
            place = f"{record.name} ({record.filename}:{record.lineno})"
            sys.__stderr__.write(f"log_record_lost: {kind} while writing a record of {place}\n")


def _forget_message(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Of a library's record keep where it came from and the exception; its text may hold anything."""
    record: logging.LogRecord = event["_record"]
    kept = {key: event[key] for key in ("_record", "_from_structlog", "exc_info") if key in event}
    return {**kept, "event": "library_message", "place": f"{record.filename}:{record.lineno}"}


def _describe_record(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add what every line has."""
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog")
    name = event.pop("event", None)
    if not (isinstance(name, str) and _EVENT_NAME.fullmatch(name)):  # a sentence could hold anything
        name, event["place"] = "event_without_a_name", f"{record.filename}:{record.lineno}"
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)(None, "", {})["timestamp"]
    return {
        "timestamp": stamp,
        "level": record.levelname.lower(),
        "event": name,
        "logger": record.name,
        "pid": os.getpid(),
        **{key: value for key, value in event.items() if key not in _FIRST_FIELDS},
    }


def scrub(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Drop fields that name a patient, keep of objects only their type, of exceptions only kind and place."""
    error = _exception_of(event.pop("exc_info", None))
    event.pop("stack_info", None)
    clean: EventDict = {key: _plain(value) for key, value in event.items() if _is_allowed(key)}
    if error is not None:
        clean["exception"] = describe_exception(error)
    return clean


def _exception_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    found = exc_info if isinstance(exc_info, tuple) else sys.exc_info() if exc_info else (None, None)
    return found[1] if isinstance(found[1], BaseException) else None


def _is_allowed(field: object) -> bool:
    return not _FORBIDDEN_FIELD.search(str(field))


def _plain(value: object) -> Any:
    """A value as JSON knows it; an object that could show more than its author thought becomes its type."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if _is_allowed(key)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return _plain(value.value)
    return _plain_scalar(value)


def _plain_scalar(value: object) -> str | int | float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(value)  # JSON knows no infinity
    if isinstance(value, str | Path | UUID | date | time):
        return _one_line(str(value))
    if isinstance(value, BaseException) and _is_ours(value):
        return f"{_type_name(type(value))}: {_one_line(str(value))}"
    return f"<{_type_name(type(value))}>"


def _one_line(text: str) -> str:
    """Nothing that a peer sends can begin a line of its own in the log, or steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe_exception(error: BaseException) -> list[dict[str, Any]]:
    """An exception and what led to it, outermost first.

    Returns:
        For each: `type`, `message` (our own classes only), `frames` ("module:line function", innermost last).
    """
    described = []
    for each in _chain(error):
        entry: dict[str, Any] = {"type": _type_name(type(each))}
        if _is_ours(each):
            entry["message"] = _one_line(str(each))
        entry["frames"] = _frames(each.__traceback__)
        described.append(entry)
        if len(described) == _MOST_EXCEPTIONS:
            break
    return described


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes and the members of groups, each once."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        before = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if before is not None:
            waiting.append(before)


def _frames(tb: TracebackType | None) -> list[str]:
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(tb)
    ]
    if len(frames) > _MOST_FRAMES:
        frames[10 : 10 - _MOST_FRAMES] = [f"… {len(frames) - _MOST_FRAMES} more …"]
    return frames


def _exceptions_as_text(_logger: object, _method: str, event: EventDict) -> EventDict:
    """For people: the described exceptions as an indented text."""
    if described := event.get("exception"):
        lines = []
        for each in described:
            lines.append(each["type"] + (f": {each['message']}" if "message" in each else ""))
            lines += [f"    {frame}" for frame in each["frames"]]
        event["exception"] = "\n".join(lines)
    return event


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in OUR_PACKAGES


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _install_hooks() -> None:
    """Route what Python itself would print: its own way shows texts, source lines and object contents."""
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread
    warnings.showwarning = _log_warning


def _log_uncaught(_kind: type[BaseException], error: BaseException, _tb: TracebackType | None) -> None:
    log.critical("uncaught_exception", exc_info=error)


def _log_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else None
        log.critical("thread_died", thread=name, exc_info=args.exc_value)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    log.error("exception_ignored", where=_type_name(type(unraisable.object)), exc_info=unraisable.exc_value)


def _log_warning(  # noqa: PLR0917  (the signature is Python's)
    message: Warning | str,  # may quote a value: not logged
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log.warning("warning_issued", category=_type_name(category), place=f"{Path(filename).name}:{lineno}")
