"""How fast files go, and how long others wait for SQLite's writer meanwhile: `make bench`.

Delivered studies of two images and a report each, `FUNDUS_BENCH_STUDIES` of them (5000 if not given): a look
at all of them, then removals with and without somebody who writes beside them. Printed, never asserted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from factories.rows import Rows
from factories.runtime import make_runtime
from sqlalchemy import Connection, insert, text
from sqlalchemy.orm import Session

from worker.database import create_database_engine
from worker.retention import preview, purge
from worker.runtime import Runtime
from worker.schema import Base, Delivery, HeaderVersion, Instance, Report, Study
from worker.spool_files import SpoolFiles
from worker.store.disposable import STATES, Kind, Rule
from worker.transactions import Database

RULES = [Rule(kind, 3600.0, STATES[kind]) for kind in Kind]
REMOVED = 100
"""Studies that each measured removal takes."""


def values(row: Base) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def fill(runtime: Runtime, studies: int) -> None:
    """One study by the tests' factory, and copies of it with keys and paths of their own."""
    with Session(runtime.database.engine) as session, session.begin():
        made = Rows(session)
        study = made.study()
        image = made.image(study)
        version = made.header_version(image)
        report = made.report(study, made.bundle(active=False), sha256="0" * 64)
        first = (study, image, version, report, made.delivery(report, state="ACCEPTED"))
        patterns = [values(each) for each in first]
        for each in reversed(first):
            session.delete(each)
            session.flush()
    numbers = range(1, studies + 1)
    pairs = [(number, 2 * number + side) for number in numbers for side in (0, 1)]
    digests = {key: f"{key * 2654435761 % 2**32:08x}{key:056x}" for _, key in pairs}
    images = [
        {"id": key, "study_id": number, "sha256": digests[key], "spool_path": image_path(digests[key])}
        for number, key in pairs
    ]
    copies: list[tuple[type[Base], list[dict[str, Any]]]] = [
        (Study, [{"id": each, "study_instance_uid": f"1.2.1.{each}"} for each in numbers]),
        (Instance, [{**each, "sop_instance_uid": f"1.2.2.{each['id']}"} for each in images]),
        (HeaderVersion, [{**each, "instance_id": each["id"]} for each in images]),
        (
            Report,
            [
                {
                    "id": n,
                    "study_id": n,
                    "sop_instance_uid": f"1.2.3.{n}",
                    "spool_path": f"reports/1.2.3.{n}.dcm",
                }
                for n in numbers
            ],
        ),
        (Delivery, [{"id": each, "report_id": each} for each in numbers]),
    ]
    with runtime.database.engine.begin() as tx:
        for (table, changed), pattern in zip(copies, patterns, strict=True):
            tx.execute(insert(table), [{**pattern, **each} for each in changed])
    write_files(runtime, [*digests.values()], studies)


def image_path(digest: str) -> str:
    return f"objects/{digest[:2]}/{digest}.dcm"


def write_files(runtime: Runtime, digests: list[str], studies: int) -> None:
    runtime.spool.path("reports").mkdir()
    names = [image_path(each) for each in digests]
    for name in [*names, *(f"reports/1.2.3.{number}.dcm" for number in range(1, studies + 1))]:
        runtime.spool.path(name).write_bytes(b"x" * 4000)


def write_beside(url: str, stop: threading.Event, waits: list[float]) -> None:
    """Another process's writer: a transaction every 30 ms over a connection of its own."""
    database = Database(create_database_engine(url))

    def work(tx: Connection) -> None:
        tx.execute(text("UPDATE installation SET created_at = created_at"))

    while not stop.wait(0.03):
        started = time.perf_counter()
        database.write(work)
        waits.append((time.perf_counter() - started) * 1000)
    database.close()


def removal(runtime: Runtime, waits: list[float] | None) -> str:
    """Remove the files of some studies; with somebody beside it when `waits` is given."""
    stop = threading.Event()
    url = runtime.settings.resolved_database_url
    beside = threading.Thread(target=write_beside, args=(url, stop, waits))
    if waits is not None:
        beside.start()
    started, cpu = time.perf_counter(), time.process_time()
    files = SpoolFiles(runtime.spool, runtime.namespace)
    removed = purge(runtime.database, files, RULES, limit=REMOVED)
    took, used = time.perf_counter() - started, time.process_time() - cpu
    stop.set()
    if waits is not None:
        beside.join()
    rate = f"{REMOVED / took:.0f} studies/s, {removed.files.total() / took:.0f} files/s"
    return f"{rate}, {1000 * used / REMOVED:.1f} ms CPU a study"


def bench_retention(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path)
    fill(runtime, int(os.environ.get("FUNDUS_BENCH_STUDIES", "5000")))
    started, cpu = time.perf_counter(), time.process_time()
    groups = preview(runtime.database, SpoolFiles(runtime.spool, runtime.namespace), RULES)
    took, used = time.perf_counter() - started, time.process_time() - cpu
    say = sys.stdout.write
    say(f"\ndry run, {sum(each.files for each in groups)} files: {took:.1f} s, {used:.1f} s CPU\n")
    say(f"removal alone: {removal(runtime, None)}\n")
    waits: list[float] = []
    say(f"removal beside a writer: {removal(runtime, waits)}\n")
    waits.sort()
    marks = (("median", 0.5), ("95 %", 0.95), ("longest", 1.0))
    shown = ", ".join(f"{name} {waits[int(part * (len(waits) - 1))]:.0f} ms" for name, part in marks)
    say(f"its {len(waits)} writes: {shown}\n")
    runtime.close()
