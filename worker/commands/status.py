"""`status`: what waits, what failed, who runs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import typer
from rich.table import Table

from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    JsonOption,
    explained,
    settings_of,
    stdout,
)
from worker.reasons import REASONS
from worker.runtime import open_database
from worker.store import overview

_SHOWN = 20


@explained
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what waits, what needs a person, and which processes run.

    Exit status 1 when something needs a person. The same figures are in SQL: v_backlog, v_failures,
    v_rejections, v_deliveries.
    """
    database = open_database(settings_of(config))
    try:
        report: dict[str, Any] = {
            "processes": database.read(overview.processes),
            "totals": database.read(overview.totals),
            "backlog": database.read(overview.backlog),
            "failure_count": database.read(overview.failure_count),
            "failures": database.read(overview.failures, _SHOWN),
            "rejections_24h": database.read(overview.rejections, 24.0),
        }
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps(report, default=str, indent=2))
    else:
        _show(report)
    if report["failure_count"]:
        raise typer.Exit(NEEDS_ATTENTION)


def _show(report: dict[str, Any]) -> None:
    _table("Processes", report["processes"], "none is running: start `fundus-worker serve`")
    totals = [{"what": key, "count": count} for key, count in sorted(report["totals"].items())]
    _table("Totals", totals, "nothing has been received yet")
    _table("Waiting", report["backlog"], "nothing waits")
    _table("Turned away in the last 24 hours", report["rejections_24h"], "nothing was turned away")
    failures = [{**each, "remedy": _remedy(each.get("reason_code"))} for each in report["failures"]]
    _table("Needs a person", failures, "nothing needs a person")
    if report["failure_count"] > len(failures):
        more = report["failure_count"] - len(failures)
        stdout.print(f"… and {more} more: see the view v_failures")


def _readable(value: object) -> str:
    """Show times to the second, and figures without a tail of digits."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, float):
        return f"{value:.1f}"
    return "" if value is None else str(value)


def _remedy(code: object) -> str:
    known = REASONS.get(str(code))
    return "" if known is None else known.remedy


def _table(title: str, rows: list[dict[str, Any]], empty: str) -> None:
    if not rows:
        stdout.print(f"[bold]{title}[/]: {empty}")
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_readable(value) for value in row.values()))
    stdout.print(table)
