"""The answer to one C-STORE request (PS3.7 section 9.1.1, statuses of PS3.4 table B.2-1)."""

from __future__ import annotations

from typing import Any

import structlog

from dicom_io.errors import DicomIoError
from dicom_io.incoming import IncomingFile
from dicom_io.listener_events import Caller, ListenerEvents, ReceivedObject

log = structlog.get_logger(__name__)

SUCCESS = 0x0000
CANNOT_UNDERSTAND = 0xC210
_PROCESSING_FAILURE = 0xC211
_SOP_CLASS_NOT_SUPPORTED = 0x0122
_OUT_OF_RESOURCES = 0xA700
_REASON_OF_STATUS = {
    _OUT_OF_RESOURCES: "OUT_OF_RESOURCES",
    0xA900: "IDENTIFIER_MISSING",
    CANNOT_UNDERSTAND: "UNREADABLE_OBJECT",
    _SOP_CLASS_NOT_SUPPORTED: "CONTEXT_NOT_ACCEPTED",
}


def answer(
    events: ListenerEvents, caller: Caller, event: Any, incoming: IncomingFile
) -> tuple[int, str, str]:
    """Offer one complete object to the owner; return status, reason code and detail.

    Args:
        events: The owner.
        caller: Who sent it.
        event: pynetdicom's event of the request.
        incoming: The object, its file closed.
    """
    if isinstance(incoming.error, DicomIoError):
        return incoming.error.status, incoming.error.reason_code, str(incoming.error)
    if incoming.error is not None:
        detail = f"the temporary file cannot be written: {incoming.error.strerror}"
        return _OUT_OF_RESOURCES, "OUT_OF_RESOURCES", detail
    if incoming.sop_class_uid != event.context.abstract_syntax:
        detail = "the object's SOP class is not that of its presentation context"
        return _SOP_CLASS_NOT_SUPPORTED, "CONTEXT_NOT_ACCEPTED", detail
    received = ReceivedObject(
        path=incoming.path,
        sop_class_uid=incoming.sop_class_uid,
        sop_instance_uid=incoming.sop_instance_uid,
        transfer_syntax_uid=incoming.transfer_syntax_uid,
        dimse_priority=int(event.request.Priority or 0),
        caller=caller,
    )
    try:
        status = events.object_received(received)
    except DicomIoError as error:
        return error.status, error.reason_code, str(error)
    except Exception as error:
        log.exception("object_not_stored", sop_instance_uid=incoming.sop_instance_uid)
        return _PROCESSING_FAILURE, "INTERNAL_ERROR", f"storing failed ({type(error).__name__})"
    return status, _REASON_OF_STATUS.get(status, "INTERNAL_ERROR"), "refused by the receiver"
