"""What the header of a fundus photograph says, as one frozen record; pixels are not loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.dataset import parse_object
from dicom_io.elements import codes, integer_string, items, readable_items, text, texts, uid, unsigned
from dicom_io.errors import IdentifierMissingError
from dicom_io.illumination import not_colour, not_retinal
from dicom_io.laterality import UNREADABLE, Laterality, LateralityReading, read_laterality
from dicom_io.pixel_digest import pixel_digest
from dicom_io.report_header import COPIED_TAGS, copied_values
from dicom_io.strict_text import identifying_text

__all__ = [
    "MAXIMUM_FRAMES",
    "FundusHeader",
    "Laterality",
    "LateralityReading",
    "colour_refusal",
    "decisive_content",
    "read_header",
]

MAXIMUM_FRAMES = 1024
"""More frames than this are not listed one by one; `pixels` refuses such an object."""

_IMAGE_LATERALITY, _LATERALITY, _FRAME_LATERALITY = 0x00200062, 0x00200060, 0x00209072
_ANATOMIC_REGION, _REGION_MODIFIER = 0x00082218, 0x00082220
_CODED_SIDES = {
    "24028007": "R", "G-A100": "R", "18944008": "R",
    "7771000": "L", "G-A101": "L", "8966001": "L",
    "51440002": "B", "G-A102": "B", "40638003": "B",
}  # fmt: skip
"""Code values of sides and of right, left and both eyes (PS3.16 CID 244, SNOMED CT and SNOMED RT)."""
_SHARED_GROUPS, _PER_FRAME_GROUPS, _FRAME_ANATOMY = 0x52009229, 0x52009230, 0x00209071
_DEVICE_TYPE, _ILLUMINATION = 0x00220015, 0x00220016
_LIGHT_PATH_FILTERS, _IMAGE_PATH_FILTERS, _CHANNELS = 0x00220017, 0x00220018, 0x0022001A
_CONTRAST_AGENTS = 0x00180012
_WANTED = (
    0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080022, 0x0008002A, 0x00080032, 0x00080050,
    0x00080060, 0x00080070, 0x00081090, 0x00100020, 0x00100021, 0x00181000, 0x00181020, 0x0020000D,
    0x0020000E, _LATERALITY, _IMAGE_LATERALITY, 0x00201208, _DEVICE_TYPE, _ILLUMINATION,
    _LIGHT_PATH_FILTERS, _IMAGE_PATH_FILTERS, _CHANNELS, _CONTRAST_AGENTS, 0x00280002, 0x00280004,
    0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280301, 0x00401003,
    _SHARED_GROUPS, _PER_FRAME_GROUPS, _ANATOMIC_REGION, *COPIED_TAGS,
)  # fmt: skip
_NOT_DECISIVE = (
    "acquisition_datetime", "burned_in_annotation", "modality", "pixel_sha256", "related_instances",
    "requested_priority",
)  # fmt: skip
"""What neither the analysis nor the report depends on."""
_SAME_ENCODING = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
"""The same Pixel Data value means the same picture in these (PS3.5 annex A)."""


@dataclass(frozen=True)
class FundusHeader:
    """Header of one object; text is stripped, absent text is "", absent numbers are 0.

    Attributes:
        sop_class_uid: (0008,0016).
        sop_instance_uid: (0008,0018).
        study_instance_uid: (0020,000D).
        series_instance_uid: (0020,000E).
        transfer_syntax_uid: (0002,0010).
        accession_number: (0008,0050).
        patient_id: (0010,0020); kept out of `repr`.
        patient: (0010,0020) to be compared: two are equal only when their values are; kept out of `repr`.
        patient_context: What else tells patients apart, to be compared: who issued the identifier,
            (0010,0021); without an identifier, name and birth date. "" when not stated; kept out of `repr`.
        issuer_of_patient_id: (0010,0021); kept out of `repr`.
        manufacturer: (0008,0070).
        model_name: (0008,1090).
        device_serial: (0018,1000).
        software: (0018,1020), values joined by a backslash.
        rows: (0028,0010), in pixels.
        columns: (0028,0011), in pixels.
        number_of_frames: (0028,0008), 1 when absent.
        samples_per_pixel: (0028,0002).
        bits_allocated: (0028,0100).
        bits_stored: (0028,0101).
        planar_configuration: (0028,0006).
        photometric: (0028,0004).
        image_type: (0008,0008).
        modality: (0008,0060).
        laterality: One reading a frame, at most `MAXIMUM_FRAMES`.
        device_type_codes: Code values of (0022,0015).
        illumination_codes: Code values of (0022,0016).
        filter_codes: Code values of the light path's filters, (0022,0017).
        image_filter_codes: Code values of the image path's filters, (0022,0018).
        channel_codes: Code values of the channels' light, (0022,001A).
        contrast_codes: Code values of contrast agents, (0018,0012).
        burned_in_annotation: (0028,0301), None when not stated.
        requested_priority: (0040,1003).
        related_instances: (0020,1208), None when absent.
        acquisition_datetime: (0008,002A), else (0008,0022) and (0008,0032) joined.
        pixel_sha256: Digest over the value of Pixel Data (`pixel_digest`); None without pixel data.
        copied: What a report copies from this header, as canonical JSON; kept out of `repr`.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    accession_number: str = ""
    patient_id: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)
    patient_context: str = field(default="", repr=False)
    issuer_of_patient_id: str = field(default="", repr=False)
    manufacturer: str = ""
    model_name: str = ""
    device_serial: str = ""
    software: str = ""
    rows: int = 0
    columns: int = 0
    number_of_frames: int = 1
    samples_per_pixel: int = 0
    bits_allocated: int = 0
    bits_stored: int = 0
    planar_configuration: int = 0
    photometric: str = ""
    image_type: tuple[str, ...] = ()
    modality: str = ""
    laterality: tuple[LateralityReading, ...] = (LateralityReading(None, "LATERALITY_UNKNOWN"),)
    device_type_codes: tuple[str, ...] = ()
    illumination_codes: tuple[str, ...] = ()
    filter_codes: tuple[str, ...] = ()
    image_filter_codes: tuple[str, ...] = ()
    channel_codes: tuple[str, ...] = ()
    contrast_codes: tuple[str, ...] = ()
    burned_in_annotation: bool | None = None
    requested_priority: str = ""
    related_instances: int | None = None
    acquisition_datetime: str = ""
    pixel_sha256: str | None = None
    copied: str = field(default="", repr=False)


