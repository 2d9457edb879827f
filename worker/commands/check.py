"""`check`: everything that has to be right before the first patient, each green or red with its remedy."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.camera import CameraRules
from dicom_io.errors import DicomIoError
from dicom_io.sender import echo
from models.bundle import Bundle
from models.errors import ModelError
from models.predictor import Predictor
from worker import database as db
from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    JsonOption,
    explained,
    settings_of,
    stdout,
)
from worker.delivery import peer_of
from worker.errors import WorkerError
from worker.identity import Identity
from worker.settings import Settings, example_toml


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; `detail` holds the remedy when it is red."""

    name: str
    ok: bool
    detail: str


@explained
def check(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented configuration file and do nothing else.")
    ] = False,
) -> None:
    """Check configuration, disk, database, models, port and destinations; red ones say the remedy.

    Exit status 0 when all is green, 1 when something is red, 2 when the configuration cannot be read.
    """
    if example:
        typer.echo(example_toml())
        return
    settings = settings_of(config)
    findings = [Finding("configuration", True, "read"), *run_checks(settings)]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            mark = "[green]ok [/]" if each.ok else "[bold red]RED[/]"
            stdout.print(f"{mark} [bold]{each.name}[/]: ", end="")
            stdout.print(each.detail, markup=False)
    if not all(each.ok for each in findings):
        raise typer.Exit(NEEDS_ATTENTION)


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Run every check, each on its own: one that is red hides no other."""
    yield _attempt("disk", lambda: _disk(settings))
    yield _attempt("identity key", lambda: _identity(settings))
    yield _attempt("database", lambda: _database(settings))
    yield _attempt("camera rules", lambda: _rules(settings.camera.rules_file))
    yield _attempt("models", lambda: _models(settings))
    yield _attempt("port", lambda: _port(settings))
    if settings.broker_url:
        yield _attempt("broker", lambda: _broker(settings))
    if not settings.destinations:
        yield Finding(
            "destinations", False, "none is configured: add a [[destination]], or serve --no-delivery"
        )
    for destination in settings.destinations:
        peer = peer_of(settings.listener.ae_title, destination, settings.timeout_s(destination))
        answer = echo(peer)
        yield Finding(f"destination {destination.name}", answer.ok, answer.detail)


class _Red(Exception):
    """A check that failed; its text says the remedy."""


def _attempt(name: str, test: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, test())
    except (_Red, WorkerError, DicomIoError, ModelError, OSError) as error:
        return Finding(name, False, str(error))
    except SQLAlchemyError as error:
        return Finding(name, False, f"{type(error).__name__}; check database_url and that the server runs")


def _disk(settings: Settings) -> str:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    probe = settings.data_dir / ".check"
    probe.write_bytes(b"x")
    probe.unlink()
    free_mb = shutil.disk_usage(settings.data_dir).free // 1_000_000
    if free_mb < settings.spool.reserve_mb:
        raise _Red(
            f"{free_mb} MB free in {settings.data_dir}, below the reserve of {settings.spool.reserve_mb} MB: "
            "senders are refused for now; free space, or lower [spool] reserve_mb"
        )
    return f"{settings.data_dir} is writable, {free_mb} MB free"


def _identity(settings: Settings) -> str:
    path = settings.resolved_identity_key_file
    Identity.from_file(path, create=settings.identity_key_file is None)
    return str(path)


def _database(settings: Settings) -> str:
    engine = db.create_database_engine(settings.resolved_database_url)
    try:
        if engine.dialect.name == "sqlite":
            db.upgrade(engine)
        db.require_schema(engine)
        if problems := db.pragma_problems(engine):
            raise _Red("; ".join(problems))
    finally:
        engine.dispose()
    return f"{engine.dialect.name}, schema up to date, durable commits"


def _rules(path: Path | None) -> str:
    rules = CameraRules.load(path)
    return f"{'built in' if path is None else path}, digest {rules.digest[:12]}"


def _models(settings: Settings) -> str:
    bundle = Bundle.load(settings.bundle)
    bundle.verify()
    choice = Predictor(bundle, engine=settings.engine, threads=settings.engine_threads).engine
    return f"{bundle.manifest.id} {bundle.manifest.version} on {choice.name} ({choice.reason})"


def _port(settings: Settings) -> str:
    """Bind as the listener will; or find that our own listener is there already."""
    host, port = settings.listener.host, settings.listener.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if _answers(settings):
                return f"{host}:{port} is served by a running {settings.listener.ae_title}"
            raise _Red(
                f"{host}:{port} cannot be bound ({error.strerror}): stop what holds it, or choose another "
                "[listener] port"
            ) from error
    return f"{host}:{port} is free"


def _answers(settings: Settings) -> bool:
    from dicom_io.sender import Peer

    own = settings.listener
    calling = next((name for name in own.allowed_callers if name != "*"), own.ae_title)
    return echo(Peer(ae_title=own.ae_title, host=own.host, port=own.port, calling_ae=calling, timeout_s=5)).ok


def _broker(settings: Settings) -> str:
    from worker.tasks import make_app

    with make_app(settings).connection_for_write(connect_timeout=3) as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=3)
        except connection.connection_errors as error:
            raise _Red(
                f"the broker does not answer ({type(error).__name__}); start it or mend broker_url"
            ) from error
    return "answers"
