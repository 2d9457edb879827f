"""The corpus itself: names, patients and files that a table can be made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus.__main__ import app
from corpus.case import Patient
from corpus.catalogue import CASES, GROUPS
from corpus.photograph import photograph, written
from corpus.photograph import raw as uncompressed
from corpus.syntaxes import CASES as SYNTAXES
from corpus.table import table
from pydicom import dcmread
from typer.testing import CliRunner

from worker.reasons import REASONS

RUNNER = CliRunner()


def test_each_case_has_a_name_a_patient_and_a_line_of_its_own() -> None:
    names = [case.name for case in CASES]
    text = table()

    assert len(set(names)) == len(names) >= 160
    assert len({Patient.of(name) for name in names}) == len(names)
    assert all(text.count(f"| `{name}` |") == 1 for name in names)
    assert all(f"### {title}\n" in text for title in GROUPS)


def test_every_reason_that_the_table_names_is_one() -> None:
    outcomes = [each for case in CASES for each in (case.outcome, case.by_dcmtk) if each]
    reasons = {reason for each in outcomes for _, reason in each.results} | {
        reason for each in outcomes for reason in (*each.eyes.values(), each.rejection)
    }

    assert reasons - {None} <= set(REASONS)


@pytest.mark.parametrize("case", SYNTAXES, ids=lambda case: case.name)
def test_a_case_makes_the_same_files_every_time(case: object) -> None:
    (found,) = (each for each in CASES if each is case)

    assert found.files() == found.files()
    assert all(content[128:132] == b"DICM" for content in found.files().values())


def test_the_plain_case_is_the_photograph_itself(tmp_path: Path) -> None:
    (tmp_path / "plain.dcm").write_bytes(written(uncompressed("plain")))

    assert dcmread(tmp_path / "plain.dcm").PixelData == photograph().tobytes()


def test_the_command_writes_the_files_and_what_storescu_needs(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["--out", str(tmp_path), "--only", "again-*"])
    configuration = (tmp_path / "storescu.cfg").read_text()
    raw = RUNNER.invoke(app, ["--out", str(tmp_path), "--only", "uid-mismatch"])

    assert done.exit_code == raw.exit_code == 0, done.output
    assert len(list(tmp_path.glob("again-*.dcm"))) == 8
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["uid-mismatch.dcm"]
    assert "8 files are in" in done.output
    assert "1 more, which DCMTK cannot send" in raw.output
    assert "PresentationContext1 = 1.2.840.10008.5.1.4.1.1.77.1.5.1\\Syntax0" in configuration


def test_a_pattern_without_a_case_is_said(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["--out", str(tmp_path), "--only", "nothing-*"])

    assert done.exit_code == 2
    assert "inputs.md" in done.output
