"""Reason codes of what was turned away at the door, or could not be read there."""

from __future__ import annotations

from worker.reason import Reason, Scope, other_reason

OBJECTS = (
    Reason(
        "UNREADABLE_OBJECT",
        "The received file is damaged or is not a DICOM object.",
        "Send it again from the camera or PACS; if it fails again, check it there with a DICOM validator.",
        True,
        Scope.OBJECT,
    ),
    Reason(
        "IDENTIFIER_MISSING",
        "The object does not say which study, series or image it is.",
        "Have the sender fill in Study, Series and SOP Instance UID; see its conformance statement.",
        True,
        Scope.OBJECT,
    ),
    Reason(
        "SOP_INSTANCE_MISMATCH",
        "The object says it is another one than its sender announced.",
        "Report it to the sender's vendor: the C-STORE request and the data set have different UIDs.",
        True,
        Scope.OBJECT,
    ),
    Reason(
        "SPOOL_FILE_DAMAGED",
        "The stored copy of the image is missing or was changed.",
        "Check the disk under data_dir, then restore the files or send the study again; nothing else may "
        "write into that folder.",
        True,
        Scope.OBJECT,
    ),
    Reason(
        "FILE_PURGED",
        "The stored copy of the image was removed because its time of retention was over.",
        "Send the image again if these models are to read it too; v_removed_files says when its file went.",
        True,
        Scope.OBJECT,
    ),
    Reason(
        "INTERNAL_ERROR",
        "The image could not be analysed because of an error in this software.",
        "See the log at that time for `analysis_failed`; once the cause is gone, run "
        "`fundus-worker requeue --refused`.",
        True,
        Scope.OBJECT,
    ),
    Reason(
        "UID_CONFLICT",
        "Two different images were received under one identifier, so it is not clear which one is meant.",
        "Find out at the sender what the two images are, have one sent again under a new SOP Instance UID; "
        "then `fundus-worker requeue --conflict --image UID` lets the first one count, and the study is "
        "reported. The second file stays in quarantine.",
        True,
        Scope.OBJECT,
    ),
)

DOOR = (
    other_reason(
        Scope.DOOR,
        "OUT_OF_RESOURCES",
        "The object could not be stored for lack of disk space.",
        "Free disk space under data_dir or lower [spool] reserve_mb; a sender that retries loses nothing.",
    ),
    other_reason(
        Scope.DOOR,
        "CALLED_AE_UNKNOWN",
        "The sender called another AE title than ours.",
        "Correct the called AE title at the sender, or [listener] ae_title here.",
    ),
    other_reason(
        Scope.DOOR,
        "CALLING_AE_UNKNOWN",
        "The sender's AE title is not in the list of those that may send.",
        "Add it to [listener] allowed_callers if it is one of yours, or change its [[caller]].",
    ),
    other_reason(
        Scope.DOOR,
        "CALLER_ADDRESS_UNKNOWN",
        "A known AE title called from an address that it may not call from.",
        "If the sender has moved, correct hosts in its [[caller]]; else find out who uses its AE title.",
    ),
    other_reason(
        Scope.DOOR,
        "PROTOCOL_ERROR",
        "What came over an association was no DICOM, or nothing that is served here, and ended it.",
        "See the detail and the sender's log; it has to send again what was not acknowledged.",
    ),
    other_reason(
        Scope.DOOR,
        "CONNECTION_PROBE",
        "Somebody connected and hung up without a DICOM association.",
        "Usually a load balancer or monitor; nothing to do.",
    ),
    other_reason(
        Scope.DOOR,
        "ASSOCIATION_LIMIT",
        "Too many associations were open.",
        "Raise [listener] maximum_associations or let the senders use fewer; they were told to try again.",
    ),
    other_reason(
        Scope.DOOR,
        "BACKLOG_LIMIT",
        "More images waited for analysis than are allowed.",
        "See `status` for what holds up the analysis, or raise [listener] maximum_backlog; a sender that "
        "retries loses nothing.",
    ),
    other_reason(
        Scope.DOOR,
        "OBJECT_TOO_LARGE",
        "The object was larger than is allowed, and was not stored.",
        "If it is a photograph, raise [listener] maximum_object_mb and have it sent again.",
    ),
    other_reason(
        Scope.DOOR,
        "CALLER_LIMIT",
        "Too many associations of one caller were open.",
        "Raise [listener] maximum_per_caller or let the sender use fewer; it was told to try again.",
    ),
    other_reason(
        Scope.DOOR,
        "ASSOCIATION_RATE",
        "One caller asked for too many associations within a minute.",
        "Find out why it does, or raise [listener] requests_per_minute; it was told to try again.",
    ),
    other_reason(
        Scope.DOOR,
        "CONNECTION_LIMIT",
        "Too many connections were open; this one was closed at once.",
        "See who connects; raise [listener] maximum_connections if they are all yours.",
    ),
    other_reason(
        Scope.DOOR,
        "GAVE_WAY",
        "An association that was idle or slow was ended in favour of another caller, for want of room.",
        "The sender connects again by itself; raise [listener] maximum_associations if it happens often.",
    ),
    other_reason(
        Scope.DOOR,
        "TOO_SLOW",
        "A message arrived more slowly than is allowed, and was cut off.",
        "Check the sender and the network, or lower [listener] minimum_bytes_per_s.",
    ),
    other_reason(
        Scope.DOOR,
        "ASSOCIATION_TOO_LONG",
        "An association had lasted as long as is allowed, and was ended.",
        "The sender connects again by itself; raise [listener] association_s if it does not.",
    ),
    other_reason(
        Scope.DOOR,
        "PDU_TOO_LARGE",
        "The sender exceeded the PDU length that was agreed on.",
        "It is no DICOM sender, or a faulty one; correct its maximum PDU length.",
    ),
    other_reason(
        Scope.DOOR,
        "TLS_FAILED",
        "A connection could not be secured with TLS.",
        "See the detail: the caller speaks no TLS, does not trust our certificate, or shows none that [tls] "
        "ca_file vouches for.",
    ),
    other_reason(
        Scope.DOOR,
        "ASSOCIATION_ABORTED",
        "The association was aborted before all objects were in.",
        "See the sender's log; it has to send again what was not acknowledged.",
    ),
    other_reason(
        Scope.DOOR,
        "OWN_PICTURE",
        "A lesion map that this software made was sent back to it.",
        "Have the routing rule leave out objects of the model fundus-worker; nothing is lost.",
    ),
    other_reason(
        Scope.DOOR,
        "NOT_ACKNOWLEDGED",
        "The object came in, but the connection was gone before it could be acknowledged.",
        "The sender has to send it again; sending twice does no harm.",
    ),
)
