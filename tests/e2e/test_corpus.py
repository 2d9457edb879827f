"""Every file of the corpus over the wire, from pynetdicom and from DCMTK, and what becomes of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from corpus.case import Case
from corpus.catalogue import CASES
from factories.bundle import write_tiny_bundle
from factories.corpus_run import CorpusRun, send_with_pynetdicom, send_with_storescu, write_corpus
from factories.dcmtk import storescp_process
from factories.process import worker
from factories.received_reports import ReceivedReport, items_of, name_of
from factories.validators import dciodvfy, pixelmed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.dcmtk,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("corpus"),
]
EVERY_REPORT = bool(os.environ.get("FUNDUS_TEST_EVERY_REPORT"))
"""Validate every report, not one of each structure: that takes minutes."""


@contextmanager
def sent(folder: Path, sender: str) -> Iterator[CorpusRun]:
    files = write_corpus(
        [each for each in CASES if sender != "storescu" or not is_left_out(each)], folder / "corpus"
    )
    bundle = write_tiny_bundle(folder / "bundle")
    with (
        storescp_process(folder / "pacs") as pacs,
        worker(folder / "worker", bundle=bundle, pacs_port=pacs.port) as served,
    ):
        if sender == "pynetdicom":
            statuses = send_with_pynetdicom(served.port, files)
        else:
            statuses = send_with_storescu(served.port, files)
        served.wait_drained()
        yield CorpusRun(served, statuses, {path.name: path for path in files}, pacs.files())


def is_left_out(case: Case) -> bool:
    """Whether DCMTK cannot send it at all."""
    return bool(case.dcmtk) and case.by_dcmtk is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CorpusRun]:
    with sent(tmp_path_factory.mktemp("pynetdicom"), "pynetdicom") as done:
        yield done


@pytest.fixture(scope="module")
def dcmtk_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CorpusRun]:
    with sent(tmp_path_factory.mktemp("storescu"), "storescu") as done:
        yield done


def test_each_case_ends_as_the_table_says(run: CorpusRun) -> None:
    problems = [each for case in CASES for each in run.problems(case, case.outcome)]

    assert not problems, "\n".join(problems)


def test_each_photograph_is_read_in_its_true_colours(run: CorpusRun) -> None:
    """Whatever the encoding: a mislabelled photograph that is converted wrongly has other mean colours."""
    means = {
        row["sop_instance_uid"]: (row["mean_red"], row["mean_green"], row["mean_blue"])
        for row in run.worker.query(
            "SELECT i.sop_instance_uid, f.mean_red, f.mean_green, f.mean_blue FROM findings f "
            "JOIN instances i ON i.id = f.instance_id"
        )
    }
    (reference,) = (case for case in CASES if case.name == "syntax-explicit-little-endian")
    true_colours = means[run.instances(reference)[0]]

    for case in (each for each in CASES if each.same_colours):
        for uid in run.instances(case):
            if uid in means:
                assert means[uid] == pytest.approx(true_colours, abs=5), case.name


def test_storescu_ends_each_case_the_same_way_unless_it_corrects_it(dcmtk_run: CorpusRun) -> None:
    sent = [case for case in CASES if not is_left_out(case)]
    problems = [each for case in sent for each in dcmtk_run.problems(case, case.by_dcmtk or case.outcome)]

    assert not problems, "\n".join(problems)


def test_every_object_is_accounted_for(run: CorpusRun) -> None:
    stored = {name for name, status in run.statuses.items() if status == 0x0000}
    uids = {uid for case in CASES for uid in run.instances(case) if stored & case.files().keys()}
    turned_away = run.worker.query("SELECT sop_instance_uid FROM v_rejections WHERE kind = 'STORE'")

    assert set(run.files) == set(run.statuses), "every file has an answer"
    assert {row["sop_instance_uid"] for row in turned_away} | set(run.rows) >= uids
    assert run.worker.count("SELECT count(*) FROM instances WHERE state = 'RECEIVED'") == 0
    assert run.worker.count("SELECT count(*) FROM deliveries WHERE state <> 'ACCEPTED'") == 0
    assert run.worker.query("SELECT * FROM v_results WHERE reason_code = 'INTERNAL_ERROR'") == []
    assert run.worker.events("analysis_failed") + run.worker.events("report_failed") == []


def test_both_validators_find_no_error_in_any_report(run: CorpusRun, tmp_path: Path) -> None:
    distinct = {features(report): report.path for report in run.reports.values()}
    every = [report.path for report in run.reports.values()]

    errors = {path.name: dciodvfy(path) for path in (every if EVERY_REPORT else distinct.values())}
    chosen = every if EVERY_REPORT else covering(distinct)
    answers = pixelmed(chosen, tmp_path)

    assert {name: lines for name, lines in errors.items() if lines} == {}
    assert set(answers) == set(chosen)
    assert [line for lines in answers.values() for line in lines if "Error" in line] == []


def test_no_patient_turns_up_in_log_database_or_status(run: CorpusRun) -> None:
    """Names, identifiers and birth dates: only the objects themselves and the reports may have them."""
    status = subprocess.run(
        [sys.executable, "-m", "worker.cli", "status", "--json", "--config", run.worker.config],
        capture_output=True,
        check=False,  # it exits with 1: there are failures to look at
    ).stdout
    assert b"UID_CONFLICT" in status
    database = run.worker.data / "fundus.db"
    raw = b"".join(path.read_bytes() for path in sorted(database.parent.glob("fundus.db*")))
    places = {
        "log": run.worker.log_file.read_bytes(),
        "status": status,
        "database": raw,
        "file names": "\n".join(map(str, run.worker.data.rglob("*"))).encode(),
    }

    leaks = [
        f"{case.name}: {term!r} in the {place}"
        for place, content in places.items()
        for case in CASES
        for term in case.secret_terms()
        if found(term, content)
    ]

    assert leaks == []
    assert found(b"ANALYSED", raw), "the search itself sees what is there"
    assert found(b"object_stored", places["log"])


def features(report: ReceivedReport) -> frozenset[str]:
    """Which attributes a report has, and which kinds of content items: what a validator looks at."""
    ds = report.dataset
    attributes = {str(tag) for tag in ds.keys() if ds.get_item(tag).value}  # noqa: SIM118 - decodes nothing
    return frozenset(attributes | {f"{item.ValueType} {name_of(item)}" for item in items_of(ds)})


def covering(reports: Mapping[frozenset[str], Path]) -> list[Path]:
    """Few reports that together have every feature, and of each feature one without it: Java is slow."""
    everything = frozenset().union(*reports)
    signed = {path: own | {f"not {each}" for each in everything - own} for own, path in reports.items()}
    missing = set().union(*signed.values())
    chosen: list[Path] = []
    while missing:
        best = max(signed, key=lambda path: (len(signed[path] & missing), path.name))
        chosen.append(best)
        missing -= signed[best]
    return chosen


def found(term: bytes, content: bytes) -> bool:
    """Whether a term stands there; a number only where it is no part of a longer one, such as a UID."""
    if not term.isdigit() or term not in content:
        return term in content
    return re.search(rb"(?<![0-9a-fA-F.])" + term + rb"(?![0-9a-fA-F.])", content) is not None
