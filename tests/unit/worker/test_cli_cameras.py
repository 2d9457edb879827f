from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from factories.commands import Installation, install
from factories.dicom import write_fundus

PATIENT = ("Doe", "PID0001", "19700101")


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return install(tmp_path)


def explained(installed: Installation, name: str, **options: Any) -> str:
    file = installed.folder / name
    write_fundus(file, **options)
    answer = installed.run("cameras", "explain", file)
    assert answer.status == 0
    assert not any(each in answer.out for each in PATIENT)
    return answer.words


def test_the_labelled_camera(installed: Installation) -> None:
    said = explained(installed, "a.dcm", manufacturer="Kowa", model="VX-10")
    assert "camera kowa-vx-10 (rule kowa-vx-10 equals the whole model string)" in said
    assert "route labelled: the camera that the classifier was trained on" in said
    assert "side R result its result goes into the report" in said


def test_a_camera_with_an_adapter(installed: Installation) -> None:
    said = explained(installed, "a.dcm", manufacturer="SIMULATED", model="blue", laterality="L")
    assert "route adapter simulated-blue: translated by the bundle's adapter for this camera side L" in said


def test_a_camera_that_no_rule_names(installed: Installation) -> None:
    said = explained(installed, "a.dcm", manufacturer="Nobody", model="Nothing", laterality=None)
    assert "camera unknown route unknown: a camera that no rule names side LATERALITY_UNKNOWN" in said
    assert "result graded in SQL, no grade in the report: CAMERA_NOT_VALIDATED" in said
    assert "remedy Train and validate an adapter" in said


def test_a_camera_named_by_a_part_of_its_model(installed: Installation) -> None:
    said = explained(installed, "a.dcm", manufacturer="Topcon", model="TRC-NW400 plus")
    assert "names it by a part of the model string" in said
    assert "route known: a known camera for which the bundle has no adapter" in said


def test_a_camera_that_somebody_opted_in_is_flagged(tmp_path: Path) -> None:
    installed = install(tmp_path, camera={"unknown": "classify"})
    said = explained(installed, "a.dcm", manufacturer="Nobody", model="Nothing")
    assert "result its result goes into the report, flagged: nobody validated this camera" in said


def test_what_is_no_colour_photograph_is_not_analysed_whatever_its_camera(installed: Installation) -> None:
    file = installed.folder / "a.dcm"
    header = write_fundus(file)
    header.PhotometricInterpretation, header.SamplesPerPixel = "MONOCHROME2", 1
    header.save_as(file, enforce_file_format=True)
    said = installed.run("cameras", "explain", file).words
    assert "route labelled" in said
    assert "result not analysed: NOT_COLOUR remedy Nothing to do" in said


def test_the_closest_rules_are_shown_or_all(installed: Installation) -> None:
    file = installed.folder / "a.dcm"
    write_fundus(file)
    few = installed.run("cameras", "explain", file)
    every = installed.run("cameras", "explain", file, "--all")
    assert few.out.count("  not ") == 3
    assert "more rules (--all)" in few.out
    assert every.out.count("  not ") > 20
    assert "more rules" not in every.out


def test_files_that_cannot_be_read_are_named_and_the_others_shown(installed: Installation) -> None:
    # Given
    good, text = installed.folder / "good.dcm", installed.folder / "text.dcm"
    write_fundus(good)
    text.write_text("no DICOM object")
    missing = installed.folder / "missing.dcm"
    # When
    answer = installed.run("cameras", "explain", text, missing, good)
    # Then
    assert answer.status == 1
    assert f"error: {text}: the file has no DICOM prefix" in answer.err
    assert f"error: {missing}: No such file or directory" in answer.err
    assert "kowa-vx-10" in answer.out


def test_json_has_an_entry_for_each_file(installed: Installation) -> None:
    good, text = installed.folder / "good.dcm", installed.folder / "text.dcm"
    write_fundus(good)
    text.write_text("no DICOM object")
    answer = installed.run("cameras", "explain", good, text, "--json")
    first, second = json.loads(answer.out)
    assert answer.status == 1
    assert (first["file"], first["camera"], first["route"]) == (str(good), "kowa-vx-10", "labelled")
    assert first["laterality"] == [{"value": "R", "reason_code": None}]
    assert next(rule["rule"] for rule in first["rules"] if rule["matched"]) == first["rule"] == "kowa-vx-10"
    assert second == {"file": str(text), "error": f"{text}: the file has no DICOM prefix"}
