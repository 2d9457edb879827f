"""`serve`, `listen`, `work`, `sweep`: the processes, until a signal stops them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import structlog
import typer

from worker.commands.options import CANNOT_RUN, NEEDS_ATTENTION, ConfigOption, explained, settings_of, stderr
from worker.dispatch import Job
from worker.service import Role, Service
from worker.settings import Settings

log = structlog.get_logger(__name__)
_STOP_S = 30.0


@explained
def serve(
    config: ConfigOption = None,
    no_delivery: Annotated[
        bool, typer.Option("--no-delivery", help="Run without destinations: reports stay in the data folder.")
    ] = False,
) -> None:
    """Run everything in one process: listener, analysis, reports, delivery, sweep.

    SIGTERM or Ctrl-C stops it: new associations are refused, what is in flight ends, the rest is left to the
    next start. Nothing that was acknowledged is lost, however the process ends.
    """
    settings = settings_of(config)
    _require_destination(settings, no_delivery)
    _run(Service(settings, Role.SERVE))


@explained
def listen(config: ConfigOption = None) -> None:
    """Receive only: store what arrives and leave its analysis to `work` processes."""
    _run(Service(settings_of(config), Role.LISTEN))


@explained
def work(
    config: ConfigOption = None,
    queues: Annotated[
        str, typer.Option(help="Kinds of job to take on, separated by commas: analyse, report, deliver.")
    ] = "analyse,report,deliver",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Images in work at once; default twice [batching] max_batch.")
    ] = None,
    no_delivery: Annotated[
        bool, typer.Option("--no-delivery", help="Run without destinations: reports stay in the data folder.")
    ] = False,
) -> None:
    """Analyse, report and deliver what listeners stored: over the broker, or by looking at the table."""
    overrides: dict[str, Any] = {"jobs": {"analyse_concurrency": concurrency}} if concurrency else {}
    settings = settings_of(config, overrides)
    jobs = _jobs(queues)
    if Job.DELIVER in jobs:
        _require_destination(settings, no_delivery)
    service = Service(settings, Role.WORK, jobs)
    if settings.broker_url:
        from worker.celery_worker import run_celery_worker

        raise typer.Exit(run_celery_worker(service, jobs))
    _run(service)


@explained
def sweep(config: ConfigOption = None) -> None:
    """Close studies whose time has come and wake whatever is due; any number may run."""
    _run(Service(settings_of(config), Role.SWEEP))


def _jobs(queues: str) -> frozenset[Job]:
    names = [name.strip() for name in queues.split(",") if name.strip()]
    known = {str(job) for job in Job}
    if not names or (unknown := [name for name in names if name not in known]):
        wrong = ", ".join(unknown) if names else "nothing"
        raise typer.BadParameter(f"{wrong}: choose from {', '.join(sorted(known))}", param_hint="--queues")
    return frozenset(Job(name) for name in names)


def _require_destination(settings: Settings, no_delivery: bool) -> None:
    if settings.destinations or no_delivery:
        return
    stderr.print(
        "[bold red]error:[/] no destination is configured, so no report would reach the PACS; "
        r"add a \[\[destination]] to the configuration, or say --no-delivery"
    )
    raise typer.Exit(CANNOT_RUN)


def _run(service: Service) -> None:
    with stop_signals() as stop:
        service.start()
        stop.wait()
        log.info("service_stopping", role=str(service.role))
        if not service.stop(_STOP_S):
            raise typer.Exit(NEEDS_ATTENTION)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Set the event on SIGTERM and SIGINT; a second signal ends the process in the ordinary way."""
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    previous = {each: signal.signal(each, ask) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
