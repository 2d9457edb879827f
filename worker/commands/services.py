"""`serve`, `listen`, `work`, `sweep`: the processes, until a signal stops them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    cannot_run,
    explained,
    settings_of,
    unbound,
)

if TYPE_CHECKING:
    from worker.dispatch import Job
    from worker.service import Service
    from worker.settings import Settings

_STOP_S = 30.0
_LOOK_S = 0.5
"""How often a process looks whether it has failed."""
NoDeliveryOption = Annotated[
    bool, typer.Option("--no-delivery", help="Run without destinations: reports stay in the data folder.")
]


@explained
def serve(
    config: ConfigOption = None,
    no_delivery: NoDeliveryOption = False,
) -> None:
    """Run everything in one process: listener, analysis, reports, delivery, sweep.

    SIGTERM or Ctrl-C stops it: new associations are refused, what is in flight ends, the rest is left to the
    next start. Nothing that was acknowledged is lost, however the process ends.

    First `fundus-worker check --config fundus.toml`, then:

    fundus-worker serve --config fundus.toml
    """
    from worker.service import Role, Service

    settings = settings_of(config)
    _require_destination(settings, no_delivery)
    _run(Service(settings, Role.SERVE))


@explained
def listen(config: ConfigOption = None) -> None:
    """Receive only: store what arrives and leave its analysis to `work` processes.

    `listen`, `work` and `sweep` together are what `serve` is in one process: use them to restart one without
    the other, or on several machines that share database, spool folder, identity key and broker.
    """
    from worker.service import Role, Service

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
    no_delivery: NoDeliveryOption = False,
) -> None:
    """Analyse, report and deliver what listeners stored: over the broker, or by looking at the table.

    Example, a machine with a GPU that does nothing but analyse:

    fundus-worker work --config fundus.toml --queues analyse
    """
    from worker.dispatch import Job
    from worker.service import Role, Service

    overrides: dict[str, Any] = {"jobs": {"analyse_concurrency": concurrency}} if concurrency else {}
    settings = settings_of(config, overrides)
    jobs = _jobs(queues)
    if jobs & {Job.REPORT, Job.DELIVER}:  # whoever writes a report says where it has to go
        _require_destination(settings, no_delivery)
    service = Service(settings, Role.WORK, jobs)
    if settings.broker_url:
        from worker.celery_worker import run_celery_worker

        raise typer.Exit(run_celery_worker(service, jobs))
    _run(service)


@explained
def sweep(config: ConfigOption = None) -> None:
    """Close studies whose time has come and wake whatever is due; any number may run.

    Without it (`serve` has it built in) studies stay open and what failed is not tried again.
    """
    from worker.service import Role, Service

    _run(Service(settings_of(config), Role.SWEEP))


def _jobs(queues: str) -> frozenset[Job]:
    from worker.dispatch import Job

    names = [name.strip() for name in queues.split(",") if name.strip()]
    known = {str(job) for job in Job}
    if not names or (unknown := [name for name in names if name not in known]):
        wrong = ", ".join(unknown) if names else "nothing"
        raise typer.BadParameter(f"{wrong}: choose from {', '.join(sorted(known))}", param_hint="--queues")
    return frozenset(Job(name) for name in names)


def _require_destination(settings: Settings, no_delivery: bool) -> None:
    if settings.destinations or no_delivery:
        return
    raise cannot_run(
        "no destination is configured, so no report would reach the PACS; add a [[destination]] to the "
        "configuration, or say --no-delivery"
    )


def _run(service: Service) -> None:
    import structlog

    log = structlog.get_logger(__name__)
    with stop_signals() as stop:
        _start(service)
        while not (service.failed.is_set() or stop.wait(_LOOK_S)):
            pass
        log.info("service_stopping", role=str(service.role))
        if not service.stop(_STOP_S) or service.failed.is_set():
            raise typer.Exit(NEEDS_ATTENTION)


def _start(service: Service) -> None:
    from worker.memory import limit_arenas

    limit_arenas()
    try:
        service.start()
    except OSError as error:
        service.stop(_STOP_S)  # what was started before the failure
        if error.filename is not None:
            raise
        # Of all that a start opens only the listener's socket has no file name.
        listener = service.settings.listener
        raise cannot_run(unbound(listener.host, listener.port, error)) from error


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
