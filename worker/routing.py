"""Which way an image takes: its camera's route, and what the policy lets be said of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from dicom_io.camera import CameraMatch
from dicom_io.sop_classes import WIDE_FIELD_SOP_CLASSES
from worker.settings import CameraPolicy, CameraSettings

_STRICTNESS: dict[CameraPolicy, int] = {"classify": 0, "withhold": 1, "refuse": 2}


class Route(StrEnum):
    """How an image reaches the classifier."""

    LABELLED = "labelled"
    """From the camera that the classifier was trained on: straight to it."""
    ADAPTED = "adapter"
    """From a camera that the bundle has an adapter for."""
    KNOWN = "known"
    """From a camera with a name but without an adapter."""
    UNKNOWN = "unknown"
    """From a camera that no rule names."""


@dataclass(frozen=True)
class Verdict:
    """What may be said of an image. `reason_code` is None when it may be reported.

    Attributes:
        policy: `classify`, `withhold` (finding in SQL, nothing in the report) or `refuse` (not analysed).
        reason_code: Why not, for `withhold` and `refuse`.
        unvalidated: True when it is reported although nobody validated the camera: the report says so.
    """

    policy: CameraPolicy
    reason_code: str | None
    unvalidated: bool


def choose_route(
    match: CameraMatch, training_camera: str, adapters: Collection[str]
) -> tuple[Route, str | None]:
    """Return the route and the adapter's camera key.

    A rule that only names a camera by a part of its model string never leads to the classifier directly or
    through an adapter: a successor model with a similar name may be another camera.
    """
    if match.camera is None:
        return Route.UNKNOWN, None
    if match.exact and match.camera == training_camera:
        return Route.LABELLED, None
    if match.exact and match.camera in adapters:
        return Route.ADAPTED, match.camera
    return Route.KNOWN, None


def judge(route: str, camera: str | None, sop_class_uid: str, settings: CameraSettings) -> Verdict:
    """Apply the `[camera]` policies: the strictest that applies, unless the camera was opted in by name."""
    applied: list[tuple[CameraPolicy, str]] = []
    if route == Route.KNOWN:
        applied.append((settings.without_adapter, "CAMERA_NOT_VALIDATED"))
    elif route == Route.UNKNOWN:
        applied.append((settings.unknown, "CAMERA_NOT_VALIDATED"))
    if sop_class_uid in WIDE_FIELD_SOP_CLASSES:
        applied.append((settings.wide_field, "WIDE_FIELD_NOT_VALIDATED"))
    if not applied:
        return Verdict("classify", None, unvalidated=False)
    if camera is not None and camera in settings.opt_in:
        return Verdict("classify", None, unvalidated=True)
    policy, reason = max(applied, key=lambda each: _STRICTNESS[each[0]])
    if policy == "classify":
        return Verdict("classify", None, unvalidated=True)
    return Verdict(policy, "CAMERA_REFUSED" if policy == "refuse" else reason, unvalidated=False)
