"""A whole runtime on a tiny bundle, objects offered to it, and a small PACS that receives its reports."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from factories.bundle import GREEN_FOR_GRADE, write_tiny_bundle
from factories.decoders import shared_decoders
from factories.dicom import ExplicitVRLittleEndian, as_jpeg, make_fundus, synthetic_fundus
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from sqlalchemy import Connection, text

from dicom_io.errors import DicomIoError
from dicom_io.listener import Caller, ReceivedObject
from worker.analyse import analyse
from worker.database import create_database_engine, upgrade
from worker.delivery import deliver
from worker.dispatch import Job, Key
from worker.intake import Intake
from worker.reporting import report
from worker.runtime import Runtime, build_runtime, open_database
from worker.settings import Settings
from worker.store import studies

RED, BLUE = 200, 60
CALLER = Caller(uuid.UUID(int=1).hex, "CAMERA", "FUNDUS", "127.0.0.1", 50000)
_DUE = {
    "instances": ("due_at", "claim_expires_at"),
    "studies": ("close_due_at", "due_at", "claim_expires_at"),
    "deliveries": ("due_at",),
    "leases": ("expires_at",),
}


class RecordingDispatcher:
    """Remembers who was woken; nobody is."""

    def __init__(self, room: int = 1000) -> None:
        self.woken: list[tuple[Job, Key, int]] = []
        self._room = room

    def wake(self, job: Job, key: Key, priority: int = 2) -> None:
        self.woken.append((job, key, priority))

    def room(self, job: Job) -> int:
        return self._room

    def start(self) -> None: ...

    def stop(self, timeout_s: float) -> bool:
        return True

    def keys(self, job: Job) -> list[Key]:
        return [key for each, key, _ in self.woken if each is job]


def make_settings(
    tmp_path: Path, *, database_url: str = "", bundle: Path | None = None, **settings: Any
) -> Settings:
    """Settings below `tmp_path` with the tiny bundle; `settings` as in the file (`study={"quiet_s": 1}`)."""
    folder = bundle or tmp_path / "bundle"
    if not folder.exists():
        write_tiny_bundle(folder)
    key = tmp_path / "shared.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(32))
    return Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "database_url": database_url,
            "bundle": str(folder),
            "engine": "onnx",
            "engine_threads": 1,
            "identity_key_file": key,
            "spool": {"reserve_mb": 0},
            **settings,
        }
    )


def make_runtime(
    tmp_path: Path, *, database_url: str = "", bundle: Path | None = None, **settings: Any
) -> Runtime:
    """A runtime whose tables exist and whose dispatcher only remembers; close it."""
    made = make_settings(tmp_path, database_url=database_url, bundle=bundle, **settings)
    create_tables(made)
    runtime = build_runtime(made, "serve")
    runtime.take_over()
    runtime.dispatcher = RecordingDispatcher()
    runtime.decoders = shared_decoders()
    return runtime


def create_tables(settings: Settings) -> None:
    """What `db upgrade` does."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_database_engine(settings.resolved_database_url)
    upgrade(engine)
    engine.dispose()
    open_database(settings).close()


def woken(runtime: Runtime, job: Job) -> list[Key]:
    """The keys that were woken for a job, in order."""
    assert isinstance(runtime.dispatcher, RecordingDispatcher)
    return runtime.dispatcher.keys(job)


def fundus_of_grade(grade: int | None = 0, *, red: int = RED, **options: Any) -> FileDataset:
    """An object that the tiny bundle gives this grade; None: that it calls ungradable."""
    rgb = synthetic_fundus(128)
    inside = rgb.any(axis=2)
    colour = (30, 40, 30) if grade is None else (red, GREEN_FOR_GRADE[grade], BLUE)
    rgb[inside] = np.array(colour, np.uint8)
    stream = as_jpeg(rgb, quality=95, subsampling="444")
    raw = options.get("transfer_syntax") in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    return make_fundus(rgb if raw else stream, **options)


def caller(number: int = 1) -> Caller:
    """The peer of association `number`."""
    return Caller(uuid.UUID(int=number).hex, "CAMERA", "FUNDUS", "127.0.0.1", 50000)


def offer(runtime: Runtime, ds: FileDataset, *, peer: Caller = CALLER, priority: int = 0) -> int:
    """Hand an object to the intake as the listener does; return the DIMSE status."""
    path = runtime.spool.incoming / f"{uuid.uuid4().hex}.part"
    ds.save_as(path, enforce_file_format=True)
    received = ReceivedObject(
        path, ds.SOPClassUID, ds.SOPInstanceUID, ds.file_meta.TransferSyntaxUID, priority, peer
    )
    try:
        return Intake(runtime).object_received(received)
    except DicomIoError as error:
        return error.status


