"""Every conflict of side and identity over the wire: storescu as the camera, storescp as the PACS.

The cases run side by side, step by step: what they send first, then what they send second, and so on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories.bundle import write_tiny_bundle
from factories.dcmtk import storescp_process
from factories.identity import CASES, study_uid
from factories.process import Worker, worker
from factories.received_reports import ReceivedReport, received_reports
from factories.storescu import Sending, storescu
from factories.validators import dciodvfy

from dicom_io.report_text import render_text
from worker.reasons import reason

pytestmark = [
    pytest.mark.slow,
    pytest.mark.dcmtk,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("identity"),
]


@dataclass(frozen=True)
class Run:
    """What came of all cases."""

    sendings: Sequence[Sending]
    sent: int
    reports: Mapping[str, Sequence[ReceivedReport]]
    images: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]]
    status: Mapping[str, Any]
    said: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """All cases sent, every step drained before the next; then what `status` says of it."""
    folder = tmp_path_factory.mktemp("identity")
    bundle = write_tiny_bundle(folder / "bundle")
    with (
        storescp_process(folder / "pacs") as pacs,
        worker(folder / "worker", bundle=bundle, pacs_port=pacs.port) as served,
    ):
        sendings, sent = [], 0
        for step in range(max(len(case.steps) for case in CASES.values())):
            for aborted in (False, True):
                files = _written(folder / f"step{step}-{aborted}", step, aborted=aborted)
                sent += len(files)
                if files:
                    options = ("-R", "--abort") if aborted else ("-R",)
                    sendings.append(storescu(served.port, files, jpeg=True, options=options))
            served.wait_drained()
            for case in CASES.values():
                if case.decided_after == step:
                    _command(served, "requeue", "--conflict", "--study", study_uid(case))
                    served.wait_drained()
        yield Run(
            sendings,
            sent,
            _by_study(received_reports(pacs.files())),
            served.query("SELECT * FROM v_results ORDER BY sop_instance_uid"),
            served.query("SELECT * FROM v_failures"),
            json.loads(_command(served, "status", "--json")),
            " ".join(_command(served, "status").split()),
        )


def _written(folder: Path, step: int, *, aborted: bool) -> list[Path]:
    """The files of one step of all cases, in the order in which they are to be sent."""
    folder.mkdir()
    files: list[Path] = []
    for case in CASES.values():
        steps = case.steps[step] if step < len(case.steps) else ()
        for ds in steps if (step in case.aborted) is aborted else ():
            files.append(folder / f"{len(files):03d}.dcm")
            ds.save_as(files[-1], enforce_file_format=True)
    return files


def _command(served: Worker, *arguments: str) -> str:
    """Output of a command; `status` has exit status 1 when something needs a person."""
    program = Path(sys.executable).with_name("fundus-worker")
    command: list[str | Path] = [program, *arguments, "--config", served.config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def _by_study(reports: Sequence[ReceivedReport]) -> dict[str, list[ReceivedReport]]:
    """Reports of each study in the order of their revisions (Instance Number)."""
    found: dict[str, list[ReceivedReport]] = {}
    for each in sorted(reports, key=lambda report: int(report.dataset.InstanceNumber)):
        found.setdefault(each.study_instance_uid, []).append(each)
    return found


def test_every_object_is_acknowledged(run: Run) -> None:
    assert sum(len(sending.acknowledged) for sending in run.sendings) == run.sent


@pytest.mark.parametrize("name", CASES)
def test_a_conflict_has_its_report_or_its_reason(run: Run, name: str) -> None:
    case = CASES[name]
    for number, expected in case.studies.items():
        study = study_uid(case, number)
        reports = run.reports.get(study, [])
        # Then each report says what it should, and names the one that it replaces
        assert [set(report.eyes) for report in reports] == [set(sides) for sides in expected.sides]
        named = [set(), *({report.sop_instance_uid} for report in reports)]
        for report, predecessors in zip(reports, named, strict=False):
            assert report.predecessors == predecessors
            flags = (report.dataset.CompletionFlag, report.dataset.VerificationFlag)
            assert (*flags, report.dataset.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
            assert dciodvfy(report.path) == []
        if reports:
            last = reports[-1].dataset
            assert (str(last.PatientID), str(last.PatientName)) == expected.patient
            said = " ".join(render_text(last).split())
            assert all(f"{reason(code).text} [{code}]" in said for code in expected.said)
        # Then rows and `status` say why there is none, and what to do
        rows = [row for row in run.images if row["study_instance_uid"] == study]
        assert [(row["laterality"], row["reason_code"]) for row in rows] == list(expected.rows)
        assert all(row["grade"] is not None for row in rows)
        _check_withheld(run, study, expected.withheld, delivered=bool(reports))


def _check_withheld(run: Run, study: str, code: str | None, *, delivered: bool) -> None:
    failures = [row for row in run.failures if row["study_instance_uid"] == study]
    listed = [row for row in run.status["failures"] if row["study_instance_uid"] == study]
    if code is None:
        assert failures == listed == []
        return
    (failure,), (shown,) = failures, listed
    assert (failure["kind"], failure["reason_code"]) == ("study_withheld", code)
    assert ("delivered before" in (failure["detail"] or "")) is delivered
    assert shown["remedy"] == reason(code).remedy
    assert reason(code).remedy in run.said


def test_a_person_is_asked_for(run: Run) -> None:
    assert any("to look into" in problem for problem in run.status["attention"])
