"""The tables of the configuration file: every value with its unit, its default and the reason for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def check_ae_title(value: str) -> str:
    """PS3.5 6.2, value representation AE, without the outer spaces that mean nothing."""
    legal = value.isascii() and value.isprintable() and "\\" not in value and value == value.strip()
    if not (legal and 1 <= len(value) <= 16):
        raise ValueError(
            "is no AE title: 1 to 16 printable ASCII characters, no backslash, no outer spaces (PS3.5 6.2)"
        )
    return value


def _none_when_empty(value: object) -> object:
    return None if value == "" else value


AeTitle = Annotated[str, AfterValidator(check_ae_title)]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_when_empty)]
CameraPolicy = Literal["withhold", "classify", "refuse"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of the file: frozen, and a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ListenerSettings(Section):
    """The door for DICOM associations."""

    ae_title: AeTitle = Field(
        default="FUNDUS", description="Our AE title: associations that call another are rejected."
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Anything but loopback needs allowed_callers.",
    )
    port: int = Field(default=11112, ge=0, le=65535, description="TCP port; 0 picks a free one.")
    allowed_callers: tuple[str, ...] = Field(
        default=(),
        description='AE titles that may send; ["*"] lets everybody in, which on a network has to be said.',
    )
    maximum_associations: Count = Field(
        default=64, description="Associations open at once; one more is rejected for now."
    )
    maximum_per_caller: Count = Field(
        default=32,
        description="The same for one caller (host and AE title). Whoever is idle or slow gives way.",
    )
    maximum_connections: Count = Field(
        default=512, description="TCP connections at once, those without an association included."
    )
    requests_per_minute: Count = Field(
        default=1200, description="Association requests of one caller a minute; more are rejected for now."
    )
    maximum_object_mb: Count = Field(
        default=1000,
        description="Megabytes of one object: what is beyond is not written, and it is refused for good.",
    )
    minimum_bytes_per_s: float = Field(
        default=1000,
        ge=0,
        allow_inf_nan=False,
        description="Bytes a second that a message which has begun has to come at, over network_timeout_s; "
        "slower senders are cut off.",
    )
    association_s: Seconds = Field(
        default=3600, description="Seconds after which an association is ended; its sender connects again."
    )
    maximum_backlog: int = Field(
        default=100_000,
        ge=0,
        description="Images that may wait for analysis: beyond, senders are told to try again later; 0: any.",
    )
    tls: Literal["off", "server", "optional", "required"] = Field(
        default="off",
        description="off: plain; server: TLS, callers show no certificate; optional: one that is shown is "
        "checked; required: nobody gets in without one.",
    )
    acse_timeout_s: Seconds = Field(default=30, description="Seconds to wait for association messages.")
    dimse_timeout_s: Seconds = Field(
        default=60, description="Seconds to wait for the rest of a DIMSE message."
    )
    network_timeout_s: Seconds = Field(default=60, description="Seconds an open association may stay silent.")


class TlsSettings(Section):
    """Files (PEM) for DICOM over TLS, on the listener and towards destinations; read at start."""

    certificate_file: OptionalPath = Field(
        default=None, description="Our certificate, with those between it and its CA."
    )
    key_file: OptionalPath = Field(default=None, description="Its private key, without a passphrase.")
    ca_file: OptionalPath = Field(
        default=None, description="Certificates of the CAs of callers and destinations."
    )


class StudySettings(Section):
    """When a study counts as complete, so that its report is written."""

    close_on: Literal["quiet", "association", "count"] = Field(
        default="quiet",
        description="quiet: quiet_s after the last image; association: as soon as the sender hangs up; "
        "count: when the expected number of images is in.",
    )
    quiet_s: float = Field(default=120, ge=0, allow_inf_nan=False, description="Seconds without a new image.")
    max_open_s: Seconds = Field(
        default=1800, description="Seconds after its first image at which a study is closed whatever happens."
    )
    report_deadline_s: Seconds = Field(
        default=3600,
        description="Seconds after which a report goes out marked partial although images are unfinished.",
    )
    expected_images: Count | None = Field(
        default=None,
        examples=[2],
        description="Images a study, for close_on = count, where the header (0020,1208) does not say it.",
    )


class CameraSettings(Section):
    """What happens to images of cameras that nobody validated the models on."""

    without_adapter: CameraPolicy = Field(
        default="withhold",
        description="A known camera that the bundle has no adapter for. withhold: graded in SQL, not in the "
        "report; classify: in the report, flagged; refuse: not analysed.",
    )
    unknown: CameraPolicy = Field(
        default="withhold", description="A camera that no rule names; same choices."
    )
    wide_field: CameraPolicy = Field(default="withhold", description="Wide-field images; same choices.")
    opt_in: tuple[str, ...] = Field(
        default=(), description="Camera keys that may be reported in spite of the above."
    )
    rules_file: OptionalPath = Field(
        default=None, description="Camera rules (YAML) to use in place of the built-in ones."
    )


class BatchingSettings(Section):
    """How images are put together for the engine."""

    max_batch: Count = Field(
        default=8, description="Images a batch: more use the engine better and take more memory."
    )
    max_wait_ms: float = Field(
        default=20,
        ge=0,
        allow_inf_nan=False,
        description="Milliseconds the first image waits for company at most.",
    )
    capacity: Count = Field(
        default=64, description="Images that may wait for the engine; about 1 MB of memory each."
    )


class DecoderSettings(Section):
    """Processes that open compressed pictures: one that crashes, hangs or swells costs one image."""

    processes: int = Field(
        default=0, ge=0, description="Pictures opened at once; 0 means one a core, four at most."
    )
    memory_mb: int = Field(
        default=3000,
        ge=100,
        description="Megabytes of address space for one picture; JPEG 2000 takes 25 a megapixel.",
    )
    timeout_s: Seconds = Field(default=120, description="Seconds for one picture.")


class JobSettings(Section):
    """How work is claimed, retried and found again."""

    analyse_concurrency: int = Field(
        default=0, ge=0, description="Images in work at once; 0 means twice max_batch."
    )
    claim_s: Seconds = Field(
        default=60,
        description="Seconds a claim on a row lasts unless renewed: how long a dead worker's images wait.",
    )
    max_attempts: Count = Field(
        default=5, description="Attempts after which an image is refused with INTERNAL_ERROR."
    )
    retry_base_s: Seconds = Field(
        default=2, description="Seconds, at most, before the first retry; doubled each time."
    )
    retry_max_s: Seconds = Field(default=600, description="Seconds, at most, between two attempts.")
    sweep_interval_s: Seconds = Field(
        default=5, description="Seconds between two looks for rows that are due."
    )
    keep_days: Count = Field(
        default=90,
        description="Days after which the rows of ended associations, stopped processes and what was turned "
        "away at the door are deleted.",
    )


class DeliverySettings(Section):
    """How reports get to their destinations. An unreachable destination is retried without end."""

    retry_base_s: Seconds = Field(
        default=2, description="Seconds, at most, before the first retry; doubled each time."
    )
    retry_max_s: Seconds = Field(default=300, description="Seconds, at most, between two attempts.")
    max_attempts: Count = Field(
        default=30,
        description="Refusals of a report by the destination after which it is a dead letter: about an hour.",
    )
    timeout_s: Seconds = Field(
        default=30, description="Seconds to wait for a destination, where it has none of its own."
    )


class GradingSettings(Section):
    """How an eye's result follows from its images."""

    eye_policy: Literal["standard", "strict"] = Field(
        default="standard",
        description="standard: an unreadable image withholds a negative result; strict: any result.",
    )


