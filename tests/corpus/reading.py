"""What the worker does with a file until a model sees it: it ends in a result or in a named reason."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

from dicom_io.camera import CameraRules
from dicom_io.errors import DicomIoError
from dicom_io.header import colour_refusal, decisive_content, read_header
from dicom_io.pixels import frames
from dicom_io.report_header import patient_and_study, read_evidence, utc_offset
from models.errors import NoFieldOfViewError
from models.preprocess import prepare
from worker.reasons import REASONS

READ = "read"
_SIZE = 64
_PREPARED_EVERY = 8
"""Of photographs of the usual size, one in so many is searched for its field; the others are few."""


def outcome(path: Path) -> str:
    """How a file ends: `READ`, or the reason code of its refusal at the door or by the analysis.

    Raises:
        Exception: Whatever is no refusal with a reason: a mistake in the program.
    """
    try:
        ended = _read(path)
    except (DicomIoError, NoFieldOfViewError) as error:
        ended = error.reason_code
        if ended not in REASONS or ended == "INTERNAL_ERROR":
            raise
    return ended


def _read(path: Path) -> str:
    header = read_header(path)
    _rules().match(header, "CAMERA")
    decisive_content(header).encode()
    repr(header)
    data = path.read_bytes()
    evidence = [read_evidence(data)]
    patient_and_study(evidence)
    utc_offset(evidence)
    refusal = colour_refusal(header)
    if refusal is not None:
        return refusal
    for number, rgb in enumerate(frames(data, header)):
        usual = rgb.shape[:2] == (170, 256)
        if number == 0 and (not usual or zlib.crc32(data) % _PREPARED_EVERY == 0):
            prepare(rgb, _SIZE)
    return READ


@cache
def _rules() -> CameraRules:
    return CameraRules.load()
