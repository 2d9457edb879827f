"""`fundus-worker demo`: the main job on one machine, with real photographs, processes, sockets and files."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from dicom_io.report_text import render_text
from dicom_io.sender import Peer, echo
from models.bundle import Bundle
from models.errors import ModelError
from models.predictor import Predictor
from worker.database import create_database_engine
from worker.demo.checks import Reports, find_problems, read_reports
from worker.demo.configuration import AE_TITLE, CAMERA_AE, PACS_AE, worker_environment, write_configuration
from worker.demo.contact_sheet import draw_contact_sheet, make_tiles, write_png
from worker.demo.errors import DemoError
from worker.demo.folder import DemoFolder, demo_folder
from worker.demo.pacs import ReceivingPacs
from worker.demo.processes import Programs, find_redis, free_port, start_redis, worker_command
from worker.demo.results import Result, count_ended, read_results
from worker.demo.sending import ASSOCIATIONS, send_studies
from worker.demo.studies import DemoStudy, make_studies
from worker.demo.table import QUERIES, footnote, query_command, results_table, shown
from worker.errors import WorkerError
from worker.logs import configure_logging
from worker.settings import Settings, load_settings

log = structlog.get_logger(__name__)
START_TIMEOUT_S = 60.0
WORK_TIMEOUT_S = 180.0
_READY = "service_started"
_NARROWEST = 140
_INTERRUPTED = 130


@dataclass(frozen=True)
class _Stage:
    """What the acts of the demonstration share."""

    console: Console
    progress: Progress
    folder: DemoFolder
    settings: Settings
    bundle: Bundle
    programs: Programs
    pacs: ReceivingPacs


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
    console = _console()
    redis_binary = find_redis() if broker else ""
    with demo_folder(output) as folder, (folder.logs / "demo.log").open("a", encoding="utf-8") as own_log:
        configure_logging("console", "info", own_log)
        try:
            with _signals_as_interrupt():
                return _run(console, folder, redis_binary, keep)
        except KeyboardInterrupt:
            console.print("\ninterrupted; everything that was started has been stopped")
            return _INTERRUPTED
        except (WorkerError, ModelError) as error:
            console.print(f"\nThe demonstration failed: {error}", style="bold red", markup=False)
        except Exception as error:
            log.exception("demonstration_failed")
            console.print(f"\nThe demonstration failed: {type(error).__name__}", style="bold red")
        console.print(f"Logs: {shown(folder.logs)}/", markup=False)
        return 1


def _console() -> Console:
    """Standard output; never narrower than the table where nobody's window limits it."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _NARROWEST
    return console


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
    console.print(
        "[bold]fundus-worker demonstration[/]: research use only, not a medical device. "
        "Photographs: IDRiD (CC BY 4.0); people and dates are made up.\n"
    )
    environ = worker_environment(os.environ)
    with ExitStack() as stack:
        pacs = stack.enter_context(ReceivingPacs(folder.pacs, PACS_AE))
        services = stack.enter_context(Programs(folder.logs, environ))
        programs = stack.enter_context(Programs(folder.logs, environ))
        broker_url = ""
        if redis_binary:
            broker_url = start_redis(services, redis_binary, folder.data / "redis", START_TIMEOUT_S)
        write_configuration(folder, listener_port=free_port(), pacs_port=pacs.port, broker_url=broker_url)
        settings = load_settings(folder.configuration, environ=environ)
        engine = create_database_engine(settings.resolved_database_url)
        stack.callback(engine.dispose)
        bundle = Bundle.load(settings.bundle)
        with _progress(console) as progress:
            stage = _Stage(console, progress, folder, settings, bundle, programs, pacs)
            studies, seconds = _send_and_wait(stage, engine)
        status = _show(stage, studies, read_results(engine), seconds)
        _say_goodbye(stage, time.monotonic() - started)
        if keep:
            _wait_for_interrupt(stage)
        return status


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _send_and_wait(stage: _Stage, engine: Engine) -> tuple[list[DemoStudy], float]:
    """Start the worker, send everything, wait until every report is at the PACS; also return the seconds."""
    roles = ("listen", "work", "sweep") if stage.settings.broker_url else ("serve",)
    progress, programs = stage.progress, stage.programs
    starting = progress.add_task(f"starting {', '.join(roles)}", total=len(roles))
    started = [programs.start(role, worker_command(role, stage.folder.configuration)) for role in roles]
    studies = make_studies(stage.bundle.manifest, stage.folder.photographs)
    images = sum(len(study.photographs) for study in studies)

    def ready() -> bool:
        count = sum(program.has_logged(_READY) for program in started)
        progress.update(starting, completed=count)
        return count == len(started)

    programs.wait_until(ready, "starting the worker", START_TIMEOUT_S)
    door = stage.settings.listener
    peer = Peer(AE_TITLE, door.host, door.port, CAMERA_AE)
    answer = echo(peer)
    if not answer.ok:
        raise DemoError(f"the worker does not answer a C-ECHO: {answer.detail}")
    sending = progress.add_task(f"sent, {ASSOCIATIONS} at a time", total=images)
    analysed = progress.add_task("analysed", total=images)
    reported = progress.add_task("reports at the PACS", total=len(studies))
    first = time.monotonic()
    send_studies(peer, studies, lambda: progress.advance(sending))

    def done() -> bool:
        ended = count_ended(engine)
        progress.update(analysed, completed=ended)
        progress.update(reported, completed=stage.pacs.received)
        return ended >= images and stage.pacs.received >= len(studies)

    programs.wait_until(done, "analysing and reporting", WORK_TIMEOUT_S)
    return studies, time.monotonic() - first


