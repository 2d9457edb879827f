"""The benchmark on a terminal: the average over cameras, flips by camera, and the verdict."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.training.benchmark.graphs import OURS, Absent
from models.training.benchmark.report import row_label
from models.training.benchmark.results import FIGURES, ROWS, Benchmark, Cell
from models.training.benchmark.verdict import checks, paragraph

_SHOWN = ("auc", "recovered", "sensitivity", "specificity", "flipped", "graded", "psnr", "ssim")


def show(benchmark: Benchmark, console: Console) -> None:
    """Print tables and verdict."""
    console.print(average_table(benchmark))
    console.print(flips_table(benchmark))
    points = checks(benchmark)
    for point in points:
        word, style = {True: ("met", "green"), False: ("missed", "red"), None: ("not measured", "yellow")}[
            point.met
        ]
        console.print(Text(f"{word:<13}", style), Text(f"{point.asked}: {point.found}"))
    console.print(Text(paragraph(benchmark, points)))


def average_table(benchmark: Benchmark) -> Table:
    """Means over the cameras, a row a method."""
    table = Table(title="Average over cameras")
    table.add_column("", no_wrap=True)
    for name in _SHOWN:
        table.add_column(FIGURES[name].heading, justify="right")
    table.add_column("ms", justify="right")
    for row in ROWS:
        if not benchmark.measured(row):
            table.add_row(ROWS[row], *(["not run"] + ["-"] * len(_SHOWN)), style="dim")
            continue
        cells = [FIGURES[name].text(benchmark.averaged(row, name)) for name in _SHOWN]
        cost = f"{benchmark.ms[row]:.0f}" if row in benchmark.ms else "-"
        table.add_row(row_label(benchmark, row), *cells, cost, style="bold" if row == OURS else None)
    for name in ("classifier", "efficientnet-b0"):
        if name in benchmark.ms:
            table.add_row(name, *["-"] * len(_SHOWN), f"{benchmark.ms[name]:.0f}", style="dim")
    return table


def flips_table(benchmark: Benchmark) -> Table:
    """Flipped decisions with their intervals, a column a camera."""
    table = Table(title="Flipped referable decisions (95 % interval)")
    table.add_column("", no_wrap=True)
    for camera in benchmark.cameras:
        table.add_column(camera.camera.name, justify="right")
    for row, label in ROWS.items():
        cells = [_flips(camera.cells.get(row)) for camera in benchmark.cameras]
        table.add_row(label, *cells, style="bold" if row == OURS else None)
    return table


def _flips(cell: Cell | Absent | None) -> str:
    if not isinstance(cell, Cell):
        return "not run"
    low, high = cell.figures["flipped"].interval
    return f"{cell.figures['flipped'].value:.1%} ({low:.0%}-{high:.0%})"
