"""Which eye an image shows: every statement in the header must agree, nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

UNREADABLE = "?"
"""Stands for a statement that is there and cannot be read: no side is known beside it."""


class Laterality(StrEnum):
    """Side of the eye (PS3.3 C.8.17.5.1, enumerated values of Image Laterality)."""

    RIGHT = "R"
    LEFT = "L"


@dataclass(frozen=True)
class LateralityReading:
    """Side of one frame, or why it is not known.

    Attributes:
        value: The side that all statements agree on, None without agreement.
        reason_code: LATERALITY_UNKNOWN or LATERALITY_CONFLICT when `value` is None, else None.
    """

    value: Laterality | None
    reason_code: str | None = None


def read_laterality(statements: Iterable[str]) -> LateralityReading:
    """Combine the header's statements about one frame.

    Args:
        statements: Every value of Image Laterality (0020,0062), Laterality (0020,0060) and Frame
            Laterality (0020,9072), as far as present; blank ones count as absent. `UNREADABLE` for one that
            cannot be read.

    Returns:
        The side when all statements are the same R or L. A conflict when both R and L are stated;
        unknown when there is no statement, or one is B, U or anything else.
    """
    stated = {text for text in (statement.strip(" \0").upper() for statement in statements) if text}
    sides = stated & set(Laterality)
    if len(sides) > 1:
        return LateralityReading(None, "LATERALITY_CONFLICT")
    if len(stated) != 1 or not sides:
        return LateralityReading(None, "LATERALITY_UNKNOWN")
    return LateralityReading(Laterality(stated.pop()))