def _show(stage: _Stage, studies: Sequence[DemoStudy], results: Sequence[Result], seconds: float) -> int:
    """Print and draw what came out; return the exit status."""
    console, folder = stage.console, stage.folder
    photographs = {each.sop_instance_uid: each for study in studies for each in study.photographs}
    references = {name: each.reference_grade for name, each in photographs.items()}
    reports = read_reports(folder.pacs)
    problems = find_problems(studies, results, reports)
    console.print()
    console.print(results_table(results, references))
    console.print(footnote(results, references), style="dim")
    console.print(
        f"\n{len(results)} photographs in, {len(reports)} reports out, in {seconds:.1f} s "
        f"(bundle {stage.bundle.manifest.id} {stage.bundle.manifest.version}).",
        markup=False,
    )
    _show_reports(stage, results, reports)
    tiles = make_tiles(
        Predictor(stage.bundle, engine=stage.settings.engine, threads=stage.settings.engine_threads),
        results,
        {name: each.path for name, each in photographs.items()},
        references,
    )
    title = f"fundus-worker demonstration: bundle {stage.bundle.manifest.id} {stage.bundle.manifest.version}"
    labels = stage.bundle.manifest.activation_labels
    write_png(folder.contact_sheet, draw_contact_sheet(tiles, title, labels))
    for problem in problems:
        console.print(f"WRONG: {problem}", style="bold red", markup=False)
    if not problems:
        console.print(
            f"Checked: {len(studies)} studies, one report each at the PACS; every report says what "
            "v_eye_results says.",
            style="green",
        )
    return 1 if problems else 0


def _show_reports(stage: _Stage, results: Sequence[Result], reports: Reports) -> None:
    """List the reports, and show one as text: best an adapted one with a finding."""
    console = stage.console
    names = {result.study_instance_uid: result.accession_number for result in results}
    console.print("\n[bold]Structured Reports at the PACS[/]")
    for study, received in sorted(reports.items(), key=lambda item: names.get(item[0], "")):
        for path, _ in received:
            console.print(f"  {names.get(study, study)}  {shown(path)}", markup=False, soft_wrap=True)
    best_first = sorted(results, key=lambda each: (each.adapter is None, not each.referable))
    example = next((each for each in best_first if each.study_instance_uid in reports), None)
    if example is None:
        return
    console.print(f"\n[bold]The one of {example.accession_number} as text[/]")
    text = render_text(reports[example.study_instance_uid][0][1])
    console.print("\n".join(f"  {line}" for line in text.splitlines()), markup=False, soft_wrap=True)
    console.print()


def _say_goodbye(stage: _Stage, seconds: float) -> None:
    console, folder = stage.console, stage.folder
    console.print("\n[bold]Look further[/]")
    for name, path in (
        ("contact sheet", folder.contact_sheet),
        ("photographs sent", folder.photographs),
        ("configuration", folder.configuration),
        ("logs", folder.logs),
    ):
        console.print(f"  {name:<17} {shown(path)}", markup=False, soft_wrap=True)
    console.print("\n[bold]SQL to try[/]")
    for query in QUERIES:
        console.print(
            f"  {query_command(shown(folder.data / 'fundus.db'), query)}", markup=False, soft_wrap=True
        )
    console.print(f"\nThe whole demonstration took {seconds:.0f} s.", markup=False)


def _wait_for_interrupt(stage: _Stage) -> None:
    """Keep everything running for the user's own files."""
    door = stage.settings.listener
    stage.console.print(
        f"\nThe worker goes on listening: AE title {door.ae_title} at {door.host}:{door.port}, "
        f"caller {CAMERA_AE}. Ctrl-C ends it.",
        markup=False,
    )
    with suppress(KeyboardInterrupt):
        stage.programs.wait_until(lambda: False, "waiting for Ctrl-C", math.inf)
