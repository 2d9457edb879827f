"""Rejections of an association (A-ASSOCIATE-RJ, PS3.8 section 9.3.4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """One kind of rejection.

    Attributes:
        reason_code: Reason in rows and the log.
        result: 1 permanent, 2 transient.
        source: 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
        diagnostic: Reason on the wire; its meaning depends on the source.
        detail: One sentence.
    """

    reason_code: str
    result: int
    source: int
    diagnostic: int
    detail: str

    @property
    def status(self) -> int:
        """Result, source and diagnostic as three bytes of one number."""
        return self.result << 16 | self.source << 8 | self.diagnostic


CALLED_AE = Refusal("CALLED_AE_UNKNOWN", 1, 1, 7, "the called AE title is not this listener's")
CALLING_AE = Refusal("CALLING_AE_UNKNOWN", 1, 1, 3, "the calling AE title is not among the allowed callers")
CALLER_ADDRESS = Refusal(
    "CALLER_ADDRESS_UNKNOWN", 1, 1, 3, "this calling AE title may not call from this address"
)
LIMIT = Refusal("ASSOCIATION_LIMIT", 2, 3, 2, "as many associations are open as are allowed")
CALLER_LIMIT = Refusal("CALLER_LIMIT", 2, 3, 2, "as many associations of this caller are open as are allowed")
RATE = Refusal("ASSOCIATION_RATE", 2, 3, 1, "this caller asked for too many associations within a minute")
