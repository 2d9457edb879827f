"""The checks of `check`: each on its own, so that one that is red hides no other. They alter nothing."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.camera import CameraRules
from dicom_io.errors import DicomIoError
from dicom_io.sender import Peer, echo
from dicom_io.tls import client_context
from models.bundle import Bundle
from models.errors import ModelError
from models.predictor import Predictor
from worker import database as db
from worker.commands.destinations import what_it_takes
from worker.commands.options import os_problem, unbound
from worker.commands.wording import size
from worker.delivery import peer_of
from worker.door_settings import allowed_callers, caller_text, certificates, listener_context, tls_files
from worker.errors import SchemaMissingError, SchemaOutdatedError, WorkerError
from worker.identity import Identity
from worker.reasons import REASONS
from worker.settings import Destination, Settings
from worker.spool_marker import MARKER, require_own_spool
from worker.store import installation

_ECHO_S = 10.0
"""A destination that needs longer for a C-ECHO is not well."""
_GIVE_IT = "give it to the user of the service, or change data_dir"
_AT_FIRST_START = "will be made at the first start"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; `detail` holds the remedy when it is red."""

    name: str
    ok: bool
    detail: str


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Run every check, one after the other."""
    # What a refused connection looks like is said below; the library says it again, in its own words.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    yield _attempt("disk", lambda: _disk(settings))
    yield _attempt("identity key", lambda: _identity(settings))
    yield _attempt("database", lambda: _database(settings))
    yield _attempt("spool", lambda: _spool(settings))
    yield _attempt("camera rules", lambda: _rules(settings.camera.rules_file))
    yield _attempt("models", lambda: _models(settings))
    if settings.callers or settings.listener.allowed_callers:
        yield Finding("callers", True, _callers(settings))
    if settings.tls.certificate_file or settings.tls.ca_file:
        yield _attempt("tls", lambda: _tls(settings))
    yield _attempt("port", lambda: _port(settings))
    if settings.broker_url:
        yield _attempt("broker", lambda: _broker(settings))
    if not settings.destinations:
        detail = "none is configured: add a [[destination]], or serve --no-delivery"
        yield Finding("destinations", False, detail)
    for each in settings.destinations:
        yield _destination(settings, each)


class _Red(Exception):
    """A check that failed; its text says the remedy."""


def _attempt(name: str, test: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, test())
    except OSError as error:
        return Finding(name, False, os_problem(error))
    except (_Red, WorkerError, DicomIoError, ModelError) as error:
        return Finding(name, False, str(error))
    except SQLAlchemyError as error:
        return Finding(name, False, f"{type(error).__name__}; check database_url and that the server runs")


def _disk(settings: Settings) -> str:
    folder = _existing(settings.data_dir)
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise _Red(f"{folder} cannot be written ({error.strerror}); {_GIVE_IT}") from error
    free = shutil.disk_usage(folder).free
    reserve = settings.spool.reserve_mb * 1_000_000
    if free < reserve:
        raise _Red(
            f"{size(free)} free in {folder}, below the reserve of {size(reserve)}: senders are refused; "
            "free space, or lower [spool] reserve_mb"
        )
    made = "" if folder == settings.data_dir else f", {_AT_FIRST_START}"
    return (
        f"{settings.data_dir}{made}, {size(free)} free, {size(reserve)} of it kept in reserve{_owner(folder)}"
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: there it will be made."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _owner(folder: Path) -> str:
    if folder.stat().st_uid == os.geteuid():
        return ""
    return f" (owned by {folder.owner()}: run this check as the user of the service)"


def _identity(settings: Settings) -> str:
    path = settings.resolved_identity_key_file
    if settings.identity_key_file is None and not path.exists():
        return f"{path} {_AT_FIRST_START}"
    Identity.from_file(path, create=False)
    return str(path)


def _database(settings: Settings) -> str:
    url = settings.resolved_database_url
    if not url.startswith("sqlite"):
        return _inspect(db.create_database_engine(url))
    file = Path(make_url(url).database or "")
    if file.exists():
        return _inspect(db.create_database_engine(url))
    # Whether this disk can hold one is tried beside where it will be.
    parent = _existing(file.parent)
    try:
        holder = tempfile.TemporaryDirectory(dir=parent, prefix=".fundus-check-")
    except OSError as error:
        raise _Red(f"no database can be made in {parent} ({error.strerror}); {_GIVE_IT}") from error
    with holder as folder:
        probe = db.create_database_engine(f"sqlite:///{folder}/{file.name}")
        return f"{_inspect(probe, new=True)}; {file} {_AT_FIRST_START}"


def _spool(settings: Settings) -> str:
    """Compare the spool's marker with the database, as a start does."""
    url, folder = settings.resolved_database_url, settings.spool_dir
    known, has_images = None, False
    if not url.startswith("sqlite") or Path(make_url(url).database or "").exists():
        engine = db.create_database_engine(url)
        try:
            with engine.connect() as connection:
                known = installation.known_namespace(connection)
                has_images = known is not None and installation.has_images(connection)
        finally:
            engine.dispose()
    require_own_spool(folder, known or uuid.uuid4(), has_images=has_images)
    return str(folder) if (folder / MARKER).exists() else f"{folder} {_AT_FIRST_START}"


