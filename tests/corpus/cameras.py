"""What took the picture: cameras nobody validated, other kinds of light, other devices, other SOP classes."""

from __future__ import annotations

from corpus.case import Case, graded, not_offered, refused, withheld
from corpus.photograph import make, written
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence


def _coded(value: str, meaning: str) -> DicomSequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return DicomSequence([item])


def _of_class(case: str, sop_class: str) -> list[bytes]:
    ds = make(case, SOPClassUID=sop_class)
    ds.file_meta.MediaStorageSOPClassUID = uid.UID(sop_class)
    return [written(ds)]


def _camera(case: str, manufacturer: str, model: str) -> list[bytes]:
    return [written(make(case, manufacturer=manufacturer, model=model))]


_NOT_VALIDATED = withheld("CAMERA_NOT_VALIDATED")
_NO_COLOUR = refused("NOT_COLOUR", eye="NO_GRADABLE_IMAGE")

CASES = (
    Case(
        "camera-labelled",
        "the camera of the models",
        graded(),
        lambda c: _camera(c, "KOWA Company, Ltd.", "vx10"),
    ),
    Case(
        "camera-similar",
        "a model whose name only contains that of the models' camera",
        _NOT_VALIDATED,
        lambda c: _camera(c, "Kowa", "VX-10 Mark II"),
    ),
    Case(
        "camera-known",
        "a camera with a name and without an adapter",
        _NOT_VALIDATED,
        lambda c: _camera(c, "Topcon", "TRC-NW400"),
    ),
    Case(
        "camera-unknown",
        "a camera that no rule names",
        _NOT_VALIDATED,
        lambda c: _camera(c, "Acme", "EyeCam 3000"),
    ),
    Case(
        "camera-unstated",
        "no Manufacturer and no model",
        _NOT_VALIDATED,
        lambda c: [written(make(c, Manufacturer=None, ManufacturerModelName=None))],
    ),
    Case(
        "wide-field",
        "a wide-field picture",
        withheld("WIDE_FIELD_NOT_VALIDATED"),
        lambda c: _of_class(c, uid.WideFieldOphthalmicPhotographyStereographicProjectionImageStorage),
    ),
    Case(
        "light-red-free",
        "red-free light",
        _NO_COLOUR,
        lambda c: [written(make(c, IlluminationTypeCodeSequence=_coded("405739002", "Red free")))],
    ),
    Case(
        "light-infrared",
        "infrared light",
        _NO_COLOUR,
        lambda c: [written(make(c, IlluminationTypeCodeSequence=_coded("414497003", "Infrared")))],
    ),
    Case(
        "light-autofluorescence",
        "autofluorescence, by Image Type only",
        _NO_COLOUR,
        lambda c: [written(make(c, ImageType=["ORIGINAL", "PRIMARY", "", "FAF"]))],
    ),
    Case(
        "light-angiography",
        "fluorescein angiography, by its contrast agent",
        _NO_COLOUR,
        lambda c: [written(make(c, ContrastBolusAgentSequence=_coded("35321007", "Fluorescein")))],
    ),
    Case(
        "device-slit-lamp",
        "a slit lamp",
        refused("NOT_A_FUNDUS_PHOTOGRAPH"),
        lambda c: [written(make(c, AcquisitionDeviceTypeCodeSequence=_coded("397247004", "Slit lamp")))],
    ),
    Case(
        "class-16-bit",
        "Ophthalmic Photography 16 Bit with 8-bit pixels",
        graded(),
        lambda c: _of_class(c, uid.OphthalmicPhotography16BitImageStorage),
    ),
    Case(
        "class-secondary-capture",
        "Secondary Capture",
        graded(),
        lambda c: _of_class(c, uid.SecondaryCaptureImageStorage),
    ),
    Case(
        "class-photographic",
        "VL Photographic Image",
        graded(),
        lambda c: _of_class(c, uid.VLPhotographicImageStorage),
    ),
    Case(
        "class-tomography",
        "Ophthalmic Tomography",
        not_offered(),
        lambda c: _of_class(c, uid.OphthalmicTomographyImageStorage),
    ),
    Case(
        "class-ct",
        "CT",
        not_offered(),
        lambda c: _of_class(c, uid.CTImageStorage),
    ),
)