def read_header(path: Path) -> FundusHeader:
    """Read the header of a DICOM file (PS3.10).

    Args:
        path: The file; its data set is read up to the Pixel Data element, the rest only hashed.

    Raises:
        UnreadableObjectError: When the file is no DICOM file or its data set cannot be parsed.
        IdentifierMissingError: When SOP class, SOP instance, study or series UID is missing or no UID.
    """
    with path.open("rb") as file:
        parsed = parse_object(file, _WANTED)
        return _header(parsed.dataset, parsed.transfer_syntax_uid, pixel_digest(parsed))


def decisive_content(header: FundusHeader) -> str:
    """Everything of a header that the analysis of its pixels or the report depends on, as canonical text.

    Two headers of the same pixels with equal content lead to the same findings and the same report. It
    identifies the patient: it may be kept as a keyed digest only.
    """
    values = asdict(header)
    for name in _NOT_DECISIVE:
        del values[name]
    if header.transfer_syntax_uid in _SAME_ENCODING:
        values["transfer_syntax_uid"] = "uncompressed, little endian"
    return json.dumps(values, sort_keys=True)


def colour_refusal(header: FundusHeader) -> str | None:
    """Why the header alone says that this is no colour photograph of a fundus; None when it does not.

    Returns:
        NOT_A_FUNDUS_PHOTOGRAPH when the acquisition devices named look at other parts of the eye;
        NOT_COLOUR for monochrome pixels, infrared, red-free, autofluorescence or angiography.
        What the header leaves open is left to the pixels.
    """
    if not_retinal(header.device_type_codes):
        return "NOT_A_FUNDUS_PHOTOGRAPH"
    monochrome = header.photometric.startswith("MONOCHROME")
    single = header.samples_per_pixel == 1 and header.photometric != "PALETTE COLOR"
    illuminated = not_colour(
        light=(*header.filter_codes, *header.illumination_codes),
        image_filters=header.image_filter_codes,
        channels=header.channel_codes,
        image_type=header.image_type,
    )
    return "NOT_COLOUR" if monochrome or single or illuminated or header.contrast_codes else None


