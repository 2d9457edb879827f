"""Content tree of a report: PS3.16 TID 1500, one TID 1501 group an eye, one function a section."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from dicom_io import codes
from dicom_io.laterality import Laterality
from dicom_io.report_content import SOFTWARE_NAME, Algorithm, ReportContent, ReportEye, ReportImage
from dicom_io.uids import PRODUCT_NAMESPACE, derived_uid

SIDE = {Laterality.RIGHT: "Right", Laterality.LEFT: "Left"}
INTENDED_USE = "Research use only. Not a medical device. Not verified by a person."
NOT_NEGATIVE = "This is not a negative result."
PARTIAL = "Some photographs had not been analysed when this report became due; a later report may replace it."

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTAINS = RelationshipTypeValues.CONTAINS
_CONCEPT_MODIFIER = RelationshipTypeValues.HAS_CONCEPT_MOD


def content_tree(content: ReportContent) -> ContainerContentItem:
    """Return the root container of the report (TID 1500, Measurement Report)."""
    root = ContainerContentItem(codes.IMAGING_MEASUREMENT_REPORT, template_id="1500")
    children = ContentSequence()
    children.extend(LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)))
    children.extend(_observer(content))
    children.append(CodeContentItem(codes.PROCEDURE_REPORTED, codes.IMAGING_PROCEDURE, _CONCEPT_MODIFIER))
    if content.eyes:
        children.append(_imaging_measurements(content))
    children.append(_statements(content))
    root.ContentSequence = children
    return root


def device_uid(content: ReportContent) -> str:
    """Return the UID under which this installation observes."""
    return content.device_uid or derived_uid(PRODUCT_NAMESPACE, "device", SOFTWARE_NAME)


def _observer(content: ReportContent) -> ObserverContext:
    """Device observer (TID 1002, 1004): no person saw the photographs."""
    return ObserverContext(
        CodedConcept.from_code(codes.DEVICE),
        DeviceObserverIdentifyingAttributes(
            uid=device_uid(content),
            name=SOFTWARE_NAME,
            manufacturer_name=content.algorithm.manufacturer,
            model_name=f"{SOFTWARE_NAME} {content.software_version}".strip(),
        ),
    )


def _imaging_measurements(content: ReportContent) -> ContainerContentItem:
    """Imaging Measurements container: the eyes, right before left."""
    container = ContainerContentItem(codes.IMAGING_MEASUREMENTS, relationship_type=_CONTAINS)
    groups = ContentSequence()
    for eye in sorted(content.eyes, key=lambda eye: eye.laterality is Laterality.LEFT):
        groups.extend(_eye_group(content, eye))
    container.ContentSequence = groups
    return container


def _eye_group(content: ReportContent, eye: ReportEye) -> MeasurementsAndQualitativeEvaluations:
    """One eye (TID 1501): a grade and what it rests on, or the reason why there is none.

    An eye without the disease, or without a result, has no Finding: named, it could be read as seen.
    """
    diseased = eye.grade is not None and eye.grade > 0
    images = [image for image in content.images if image.used and image.laterality is eye.laterality]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derived_uid(PRODUCT_NAMESPACE, "eye", content.sop_instance_uid, eye.laterality),
            identifier=f"{SIDE[eye.laterality]} eye",
        ),
        finding_category=codes.DISEASE if diseased else None,
        finding_type=codes.DIABETIC_RETINOPATHY if diseased else None,
        finding_sites=[FindingSite(codes.EYE, codes.LATERALITY[eye.laterality])],
        algorithm_id=_algorithm(content.algorithm, images),
        measurements=list(_measurements(eye, images)),
        qualitative_evaluations=list(_evaluations(content, eye)),
        source_images=[_source_image(image) for image in images],
    )
    _insert_statements(group[0].ContentSequence, content, eye)
    return group


def _insert_statements(children: ContentSequence, content: ReportContent, eye: ReportEye) -> None:
    """Add what highdicom's template has no place for, around its rows, whose order is significant.

    The words come first, right after the two tracking items; the method before the site (rows 5 and 6).
    """
    if eye.grade is not None:
        site = next(place for place, item in enumerate(children) if isinstance(item, FindingSite))
        children.insert(site, _method())
    for place, statement in enumerate(_eye_texts(content, eye), start=2):
        children.insert(place, statement)


def _method() -> CodeContentItem:
    """How the eye was graded: the LOINC names above it say "by Ophthalmoscopy"."""
    return CodeContentItem(codes.METHOD, codes.GRADED_BY_SOFTWARE, _CONCEPT_MODIFIER)


def _evaluations(content: ReportContent, eye: ReportEye) -> Iterator[QualitativeEvaluation]:
    """Severity, referable or not, image quality; the last alone when the grade is withheld."""
    if eye.grade is not None:
        yield QualitativeEvaluation(codes.SEVERITY_NAME[eye.laterality], codes.SEVERITY[eye.grade])
        yield QualitativeEvaluation(codes.REFERABLE, codes.YES if eye.referable else codes.NO)
    if eye.quality is not None:
        quality = codes.image_quality(eye.quality, content.minimum_quality)
        yield QualitativeEvaluation(codes.IMAGE_QUALITY, quality)


def _measurements(eye: ReportEye, images: Sequence[ReportImage]) -> Iterator[Measurement]:
    """Probabilities (TID 300); a withheld eye states neither that of disease nor that of a grade."""
    calibration = _calibration(images)
    if eye.grade is not None and eye.referable_probability is not None:
        meaning = f"Probability of referable DR (ICDR grade >= 2), {calibration}"
        yield _probability(codes.PROBABILITY, eye.referable_probability, meaning)
    if eye.grade is not None and eye.certainty is not None:
        meaning = f"Probability that the stated ICDR grade is right, {calibration}"
        yield _probability(codes.CERTAINTY, eye.certainty, meaning)
    if eye.quality is not None:
        which = (
            "Poorest of the photographs used" if eye.grade is not None else "Poorest photograph of the eye"
        )
        yield _probability(codes.GRADABILITY, eye.quality, which)


def _calibration(images: Iterable[ReportImage]) -> str:
    """What is known of the probabilities: the labelled camera's photographs are all that calibrated them."""
    routes = {image.route for image in images}
    if routes <= {"labelled"}:
        return "calibrated"
    if routes <= {"labelled", "adapter"}:
        return "calibrated on the labelled camera, applied after adaptation"
    return "calibrated on the labelled camera, not on the camera of these photographs"


