"""Every file of the corpus over the wire, from pynetdicom and from DCMTK, and what becomes of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from corpus.case import Case
from corpus.catalogue import CASES
from factories.bundle import write_tiny_bundle
from factories.corpus_run import CorpusRun, send_with_pynetdicom, send_with_storescu, write_corpus
from factories.dcmtk import storescp_process
from factories.process import worker
from factories.validators import dciodvfy, pixelmed

pytestmark = [pytest.mark.slow, pytest.mark.dcmtk, pytest.mark.timeout(600), pytest.mark.xdist_group("corpus")]
WANTED = [case for case in CASES if case.wanted is not None]


@contextmanager
def sent(folder: Path, sender: str) -> Iterator[CorpusRun]:
    files = write_corpus(CASES, folder / "corpus")
    bundle = write_tiny_bundle(folder / "bundle")
    with (
        storescp_process(folder / "pacs") as pacs,
        worker(folder / "worker", bundle=bundle, pacs_port=pacs.port) as served,
    ):
        if sender == "pynetdicom":
            statuses = send_with_pynetdicom(served.port, files)
        else:
            statuses, output = send_with_storescu(served.port, files)
            (folder / "storescu.log").write_text(output)
        served.wait_drained()
        yield CorpusRun(served, statuses, {path.name: path for path in files}, pacs.files())


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