def _header(ds: Dataset, transfer_syntax_uid: str, pixel_sha256: str | None) -> FundusHeader:
    """Header record of a parsed data set."""
    frames = max(integer_string(ds, 0x00280008, 1), 1)
    related = integer_string(ds, 0x00201208, 0)
    annotation = text(ds, 0x00280301).upper()
    return FundusHeader(
        sop_class_uid=_required_uid(ds, 0x00080016, "SOP Class UID"),
        sop_instance_uid=_required_uid(ds, 0x00080018, "SOP Instance UID"),
        study_instance_uid=_required_uid(ds, 0x0020000D, "Study Instance UID"),
        series_instance_uid=_required_uid(ds, 0x0020000E, "Series Instance UID"),
        transfer_syntax_uid=transfer_syntax_uid,
        accession_number=text(ds, 0x00080050),
        patient_id=text(ds, 0x00100020),
        patient=identifying_text(ds, "PatientID"),
        patient_context=_patient_context(ds),
        issuer_of_patient_id=text(ds, 0x00100021),
        manufacturer=text(ds, 0x00080070),
        model_name=text(ds, 0x00081090),
        device_serial=text(ds, 0x00181000),
        software="\\".join(texts(ds, 0x00181020)),
        rows=unsigned(ds, 0x00280010, 0),
        columns=unsigned(ds, 0x00280011, 0),
        number_of_frames=frames,
        samples_per_pixel=unsigned(ds, 0x00280002, 0),
        bits_allocated=unsigned(ds, 0x00280100, 0),
        bits_stored=unsigned(ds, 0x00280101, 0),
        planar_configuration=unsigned(ds, 0x00280006, 0),
        photometric=text(ds, 0x00280004).upper(),
        image_type=texts(ds, 0x00080008),
        modality=text(ds, 0x00080060),
        laterality=tuple(_lateralities(ds, frames)),
        device_type_codes=tuple(codes(ds, _DEVICE_TYPE)),
        illumination_codes=tuple(codes(ds, _ILLUMINATION)),
        filter_codes=tuple(codes(ds, _LIGHT_PATH_FILTERS)),
        image_filter_codes=tuple(codes(ds, _IMAGE_PATH_FILTERS)),
        channel_codes=tuple(codes(ds, _CHANNELS)),
        contrast_codes=tuple(codes(ds, _CONTRAST_AGENTS)),
        burned_in_annotation={"YES": True, "NO": False}.get(annotation),
        requested_priority=text(ds, 0x00401003).upper(),
        related_instances=related or None,
        acquisition_datetime=text(ds, 0x0008002A) or text(ds, 0x00080022) + text(ds, 0x00080032),
        pixel_sha256=pixel_sha256,
        copied=copied_values(ds),
    )


def _patient_context(ds: Dataset) -> str:
    """Patient ID is of type 2 and may be empty: then two names, or two birth dates, are two patients."""
    if identifying_text(ds, "PatientID"):
        return identifying_text(ds, "IssuerOfPatientID")
    stated = [identifying_text(ds, keyword) for keyword in ("PatientName", "PatientBirthDate")]
    return "\0".join(stated) if any(stated) else ""


def _required_uid(ds: Dataset, tag: int, name: str) -> str:
    value = uid(ds, tag)
    if not value:
        raise IdentifierMissingError(f"{name} is missing or is no UID")
    return value


def _lateralities(ds: Dataset, frames: int) -> Iterator[LateralityReading]:
    """Reading of each frame: image level, shared and per-frame statements together, every value of each."""
    shared = [
        *texts(ds, _IMAGE_LATERALITY),
        *texts(ds, _LATERALITY),
        *_coded_sides(ds),
        *_frame_statements(readable_items(ds, _SHARED_GROUPS)),
    ]
    per_frame = readable_items(ds, _PER_FRAME_GROUPS)
    count = min(frames, MAXIMUM_FRAMES)
    if not per_frame:
        yield from [read_laterality([*shared, *_frame_statements(per_frame)])] * count
        return
    for index in range(count):
        yield read_laterality([*shared, *_frame_statements(per_frame[index : index + 1] or None)])


def _coded_sides(ds: Dataset) -> Iterator[str]:
    """Sides that Anatomic Region Sequence and its modifiers state by code (PS3.3 table 10-5)."""
    regions = items(ds, _ANATOMIC_REGION)
    for code in (
        *codes(ds, _ANATOMIC_REGION),
        *(each for item in regions for each in codes(item, _REGION_MODIFIER)),
    ):
        if code in _CODED_SIDES:
            yield _CODED_SIDES[code]


def _frame_statements(groups: list[Dataset] | None) -> Iterator[str]:
    """Values of Frame Laterality in functional groups (PS3.3 C.7.6.16.2.8).

    Groups that cannot be read are a statement that nobody can read: with it no side is known.
    """
    if groups is None:
        yield UNREADABLE
    for group in groups or ():
        anatomies = readable_items(group, _FRAME_ANATOMY)
        if anatomies is None:
            yield UNREADABLE
        for anatomy in anatomies or ():
            yield from texts(anatomy, _FRAME_LATERALITY)
