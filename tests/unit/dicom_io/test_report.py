from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import highdicom.sr
import pytest
from factories.reports import (
    REPORT,
    SERIES,
    SHAPES,
    STUDY,
    Shape,
    content,
    graded,
    header,
    image,
    withheld,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io import codes
from dicom_io.errors import ReportBuildError
from dicom_io.laterality import Laterality
from dicom_io.report import build_report, to_bytes
from dicom_io.report_content import Predecessor, ReportContent, ReportEye


def items(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence") or ():
        yield from items(child)


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def named(item: Dataset, value: str) -> list[Dataset]:
    return [found for found in items(item) if name(found) == value]


def texts(item: Dataset, value: str) -> list[str]:
    return [str(found.TextValue) for found in named(item, value)]


def code(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue)


def groups(report: Dataset) -> dict[str, Dataset]:
    """Measurement groups by the code of their laterality."""
    return {code(named(group, "272741003")[0]): group for group in named(report, "125007")}


RIGHT, LEFT = "24028007", "7771000"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_same_content_gives_the_same_bytes(shape: Any) -> None:
    assert shape().file() == shape().file()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_order_of_the_evidence_does_not_change_a_byte(shape: Any) -> None:
    built: Shape = shape()
    assert Shape(built.content, (*reversed(built.evidence), built.evidence[0])).file() == built.file()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_highdicom_reads_every_report_back_as_a_measurement_report(shape: Any) -> None:
    report = highdicom.sr.Comprehensive3DSR.from_dataset(shape().build())
    assert isinstance(report.content, highdicom.sr.MeasurementReport)
    assert len(report.content.get_image_measurement_groups()) == len(shape().content.eyes)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_report_says_what_was_not_assessed_and_what_it_is_for(shape: Any) -> None:
    report = shape().build()
    assert "Macular oedema" in texts(report, "NOT_ASSESSED")
    assert texts(report, "INTENDED_USE") == [
        "Research use only. Not a medical device. Not verified by a person."
    ]
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert report.ContentQualification == "RESEARCH"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_photograph_is_evidence_and_is_referred_to_with_its_camera(shape: Any) -> None:
    built: Shape = shape()
    report = built.build()
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    evidence = {
        sop.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }
    referred = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in items(report)
        if item.ValueType == "IMAGE"
    ]
    assert sorted(referred) == sorted(picture.sop_instance_uid for picture in built.content.images)
    assert set(referred) <= evidence == {ds.SOPInstanceUID for ds in built.evidence}
    stated = len(texts(report, "CAMERA_ROUTE")) + len(texts(report, "NOT_REPORTED"))
    assert stated == len(built.content.images)


def test_a_graded_eye_states_site_severity_verdict_and_probabilities() -> None:
    report = SHAPES["two-eyes"]().build()
    right, left = groups(report)[RIGHT], groups(report)[LEFT]
    assert list(groups(report)) == [RIGHT, LEFT]
    assert code(named(right, "363698007")[0]) == "81745001"
    assert code(named(right, "121071")[0]) == "4855003"
    assert not named(left, "121071")  # grade 0: the disease is not named as a finding
    assert code(named(right, "71491-5")[0]) == "LA18646-2"
    assert code(named(left, "71490-7")[0]) == "LA18643-9"
    assert code(named(right, "REFERABLE_DR")[0]) == codes.YES.value
    assert code(named(left, "REFERABLE_DR")[0]) == codes.NO.value
    assert code(named(right, "111101")[0]) == codes.QUALITY_GOOD.value
    assert texts(right, "121106") == ["Two photographs disagree."]
    assert texts(right, "121077") == [
        "Right eye: severe non-proliferative retinopathy (ICDR grade 3 on the scale 0 to 4). Referable for "
        "diabetic retinopathy (referable means moderate or worse). Rests on 1 photograph. Not assessed: "
        "macular oedema, eye diseases other than diabetic retinopathy."
    ]
    assert texts(left, "121077")[0].startswith("Left eye: no apparent retinopathy (ICDR grade 0")
    assert "Not referable" in texts(left, "121077")[0]


def test_a_number_keeps_its_exact_value_and_says_what_it_means() -> None:
    (group,) = groups(SHAPES["revision"]().build()).values()
    (probability,), (certainty,) = named(group, "122157"), named(group, "111012")
    measured = probability.MeasuredValueSequence[0]
    assert measured.FloatingPointValue == 0.9371823668479919
    assert str(measured.NumericValue) == "0.937182"
    assert texts(probability, "121050") == ["Probability of referable DR (ICDR grade >= 2), calibrated"]
    assert texts(certainty, "121050") == ["Probability that the stated ICDR grade is right, calibrated"]
    (gradability,) = named(group, "GRADABILITY")
    assert gradability.MeasuredValueSequence[0].FloatingPointValue == 0.97
    assert texts(gradability, "121050") == ["Poorest of the photographs used"]


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (("labelled",), "calibrated"),
        (("labelled", "adapter"), "calibrated on the labelled camera, applied after adaptation"),
        (("adapter", "known"), "calibrated on the labelled camera, not on the camera of these photographs"),
        (("unknown",), "calibrated on the labelled camera, not on the camera of these photographs"),
    ],
)
def test_calibrated_is_said_of_the_labelled_camera_only(routes: tuple[str, ...], expected: str) -> None:
    images = tuple(image(number, route=route) for number, route in enumerate(routes, start=1))
    evidence = tuple(header(number) for number in range(1, len(routes) + 1))
    (group,) = groups(Shape(content(images=images), evidence).build()).values()
    for name in ("122157", "111012"):
        assert texts(named(group, name)[0], "121050")[0].endswith(f", {expected}")


