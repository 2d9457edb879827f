"""What a listener tells its owner: who called, what arrived, what was turned away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Caller:
    """The peer of one connection.

    Attributes:
        association_id: Random UUID of the connection, 32 hexadecimal digits.
        calling_ae: Calling AE title, "" before an association was asked for.
        called_ae: Called AE title, "" before an association was asked for.
        host: Address of the peer.
        port: TCP port of the peer.
    """

    association_id: str
    calling_ae: str
    called_ae: str
    host: str
    port: int

    @property
    def peer(self) -> tuple[str, str]:
        """Host and calling AE title: who counts as one caller."""
        return self.host, self.calling_ae


@dataclass(frozen=True)
class ReceivedObject:
    """A complete object in a temporary file, which the receiver moves away or leaves to be removed.

    Attributes:
        path: DICOM file (PS3.10) on the spool's file system, written but not synced.
        sop_class_uid: Affected SOP Class UID of the request.
        sop_instance_uid: Affected SOP Instance UID of the request.
        transfer_syntax_uid: Transfer syntax of the presentation context.
        dimse_priority: 0 medium, 1 high, 2 low (PS3.7 section 9.3.1.1).
        caller: Who sent it.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dimse_priority: int
    caller: Caller


@dataclass(frozen=True)
class TurnedAway:
    """Something that a peer offered and did not get acknowledged.

    Attributes:
        kind: "CONNECTION" (ended before an association was asked for), "ASSOCIATION" (rejected),
            "CONTEXT" (an abstract syntax or its transfer syntaxes not accepted) or "STORE".
        reason_code: CONNECTION_PROBE, CALLED_AE_UNKNOWN, CALLING_AE_UNKNOWN, CALLER_ADDRESS_UNKNOWN,
            ASSOCIATION_LIMIT, CALLER_LIMIT, ASSOCIATION_RATE, CONNECTION_LIMIT, TLS_FAILED, PDU_TOO_LARGE,
            PROTOCOL_ERROR, TOO_SLOW, ASSOCIATION_TOO_LONG, GAVE_WAY, ASSOCIATION_ABORTED, CONNECTION_LOST,
            CONTEXT_NOT_ACCEPTED, NOT_ACKNOWLEDGED, or that of the status of a C-STORE.
        caller: Who offered it.
        status: DIMSE status of a STORE; result (PS3.8 table 9-18) of a CONTEXT; result, source and
            reason of an ASSOCIATION rejection as three bytes (table 9-21); else None.
        sop_class_uid: SOP class, where one was named.
        sop_instance_uid: SOP instance, where one was named.
        transfer_syntax_uid: Transfer syntax, the first one proposed for a CONTEXT.
        detail: One sentence for the log and for operations staff.
        count: How many there were that are equal but for the connection; `caller` is then one of them.
    """

    kind: str
    reason_code: str
    caller: Caller
    status: int | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    transfer_syntax_uid: str | None = None
    detail: str = ""
    count: int = 1


class ListenerEvents(Protocol):
    """What a listener's owner is told; called on the association's own thread."""

    def association_opened(self, caller: Caller) -> None:
        """An association was accepted."""

    def object_received(self, received: ReceivedObject) -> int:
        """Take one object; 0x0000 only once it is durable.

        Any other status is reported by the listener as turned away. A raised `DicomIoError`
        answers with its status and reason, any other exception with 0xC211 and INTERNAL_ERROR.
        """
        ...

    def association_closed(self, caller: Caller, outcome: str) -> None:
        """An opened association ended: "RELEASED", "ABORTED" or "CONNECTION_LOST"."""

    def turned_away(self, rejection: TurnedAway) -> None:
        """Something was not accepted."""
