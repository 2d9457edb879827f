"""The one place that reads configuration: a TOML file, overridden by FUNDUS_… environment variables.

Every value has a default that works on one machine, except the destinations. Relative paths in the file are
relative to the file's folder; in a variable or on the command line, to the current folder. The objects are
frozen: what was checked at start is what runs.
"""

from __future__ import annotations

import ipaddress
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from worker.settings_sections import (
    BatchingSettings,
    CameraPolicy,
    CameraSettings,
    DecoderSettings,
    DeliverySettings,
    Destination,
    GradingSettings,
    JobSettings,
    ListenerSettings,
    LogSettings,
    OptionalPath,
    RetentionSettings,
    Section,
    SpoolSettings,
    StudySettings,
    TlsSettings,
    check_ae_title,
)
from worker.settings_sources import Layer, merge, put, read_environment, read_toml, validate
from worker.settings_tree import example

__all__ = [
    "BatchingSettings",
    "CameraPolicy",
    "CameraSettings",
    "DecoderSettings",
    "DeliverySettings",
    "Destination",
    "GradingSettings",
    "JobSettings",
    "ListenerSettings",
    "LogSettings",
    "RetentionSettings",
    "Settings",
    "SpoolSettings",
    "StudySettings",
    "TlsSettings",
    "example_toml",
    "load_settings",
]

_TLS_PATHS = tuple(("tls", name) for name in TlsSettings.model_fields)
_PATHS = (("data_dir",), ("bundle",), ("identity_key_file",), ("camera", "rules_file"), *_TLS_PATHS)


