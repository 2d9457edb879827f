from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from factories.demo import result, withheld_result
from rich.console import Console

from worker.demo.results import Result
from worker.demo.table import QUERIES, footnote, query_command, results_table, shown

RESULTS = [
    result(1, "R"),
    withheld_result(2, "L", camera=None, route="unknown", adapter=None, analysed_at=None),
    result(3, "R", accession_number="DEMO-0002", grade=0, referable=False),
]
REFERENCES = {"2.25.1": 3, "2.25.2": 2, "2.25.3": 4}


def rendered(width: int = 140, results: Sequence[Result] = RESULTS) -> list[str]:
    output = StringIO()
    Console(file=output, width=width).print(results_table(results, REFERENCES, width))
    return output.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("│┃").replace("┃", "│").split("│")]


def test_the_table_has_a_row_an_eye_with_what_the_rows_say() -> None:
    lines = rendered()
    rows = [cells(line) for line in lines if "DEMO-" in line]

    assert any(
        cells(line)
        == ["study", "eye", "camera", "route", "adapter", "grade or reason", "probability", "ms", "reference"]
        for line in lines
    )
    adapted = ["simulated-blue", "adapter", "simulated-blue"]
    assert rows == [
        ["DEMO-0001", "R", *adapted, "2 Moderate", "0.94", "250", "3"],
        ["DEMO-0001", "L", "-", "unknown", "-", "withheld: UNGRADABLE_QUALITY", "-", "-", "2"],
        ["DEMO-0002", "R", *adapted, "0 Moderate", "0.94", "250", "4"],
    ]


def test_in_a_narrow_window_nothing_but_the_verdict_takes_a_second_line() -> None:
    reasons = dict.fromkeys(("reason_code", "image_reason_code"), "CAMERA_NOT_VALIDATED")
    other = withheld_result(2, camera="topcon-maestro2", route="labelled", **reasons)
    lines = rendered(80, [RESULTS[0], other])

    assert max(map(len, lines)) <= 80
    assert lines[2].split() == [
        "study",
        "eye",
        "camera",
        "route",
        "grade",
        "or",
        "reason",
        "prob",
        "ms",
        "ref",
    ]
    adapted = ["DEMO-0001", "R", "simulated-blue", "adapter", "2", "Moderate", "0.94", "250", "3"]
    assert adapted in [line.split() for line in lines]
    assert ["CAMERA_NOT_VALIDATED"] in [line.split() for line in lines]


def test_agreement_counts_only_eyes_that_have_a_grade() -> None:
    text = footnote(RESULTS, REFERENCES)

    assert "agrees with the reference in 1 of 2 eyes with a grade; 1 eye is withheld." in text


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "my data" / "fundus.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE v_results (camera TEXT)")
        connection.execute("INSERT INTO v_results VALUES ('kowa-vx-10')")
    connection.close()
    return path


@pytest.mark.parametrize("with_sqlite3", [True, False])
def test_the_command_for_a_query_runs_in_a_shell(
    database: Path, with_sqlite3: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("sqlite3")
    if with_sqlite3 and program is None:
        pytest.skip("the sqlite3 program is not installed")
    monkeypatch.setattr("worker.demo.table.shutil.which", lambda _: program if with_sqlite3 else None)

    command = query_command(database, "SELECT camera FROM v_results WHERE camera <> 'x'")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert command.startswith("sqlite3") == with_sqlite3
    assert done.returncode == 0, done.stderr
    assert "kowa-vx-10" in done.stdout


def test_the_queries_are_about_the_views() -> None:
    assert all(" FROM v_" in query for query in QUERIES)


def test_a_path_is_shown_as_a_person_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert shown(tmp_path / "logs") == Path("logs")
    assert shown(tmp_path.parent) == tmp_path.parent
