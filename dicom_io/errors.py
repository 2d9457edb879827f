"""What can go wrong in DICOM input and output, and what the caller decides on.

::

    DicomIoError
    ├── UnreadableObjectError      UNREADABLE_OBJECT     0xC210
    ├── IdentifierMissingError     IDENTIFIER_MISSING    0xA900
    ├── RefusedPixelsError         the reason is given by the raiser
    ├── DecoderLostError           INTERNAL_ERROR        retryable
    ├── DecoderPoolClosedError     INTERNAL_ERROR        retryable
    ├── SpoolFullError             OUT_OF_RESOURCES      0xA700, retryable
    ├── BacklogError               BACKLOG_LIMIT         0xA700, retryable
    ├── ObjectTooLargeError        OBJECT_TOO_LARGE      0xC212
    ├── SpoolDamagedError          SPOOL_FILE_DAMAGED
    ├── CameraRulesError           INTERNAL_ERROR        (configuration)
    └── ReportBuildError           INTERNAL_ERROR

Messages hold UIDs, sizes and tag names only, never a value that may identify a patient.
"""

from __future__ import annotations


class DicomIoError(Exception):
    """Root of every error that `dicom_io` raises on purpose.

    Attributes:
        reason_code: Code under which rows, reports and the log name this error.
        retryable: Whether the same input may succeed later.
        status: DIMSE status for the sender (PS3.4 table B.2-1, PS3.7 annex C).
    """

    reason_code: str = "INTERNAL_ERROR"
    retryable: bool = False
    status: int = 0x0110


class UnreadableObjectError(DicomIoError):
    """The file cannot be parsed as a DICOM data set (status 0xC210, cannot understand)."""

    reason_code = "UNREADABLE_OBJECT"
    status = 0xC210


class IdentifierMissingError(DicomIoError):
    """A UID that every composite object must carry is missing or no UID (status 0xA900)."""

    reason_code = "IDENTIFIER_MISSING"
    status = 0xA900


class RefusedPixelsError(DicomIoError):
    """The pixels cannot or must not be analysed.

    Args:
        reason_code: PIXELS_MISSING, PIXELS_UNREADABLE, UNSUPPORTED_TRANSFER_SYNTAX, NOT_COLOUR,
            IMAGE_TOO_LARGE or DECODER_FAILED.
        detail: One sentence with the numbers that led to the refusal.
    """

    def __init__(self, reason_code: str, detail: str) -> None:
        super().__init__(f"{reason_code}: {detail}")
        self.reason_code = reason_code
        self.detail = detail


class DecoderLostError(DicomIoError):
    """A decoder process was killed by somebody else, the kernel for want of memory perhaps."""

    retryable = True


class DecoderPoolClosedError(DicomIoError):
    """The decoder processes were ended because the service stops."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("the decoder processes were ended")


class SpoolFullError(DicomIoError):
    """The spool's file system has no room; the sender keeps the object (status 0xA700)."""

    reason_code = "OUT_OF_RESOURCES"
    retryable = True
    status = 0xA700


class BacklogError(DicomIoError):
    """More images wait than are allowed; the sender keeps the object (status 0xA700)."""

    reason_code = "BACKLOG_LIMIT"
    retryable = True
    status = 0xA700


class ObjectTooLargeError(DicomIoError):
    """The data set is longer than is allowed (status 0xC212: sending it again will not help).

    Args:
        maximum_bytes: What is allowed.
    """

    reason_code = "OBJECT_TOO_LARGE"
    status = 0xC212

    def __init__(self, maximum_bytes: int) -> None:
        super().__init__(f"the data set is longer than the {maximum_bytes} bytes that are allowed")


class SpoolDamagedError(DicomIoError):
    """A file of the spool is missing, or its bytes are not those that were acknowledged."""

    reason_code = "SPOOL_FILE_DAMAGED"


class CameraRulesError(DicomIoError):
    """The camera rules cannot be used; the message names file, rule and remedy."""


class ReportBuildError(DicomIoError):
    """A Structured Report cannot be built from the content given."""
