"""The benchmark as JSON and as one self-contained HTML page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from models.training.benchmark import charts
from models.training.benchmark.graphs import OURS, PAIRED, PLAIN, Absent
from models.training.benchmark.resampling import Estimate
from models.training.benchmark.results import (
    FIGURES,
    ORACLE,
    ROWS,
    UNADAPTED,
    Benchmark,
    CameraResult,
    Cell,
)
from models.training.benchmark.timing import YARDSTICK
from models.training.benchmark.verdict import Check, checks, paragraph

TEMPLATE = Path(__file__).parent / "report.html"
_PICTURE = "psnr"
_CROP = 148
_MONTAGE = {ORACLE: "Unshifted", UNADAPTED: "Shifted, no adaptation"}
_MONTAGE |= {row: ROWS[row] for row in (OURS, PLAIN, PAIRED)}
_MONTAGE |= {row: label for row, label in ROWS.items() if row not in _MONTAGE}


@dataclass(frozen=True)
class Facts:
    """What was measured with what.

    Attributes:
        bundle: Id and version of the bundle.
        digest: Its digest.
        photographs: Held-out photographs.
        referable: How many of them are referable.
        lesions: Photographs with masks.
        second_style: Photographs of the second style.
        data_fingerprint: SHA-256 over all files.
        threads: CPU threads of every graph.
        config: The benchmark's configuration.
        environment: Versions that figures depend on.
    """

    bundle: str
    digest: str
    photographs: int
    referable: int
    lesions: int
    second_style: int
    data_fingerprint: str
    threads: int
    config: Mapping[str, Any]
    environment: Mapping[str, str]


def as_json(benchmark: Benchmark, facts: Facts) -> dict[str, Any]:
    """Everything but the pictures; the same seed gives the same on one machine, but for ``ms``."""
    points = checks(benchmark)
    return {
        "facts": dataclasses.asdict(facts),
        "verdict": paragraph(benchmark, points),
        "checks": [dataclasses.asdict(point) for point in points],
        "average": {row: _averages(benchmark, row) for row in ROWS if benchmark.measured(row)},
        "cameras": {
            result.camera.key: {
                "parameters": dataclasses.asdict(result.camera),
                "rows": {row: _cell_json(cell) for row, cell in result.cells.items()},
            }
            for result in benchmark.cameras
        },
        "ms": benchmark.ms,
    }


def as_html(benchmark: Benchmark, facts: Facts) -> str:
    """The report, which needs no other file and no network."""
    points = checks(benchmark)
    missed = any(point.met is False for point in points)
    known = [camera.camera.key for camera in benchmark.cameras]
    links = ["verdict", "average", *known, "cost", "meaning"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title="Camera-shift benchmark",
        facts=escape(_facts_line(facts)),
        links="".join(f'<a href="#{link}">{link}</a>' for link in links),
        tone="#b3261e" if missed else "#1e7d45",
        verdict=escape(paragraph(benchmark, points)),
        checks="".join(_check_row(point) for point in points),
        average=_average_section(benchmark),
        cameras="".join(_camera_section(result) for result in benchmark.cameras),
        cost_note=escape(_cost_note(facts)),
        costs=_cost_table(benchmark),
        meanings="".join(
            f"<dt>{escape(figure.heading)}</dt><dd>{escape(figure.meaning)}</dd>"
            for figure in FIGURES.values()
        ),
    )


def row_label(benchmark: Benchmark, row: str) -> str:
    """A row's name; with the number of cameras where it was not run on all."""
    run = len(benchmark.measured(row))
    return ROWS[row] + (
        "" if run == len(benchmark.cameras) else f" ({run} of {len(benchmark.cameras)} cameras)"
    )


def _averages(benchmark: Benchmark, row: str) -> dict[str, Any]:
    found = {name: benchmark.averaged(row, name) for name in FIGURES}
    figures = {name: estimate.as_json() for name, estimate in found.items() if estimate is not None}
    return {"cameras": len(benchmark.measured(row)), **figures}


def _cell_json(cell: Cell | Absent) -> dict[str, Any]:
    if isinstance(cell, Absent):
        return {"not_run": cell.reason}
    return {
        "figures": {name: cell.figures[name].as_json() for name in FIGURES if name in cell.figures},
        "roc": cell.roc,
        "reliability": cell.reliability,
    }


def _facts_line(facts: Facts) -> str:
    return (
        f"Bundle {facts.bundle} ({facts.digest[:12]}) on {facts.photographs} held-out photographs, "
        f"{facts.referable} of them referable; {facts.lesions} photographs with lesion masks; second style "
        f"from {facts.second_style} photographs of other people. Seed {facts.config['seed']}, "
        f"{facts.config['resamples']} resamples, revision {facts.environment.get('commit', 'unknown')[:12]}. "
        "Research use only."
    )


def _check_row(check: Check) -> str:
    kind, word = {True: ("met", "met"), False: ("missed", "missed"), None: ("unknown", "not measured")}[
        check.met
    ]
    return (
        f'<tr><td class="{kind}">{word}</td><td>{escape(check.asked)}</td><td>{escape(check.found)}</td></tr>'
    )


def _average_section(benchmark: Benchmark) -> str:
    rows = {row: row_label(benchmark, row) for row in ROWS if benchmark.measured(row)}
    cells: dict[str, Cell | Absent] = {}
    for row in rows:
        found = {name: benchmark.averaged(row, name) for name in FIGURES}
        cells[row] = Cell({name: figure for name, figure in found.items() if figure is not None})
    bars = charts.flips_chart(list(_bars(rows, cells)))
    figure = f'<figure class="bars"><figcaption>Flipped referable decisions</figcaption>{bars}</figure>'
    return f'<div class="charts">{figure}</div>{_tables(rows, cells)}'