def test_a_study_uid_that_is_not_quite_one_may_be_that_of_a_predecessor() -> None:
    predecessor = Predecessor("1.2", "1.3", "1.4", "1.2.826.0.1.03.5")
    built = Shape(content(predecessors=(predecessor,)), (header(1),)).build()
    assert built.PredecessorDocumentsSequence[0].StudyInstanceUID == "1.2.826.0.1.03.5"


def test_the_algorithm_names_bundle_adapters_and_thresholds() -> None:
    group = groups(SHAPES["two-eyes"]().build())[LEFT]
    assert texts(group, "111001") == ["Diabetic retinopathy grading"]
    assert texts(group, "111003") == ["1.0.0"]
    assert texts(group, "122405") == ["fundus-worker project"]
    assert texts(group, "111002") == [
        "Model bundle: reference-1",
        "Model bundle SHA-256: " + "ab" * 32,
        "Threshold for ICDR grade >= 2: 0.42",
        "Camera adapter: simulated-cool (photographs: 1)",
    ]


def test_a_withheld_eye_names_its_reason_and_nothing_that_could_be_taken_for_a_result() -> None:
    group = groups(SHAPES["one-withheld"]().build())[LEFT]
    assert texts(group, "WITHHELD") == [
        "The photograph is too dark or blurred to be graded. [UNGRADABLE_QUALITY]"
    ]
    assert texts(group, "121077") == [
        "Left eye: no diabetic retinopathy grade is stated. Reason: The photograph is too dark or blurred to "
        "be graded. This is not a negative result."
    ]
    result_codes = {"121071", "276214006", "71490-7", "71491-5", "REFERABLE_DR", "122157", "111012"}
    assert not result_codes & {name(item) for item in items(group)}


def test_probabilities_of_a_withheld_eye_are_not_stated_even_when_they_are_known() -> None:
    eye = replace(withheld(), referable_probability=0.3, certainty=0.9)
    report = build_report(content((eye,)), (header(),))
    assert not named(report, "122157")
    assert not named(report, "111012")


def test_photographs_without_a_side_are_listed_with_reason_camera_and_reference() -> None:
    report = SHAPES["no-side"]().build()
    assert not named(report, "125007")
    assert texts(report, "NOT_REPORTED") == [
        "Side not known. The photograph does not say which eye it shows. [LATERALITY_UNKNOWN] "
        "Camera: kowa-vx-10: the camera that the classifier was trained on, not adapted.",
        "Side not known. The photograph does not say which eye it shows. [LATERALITY_UNKNOWN] "
        "Camera: topcon-nw400: known, but without a validated adapter; not adapted.",
    ]
    assert texts(report, "111001") == ["Diabetic retinopathy grading"]
    assert texts(report, "121077") == [
        "No eye is reported: see the photographs below. This is not a negative result."
    ]


def test_a_partial_report_says_so_in_its_flag_and_in_words() -> None:
    partial, complete = SHAPES["partial"]().build(), SHAPES["two-eyes"]().build()
    assert (partial.CompletionFlag, complete.CompletionFlag) == ("PARTIAL", "COMPLETE")
    assert len(texts(partial, "PARTIAL")) == 1
    assert not texts(complete, "PARTIAL")


def test_a_revision_names_what_it_replaces_grouped_by_study_and_series() -> None:
    other = Predecessor("1.2.840.10008.5.1.4.1.1.88.34", "2.25.5001", "2.25.5000", "2.25.900")
    revision = SHAPES["revision"]()
    changed = replace(revision.content, predecessors=(*revision.content.predecessors, other))
    report = build_report(changed, revision.evidence)
    found = [
        (study.StudyInstanceUID, series.SeriesInstanceUID, sop.ReferencedSOPInstanceUID)
        for study in report.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    ]
    assert found == [
        (STUDY, "2.25.4000", "2.25.4001"),
        (STUDY, "2.25.4000", "2.25.4002"),
        ("2.25.900", "2.25.5000", "2.25.5001"),
    ]
    assert "PredecessorDocumentsSequence" not in SHAPES["two-eyes"]().build()


