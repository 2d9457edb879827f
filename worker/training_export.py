"""Which pictures of a camera leave for the training of an adapter, in which order, and why the others stay.

The order does not depend on when a picture was taken. No grade leaves: adapters are trained without one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from dicom_io.errors import DicomIoError, SpoolDamagedError
from dicom_io.header import FundusHeader, colour_refusal, read_header
from dicom_io.pixels import frames
from dicom_io.sop_classes import WIDE_FIELD_SOP_CLASSES
from dicom_io.spool import Spool
from models.errors import NoFieldOfViewError
from worker.schema import InstanceState
from worker.store.exporting import StoredImage
from worker.training_set import COLUMNS, ExportFolder, Pseudonyms, RgbPicture, inside_field

BURNED_IN_ANNOTATION = "BURNED_IN_ANNOTATION"
"""Beside the codes of `worker.reasons`: no reason to give no result, but one to let no picture out."""
_DAMAGED = "SPOOL_FILE_DAMAGED"
_UNFINISHED = "IMAGE_UNFINISHED"
_IN_DOUBT = frozenset(("UNGRADABLE_QUALITY", _UNFINISHED))
"""Findings that a person may overrule with --include-ungradable."""
_OF_ANOTHER_KIND = frozenset(("NOT_COLOUR", "NOT_A_FUNDUS_PHOTOGRAPH", "TEXT_IN_FIELD"))
"""Findings that nobody overrules: no lesson about the camera's style, or text that may name the patient."""


class _KeptBackError(Exception):
    """A picture does not leave, for a reason that is counted."""

    def __init__(self, reason_code: str) -> None:
        super().__init__(reason_code)
        self.reason_code = reason_code


@dataclass
class Outcome:
    """What came of an export.

    Attributes:
        pictures: Written (or, in a dry run, fit to be).
        patients: Their pseudonyms.
        text_not_stated: Pictures among them whose header does not say whether text is burned in.
        skipped: What was kept back, by reason code; an object whose frames were not looked at counts once.
        damaged: (SOP Instance UID, problem) of objects whose file is missing, changed or cannot be read.
    """

    pictures: int = 0
    patients: set[str] = field(default_factory=set)
    text_not_stated: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    damaged: list[tuple[str, str]] = field(default_factory=list)


def in_sampled_order(
    images: Sequence[StoredImage], group: Callable[[StoredImage], str], seed: int
) -> list[StoredImage]:
    """Order images so that the first N of them are a random sample with as many patients as there can be.

    One image of each patient comes first, then a second one of each that has two, and so on. Within these
    rounds, and within a patient, the order is that of digests of the seed with the patient or the file: the
    same for the same seed, and none that tells which came first.

    Args:
        images: In any order.
        group: What tells patients apart.
        seed: Of the sample.
    """

    def place(text: str) -> bytes:
        return hashlib.sha256(f"{seed}\x00{text}".encode()).digest()

    rounds: Counter[str] = Counter()
    placed = []
    for image in sorted(images, key=lambda each: place(each.sha256)):
        patient = group(image)
        placed.append((rounds[patient], place(patient), image))
        rounds[patient] += 1
    return [image for _, _, image in sorted(placed, key=lambda each: each[:2])]