def _camera_section(result: CameraResult) -> str:
    changed = {
        field.name: getattr(result.camera, field.name)
        for field in dataclasses.fields(result.camera)
        if field.name != "name" and getattr(result.camera, field.name) != field.default
    }
    parameters = ", ".join(f"{name} {value}" for name, value in changed.items()) or "defaults"
    measured = {row: cell for row, cell in result.cells.items() if isinstance(cell, Cell)}
    roc = charts.curves({row: cell.roc for row, cell in measured.items()}, "1 - specificity", "sensitivity")
    lines = {
        row: [(x, y) for x, y, _ in cell.reliability]
        for row, cell in measured.items()
        if row in charts.RELIABILITY
    }
    reliable = charts.curves(lines, "mean probability", "share referable", dots=True)
    bars = charts.flips_chart(list(_bars(ROWS, result.cells)))
    drawn = (("square", "ROC curves, referable", roc), ("square", "Reliability", reliable))
    figures = "".join(
        f'<figure class="{kind}"><figcaption>{caption}</figcaption>{chart}</figure>'
        for kind, caption, chart in (*drawn, ("bars", "Flipped referable decisions", bars))
    )
    key = escape(result.camera.key)
    return (
        f'<h2 id="{key}">{key}</h2><p class="soft">{escape(parameters)}</p>'
        f'<div class="charts">{figures}</div><div>{charts.legend({row: ROWS[row] for row in measured})}</div>'
        f"{_tables(ROWS, result.cells)}{_montages(result)}"
    )


def _bars(
    rows: Mapping[str, str], cells: Mapping[str, Cell | Absent]
) -> Iterable[tuple[str, str, float, float, float]]:
    for row, label in rows.items():
        cell = cells.get(row)
        if isinstance(cell, Cell) and not row.startswith(ORACLE):
            flips = cell.figures["flipped"]
            yield row, label, flips.value, *flips.interval


def _tables(rows: Mapping[str, str], cells: Mapping[str, Cell | Absent]) -> str:
    """Two tables: what was decided, and what became of the picture."""
    names = list(FIGURES)
    first = names.index(_PICTURE)
    captions = ("Decisions at the bundle's fixed threshold", "Pictures, lesions and components")
    return "".join(
        f"<h3>{caption}</h3>{_table(rows, cells, part)}"
        for caption, part in zip(captions, (names[:first], names[first:]), strict=True)
    )


def _table(rows: Mapping[str, str], cells: Mapping[str, Cell | Absent], names: Sequence[str]) -> str:
    head = "".join(
        f'<th title="{escape(FIGURES[name].meaning)}">{escape(FIGURES[name].heading)}</th>' for name in names
    )
    lines = []
    for row, label in rows.items():
        cell = cells.get(row)
        kind = "ours" if row == OURS else "oracle" if row.startswith(ORACLE) else ""
        if isinstance(cell, Cell):
            body = "".join(_figure_cell(name, cell.figures.get(name)) for name in names)
        else:
            reason = "not run" if cell is None else f"not run: {cell.reason}"
            body = f'<td class="absent" colspan="{len(names)}">{escape(reason)}</td>'
        lines.append(f'<tr class="{kind}"><td>{escape(label)}</td>{body}</tr>')
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'


def _figure_cell(name: str, estimate: Estimate | None) -> str:
    figure = FIGURES[name]
    return f"<td>{figure.text(estimate)}<small>{figure.interval(estimate)}</small></td>"


def _montages(result: CameraResult) -> str:
    """Whole photographs and, below each, a detail at full resolution; the same place in every row."""
    parts = []
    for exhibit in result.exhibits:
        shown = {row: exhibit.pictures[row] for row in _MONTAGE if row in exhibit.pictures}
        whole = [
            f"<figure><figcaption>{escape(_MONTAGE[row])}</figcaption>"
            f'<img alt="{escape(ROWS[row])}" src="{charts.thumbnail(picture, 2 * _CROP)}"></figure>'
            for row, picture in shown.items()
        ]
        details = [
            f'<figure><img alt="detail" src="{charts.detail(picture, exhibit.centre, _CROP)}"></figure>'
            for picture in shown.values()
        ]
        columns = f"grid-template-columns: repeat({len(shown)}, 148px)"
        parts.append(
            f"<h3>{escape(exhibit.name)}, grade {exhibit.grade}: whole, and a detail pixel by pixel</h3>"
            f'<div class="montage" style="{columns}">{"".join(whole)}{"".join(details)}</div>'
        )
    return "".join(parts)


def _cost_note(facts: Facts) -> str:
    return (
        f"Median milliseconds a picture on the CPU with {facts.threads} threads a graph "
        f"({facts.environment.get('machine', 'unknown machine')}), all timed in turn in one run, over "
        f"{facts.config['timing_rounds']} rounds. Graphs run in ONNX Runtime, training-free methods in NumPy "
        "and OpenCV. Cost is not reproducible to the digit; all other figures are."
    )


def _cost_table(benchmark: Benchmark) -> str:
    yardstick = benchmark.ms.get(YARDSTICK, math.nan)
    head = "<tr><th></th><th>ms a picture</th><th>of EfficientNet-B0</th></tr>"
    names = {**ROWS, "classifier": "Classifier", YARDSTICK: "EfficientNet-B0 (random weights)"}
    return head + "".join(
        f'<tr class="{"ours" if row == OURS else ""}"><td>{escape(names[row])}</td>'
        f"<td>{ms:.1f}</td><td>{ms / yardstick:.2f}</td></tr>"
        for row, ms in benchmark.ms.items()
    )