def test_the_report_belongs_to_the_study_and_is_an_object_of_its_own_series() -> None:
    report = SHAPES["two-eyes"]().build()
    assert (report.StudyInstanceUID, report.SOPInstanceUID) == (STUDY, REPORT)
    assert report.SeriesInstanceUID != SERIES
    assert (report.Modality, report.SeriesNumber, report.InstanceNumber) == ("SR", 900, 1)
    assert (report.AccessionNumber, report.PatientID, report.PatientName) == (
        "ACC0001",
        "PID0001",
        "Doe^Jane",
    )
    assert report.file_meta.MediaStorageSOPInstanceUID == REPORT
    assert report.file_meta.ImplementationVersionName == "FUNDUS_WORKER"


def test_an_observer_is_a_device_and_the_same_one_for_each_report_of_an_installation() -> None:
    report = SHAPES["two-eyes"]().build()
    assert code(named(report, "121005")[0]) == "121007"
    assert named(report, "121012")[0].UID == named(SHAPES["partial"]().build(), "121012")[0].UID
    chosen = build_report(content(device_uid="2.25.77"), (header(),))
    assert named(chosen, "121012")[0].UID == chosen.DeviceSerialNumber == "2.25.77"


def test_two_groups_have_different_tracking_uids_that_change_with_the_report() -> None:
    def tracked(uid: str) -> set[str]:
        shape = SHAPES["two-eyes"]()
        report = build_report(replace(shape.content, sop_instance_uid=uid), shape.evidence)
        return {str(item.UID) for item in named(report, "112040")}

    assert len(tracked("2.25.1")) == 2
    assert not tracked("2.25.1") & tracked("2.25.2")


def test_the_private_scheme_is_identified() -> None:
    (scheme,) = SHAPES["two-eyes"]().build().CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99FUNDUS"
    assert scheme.CodingSchemeName


