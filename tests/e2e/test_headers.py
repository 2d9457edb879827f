"""Odd headers over the wire: nothing accepted is lost, and every report is valid and names nobody wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories.bundle import write_tiny_bundle
from factories.dcmtk import storescp_process
from factories.headers import CASES, NAMES, file_of, photograph
from factories.process import worker
from factories.received_reports import ReceivedReport, received_reports
from factories.validators import dciodvfy, pixelmed

from dicom_io.sender import Outcome, Parcel, Peer, send

pytestmark = [
    pytest.mark.slow,
    pytest.mark.dcmtk,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("headers"),
]
NUMBERS = {name: number for number, name in enumerate(CASES, start=1)}


@dataclass(frozen=True)
class Run:
    """What came of all cases."""

    outcomes: Mapping[int, Outcome]
    rows: Mapping[str, Mapping[str, Any]]
    rejections: Mapping[str, Mapping[str, Any]]
    reports: Mapping[str, ReceivedReport]
    failed: int
    log: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """All cases sent over one association, as they are; then everything that was made of them."""
    folder = tmp_path_factory.mktemp("headers")
    bundle = write_tiny_bundle(folder / "bundle")
    with (
        storescp_process(folder / "pacs") as pacs,
        worker(folder / "worker", bundle=bundle, pacs_port=pacs.port) as served,
    ):
        peer = Peer("FUNDUS", "127.0.0.1", served.port, "CAMERA", timeout_s=240)
        outcomes = list(send(peer, list(_parcels(folder))))
        served.wait_drained()
        yield Run(
            {outcome.key: outcome for outcome in outcomes},
            {row["sop_instance_uid"]: row for row in served.query("SELECT * FROM v_results")},
            {row["sop_instance_uid"]: row for row in served.query("SELECT * FROM v_rejections")},
            {_evidence(report): report for report in received_reports(pacs.files())},
            len(served.events("report_failed")) + len(served.events("analysis_failed")),
            served.log_file.read_text(errors="replace"),
        )


def _parcels(folder: Path) -> Iterator[Parcel]:
    for name, case in CASES.items():
        ds = photograph(NUMBERS[name])
        path = folder / f"{NUMBERS[name]:03d}.dcm"
        path.write_bytes(file_of(case, ds))
        yield Parcel(NUMBERS[name], path, ds.SOPClassUID, ds.SOPInstanceUID)


def _evidence(report: ReceivedReport) -> str:
    """SOP Instance UID of the one photograph that a report is about."""
    (study,) = report.dataset.CurrentRequestedProcedureEvidenceSequence
    return str(study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


@pytest.mark.parametrize("name", CASES)
def test_an_odd_header_has_its_answer_its_row_and_a_valid_report(run: Run, name: str) -> None:
    case, uid = CASES[name], f"2.25.88.{NUMBERS[name]}.2"
    assert run.outcomes[NUMBERS[name]].status == case.status
    state, reason_code = case.row
    if state is None:
        assert run.rejections[uid]["reason_code"] == reason_code
        assert uid not in run.rows
        assert uid not in run.reports
        return
    row, report = run.rows[uid], run.reports[uid]
    assert (row["state"], row["reason_code"]) == (state, reason_code)
    assert row["delivered_at"]
    found = {keyword: str(report.dataset[keyword].value) for keyword in case.copied}
    assert found == case.copied
    errors = dciodvfy(report.path)
    if case.invalid is None:
        assert errors == []
    else:  # a report has to bear the identifiers of what it is about
        assert {case.invalid in line for line in errors[:-1]} == {True}


def test_pixelmed_finds_no_error(run: Run, tmp_path: Path) -> None:
    answers = pixelmed([report.path for report in run.reports.values()], tmp_path)
    assert len(answers) == sum(case.row[0] is not None for case in CASES.values())
    for lines in answers.values():
        assert "IOD validation complete" in lines
        assert [line for line in lines if "Error" in line] == []


def test_nothing_had_to_be_tried_twice_and_the_log_names_nobody(run: Run) -> None:
    assert run.failed == 0
    assert [name for name in NAMES if name in run.log] == []
