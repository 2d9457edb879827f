"""What a reason code consists of; the codes are in `worker.reasons`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a reason is about."""

    OBJECT = "object"
    IMAGE = "image"
    EYE = "eye"
    STUDY = "study"
    DELIVERY = "delivery"
    DOOR = "door"


@dataclass(frozen=True)
class Reason:
    """Why something was refused, withheld or not delivered.

    Attributes:
        code: Stable name in tables, logs and reports.
        text: One sentence for the reader of the report.
        remedy: What the admin can do about it.
        blocks_negative: True when an image with this reason may show disease that nobody saw, so that its eye
            cannot be called free of referable disease.
        scope: What it is about.
    """

    code: str
    text: str
    remedy: str
    blocks_negative: bool
    scope: Scope


def image_reason(code: str, text: str, remedy: str, *, blocks_negative: bool = True) -> Reason:
    """A reason of an image."""
    return Reason(code, text, remedy, blocks_negative, Scope.IMAGE)


def other_reason(scope: Scope, code: str, text: str, remedy: str) -> Reason:
    """A reason that says nothing of what an image may show."""
    return Reason(code, text, remedy, False, scope)