def test_times_are_those_of_the_content_in_its_own_zone() -> None:
    moment = datetime(2026, 3, 4, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    report = build_report(content(created_at=moment), (header(),))
    assert (report.ContentDate, report.ContentTime) == ("20260304", "233000.000000")
    assert report.InstanceCreationTime == report.SeriesTime == report.ContentTime
    assert "TimezoneOffsetFromUTC" not in report


def test_times_are_in_the_zone_that_the_study_states() -> None:
    moment = datetime(2026, 3, 4, 23, 30, tzinfo=UTC)
    evidence = (header(TimezoneOffsetFromUTC="+0545"),)
    report = build_report(content(created_at=moment), evidence)
    assert (report.ContentDate, report.ContentTime[:6]) == ("20260305", "051500")
    assert report.TimezoneOffsetFromUTC == "+0545"


def test_a_frame_is_referred_to_by_its_number() -> None:
    shape = SHAPES["many-photographs"]()
    references = [item.ReferencedSOPSequence[0] for item in named(shape.build(), "121112")]
    frames = [ref.ReferencedFrameNumber for ref in references if "ReferencedFrameNumber" in ref]
    assert frames == [1, 2]
    unused = image(1, Laterality.RIGHT, "NOT_COLOUR", frame_number=7)
    report = build_report(content((), (unused,)), (header(),))
    assert named(report, "260753009")[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 7
    assert texts(report, "NOT_REPORTED")[0].startswith("Right eye. No reason was recorded. [NOT_COLOUR]")


def test_names_of_ours_are_cut_to_what_their_elements_hold() -> None:
    report = build_report(
        content(institution_name="Klinik\\Süd " + "x" * 80, software_version="\t1.0\n"), (header(),)
    )
    read = dcmread(BytesIO(to_bytes(report)))
    assert read.InstitutionName == ("Klinik Süd " + "x" * 80)[:64]
    assert read.SoftwareVersions == "1.0"


def test_control_characters_do_not_reach_the_texts() -> None:
    report = build_report(content((graded(flags=("one\x00two\x1b",)),)), (header(),))
    assert texts(report, "121106") == ["one two "]


def test_a_photograph_that_nobody_gave_a_reason_for_is_listed_all_the_same() -> None:
    unused = replace(image(2, Laterality.LEFT), used=False)
    report = build_report(content(images=(image(), unused)), (header(1), header(2)))
    assert texts(report, "NOT_REPORTED")[0].startswith("Left eye. No reason was recorded. Camera: ")


def test_a_report_without_evidence_is_refused() -> None:
    with pytest.raises(ReportBuildError, match="at least one photograph"):
        build_report(content(), ())


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID"])
def test_evidence_that_cannot_be_referred_to_is_refused(keyword: str) -> None:
    ds = header()
    delattr(ds, keyword)
    with pytest.raises(ReportBuildError, match="cannot be referred to"):
        build_report(content(), (ds,))


def bad_contents() -> dict[str, ReportContent]:
    unusable = image(reason_code="X")
    return {
        "no zone": content(created_at=datetime(2026, 1, 1)),  # it is the point
        "no photograph": content(images=()),
        "nothing left out": content(not_assessed=()),
        "two results for an eye": content((graded(), withheld())),
        "photograph without header": content(images=(image(1), image(9))),
        "other SOP class": content(images=(image(1, sop_class_uid="1.2.3"),)),
        "used for no eye": content(images=(image(1), image(1, Laterality.LEFT))),
        "used without a side": content(images=(image(1), image(1, None))),
        "used and with a reason": content(images=(replace(unusable, used=True),)),
        "withheld without a reason": content((replace(withheld(), reason_code=None),)),
        "withheld with a verdict": content((replace(withheld(), referable=False),)),
        "graded with a reason": content((graded(reason_code="X"),)),
        "grade 5": content((graded(grade=5),)),
        "grade -1": content((graded(grade=-1),)),
        "verdict against the grade": content((graded(grade=2, referable=False),)),
        "verdict missing": content((graded(referable=None),)),
        "no photograph for the grade": content(images=(unusable,)),
        "probability above one": content((graded(certainty=1.01),)),
        "probability not a number": content((graded(referable_probability=float("nan")),)),
        "quality below zero": content((graded(quality=-0.1),)),
        "withheld with odd quality": content((withheld(quality=7.0),)),
        "report UID with a leading zero": content(sop_instance_uid="2.25.01"),
        "series UID with letters": content(series_instance_uid="2.25.x"),
        "device UID too long": content(device_uid="2." + "1" * 63),
        "odd predecessor": content(predecessors=(Predecessor("1.2", "1.3", "series", "1.4"),)),
    }


@pytest.mark.parametrize("case", bad_contents())
def test_content_that_contradicts_itself_is_refused(case: str) -> None:
    with pytest.raises(ReportBuildError):
        build_report(bad_contents()[case], (header(),))


@st.composite
def eyes(draw: st.DrawFn, laterality: Laterality) -> ReportEye | None:
    probability = st.one_of(st.none(), st.floats(0, 1))
    quality = draw(probability)
    kind = draw(st.sampled_from(("absent", "graded", "withheld")))
    if kind == "absent":
        return None
    if kind == "withheld":
        reason = draw(st.text(max_size=40))
        return withheld(laterality, "SOME_REASON", reason, quality)
    grade = draw(st.integers(0, 4))
    return graded(
        laterality,
        grade,
        referable_probability=draw(probability),
        certainty=draw(probability),
        quality=quality,
        flags=tuple(draw(st.lists(st.text(max_size=20), max_size=2))),
    )


@settings(max_examples=25, deadline=None)
@given(right=eyes(Laterality.RIGHT), left=eyes(Laterality.LEFT), partial=st.booleans())
def test_what_is_read_from_the_file_is_what_was_put_in(
    right: ReportEye | None, left: ReportEye | None, partial: bool
) -> None:
    stated = tuple(eye for eye in (left, right) if eye is not None)
    images = (
        image(1, Laterality.RIGHT) if right else image(1, Laterality.RIGHT, "R"),
        image(2, Laterality.LEFT) if left else image(2, Laterality.LEFT, "R"),
    )
    shape = Shape(content(stated, images, partial=partial), (header(1), header(2)))
    found = groups(shape.build())
    assert set(found) == {codes.LATERALITY[eye.laterality].value for eye in stated}
    for eye in stated:
        group = found[codes.LATERALITY[eye.laterality].value]
        severity = named(group, codes.SEVERITY_NAME[eye.laterality].value)
        expected = [] if eye.grade is None else [codes.SEVERITY[eye.grade].value]
        assert [code(item) for item in severity] == expected
        numbers = {
            name(item): item.MeasuredValueSequence[0].FloatingPointValue
            for item in items(group)
            if item.ValueType == "NUM"
        }
        shown = {"GRADABILITY": eye.quality}
        if eye.grade is not None:
            shown |= {"122157": eye.referable_probability, "111012": eye.certainty}
        assert numbers == {key: value for key, value in shown.items() if value is not None}