@dataclass(frozen=True)
class Exporter:
    """Writes the pictures of one camera, one at a time.

    Attributes:
        spool: Where the objects are.
        camera: What the column `camera` says.
        group: Tells patients apart; its values do not leave.
        folder: Where to; None for a dry run, which reads and judges all the same.
        limit: Pictures at most.
        include_ungradable: Also those that were found ungradable, were refused, or were not analysed.
    """

    spool: Spool
    camera: str
    group: Callable[[StoredImage], str]
    folder: ExportFolder | None = None
    limit: int | None = None
    include_ungradable: bool = False
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms, repr=False)

    def run(self, images: Sequence[StoredImage], ended: Callable[[int], None]) -> Outcome:
        """Export what may leave of these images, in this order.

        Args:
            images: Candidates.
            ended: Told how many pictures are out, after each image.

        Raises:
            OSError: The folder cannot be written to.
        """
        outcome = Outcome()
        for image in images:
            if self._full(outcome):
                break
            try:
                self._export(image, outcome)
            except _KeptBackError as error:
                outcome.skipped[error.reason_code] += 1
            ended(outcome.pictures)
        return outcome

    def _full(self, outcome: Outcome) -> bool:
        return self.limit is not None and outcome.pictures >= self.limit

    def _export(self, image: StoredImage, outcome: Outcome) -> None:
        if reason := refusal(image, include_ungradable=self.include_ungradable):
            if reason != _DAMAGED:
                raise _KeptBackError(reason)
            outcome.damaged.append((image.sop_instance_uid, _DAMAGED))
            return
        try:
            data = self.spool.read_verified(image.spool_path, image.sha256)
            header = read_header(self.spool.path(image.spool_path))
        except SpoolDamagedError as error:
            outcome.damaged.append((image.sop_instance_uid, error.reason_code))
            return
        except OSError as error:  # of reading this file: it may be sound, and so may the others
            outcome.damaged.append((image.sop_instance_uid, error.strerror or type(error).__name__))
            return
        except DicomIoError as error:
            raise _KeptBackError(error.reason_code) from error
        for number, rgb in _decoded(data, header):
            if self._full(outcome):
                return
            self._export_frame(image, header, number, rgb, outcome)

    def _export_frame(
        self, image: StoredImage, header: FundusHeader, number: int, rgb: RgbPicture, outcome: Outcome
    ) -> None:
        """Write one frame, or count why not."""
        reason = frame_refusal(image, number, include_ungradable=self.include_ungradable)
        try:
            picture = None if reason else inside_field(rgb)
        except NoFieldOfViewError as error:
            picture, reason = None, error.reason_code
        if picture is None:
            outcome.skipped[str(reason)] += 1
            return
        patient = self.pseudonyms.patient(self.group(image))
        if self.folder is not None:
            side = header.laterality[number - 1].value
            values = (
                self.pseudonyms.picture(image.sop_instance_uid, number),
                patient,
                str(side or ""),
                self.camera,
                str(number),
            )
            self.folder.add(dict(zip(COLUMNS, values, strict=True)), picture)
        outcome.pictures += 1
        outcome.patients.add(patient)
        outcome.text_not_stated += header.burned_in_annotation is None


def refusal(image: StoredImage, *, include_ungradable: bool) -> str | None:
    """Why nothing of an image leaves, as far as its row tells; None when it may."""
    if image.sop_class_uid in WIDE_FIELD_SOP_CLASSES:
        return "WIDE_FIELD_NOT_VALIDATED"
    if image.uid_conflict:
        return "UID_CONFLICT"
    if image.study_reason == "PATIENT_CONFLICT":
        return image.study_reason
    if image.state == InstanceState.RECEIVED:
        return None if include_ungradable else _UNFINISHED
    if image.state == InstanceState.REFUSED:
        final = image.reason_code in _OF_ANOTHER_KIND or image.reason_code == _DAMAGED
        return image.reason_code if final or not include_ungradable else None
    return None


def frame_refusal(image: StoredImage, number: int, *, include_ungradable: bool) -> str | None:
    """Why one frame does not leave, as far as its finding tells; None when it may."""
    reason = image.frame_reasons.get(number, _UNFINISHED)
    if reason in _OF_ANOTHER_KIND or (reason in _IN_DOUBT and not include_ungradable):
        return reason
    return None


def _decoded(data: bytes, header: FundusHeader) -> Iterator[tuple[int, RgbPicture]]:
    """Number and pixels uint8 (H, W, 3) of each frame, of an object whose header lets it leave."""
    if header.burned_in_annotation:
        raise _KeptBackError(BURNED_IN_ANNOTATION)
    if reason := colour_refusal(header):
        raise _KeptBackError(reason)
    try:
        yield from enumerate(frames(data, header), start=1)
    except DicomIoError as error:
        raise _KeptBackError(error.reason_code) from error
