from __future__ import annotations

from pathlib import Path

import pytest
from factories.reports import SHAPES
from factories.validators import dciodvfy, dsrdump, pixelmed
from pydicom import dcmread

from dicom_io.laterality import Laterality
from dicom_io.report_tree import SIDE


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    written = {}
    for name, shape in SHAPES.items():
        written[name] = folder / f"{name}.dcm"
        written[name].write_bytes(shape().file())
    return written


@pytest.fixture(scope="module")
def broken(files: dict[str, Path]) -> Path:
    """A report without its verification flag and with a relationship that the template does not allow."""
    report = dcmread(files["two-eyes"])
    del report.VerificationFlag
    site = next(
        item
        for item in report.ContentSequence[-2].ContentSequence[0].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site"
    )
    site.RelationshipType = "CONTAINS"
    path = files["two-eyes"].with_name("broken.dcm")
    report.save_as(path)
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_dciodvfy_finds_no_error(name: str, files: dict[str, Path]) -> None:
    assert dciodvfy(files[name]) == []


def test_dciodvfy_would_find_one(broken: Path) -> None:
    assert any("VerificationFlag" in line for line in dciodvfy(broken))


@pytest.mark.slow
def test_pixelmed_finds_no_error(files: dict[str, Path], broken: Path, tmp_path: Path) -> None:
    answers = pixelmed([*files.values(), broken], tmp_path)
    assert set(answers) == {*files.values(), broken}
    for path in files.values():
        assert "Found Root Template TID_1500 (MeasurementReport)" in answers[path]
        assert "IOD validation complete" in answers[path]
        assert [line for line in answers[path] if "Error" in line] == []
    assert any("Error" in line for line in answers[broken])


@pytest.mark.dcmtk
@pytest.mark.parametrize("name", SHAPES)
def test_dsrdump_reads_every_word(name: str, files: dict[str, Path]) -> None:
    text = dsrdump(files[name])
    content = SHAPES[name]().content
    assert "Research use only. Not a medical device. Not verified by a person." in text
    assert "Macular oedema" in text
    for eye in content.eyes:
        assert f"{SIDE[eye.laterality]} eye: " in text
        if eye.reason_text:
            assert f"{eye.reason_text} [{eye.reason_code}]" in text
    sides = sum(f'"{side.name.capitalize()}"' in text for side in Laterality)
    assert sides == len(content.eyes)