class LogSettings(Section):
    """The log, on standard error; it never names a patient."""

    format: Literal["console", "json"] = Field(
        default="console", description="console for people, json for collectors."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level written."
    )


class SpoolSettings(Section):
    """Where received objects are kept, in data_dir."""

    reserve_mb: int = Field(
        default=512,
        ge=0,
        description="Megabytes kept free on the disk: below, senders are told to try again later.",
    )


class RetentionSettings(Section):
    """How long files are kept: with 0 for ever. Rows of results always stay.

    Only files of studies go whose report every destination has accepted, and of which nothing is in work.
    """

    images_days: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="Days since an image was received after which its file is removed, once its report is "
        "delivered; 0.5 is twelve hours, 0 is never.",
    )
    reports_days: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="Days since a delivered report was written after which its file is removed, and files "
        "that abandoned attempts left; 0 is never.",
    )
    quarantine_days: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="Days since a UID conflict was resolved after which the file set aside is removed; 0 is "
        "never.",
    )


class Destination(Section):
    """A DICOM node that gets every report."""

    name: str = Field(
        min_length=1, examples=["pacs"], description="Name in tables, logs and commands; unique."
    )
    ae_title: AeTitle = Field(examples=["PACS"], description="Its AE title.")
    host: str = Field(min_length=1, examples=["127.0.0.1"], description="Its address.")
    port: int = Field(ge=1, le=65535, examples=[11113], description="Its TCP port.")
    required: bool = Field(
        default=True, description="A study counts as delivered when all required ones have its report."
    )
    tls: bool = Field(default=False, description="Whether to speak TLS with it; needs [tls] ca_file.")
    tls_check_name: bool = Field(
        default=True, description="Whether its certificate has to be for `host`, as well as from the CA."
    )
    timeout_s: Seconds | None = Field(
        default=None, examples=[30], description="Seconds to wait for it; default [delivery] timeout_s."
    )
