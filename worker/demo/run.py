"""`fundus-worker demo`: the main job on one machine, with real photographs, processes, sockets and files."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

import structlog
from rich.console import Console

from models.bundle import Bundle
from models.errors import ModelError
from worker.database import create_database_engine
from worker.demo.configuration import CAMERA_AE, PACS_AE, worker_environment, write_configuration
from worker.demo.folder import DemoFolder, demo_folder
from worker.demo.pacs import ReceivingPacs
from worker.demo.performing import START_TIMEOUT_S, perform
from worker.demo.processes import Programs, find_redis, free_port, start_redis
from worker.demo.showing import show
from worker.demo.stage import Stage, open_console
from worker.demo.table import shown
from worker.errors import WorkerError
from worker.logs import configure_logging
from worker.settings import load_settings

log = structlog.get_logger(__name__)
_INTERRUPTED = 130
_INTRODUCTION = (
    "[bold]fundus-worker demonstration[/]: research use only, not a medical device.\n"
    "Photographs: IDRiD (CC BY 4.0). People, dates and cameras are made up.\n"
)


def run_demo(output: Path, broker: Literal["", "redis"], keep: bool = False) -> int:
    """Start worker and PACS, send the studies, show what came of them.

    Args:
        output: Folder for everything that is written.
        broker: "" runs the worker as one process; "redis" as `listen`, `work` and `sweep` with a Redis server
            of their own.
        keep: Leave worker and PACS running at the end until Ctrl-C.

    Returns:
        0 when every report arrived and says what the database says; 1 when not; 130 after Ctrl-C.

    Raises:
        DemoSetupError: The output folder is in use for something else, or Redis is not installed.
    """
    console = open_console()
    redis_binary = find_redis() if broker else ""
    with demo_folder(output) as folder, (folder.logs / "demo.log").open("a", encoding="utf-8") as own_log:
        configure_logging("console", "info", own_log)
        try:
            with _signals_as_interrupt():
                return _run(console, folder, redis_binary, keep)
        except KeyboardInterrupt:
            console.print("\nInterrupted; everything that was started has been stopped.")
            return _INTERRUPTED
        except (WorkerError, ModelError) as error:
            console.print(f"\nThe demonstration failed: {error}", style="bold red", markup=False)
        except Exception as error:
            log.exception("demonstration_failed")
            console.print(f"\nThe demonstration failed: {type(error).__name__}", style="bold red")
        console.print(f"Logs: {shown(folder.logs)}", markup=False)
        return 1


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """A SIGTERM or a closed terminal unwinds like Ctrl-C, so that it leaves no process behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in handled]
    try:
        yield
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)


def _run(console: Console, folder: DemoFolder, redis_binary: str, keep: bool) -> int:
    started = time.monotonic()
    console.print(_INTRODUCTION)
    with ExitStack() as stack:
        stage = _set_up(stack, console, folder, redis_binary)
        engine = create_database_engine(stage.settings.resolved_database_url)
        stack.callback(engine.dispose)
        well = show(stage, perform(stage, engine))
        console.print(f"The demonstration took {time.monotonic() - started:.0f} s.", markup=False)
        if keep:
            _wait_for_interrupt(stage)
    return 0 if well else 1


def _set_up(stack: ExitStack, console: Console, folder: DemoFolder, redis_binary: str) -> Stage:
    """Everything but the worker's processes; the stack stops those first, then broker, then PACS."""
    environ = worker_environment(os.environ)
    pacs = stack.enter_context(ReceivingPacs(folder.pacs, PACS_AE))
    services = stack.enter_context(Programs(folder.logs, environ))
    programs = stack.enter_context(Programs(folder.logs, environ))
    broker_url = ""
    if redis_binary:
        broker_url = start_redis(services, redis_binary, folder.data / "redis", START_TIMEOUT_S)
    write_configuration(folder, listener_port=free_port(), pacs_port=pacs.port, broker_url=broker_url)
    settings = load_settings(folder.configuration, environ=environ)
    return Stage(console, folder, settings, Bundle.load(settings.bundle), programs, pacs)


def _wait_for_interrupt(stage: Stage) -> None:
    """Keep everything running for the user's own files."""
    door = stage.settings.listener
    stage.console.print(
        f"\nThe worker goes on listening: AE title {door.ae_title} at {door.host}:{door.port}, "
        f"caller {CAMERA_AE}. Ctrl-C ends it.",
        markup=False,
    )
    with suppress(KeyboardInterrupt):
        stage.programs.wait_until(lambda: False, "waiting for Ctrl-C", math.inf)
