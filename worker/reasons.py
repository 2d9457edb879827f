"""The one list of reason codes: why there is no result, or why something did not get in or out.

Each code has a sentence for the person who reads the report (an ophthalmologist), and a remedy for the person
who runs the worker (an imaging IT admin). `worker`, `dicom_io` and `models` use no code that is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


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


def _image(code: str, text: str, remedy: str, *, blocks_negative: bool = True) -> Reason:
    return Reason(code, text, remedy, blocks_negative, Scope.IMAGE)


def _other(scope: Scope, code: str, text: str, remedy: str) -> Reason:
    return Reason(code, text, remedy, False, scope)


_OBJECTS = (
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

_IMAGES = (
    _image(
        "PIXELS_MISSING",
        "The object contains no picture.",
        "Check on the camera whether the image was saved completely and send it again.",
    ),
    _image(
        "PIXELS_UNREADABLE",
        "The picture in the object is damaged and cannot be opened.",
        "Send the image again; if it fails again, see in the PACS viewer whether its source is damaged.",
    ),
    _image(
        "DECODER_FAILED",
        "The picture made the program that opens it crash, hang or take too much memory.",
        "See reason_detail. Send the image again; if it ends so again, see in the PACS viewer whether its "
        "source is damaged. Where time or memory ran out on a sound image, raise [decoder] timeout_s or "
        "memory_mb, then run `fundus-worker requeue --refused --reason DECODER_FAILED`.",
    ),
    _image(
        "UNSUPPORTED_TRANSFER_SYNTAX",
        "The picture is compressed in a way that this software does not read.",
        "Have the sender use 8-bit JPEG, JPEG-LS, JPEG 2000, RLE or an uncompressed transfer syntax; the "
        "row's reason_detail and the log name the one used.",
    ),
    _image(
        "IMAGE_TOO_LARGE",
        "The picture is larger than this software accepts.",
        "Check Rows and Columns at the sender; a real photograph of that size has to be exported smaller.",
    ),
    _image(
        "NOT_COLOUR",
        "This is not a colour photograph (for example infrared, red-free, autofluorescence or angiography).",
        "Nothing to do: such images are not analysed. To save traffic, leave them out of the routing rule.",
        blocks_negative=False,
    ),
    _image(
        "NOT_A_FUNDUS_PHOTOGRAPH",
        "No retina was found in the picture (for example the front of the eye, a document or a black frame).",
        "Nothing to do, unless it is a fundus photograph: then view it, or have it repeated.",
    ),
    _image(
        "UNGRADABLE_QUALITY",
        "The picture is too blurred, dark or incomplete to be graded.",
        "Have the photograph repeated; if one camera does it often, have its optics cleaned and checked.",
    ),
    _image(
        "CAMERA_NOT_VALIDATED",
        "The picture comes from a camera on which the analysis was not validated.",
        "Train and validate an adapter for this camera, or accept it with [camera] opt_in; see "
        "`fundus-worker cameras explain FILE`.",
    ),
    _image(
        "CAMERA_REFUSED",
        "Pictures from this camera are not analysed here.",
        "Change [camera] without_adapter or unknown, or add the camera to opt_in, if they should be.",
    ),
    _image(
        "WIDE_FIELD_NOT_VALIDATED",
        "This is a wide-field picture, on which the analysis was not validated.",
        "Change [camera] wide_field, or add the camera to opt_in, if such pictures should be analysed.",
    ),
    _image(
        "LATERALITY_UNKNOWN",
        "The image does not say whether it shows the right or the left eye.",
        "Have the side entered at the camera (Image Laterality, 0020,0062) and send the image again.",
    ),
    _image(
        "LATERALITY_CONFLICT",
        "The image names two different sides.",
        "Correct the side at the camera or PACS (0020,0062 and 0020,0060 must agree) and send it again.",
    ),
    _image(
        "IMAGE_UNFINISHED",
        "The image had not been analysed when this report had to be written.",
        "See `fundus-worker status` for what is waiting; a revised report follows when it is done.",
    ),
)

_RESULTS = (
    _other(
        Scope.EYE,
        "NO_GRADABLE_IMAGE",
        "There is no image of this eye that can be graded.",
        "See the reasons of the images; have the photographs repeated.",
    ),
    _other(
        Scope.EYE,
        "EYE_POLICY",
        "At least one image of this eye could not be used, and this site reports an eye only when all could.",
        "See the reasons of the images; the rule is [grading] eye_policy = strict.",
    ),
    _other(
        Scope.EYE,
        "EYE_WITHHELD",
        "This photograph could be read; the eye's result is withheld because of another photograph.",
        "See the reason of the eye, and those of its other images: it is they that have to be repeated.",
    ),
    Reason(
        "STUDY_EMPTIED",
        "A report was delivered, and then every image of its study was moved to another study.",
        "Tell its readers, and remove the report at the destination: what it says belongs to the study that "
        "has the images now.",
        True,
        Scope.STUDY,
    ),
    Reason(
        "PATIENT_CONFLICT",
        "The images of this study name different patients.",
        "Find out at the sender whose images these are, correct them there and send the study again.",
        True,
        Scope.STUDY,
    ),
)

_DELIVERIES = (
    _other(
        Scope.DELIVERY,
        "PEER_UNREACHABLE",
        "The destination could not be reached.",
        "Check address, port, network and that the destination runs; delivery goes on by itself.",
    ),
    _other(
        Scope.DELIVERY,
        "PEER_REJECTED_ASSOCIATION",
        "The destination refused the connection.",
        "Enter our AE title at the destination and check the AE title configured for it here.",
    ),
    _other(
        Scope.DELIVERY,
        "CONTEXT_NOT_ACCEPTED",
        "The receiver does not accept objects of this kind or in this encoding.",
        "A destination: enable Comprehensive 3D SR storage there. A sender: have it offer photographs as "
        "8-bit JPEG, JPEG-LS, JPEG 2000, RLE or uncompressed, and leave other objects out of its routing "
        "rule.",
    ),
    _other(
        Scope.DELIVERY,
        "STORE_REFUSED",
        "The destination refused the report.",
        "Look for the report's SOP Instance UID in the destination's log, then run "
        "`fundus-worker requeue --dead`.",
    ),
    _other(
        Scope.DELIVERY,
        "PEER_TLS_FAILED",
        "The destination could not be reached over TLS.",
        "See the detail: a file of [tls], its certificate, or the name in it; delivery goes on by itself.",
    ),
    _other(
        Scope.DELIVERY,
        "STORE_FAILED",
        "The destination could not store the report at that time.",
        "Check disk and load of the destination; delivery goes on by itself.",
    ),
    _other(
        Scope.DELIVERY,
        "CONNECTION_LOST",
        "The connection was cut during the transfer.",
        "Check the network and the timeouts on both sides; the transfer is repeated.",
    ),
)

_DOOR = (
    _other(
        Scope.DOOR,
        "OUT_OF_RESOURCES",
        "The object could not be stored for lack of disk space.",
        "Free disk space under data_dir or lower [spool] reserve_mb; a sender that retries loses nothing.",
    ),
    _other(
        Scope.DOOR,
        "CALLED_AE_UNKNOWN",
        "The sender called another AE title than ours.",
        "Correct the called AE title at the sender, or [listener] ae_title here.",
    ),
    _other(
        Scope.DOOR,
        "CALLING_AE_UNKNOWN",
        "The sender's AE title is not in the list of those that may send.",
        "Add it to [listener] allowed_callers if it is one of yours.",
    ),
    _other(
        Scope.DOOR,
        "CONNECTION_PROBE",
        "Somebody connected and hung up without a DICOM association.",
        "Usually a load balancer or monitor; nothing to do.",
    ),
    _other(
        Scope.DOOR,
        "ASSOCIATION_LIMIT",
        "Too many associations were open.",
        "Raise [listener] maximum_associations or let the senders use fewer; they were told to try again.",
    ),
    _other(
        Scope.DOOR,
        "BACKLOG_LIMIT",
        "More images waited for analysis than are allowed.",
        "See `status` for what holds up the analysis, or raise [listener] maximum_backlog; a sender that "
        "retries loses nothing.",
    ),
    _other(
        Scope.DOOR,
        "OBJECT_TOO_LARGE",
        "The object was larger than is allowed, and was not stored.",
        "If it is a photograph, raise [listener] maximum_object_mb and have it sent again.",
    ),
    _other(
        Scope.DOOR,
        "CALLER_LIMIT",
        "Too many associations of one caller were open.",
        "Raise [listener] maximum_per_caller or let the sender use fewer; it was told to try again.",
    ),
    _other(
        Scope.DOOR,
        "ASSOCIATION_RATE",
        "One caller asked for too many associations within a minute.",
        "Find out why it does, or raise [listener] requests_per_minute; it was told to try again.",
    ),
    _other(
        Scope.DOOR,
        "CONNECTION_LIMIT",
        "Too many connections were open; this one was closed at once.",
        "See who connects; raise [listener] maximum_connections if they are all yours.",
    ),
    _other(
        Scope.DOOR,
        "GAVE_WAY",
        "An association that was idle or slow was ended in favour of another caller, for want of room.",
        "The sender connects again by itself; raise [listener] maximum_associations if it happens often.",
    ),
    _other(
        Scope.DOOR,
        "TOO_SLOW",
        "A message arrived more slowly than is allowed, and was cut off.",
        "Check the sender and the network, or lower [listener] minimum_bytes_per_s.",
    ),
    _other(
        Scope.DOOR,
        "ASSOCIATION_TOO_LONG",
        "An association had lasted as long as is allowed, and was ended.",
        "The sender connects again by itself; raise [listener] association_s if it does not.",
    ),
    _other(
        Scope.DOOR,
        "PDU_TOO_LARGE",
        "The sender exceeded the PDU length that was agreed on.",
        "It is no DICOM sender, or a faulty one; correct its maximum PDU length.",
    ),
    _other(
        Scope.DOOR,
        "TLS_FAILED",
        "A connection could not be secured with TLS.",
        "See the detail: the caller speaks no TLS, does not trust our certificate, or shows none that [tls] "
        "ca_file vouches for.",
    ),
    _other(
        Scope.DOOR,
        "ASSOCIATION_ABORTED",
        "The association was aborted before all objects were in.",
        "See the sender's log; it has to send again what was not acknowledged.",
    ),
    _other(
        Scope.DOOR,
        "NOT_ACKNOWLEDGED",
        "The object came in, but the connection was gone before it could be acknowledged.",
        "The sender has to send it again; sending twice does no harm.",
    ),
)

REASONS: Mapping[str, Reason] = MappingProxyType(
    {each.code: each for group in (_OBJECTS, _IMAGES, _RESULTS, _DELIVERIES, _DOOR) for each in group}
)


def reason(code: str) -> Reason:
    """The reason of a code.

    Raises:
        KeyError: There is no such code: a mistake in the program.
    """
    return REASONS[code]
