"""What the demonstration prints: the table, where the reports are, and the queries to try."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table

from worker.demo.results import Result

T = TypeVar("T")
QUERIES = (
    "SELECT accession_number, laterality, camera, route, grade_label, reason_code FROM v_results",
    "SELECT reason_code, COUNT(*) AS eyes FROM v_eye_results GROUP BY reason_code",
    "SELECT camera, model, route, images, graded, withheld FROM v_cameras",
)
_COLUMNS: tuple[tuple[str, str, JustifyMethod], ...] = (
    ("study", "study", "left"),
    ("eye", "eye", "left"),
    ("camera", "camera", "left"),
    ("route", "route", "left"),
    ("adapter", "adapter", "left"),
    ("grade or reason", "grade or reason", "left"),
    ("probability", "prob", "right"),
    ("ms", "ms", "right"),
    ("reference", "ref", "right"),
)
_ADAPTER = 4
_FULL_WIDTH = 130
_PYTHON = (
    "import sqlite3,sys; [print(*r, sep=' | ') for r in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])]"
)


def results_table(results: Sequence[Result], references: Mapping[str, int], width: int) -> Table:
    """One row an eye, read from the views.

    Args:
        results: The rows.
        references: Grade by the data set's authors, by SOP Instance UID.
        width: Characters a line. Few leave out lines and adapters (an adapter's name is its camera's).
    """
    narrow = width < _FULL_WIDTH
    title = "What v_results and v_eye_results say"
    table = Table(title=title, title_justify="left", pad_edge=not narrow, padding=(0, 0 if narrow else 1))
    table.box = box.SIMPLE_HEAD if narrow else box.HEAVY_HEAD
    left_out = _ADAPTER if narrow else None
    for name, short, justify in _without(left_out, _COLUMNS):
        table.add_column(short if narrow else name, justify=justify, overflow="fold")
    for number, result in enumerate(results):
        following = results[number + 1].accession_number if number + 1 < len(results) else None
        table.add_row(
            *_without(left_out, tuple(_cells(result, references[result.sop_instance_uid]))),
            end_section=following not in (None, result.accession_number),
        )
    return table


def _without(place: int | None, items: Sequence[T]) -> list[T]:
    return [item for number, item in enumerate(items) if number != place]


def _cells(result: Result, reference: int) -> Iterable[str]:
    probability, ms = result.referable_probability, result.analysis_ms
    yield result.accession_number
    yield result.laterality
    yield escape(result.camera or "-")
    yield result.route
    yield escape(result.adapter or "-")
    yield f"[{_style(result, reference)}]{escape(result.verdict)}[/]"
    yield "-" if probability is None else f"{probability:.2f}"
    yield "-" if ms is None else f"{ms:.0f}"
    yield str(reference)


def _style(result: Result, reference: int) -> str:
    if result.referable is None:
        return "dim"
    return "green" if result.referable == (reference >= 2) else "yellow"


def footnote(results: Sequence[Result], references: Mapping[str, int]) -> str:
    """What the columns mean, and how many decisions agree with the reference."""
    stated = [result for result in results if result.referable is not None]
    withheld = len(results) - len(stated)
    agreeing = sum(result.referable == (references[result.sop_instance_uid] >= 2) for result in stated)
    return (
        "probability: of referable disease (grade 2 or more), calibrated on the labelled camera; "
        "ms: from acknowledgement to finding, waiting included; reference: grade by the data set's authors.\n"
        f"Referable or not agrees with the reference in {agreeing} of {len(stated)} eyes with a grade; "
        f"{withheld} {'eye is' if withheld == 1 else 'eyes are'} withheld."
    )


def query_command(database: Path, query: str) -> str:
    """A shell command that runs a query with what is installed here."""
    if shutil.which("sqlite3"):
        return shlex.join(["sqlite3", "-readonly", "-box", str(database), query])
    return shlex.join([str(shown(Path(sys.executable))), "-c", _PYTHON, str(database), query])


def shown(path: Path) -> Path:
    """A path as a person would type it: relative when it is below the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