def rows(runtime: Runtime, statement: str, **values: Any) -> list[dict[str, Any]]:
    """What a query returns."""

    def work(tx: Connection) -> list[dict[str, Any]]:
        return [dict(row._mapping) for row in tx.execute(text(statement), values)]

    return runtime.database.read(work)


def row(runtime: Runtime, statement: str, **values: Any) -> dict[str, Any]:
    """The one row that a query returns."""
    (found,) = rows(runtime, statement, **values)
    return found


def value(runtime: Runtime, statement: str, **values: Any) -> Any:
    """The one value that a query returns."""
    (found,) = row(runtime, statement, **values).values()
    return found


def execute(runtime: Runtime, statement: str, **values: Any) -> None:
    """Change rows behind the program's back."""
    runtime.database.write(lambda tx: tx.execute(text(statement), values) and None)


def let_time_pass(runtime: Runtime) -> None:
    """Move everything that waits for a moment an hour into the past: due times, claims, leases."""
    for table, columns in _DUE.items():
        for column in columns:
            past(runtime, table, column)


def past(runtime: Runtime, table: str, column: str) -> None:
    """Move one column of a table a day into the past."""
    sqlite = runtime.database.engine.dialect.name == "sqlite"
    shifted = (
        f"strftime('%Y-%m-%d %H:%M:%f', {column}, '-1 day') || '000'"
        if sqlite
        else f"{column} - interval '1 day'"
    )
    execute(runtime, f"UPDATE {table} SET {column} = {shifted} WHERE {column} IS NOT NULL")  # noqa: S608


def analyse_all(runtime: Runtime) -> None:
    """Analyse what is due now."""
    for found in rows(runtime, "SELECT id FROM instances WHERE state = 'RECEIVED' ORDER BY id"):
        analyse(runtime, found["id"])


def close_studies(runtime: Runtime) -> None:
    """Let the studies' time come, and close them."""
    past(runtime, "studies", "close_due_at")
    past(runtime, "studies", "opened_at")
    runtime.database.write(studies.close_due, runtime.closing_policy)


def report_all(runtime: Runtime) -> None:
    """Write the reports that are due now."""
    for found in rows(runtime, "SELECT id FROM studies ORDER BY id"):
        report(runtime, found["id"])


def run_to_report(runtime: Runtime) -> None:
    """From received objects to written reports."""
    analyse_all(runtime)
    close_studies(runtime)
    report_all(runtime)


def deliver_all(runtime: Runtime) -> None:
    """Drain every destination once."""
    for destination in runtime.settings.destinations:
        deliver(runtime, destination.name)


class Pacs:
    """A small storage SCP: keeps what it is sent and answers what it is told to."""

    def __init__(self) -> None:
        self.received: list[Dataset] = []
        self.bytes: list[bytes] = []
        self.status = 0x0000
        self.associations = 0
        self.ae_title = "PACS"
        self.port = 0
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()

    def store(self, event: evt.Event) -> int:
        self.arrived.set()
        self.gate.wait(20)
        request: Any = event.request
        ds = event.dataset
        ds.file_meta = event.file_meta
        if self.status == 0:
            self.received.append(ds)
            self.bytes.append(request.DataSet.getvalue())
        return self.status

    def opened(self, event: evt.Event) -> None:
        self.associations += 1

    @property
    def uids(self) -> list[str]:
        return [str(ds.SOPInstanceUID) for ds in self.received]

    def destination(self, name: str = "pacs", **options: Any) -> dict[str, Any]:
        """The `[[destination]]` of this PACS."""
        return {
            "name": name,
            "ae_title": self.ae_title,
            "host": "127.0.0.1",
            "port": self.port,
            "timeout_s": 10,
            **options,
        }


@contextmanager
def receiving_pacs(port: int = 0) -> Iterator[Pacs]:
    """Run a PACS on a free loopback port."""
    pacs = Pacs()
    entity = AE(ae_title=pacs.ae_title)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        entity.add_supported_context(Comprehensive3DSRStorage, syntax)
    entity.add_supported_context("1.2.840.10008.1.1")
    handlers: list[Any] = [(evt.EVT_C_STORE, pacs.store), (evt.EVT_ACCEPTED, pacs.opened)]
    server: Any = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        pacs.gate.set()
        server.shutdown()


def send(
    port: int, objects: Sequence[FileDataset], *, calling_ae: str = "CAMERA", called_ae: str = "FUNDUS"
) -> list[int]:
    """Send objects over one real association; return their statuses."""
    pairs = dict.fromkeys((ds.SOPClassUID, UID(ds.file_meta.TransferSyntaxUID)) for ds in objects)
    entity = AE(ae_title=calling_ae)
    contexts = [build_context(*pair) for pair in pairs]
    association = entity.associate("127.0.0.1", port, contexts=contexts, ae_title=called_ae)
    if not association.is_established:
        raise ConnectionError("the association was not accepted")
    try:
        return [int(association.send_c_store(ds).Status) for ds in objects]
    finally:
        association.release()
