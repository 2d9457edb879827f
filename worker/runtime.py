"""Wires the parts together: the only place that knows which implementation stands behind which name."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from dataclasses import dataclass, field
from functools import cached_property

import structlog

from dicom_io.camera import CameraRules
from dicom_io.decoder_pool import DecoderLimits, DecoderPool
from dicom_io.spool import Spool
from models.bundle import Bundle
from models.predictor import Prediction, Predictor
from worker import database
from worker.batching import MicroBatcher
from worker.claims import ClaimKeeper
from worker.dispatch import Dispatcher, SilentDispatcher
from worker.errors import DatabaseError
from worker.identity import Identity
from worker.settings import Settings
from worker.spool_marker import mark, require_own_spool
from worker.store import installation, processes, reports
from worker.store.studies import ClosingPolicy
from worker.transactions import Database

log = structlog.get_logger(__name__)


@dataclass
class Runtime:
    """Everything a job needs. Jobs are plain functions of a `Runtime` and a row's key.

    Attributes:
        process_id: Name of this process in claims, leases and associations; never used twice.
        namespace: Root of the UIDs that this installation makes.
        decoders: Processes that open compressed pictures; none runs before the first one.
        bundle_pk: Key of this process's bundle's row; the active one until a process with another starts.
        stopping: Set when the process is about to end.
        settled_folders: Folders of the spool in which this process found every file in its place, and when a
            name in each came or went last (ns): while that stays so, none of them is looked at again.
        unclosed_associations: How associations ended whose end could not be written yet, by their id.
        retained_up_to: Id of the study after which the next step of the retention goes on; 0: a new pass.
    """

    settings: Settings
    database: Database
    spool: Spool
    rules: CameraRules
    bundle: Bundle
    bundle_pk: int
    namespace: uuid.UUID
    identity: Identity
    process_id: str
    claims: ClaimKeeper
    decoders: DecoderPool
    dispatcher: Dispatcher = field(default_factory=SilentDispatcher)
    stopping: threading.Event = field(default_factory=threading.Event)
    settled_folders: dict[str, int] = field(default_factory=dict)
    unclosed_associations: dict[str, str] = field(default_factory=dict)
    retained_up_to: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    @cached_property
    def closing_policy(self) -> ClosingPolicy:
        """The `[study]` settings as the store takes them."""
        study = self.settings.study
        return ClosingPolicy(
            close_on=study.close_on,
            quiet_s=study.quiet_s,
            max_open_s=study.max_open_s,
            report_deadline_s=study.report_deadline_s,
            expected_images=study.expected_images,
        )

    @cached_property
    def _predictor(self) -> Predictor:
        predictor = Predictor(self.bundle, engine=self.settings.engine, threads=self.settings.engine_threads)
        log.info("engine_started", engine=predictor.engine.name, reason=predictor.engine.reason)
        return predictor

    @cached_property
    def _batcher(self) -> MicroBatcher[Prediction]:
        batching = self.settings.batching
        return MicroBatcher(
            self._predictor.predict,
            batching.max_batch,
            batching.max_wait_ms,
            batching.capacity,
        )

    @property
    def batcher(self) -> MicroBatcher[Prediction]:
        """The engine behind its queue; loaded on first use, once, whichever thread asks."""
        with self._lock:
            return self._batcher

    @property
    def engine_name(self) -> str:
        """Which engine runs the graphs."""
        with self._lock:
            return self._predictor.engine.name

    @property
    def ended_parts(self) -> list[str]:
        """Names of threads that others wait for, and that have ended although nobody asked them to."""
        parts = {
            "engine": "_batcher" not in self.__dict__ or self._batcher.running,
            "claim-keeper": self.claims.running,
            "database-writer": self.database.running,
        }
        return [name for name, running in parts.items() if not running]

    def take_over(self) -> None:
        """Make this process's bundle the active one: it started last, everything of it works, it analyses."""
        self.database.write(reports.activate_bundle, self.bundle_pk)
        self.database.write(processes.analyses_with, self.process_id, self.bundle_pk)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Finish what is queued, say good-bye, and release everything; may be called more than once.

        Args:
            timeout_s: Seconds to wait for each part at most.

        Returns:
            False when a part still ran then, which the log names: its thread ends with the process.
        """
        self.stopping.set()
        self.decoders.close()
        late = [] if self._close_engine(timeout_s) else ["engine"]
        if not self._closed:
            self._closed = True
            late += [] if self.claims.close(timeout_s) else ["claim-keeper"]
            self._say_good_bye(timeout_s)
            late += [] if self.database.close(timeout_s) else ["database-writer"]
        if late:
            log.error("still_running", parts=late, waited_s=timeout_s)
        return not late

    def _close_engine(self, timeout_s: float) -> bool:
        if not self._lock.acquire(timeout=timeout_s):
            return False  # its models are still being loaded
        try:
            return "_batcher" not in self.__dict__ or self._batcher.close(timeout_s)
        finally:
            self._lock.release()

    def _say_good_bye(self, timeout_s: float) -> None:
        """Release what a job that did not end in time still holds, as if the process had died."""
        try:
            good_bye = self.database.submit(processes.bury, self.process_id, self.closing_policy)
            good_bye.result(timeout_s)
        except (DatabaseError, TimeoutError) as error:
            log.error("good_bye_not_said", process=self.process_id, error=str(error))


def build_runtime(settings: Settings, role: str) -> Runtime:
    """Open everything that a process of this role needs.

    Args:
        settings: The checked configuration.
        role: `serve`, `listen`, `work` or `sweep`; shown by `status`.

    Raises:
        WorkerError, BundleError, CameraRulesError, SpoolFullError: With what to do about it.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.load(settings.bundle)
    rules = CameraRules.load(settings.camera.rules_file)
    identity = Identity.from_file(
        settings.resolved_identity_key_file, create=settings.identity_key_file is None
    )
    data = open_database(settings)
    namespace, spool = _own_spool(settings, data)
    process_id = f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    data.write(processes.started, process_id, role, socket.gethostname()[:64], os.getpid())
    bundle_pk = data.write(
        reports.bundle_key,
        bundle_id=bundle.manifest.id,
        version=bundle.manifest.version,
        digest=bundle.digest,
        training_camera=bundle.manifest.training_camera,
        activate=not data.read(processes.has_active_bundle),
    )
    return Runtime(
        settings=settings,
        database=data,
        spool=spool,
        rules=rules,
        bundle=bundle,
        bundle_pk=bundle_pk,
        namespace=namespace,
        identity=identity,
        process_id=process_id,
        claims=ClaimKeeper(data, settings.jobs.claim_s),
        decoders=decoder_pool(settings),
    )


def decoder_pool(settings: Settings) -> DecoderPool:
    """The decoder processes that `[decoder]` allows; each starts with the first picture that needs it."""
    limits = settings.decoder
    return DecoderPool(DecoderLimits(settings.resolved_decoder_processes, limits.memory_mb, limits.timeout_s))


def _own_spool(settings: Settings, data: Database) -> tuple[uuid.UUID, Spool]:
    """Open the spool of the installation whose database this is; close the database when there is none."""
    try:
        namespace = data.write(processes.installation_namespace)
        require_own_spool(settings.spool_dir, namespace, has_images=data.read(installation.has_images))
        spool = Spool(settings.spool_dir)
        mark(spool, namespace)
    except BaseException:
        data.close()
        raise
    return namespace, spool


def open_database(settings: Settings) -> Database:
    """Connect; bring an embedded database's tables up to date, refuse an outdated shared one.

    Raises:
        DatabaseError: Unreachable, or its schema is not this program's; the text has the remedy.
    """
    engine = database.create_database_engine(settings.resolved_database_url)
    try:
        if engine.dialect.name == "sqlite":
            database.upgrade(engine)
        database.require_schema(engine)
    except BaseException:
        engine.dispose()
        raise
    return Database(engine)
