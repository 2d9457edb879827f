from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from factories.reports import SHAPES
from factories.runtime import (
    deliver_all,
    fundus_of_grade,
    let_time_pass,
    make_runtime,
    offer,
    receiving_pacs,
    row,
    run_to_report,
    value,
)
from factories.validators import dciodvfy, dsrdump, pixelmed
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from dicom_io.report_forms import FORMS, in_form
from dicom_io.report_parts import to_bytes

LESSER = {"comprehensive": "ComprehensiveSR", "enhanced": "EnhancedSR", "basic-text": "BasicTextSR"}


def formed(shape: str, form: str) -> Dataset:
    report = dcmread(BytesIO(SHAPES[shape]().file()))
    return in_form(report, FORMS[form], lambda uid: f"{uid}.7")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("forms")
    made = {}
    for form in LESSER:
        for shape in ("two-eyes", "one-withheld", "no-side", "revision"):
            made[form, shape] = folder / f"{form}-{shape}.dcm"
            made[form, shape].write_bytes(to_bytes(formed(shape, form)))
    return made


def test_dciodvfy_finds_no_error_in_any_form(files: dict[tuple[str, str], Path]) -> None:
    for (form, _), path in files.items():
        assert dciodvfy(path, LESSER[form]) == []


@pytest.mark.slow
def test_pixelmed_finds_no_error_in_any_form(files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    answers = pixelmed(list(files.values()), tmp_path)
    for (form, _), path in files.items():
        assert f"Found {LESSER[form]} IOD" in answers[path]
        assert "IOD validation complete" in answers[path]
        assert [line for line in answers[path] if "Error" in line] == []


@pytest.mark.dcmtk
@pytest.mark.parametrize("form", LESSER)
def test_every_form_says_the_same_words(form: str, files: dict[tuple[str, str], Path]) -> None:
    text = dsrdump(files[form, "one-withheld"])
    assert "Right eye: moderate non-proliferative retinopathy" in text
    assert "Left eye: no diabetic retinopathy grade is stated. Reason: " in text
    assert "This is not a negative result." in text
    assert "0.937182" in text
    assert "Macular oedema" in text


@pytest.mark.parametrize("form", LESSER)
def test_a_form_is_an_object_of_its_own_and_replaces_what_its_receiver_holds(form: str) -> None:
    report, made = dcmread(BytesIO(SHAPES["revision"]().file())), formed("revision", form)
    assert made.SOPInstanceUID == f"{report.SOPInstanceUID}.7"
    assert made.file_meta.MediaStorageSOPClassUID == made.SOPClassUID == FORMS[form]
    (series,) = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert {each.ReferencedSOPClassUID for each in series.ReferencedSOPSequence} == {FORMS[form]}
    assert all(each.ReferencedSOPInstanceUID.endswith(".7") for each in series.ReferencedSOPSequence)
    assert report.SOPClassUID == Comprehensive3DSRStorage, "the report itself is as it was"
    assert to_bytes(made) == to_bytes(formed("revision", form))


def test_basic_text_holds_no_numbers_and_claims_no_template() -> None:
    text = json.dumps(formed("two-eyes", "basic-text").to_json_dict())
    assert '"NUM"' not in text
    assert "0040A504" not in text  # Content Template Sequence
    assert "on the scale 0 to 1" in text


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ((Comprehensive3DSRStorage, ComprehensiveSRStorage), Comprehensive3DSRStorage),
        ((BasicTextSRStorage, EnhancedSRStorage), EnhancedSRStorage),
        ((BasicTextSRStorage,), BasicTextSRStorage),
    ],
)
def test_a_destination_gets_the_best_form_that_it_takes(
    tmp_path: Path, taken: tuple[str, ...], expected: str
) -> None:
    with receiving_pacs(classes=taken) as pacs:
        runtime = make_runtime(tmp_path, destination=[pacs.destination()])
        offer(runtime, fundus_of_grade(2))
        run_to_report(runtime)
        deliver_all(runtime)
        (received,) = pacs.received
        assert received.SOPClassUID == expected
        found = row(runtime, "SELECT state, sop_class_uid, sop_instance_uid FROM deliveries")
        assert found == {
            "state": "ACCEPTED",
            "sop_class_uid": expected,
            "sop_instance_uid": received.SOPInstanceUID,
        }
        stored = f"reports/{received.SOPInstanceUID}.dcm"
        assert runtime.spool.path(stored).read_bytes().endswith(pacs.bytes[0])
        runtime.close()


def test_a_form_that_was_refused_for_now_goes_again_with_the_same_uid_and_bytes(tmp_path: Path) -> None:
    with receiving_pacs(classes=(BasicTextSRStorage,)) as pacs:
        runtime = make_runtime(tmp_path, destination=[pacs.destination()])
        offer(runtime, fundus_of_grade(2))
        run_to_report(runtime)
        pacs.status = 0xA700
        deliver_all(runtime)
        uid = value(runtime, "SELECT sop_instance_uid FROM documents")
        # When its file is lost as well, it is made again from the report
        first = runtime.spool.path(f"reports/{uid}.dcm").read_bytes()
        runtime.spool.path(f"reports/{uid}.dcm").unlink()
        pacs.status = 0
        let_time_pass(runtime)
        deliver_all(runtime)
        assert pacs.uids == [uid]
        assert first.endswith(pacs.bytes[0])
        assert value(runtime, "SELECT count(*) FROM documents") == 1
        runtime.close()


def test_what_is_not_configured_is_not_sent_even_if_it_is_all_that_is_taken(tmp_path: Path) -> None:
    with receiving_pacs(classes=(Comprehensive3DSRStorage, BasicTextSRStorage)) as pacs:
        runtime = make_runtime(tmp_path, destination=[pacs.destination(sr_classes=["enhanced"])])
        offer(runtime, fundus_of_grade(2))
        run_to_report(runtime)
        deliver_all(runtime)
        assert pacs.received == []
        assert value(runtime, "SELECT reason_code FROM deliveries") == "CONTEXT_NOT_ACCEPTED"
        runtime.close()
