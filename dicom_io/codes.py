"""Every coded concept that the reports use; nothing else writes a code.

Standard codes come from PS3.16 (DCM), SNOMED CT (SCT), LOINC (LN) and UCUM; a meaning that none of them
has is defined here in the private scheme `99FUNDUS`. Some LOINC concepts assert more than a grading program
knows ("by Ophthalmoscopy", "without macular edema"): see `SEVERITY_NAME` and `REFERABLE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydicom.sr.coding import Code

from dicom_io.laterality import Laterality
from dicom_io.uids import PRODUCT_NAMESPACE, derived_uid

PRIVATE_SCHEME = "99FUNDUS"
"""Designator of the codes that no public scheme has; "99" marks a private one (PS3.16 section 8)."""

PRIVATE_SCHEME_NAME = "fundus-worker private codes"
PRIVATE_SCHEME_VERSION = "1"
PRIVATE_SCHEME_UID = derived_uid(PRODUCT_NAMESPACE, "coding-scheme", PRIVATE_SCHEME)


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


# Document (TID 1500) and its containers
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
ENGLISH = Code("en", "RFC5646", "English")
DEVICE = Code("121007", "DCM", "Device")

# One eye (TID 1501 in the shape of TID 2120)
DISEASE = Code("64572001", "SCT", "Disease")
DIABETIC_RETINOPATHY = Code("4855003", "SCT", "Retinopathy due to diabetes mellitus")
EYE = Code("81745001", "SCT", "Eye")
RETINA = Code("5665001", "SCT", "Retina")
METHOD = Code("370129005", "SCT", "Measurement Method")
GRADED_BY_SOFTWARE = _private("SOFTWARE_GRADING", "Graded by software from a colour fundus photograph")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

LATERALITY: Mapping[Laterality, Code] = MappingProxyType(
    {
        Laterality.RIGHT: Code("24028007", "SCT", "Right"),
        Laterality.LEFT: Code("7771000", "SCT", "Left"),
    }
)
"""CID 247."""

SEVERITY_NAME: Mapping[Laterality, Code] = MappingProxyType(
    {
        Laterality.RIGHT: Code(
            "71491-5", "LN", "Diabetic retinopathy severity level Right eye by Ophthalmoscopy"
        ),
        Laterality.LEFT: Code(
            "71490-7", "LN", "Diabetic retinopathy severity level Left eye by Ophthalmoscopy"
        ),
    }
)
"""LOINC has no name for "graded from a photograph": the report names its method (`GRADED_BY_SOFTWARE`)."""

SEVERITY: tuple[Code, ...] = (
    Code("LA18643-9", "LN", "No apparent retinopathy"),
    Code("LA18644-7", "LN", "Mild non-proliferative retinopathy"),
    Code("LA18645-4", "LN", "Moderate non-proliferative retinopathy"),
    Code("LA18646-2", "LN", "Severe non-proliferative retinopathy"),
    Code("LA18648-8", "LN", "Proliferative retinopathy"),
)
"""LOINC answers in the order of the ICDR grades 0 to 4 (Wilkinson et al., Ophthalmology 2003;110:1677)."""

REFERABLE = _private("REFERABLE_DR", "Referable DR (ICDR grade >= 2; macular oedema not assessed)")
"""Not (105914-6, LN): its negative answer asserts "without macular edema"; it is for cleared devices."""

YES = Code("373066001", "SCT", "Yes")
NO = Code("373067005", "SCT", "No")

PROBABILITY = Code("122157", "DCM", "Probability")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
GRADABILITY = _private("GRADABILITY", "Probability that the poorest photograph is gradable")
MEANS = Code("121050", "DCM", "Equivalent Meaning of Concept Name")
NO_UNITS = Code("1", "UCUM", "no units")

IMAGE_QUALITY = Code("111101", "DCM", "Image Quality")
QUALITY_GOOD = Code("122741", "DCM", "Good image quality")
QUALITY_POOR = Code("122742", "DCM", "Poor image quality")
QUALITY_UNUSABLE = Code("111235", "DCM", "Unusable - Quality renders image unusable")

SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
SOURCE = Code("260753009", "SCT", "Source")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

# Text
CONCLUSION = Code("121077", "DCM", "Conclusion")
COMMENT = Code("121106", "DCM", "Comment")
WITHHELD = _private("WITHHELD", "Grade withheld because")
CAMERA_ROUTE = _private("CAMERA_ROUTE", "Camera and adaptation")
NOT_REPORTED = _private("NOT_REPORTED", "Photograph not reported")
NOT_ASSESSED = _private("NOT_ASSESSED", "Not assessed")
INTENDED_USE = _private("INTENDED_USE", "Intended use")
PARTIAL = _private("PARTIAL", "Partial report")


def image_quality(quality: float, minimum: float) -> Code:
    """Return the CID 3114-style code for a gradability score.

    The score is a probability that the photograph can be graded at all; it cannot tell excellent from good,
    so "excellent" is never stated.

    Args:
        quality: 0..1, of the poorest photograph of the eye.
        minimum: Below it a photograph is not graded, 0..1.

    Returns:
        Unusable below `minimum`, poor up to halfway between `minimum` and 1, good above.
    """
    if quality < minimum:
        return QUALITY_UNUSABLE
    return QUALITY_GOOD if quality >= (1 + minimum) / 2 else QUALITY_POOR