def _probability(name: Code, value: float, meaning: str) -> Measurement:
    """A number in 0..1: six decimals to read, the exact one as Floating Point Value (PS3.3 C.18.1)."""
    measurement = Measurement(name, value, codes.NO_UNITS)
    measurement[0].MeasuredValueSequence[0].NumericValue = DSfloat(f"{value:.6f}")
    modifier = _text(codes.MEANS, meaning, _CONCEPT_MODIFIER)
    measurement[0].ContentSequence = ContentSequence([modifier])
    return measurement


def _algorithm(algorithm: Algorithm, images: Iterable[ReportImage]) -> AlgorithmIdentification:
    """Name, version, bundle, adapters, thresholds (TID 4019)."""
    adapters = Counter(image.adapter for image in images if image.adapter is not None)
    return AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        manufacturer=algorithm.manufacturer,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        parameters=[
            f"Model bundle: {algorithm.bundle_id} {algorithm.bundle_version}".strip(),
            f"Model bundle SHA-256: {algorithm.bundle_sha256}",
            *algorithm.parameters,
            *(f"Camera adapter: {name} (photographs: {count})" for name, count in sorted(adapters.items())),
        ],
    )


def _source_image(image: ReportImage) -> SourceImageForMeasurementGroup:
    """Reference to a photograph that the result rests on, and how its camera was treated."""
    frames = None if image.frame_number is None else [image.frame_number]
    reference = SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid, frames)
    route = _text(codes.CAMERA_ROUTE, route_text(image), RelationshipTypeValues.HAS_ACQ_CONTEXT)
    reference.ContentSequence = ContentSequence([route])
    return reference


