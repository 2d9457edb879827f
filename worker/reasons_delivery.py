"""Reason codes of what goes out: reports, and the documents beside them."""

from __future__ import annotations

from worker.reason import Scope, other_reason

DELIVERIES = (
    other_reason(
        Scope.DELIVERY,
        "PEER_UNREACHABLE",
        "The destination could not be reached.",
        "Check address, port, network and that the destination runs; delivery goes on by itself.",
    ),
    other_reason(
        Scope.DELIVERY,
        "PEER_REJECTED_ASSOCIATION",
        "The destination refused the connection.",
        "Enter our AE title at the destination and check the AE title configured for it here.",
    ),
    other_reason(
        Scope.DELIVERY,
        "CONTEXT_NOT_ACCEPTED",
        "The receiver does not accept objects of this kind or in this encoding.",
        "A destination: enable storage of the kind that the detail names, or switch it off in its "
        "[[destination]]. A sender: have it offer photographs as "
        "8-bit JPEG, JPEG-LS, JPEG 2000, RLE or uncompressed, and leave other objects out of its routing "
        "rule.",
    ),
    other_reason(
        Scope.DELIVERY,
        "STORE_REFUSED",
        "The destination refused the report.",
        "Look for the report's SOP Instance UID in the destination's log, then run "
        "`fundus-worker requeue --dead`.",
    ),
    other_reason(
        Scope.DELIVERY,
        "PEER_TLS_FAILED",
        "The destination could not be reached over TLS.",
        "See the detail: a file of [tls], its certificate, or the name in it; delivery goes on by itself.",
    ),
    other_reason(
        Scope.DELIVERY,
        "STORE_FAILED",
        "The destination could not store the report at that time.",
        "Check disk and load of the destination; delivery goes on by itself.",
    ),
    other_reason(
        Scope.DELIVERY,
        "CONNECTION_LOST",
        "The connection was cut during the transfer.",
        "Check the network and the timeouts on both sides; the transfer is repeated.",
    ),
)

DOCUMENTS = (
    other_reason(
        Scope.DELIVERY,
        "DOCUMENT_FAILED",
        "The page or picture beside the report could not be made because of an error in this software.",
        "See the log for `document_failed`; once the cause is gone, run `fundus-worker requeue --documents`. "
        "The report itself is not held up.",
    ),
    other_reason(
        Scope.DELIVERY,
        "MAPS_DIFFER",
        "The lesion maps were left out, because they could not be computed as they were for the grade.",
        "Nothing to do for this study; if it happens often, let all processes run the same engine.",
    ),
    other_reason(
        Scope.DELIVERY,
        "REPORT_CHANGED",
        "The study, the settings or the program changed before this was made beside its report.",
        "Nothing to do: a study that changed gets a newer report, with a page and pictures of its own.",
    ),
)
