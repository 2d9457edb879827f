"""Which eye, which patient, which image: statements that disagree, and objects that come again."""

from __future__ import annotations

from typing import Any

from corpus.case import Case, Outcome, corpus_uid, graded, sideless
from corpus.photograph import as_jpeg, brighter, compressed, make, written
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import JPEGBaseline8Bit

_TWO = (0x0000, 0x0000)


def _sided(case: str, **statements: Any) -> list[bytes]:
    return [written(make(case, laterality=None, **statements))]


def _shared_side(case: str, side: str, laterality: str) -> list[bytes]:
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = side
    group.FrameAnatomySequence = DicomSequence([anatomy])
    return [written(make(case, laterality=laterality, SharedFunctionalGroupsSequence=DicomSequence([group])))]


def _twice(case: str, **changes: Any) -> list[bytes]:
    """The same object, then the same with another header."""
    return [written(make(case)), written(make(case, **changes))]


def _other_pixels(case: str) -> list[bytes]:
    return [written(make(case)), written(make(case, as_jpeg(brighter())))]


def _two_images(case: str, **second: Any) -> list[bytes]:
    return [
        written(make(case)),
        written(
            make(case, as_jpeg(brighter()), number=2, SeriesInstanceUID=corpus_uid(case, "second"), **second)
        ),
    ]


def _issuers(case: str) -> list[bytes]:
    first = make(case, IssuerOfPatientID="NORTH CLINIC")
    second = make(case, as_jpeg(brighter()), number=2, IssuerOfPatientID="SOUTH CLINIC")
    return [written(first), written(second)]


def _stray(case: str) -> list[bytes]:
    """A right eye without disease, and an image of no side that cannot be read: it may be of that eye."""
    stray = compressed(case, as_jpeg()[:2000], JPEGBaseline8Bit, SOPInstanceUID=corpus_uid(case, "2"))
    stray.file_meta.MediaStorageSOPInstanceUID = stray.SOPInstanceUID
    del stray.ImageLaterality
    return [written(make(case)), written(stray)]


_UNKNOWN = sideless("LATERALITY_UNKNOWN")
_CONFLICT = sideless("LATERALITY_CONFLICT")

CASES = (
    Case("side-missing", "no side stated", _UNKNOWN, _sided),
    Case("side-both", "Image Laterality B", _UNKNOWN, lambda c: _sided(c, ImageLaterality="B")),
    Case("side-unpaired", "Image Laterality U", _UNKNOWN, lambda c: _sided(c, ImageLaterality="U")),
    Case("side-empty", "an empty Image Laterality", _UNKNOWN, lambda c: _sided(c, ImageLaterality="")),
    Case(
        "side-of-the-series",
        "only Laterality (0020,0060) stated",
        graded(),
        lambda c: _sided(c, Laterality="R"),
    ),
    Case(
        "side-conflict",
        "Image Laterality R, Laterality L",
        _CONFLICT,
        lambda c: _sided(c, ImageLaterality="R", Laterality="L"),
    ),
    Case(
        "side-conflict-of-the-frame",
        "Image Laterality R, Frame Laterality L",
        _CONFLICT,
        lambda c: _shared_side(c, "L", "R"),
    ),
    Case(
        "side-of-a-stray",
        "a good right eye, and a damaged image of unknown side",
        Outcome(
            statuses=_TWO,
            results=(("ANALYSED", None), ("REFUSED", "PIXELS_UNREADABLE")),
            eyes={"R": "PIXELS_UNREADABLE"},
        ),
        _stray,
    ),
    Case(
        "again-identical",
        "the same object twice",
        Outcome(statuses=_TWO, results=(("ANALYSED", None),), eyes={"R": None}),
        lambda c: [written(make(c)), written(make(c))],
    ),
    Case(
        "again-other-side",
        "sent again with its side corrected",
        Outcome(statuses=_TWO, results=(("ANALYSED", None),), eyes={"L": None}),
        lambda c: _twice(c, ImageLaterality="L"),
    ),
    Case(
        "again-other-patient",
        "sent again with its patient corrected",
        Outcome(statuses=_TWO, results=(("ANALYSED", None),), eyes={"R": None}),
        lambda c: _twice(c, PatientID="CRPCORRECTED", PatientName="Quarncorrected^Osvalda"),
        secrets=("CRPCORRECTED", "Quarncorrected"),
    ),
    Case(
        "again-other-pixels",
        "other pixels under the same SOP Instance UID",
        Outcome(statuses=_TWO, results=(("ANALYSED", "UID_CONFLICT"),), report=False),
        _other_pixels,
    ),
    Case(
        "patients-two",
        "two Patient IDs in one study",
        Outcome(statuses=_TWO, results=(("ANALYSED", "PATIENT_CONFLICT"),) * 2, report=False),
        lambda c: _two_images(c, PatientID="CRPSECOND", PatientName="Quarnsecond^Osvalda"),
        secrets=("CRPSECOND", "Quarnsecond"),
        same_colours=False,
    ),
    Case(
        "patients-two-issuers",
        "one Patient ID of two issuers in one study",
        Outcome(statuses=_TWO, results=(("ANALYSED", "PATIENT_CONFLICT"),) * 2, report=False),
        _issuers,
        same_colours=False,
    ),
    Case(
        "eyes-two",
        "a right and a left eye in one study",
        Outcome(statuses=_TWO, results=(("ANALYSED", None),) * 2, eyes={"R": None, "L": None}),
        lambda c: _two_images(c, ImageLaterality="L"),
        same_colours=False,
    ),
)