def _eye_texts(content: ReportContent, eye: ReportEye) -> Iterator[TextContentItem]:
    """What a reader wants first, in words."""
    yield _text(codes.CONCLUSION, conclusion(content, eye))
    if eye.grade is None:
        yield _text(codes.WITHHELD, _reason(eye.reason_text, eye.reason_code))
    for flag in eye.flags:
        yield _text(codes.COMMENT, flag)


def _statements(content: ReportContent) -> ContainerContentItem:
    """Qualitative Evaluations (TID 1500 rows 12 to 14): what holds for the report as a whole."""
    container = ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    children = ContentSequence()
    if not content.eyes:
        children.extend(_contained(_algorithm(content.algorithm, ())))
        children.append(
            _text(codes.CONCLUSION, f"No eye is reported: see the photographs below. {NOT_NEGATIVE}")
        )
    children.append(_text(codes.INTENDED_USE, INTENDED_USE))
    for subject in content.not_assessed:
        children.append(_text(codes.NOT_ASSESSED, subject))
    if content.partial:
        children.append(_text(codes.PARTIAL, PARTIAL))
    for image in content.images:
        if not image.used:
            children.append(_image_not_reported(image))
    container.ContentSequence = children
    return container


def _contained(algorithm: AlgorithmIdentification) -> AlgorithmIdentification:
    """Relate TID 4019 to Qualitative Evaluations: that container holds it, a group is modified by it."""
    for item in algorithm:
        item.RelationshipType = _CONTAINS.value
    return algorithm


def _image_not_reported(image: ReportImage) -> TextContentItem:
    """A photograph that no result rests on, with its side, camera and reason, and a reference to it."""
    side = "Side not known" if image.laterality is None else f"{SIDE[image.laterality]} eye"
    reason = _reason(image.reason_text, image.reason_code)
    statement = _text(codes.NOT_REPORTED, f"{side}. {reason} Camera: {route_text(image)}")
    reference = ImageContentItem(
        codes.SOURCE,
        image.sop_class_uid,
        image.sop_instance_uid,
        None if image.frame_number is None else [image.frame_number],
        relationship_type=RelationshipTypeValues.INFERRED_FROM,
    )
    statement.ContentSequence = ContentSequence([reference])
    return statement


def conclusion(content: ReportContent, eye: ReportEye) -> str:
    """Return the eye's result in a few sentences, for a reader without a manual.

    Some viewers show nothing else: it says by itself why there is no grade, and what a grade rests on.
    """
    side = SIDE[eye.laterality]
    if eye.grade is None:
        why = eye.reason_text or "No reason was recorded."
        return f"{side} eye: no diabetic retinopathy grade is stated. Reason: {why} {NOT_NEGATIVE}"
    severity = codes.SEVERITY[eye.grade].meaning.lower()
    referable = "Referable" if eye.referable else "Not referable"
    count = sum(image.used and image.laterality is eye.laterality for image in content.images)
    limits = ", ".join(subject[:1].lower() + subject[1:] for subject in content.not_assessed)
    return (
        f"{side} eye: {severity} (ICDR grade {eye.grade} on the scale 0 to 4). "
        f"{referable} for diabetic retinopathy (referable means moderate or worse). "
        f"Rests on {count} photograph{'' if count == 1 else 's'}. Not assessed: {limits}."
    )


def route_text(image: ReportImage) -> str:
    """Return which camera took the photograph and how it was treated, in a sentence."""
    camera = image.camera or "camera not recognised"
    treatment = {
        "labelled": "the camera that the classifier was trained on, not adapted",
        "adapter": f"adapted (adapter {image.adapter}) to the camera that the classifier was trained on",
        "known": "known, but without a validated adapter; not adapted",
        "unknown": "not validated; not adapted",
    }
    return f"{camera}: {treatment.get(image.route, image.route)}."


def _reason(text: str | None, code: str | None) -> str:
    sentence = text or "No reason was recorded."
    return f"{sentence} [{code}]" if code else sentence


def _text(name: Code, value: str, relationship: RelationshipTypeValues = _CONTAINS) -> TextContentItem:
    return TextContentItem(name, _CONTROL.sub(" ", value), relationship)
