"""What a report says, as plain values: the input of `dicom_io.report`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dicom_io.laterality import Laterality

SOFTWARE_NAME = "fundus-worker"
"""Manufacturer's Model Name (0008,1090) of everything that we make."""
ALWAYS_NOT_ASSESSED = ("Macular oedema", "Eye diseases other than diabetic retinopathy")
"""What no bundle assesses unless it says so; every report names it."""


@dataclass(frozen=True)
class ReportImage:
    """One photograph of the study, or one frame of it.

    Attributes:
        sop_class_uid: SOP Class UID of the photograph; with the next, the reference that a viewer follows.
        sop_instance_uid: SOP Instance UID of the photograph.
        frame_number: 1-based; None for a single-frame object.
        laterality: None when the headers do not say it, or contradict each other.
        route: "labelled", "adapter", "known" or "unknown": how its camera was treated.
        camera: Camera key, for instance "kowa-vx-10"; None when no rule knows the camera.
        adapter: Camera key of the adapter that was applied; None when none was.
        used: Whether the eye's result rests on it.
        reason_code: Why it was not used; a used photograph has none. Missing, the report says so.
        reason_text: The same in a sentence for the reader.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    laterality: Laterality | None
    route: str
    camera: str | None
    adapter: str | None
    used: bool
    reason_code: str | None = None
    reason_text: str | None = None


@dataclass(frozen=True)
class ReportEye:
    """The result for one eye: a grade, or the reason why there is none.

    Attributes:
        laterality: Which eye.
        grade: ICDR grade 0..4; None when withheld.
        referable: Whether the grade is 2 or more; None when withheld.
        referable_probability: Probability of grade 2 or more, 0..1; calibrated on the labelled camera.
        certainty: Probability of the stated grade, 0..1; likewise.
        quality: Gradability of the poorest photograph that the grade rests on, or of the eye's poorest when
            no grade is stated; 0..1.
        reason_code: Why the grade is withheld; None when one is stated.
        reason_text: The same in a sentence for the reader.
        flags: Further notes for the reader, each a sentence.
    """

    laterality: Laterality
    grade: int | None
    referable: bool | None
    referable_probability: float | None
    certainty: float | None
    quality: float | None
    reason_code: str | None = None
    reason_text: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Algorithm:
    """The software that graded (PS3.16 TID 4019).

    Attributes:
        name: Name of the algorithm.
        version: Version of the software.
        manufacturer: Who made it.
        bundle_id: Id of the model bundle.
        bundle_sha256: SHA-256 of its manifest, 64 hexadecimal digits.
        parameters: Further parameters, each a sentence, for instance the thresholds.
        bundle_version: Version of the model bundle.
    """

    name: str
    version: str
    manufacturer: str
    bundle_id: str
    bundle_sha256: str
    parameters: tuple[str, ...] = ()
    bundle_version: str = ""


@dataclass(frozen=True)
class Predecessor:
    """An earlier report that this one replaces (PS3.3 C.17.2, Predecessor Documents Sequence)."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True)
class ReportContent:
    """Everything a report says that is not copied from the photographs' headers.

    Attributes:
        sop_instance_uid: UID of the report.
        series_instance_uid: UID of its series.
        series_number: At least 1.
        instance_number: At least 1; the revision serves well.
        created_at: Aware. Written in its own time zone, or in the study's where the photographs state it
            (Timezone Offset From UTC), because a DICOM object has one zone for all its times.
        eyes: Results, at most one an eye; may be empty.
        images: Every photograph of the study, used or not; may not be empty.
        algorithm: What graded.
        predecessors: Reports that this one replaces.
        partial: Some photograph had not been analysed when the report became due.
        software_version: Version of this software.
        device_uid: UID of the installation as an observer; None derives one from the software's name.
        institution_name: Where the worker runs.
        minimum_quality: Gradability below which the bundle refuses a photograph, 0..1.
        not_assessed: What the reader might expect and nobody looked for.
    """

    sop_instance_uid: str
    series_instance_uid: str
    series_number: int
    instance_number: int
    created_at: datetime
    eyes: tuple[ReportEye, ...]
    images: tuple[ReportImage, ...]
    algorithm: Algorithm
    predecessors: tuple[Predecessor, ...] = ()
    partial: bool = False
    software_version: str = ""
    device_uid: str | None = None
    institution_name: str | None = None
    minimum_quality: float = 0.5
    not_assessed: tuple[str, ...] = ALWAYS_NOT_ASSESSED