class Settings(Section):
    """The whole configuration."""

    data_dir: Path = Field(
        default=Path("fundus-data"), description="Folder for spool, reports and embedded database."
    )
    database_url: str = Field(
        default="",
        repr=False,
        description="Default: SQLite in data_dir; or postgresql+psycopg://user:password@host/name.",
    )
    broker_url: str = Field(
        default="",
        repr=False,
        description="Default: in-process; or redis://host:6379/0, for listen, work and sweep (serve runs "
        "every job itself).",
    )
    bundle: str = Field(
        default="reference", min_length=1, description="Models, by name, or by path (with a slash in it)."
    )
    engine: Literal["auto", "onnx", "tensorrt"] = Field(
        default="auto",
        description="What runs the models; auto takes TensorRT where it works, else ONNX Runtime.",
    )
    engine_threads: int = Field(default=0, ge=0, description="CPU threads of the engine; 0 means one a core.")
    identity_key_file: OptionalPath = Field(
        default=None,
        description="Key for patient pseudonyms. Default: made in data_dir, mode 0600. Has to be given, "
        "the same for all, when several machines share a database or a broker.",
    )
    listener: ListenerSettings = ListenerSettings()
    tls: TlsSettings = TlsSettings()
    study: StudySettings = StudySettings()
    camera: CameraSettings = CameraSettings()
    decoder: DecoderSettings = DecoderSettings()
    batching: BatchingSettings = BatchingSettings()
    jobs: JobSettings = JobSettings()
    delivery: DeliverySettings = DeliverySettings()
    grading: GradingSettings = GradingSettings()
    log: LogSettings = LogSettings()
    spool: SpoolSettings = SpoolSettings()
    retention: RetentionSettings = RetentionSettings()
    destinations: tuple[Destination, ...] = Field(
        default=(),
        alias="destination",
        description="Where reports go; without any, `serve` needs --no-delivery.",
    )

    @property
    def resolved_database_url(self) -> str:
        """The database to use: `database_url`, else SQLite in `data_dir`."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'fundus.db'}"

    @property
    def resolved_identity_key_file(self) -> Path:
        """The key file to use: `identity_key_file`, else one in `data_dir`."""
        return self.identity_key_file or self.data_dir / "identity.key"

    @property
    def resolved_analyse_concurrency(self) -> int:
        """Images in work at once: fewer than two batches would leave the engine waiting."""
        return self.jobs.analyse_concurrency or 2 * self.batching.max_batch

    @property
    def resolved_decoder_processes(self) -> int:
        """Pictures opened at once: more than a few would only make the engine wait for a core."""
        return self.decoder.processes or min(4, len(os.sched_getaffinity(0)))

    @property
    def spool_dir(self) -> Path:
        """Root of the spool."""
        return self.data_dir / "spool"

    @property
    def distributed(self) -> bool:
        """True when processes on several machines may share the work."""
        return bool(self.broker_url) or not self.resolved_database_url.startswith("sqlite")

    def timeout_s(self, destination: Destination) -> float:
        """Seconds to wait for a destination."""
        return self.delivery.timeout_s if destination.timeout_s is None else destination.timeout_s

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if problems := list(_contradictions(self)):
            raise PydanticCustomError(
                "contradiction", "settings contradict each other", {"problems": problems}
            )
        return self


def _contradictions(settings: Settings) -> Iterator[str]:
    """What is wrong although every value is right on its own."""
    yield from _door_problems(settings.listener)
    yield from _tls_problems(settings)
    yield from _sharing_problems(settings)
    counts = Counter(destination.name for destination in settings.destinations)
    for name in (name for name, count in counts.items() if count > 1):
        yield f"[[destination]] name {name!r} is there more than once; give each its own"
    for section, value in (("jobs", settings.jobs), ("delivery", settings.delivery)):
        if value.retry_max_s < value.retry_base_s:
            yield f"[{section}] retry_max_s is below retry_base_s; raise it"
    if settings.batching.capacity < settings.batching.max_batch:
        yield "[batching] capacity is below max_batch, so that no batch can fill; raise it"


def _door_problems(listener: ListenerSettings) -> Iterator[str]:
    callers = listener.allowed_callers
    if not _is_loopback(listener.host) and not callers:
        yield (
            f"[listener] host {listener.host!r} can be reached from the network and allowed_callers is "
            'empty; name the AE titles that may send, or say ["*"]'
        )
    if "*" in callers and len(callers) > 1:
        yield '[listener] allowed_callers has "*" beside names; keep one or the other'
    for caller in callers:
        try:
            check_ae_title(caller)
        except ValueError as error:
            yield f"[listener] allowed_callers: {caller!r} {error}"


def _tls_problems(settings: Settings) -> Iterator[str]:
    tls, door = settings.tls, settings.listener
    if (tls.certificate_file is None) != (tls.key_file is None):
        yield "[tls] has one of certificate_file and key_file; give both"
    if door.tls != "off" and tls.certificate_file is None:
        yield f"[listener] tls = {door.tls!r} needs [tls] certificate_file and key_file"
    if door.tls in ("optional", "required") and tls.ca_file is None:
        yield f"[listener] tls = {door.tls!r} needs [tls] ca_file, to check callers' certificates"
    for each in settings.destinations:
        if each.tls and tls.ca_file is None:
            yield f"[[destination]] {each.name!r} has tls = true and needs [tls] ca_file"


def _sharing_problems(settings: Settings) -> Iterator[str]:
    url = settings.database_url
    if url and not url.startswith(("sqlite:", "sqlite+", "postgresql:", "postgresql+")):
        yield "database_url is neither SQLite nor PostgreSQL; write postgresql+psycopg://… or leave it out"
    if url.startswith("sqlite") and not url.partition(":")[2].startswith("////"):
        yield "database_url: the SQLite file needs an absolute path, with four slashes: sqlite:////folder/file.db"
    if settings.broker_url and "://" not in settings.broker_url:
        yield "broker_url is no URL; write redis://host:6379/0 or leave it out"
    if settings.distributed and settings.identity_key_file is None:
        yield (
            "identity_key_file is not set, although broker_url or database_url lets several machines share "
            "the work; give all of them a copy of the same key file"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read, merge and check the configuration.

    Args:
        path: The TOML file; None for defaults and environment only.
        overrides: What the command line gives, nested like the file; beats everything.
        environ: The environment variables; None for the process's own.

    Raises:
        SettingsError: With every problem found, each naming its source and its remedy.
    """
    here = Path.cwd()
    folder = here if path is None else path.absolute().parent
    layers = [
        _absolute(Layer({"data_dir": Settings.model_fields["data_dir"].default}, "the defaults"), folder)
    ]
    if path is not None:
        layers.append(_absolute(read_toml(path), folder))
    layers.append(_absolute(read_environment(Settings, os.environ if environ is None else environ), here))
    layers.append(_absolute(Layer(dict(overrides or {}), "the command line"), here))
    return validate(Settings, layers)


def _absolute(layer: Layer, folder: Path) -> Layer:
    """The layer with its relative paths made absolute; what is no text is left for the check to name."""
    values = dict(layer.values)
    for *tables, key in _PATHS:
        table = values
        for name in tables:
            table = table.get(name, {}) if isinstance(table, Mapping) else {}
        found = table.get(key) if isinstance(table, Mapping) else None
        if isinstance(found, Path | str) and str(found) and (key != "bundle" or "/" in str(found)):
            values = merge(values, _nested((*tables, key), str(folder / found)))
    return replace(layer, values=values)


def _nested(path: tuple[str, ...], value: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    put(values, path, value)
    return values


def example_toml() -> str:
    """A configuration file with every setting at its default, commented out and explained."""
    return example(Settings)