def _inspect(engine: Engine, *, new: bool = False) -> str:
    """Look at schema and settings of a database, and close it; make the tables of a new one."""
    schema = "schema up to date"
    try:
        if new:
            db.upgrade(engine)
        try:
            db.require_schema(engine)
        except (SchemaMissingError, SchemaOutdatedError):
            if engine.dialect.name != "sqlite":
                raise
            schema = "schema will be brought up to date at the next start"
        if problems := db.pragma_problems(engine):
            raise _Red("; ".join(problems))
    finally:
        engine.dispose()
    return f"{engine.dialect.name}, {schema}, commits are durable"


def _rules(path: Path | None) -> str:
    rules = CameraRules.load(path)
    return f"{'built in' if path is None else path}, digest {rules.digest[:12]}"


def _models(settings: Settings) -> str:
    bundle = Bundle.load(settings.bundle)
    choice = Predictor(bundle, engine=settings.engine, threads=settings.engine_threads).engine
    return f"{bundle.manifest.id} {bundle.manifest.version} on {choice.name} ({choice.reason})"


def _callers(settings: Settings) -> str:
    """Who may send, in words."""
    others = allowed_callers(settings)
    texts = [caller_text(each) for each in settings.callers]
    texts.append("everybody" if "*" in others else ", ".join(others) or "nobody")
    texts[-1] += " from anywhere" if others else ""
    return "; ".join(texts[:-1]) + f"; beside them {texts[-1]}" if settings.callers else texts[-1]


def _tls(settings: Settings) -> str:
    """Load the files as listener and deliveries will; then look at their dates."""
    files = tls_files(settings)
    if settings.listener.tls != "off":
        listener_context(settings)
    if any(each.tls for each in settings.destinations):
        client_context(files)
    found = certificates(settings, datetime.now(UTC))
    if problems := [each.problem for each in found if each.problem]:
        raise _Red("; ".join(problems))
    return ", ".join(f"{each.path} good until {each.expires_at:%Y-%m-%d}" for each in found)


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
            raise _Red(unbound(host, port, error)) from error
    return f"{host}:{port} is free"


def _answers(settings: Settings) -> bool:
    own = settings.listener
    named = [*own.allowed_callers, *(each.ae_title for each in settings.callers if each.allowed)]
    calling = next((name for name in named if name != "*"), own.ae_title)
    # Nobody but our own listener is asked, under its own certificate: its name does not matter.
    tls = None if own.tls == "off" else replace(tls_files(settings), ca=settings.tls.certificate_file)
    peer = Peer(own.ae_title, own.host, own.port, calling, timeout_s=5, tls=tls, tls_check_name=False)
    return echo(peer).ok


def _broker(settings: Settings) -> str:
    from worker.tasks import make_app

    with make_app(settings).connection_for_write(connect_timeout=3) as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=3)
        except Exception as error:  # whichever client library it is, and whatever it raises
            raise _Red(
                f"the broker does not answer ({type(error).__name__}); start it or mend broker_url"
            ) from error
    return "answers; used by listen, work and sweep, while serve runs every job itself"


def _destination(settings: Settings, destination: Destination) -> Finding:
    timeout_s = min(_ECHO_S, settings.timeout_s(destination))
    peer = peer_of(settings, destination, timeout_s)
    answer = echo(peer)
    if answer.ok:
        answer = what_it_takes(peer, destination)
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    code = answer.detail.partition(":")[0].strip()
    remedy = "" if answer.ok or code not in REASONS else f" {REASONS[code].remedy}"
    return Finding(f"destination {destination.name}", answer.ok, f"{where}: {answer.detail}{remedy}")
