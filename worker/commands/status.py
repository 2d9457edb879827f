"""`status`: what waits, what failed, who runs, and whether a person has to do anything."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.disk import GROWTH_DAYS, disk
from worker.commands.options import NEEDS_ATTENTION, ConfigOption, JsonOption, explained, settings_of
from worker.commands.wording import age, many, size

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from worker.settings import Settings

WAITING = {
    "images_waiting": "images to analyse",
    "images_claimed": "images being analysed",
    "images_claim_overdue": "images whose worker is gone",
    "studies_open": "studies that may get more images",
    "studies_unreported": "studies to report",
    "deliveries_pending": "reports to deliver",
}
"""The kinds of `v_backlog` in words."""
_SHOWN = 50
_SILENT_S = 60.0
_LATE_S = 900.0
"""Whatever waits longer is late; a study stays open by the configuration's will, and is not."""
_DAY_H = 24.0
_SETTLED = frozenset({"NOT_COLOUR", "NOT_A_FUNDUS_PHOTOGRAPH", "CAMERA_REFUSED"})
"""Refusals that are this program's answer to what was sent, or the configuration's: nothing is to be done."""


@explained
def status(
    config: ConfigOption = None,
    days: Annotated[
        int, typer.Option(min=1, help="Images refused, or studies emptied, longer ago need nobody any more.")
    ] = 7,
    as_json: JsonOption = False,
) -> None:
    """Show what waits, what needs a person and why, and which processes run. It alters nothing.

    fundus-worker status --config fundus.toml

    fundus-worker status --config fundus.toml --json

    Times are UTC. The same figures are in SQL: v_backlog, v_failures, v_rejections, v_deliveries.

    Exit status 0 when all is well; 1 when something needs a person: a failure, no process, work that waits
    for more than 15 minutes, a full disk; 2 when the database cannot be read.
    """
    settings = settings_of(config, quiet=True)
    report = collect(settings, days)
    if as_json:
        typer.echo(json.dumps(report, default=_json_value, indent=2))
    else:
        from worker.commands.status_text import show

        show(report)
    if report["attention"]:
        raise typer.Exit(NEEDS_ATTENTION)


def collect(settings: Settings, days: int) -> dict[str, Any]:
    """Return everything that `status` shows, as what `--json` prints.

    Raises:
        DatabaseError: There is no database, or it cannot be read.
    """
    from worker.commands.looking import existing_database
    from worker.door_settings import allowed_callers, caller_text, certificates

    with existing_database(settings) as database:
        report = database.read(_read, days)
    listener = settings.listener
    report["listener"] = {"ae_title": listener.ae_title, "host": listener.host, "port": listener.port}
    report["callers"] = [
        {**each.model_dump(mode="json"), "text": caller_text(each)} for each in settings.callers
    ]
    report["other_callers"] = list(allowed_callers(settings))
    _mark_silent(report, max(_SILENT_S, 3 * settings.jobs.sweep_interval_s))
    report["certificates"] = [vars(each) for each in certificates(settings, report["at"])]
    report["disk"] = disk(settings, report.pop("disk_history"))
    report["destinations"] = _with_configured(settings, report["destinations"])
    _add_remedies(report)
    report["attention"] = _attention(report)
    return report


def _read(tx: Connection, days: int) -> dict[str, Any]:
    from worker.store import overview
    from worker.store.clock import now

    return {
        "at": now(tx),
        "bundle": overview.active_bundle(tx),
        "processes": overview.processes(tx),
        "totals": overview.totals(tx),
        "backlog": overview.backlog(tx),
        "destinations": overview.destinations(tx),
        "rejections_24h": overview.rejections(tx, _DAY_H),
        "failure_groups": overview.failure_groups(tx, days),
        "failures": overview.failures(tx, _SHOWN),
        "disk_history": overview.disk_history(tx, GROWTH_DAYS),
    }


def _mark_silent(report: dict[str, Any], silent_s: float) -> None:
    """A process that was killed says no good-bye; the next one that sweeps buries it."""
    for each in report["processes"]:
        unseen_s = (report["at"] - each["seen_at"]).total_seconds()
        each["silent"] = unseen_s > silent_s or _gone(each["host"], each["pid"])


def _gone(host: str, pid: int) -> bool:
    """Whether a process that should be on this machine is not."""
    if host != socket.gethostname()[:64]:  # as the row has it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's, so it is there
    return False


def waiting(row: Mapping[str, Any]) -> str:
    """A row of `v_backlog` in words: "reports to deliver to pacs"."""
    to = f" to {row['destination']}" if row["destination"] else ""
    return f"{WAITING.get(row['kind'], row['kind'])}{to}"


def _with_configured(settings: Settings, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows by destination, with addresses; configured ones that nothing was sent to included."""
    rows = {each["destination"]: each for each in found}
    nothing = {"pending": 0, "delivered": 0, "dead": 0}
    result = []
    for each in settings.destinations:
        address = f"{each.ae_title} at {each.host}:{each.port}"
        known = {"destination": each.name, "configured": True, "address": address}
        result.append({**known, **nothing, **rows.pop(each.name, {})})
    return [*result, *({"configured": False, "address": None, **each} for each in rows.values())]


def _add_remedies(report: dict[str, Any]) -> None:
    from worker.reasons import REASONS

    for rows in ("failure_groups", "failures", "rejections_24h", "destinations"):
        for row in report[rows]:
            known = REASONS.get(str(row.get("reason_code")))
            row["remedy"] = None if known is None else known.remedy
    for group in report["failure_groups"]:
        settled = group["kind"] == "image_refused" and group["reason_code"] in _SETTLED
        group["needs_person"] = 0 if settled else group["recent"]


def _attention(report: dict[str, Any]) -> list[str]:
    """What a person has to see to, a sentence each; empty: all is well."""
    problems = []
    space = report["disk"]
    if space["reserve_reached"]:
        problems.append(
            f"the disk reserve of {size(space['reserve_bytes'])} is reached, senders are refused: free space "
            f"under {space['folder']} (`fundus-worker purge`), or lower [spool] reserve_mb"
        )
    problems += [each["problem"] for each in report["certificates"] if each["problem"]]
    if all(each["silent"] for each in report["processes"]):
        problems.append("no process runs, so nothing is received or delivered: start `fundus-worker serve`")
    problems += [
        f"process {each['pid']} on {each['host']} ({each['role']}) takes no images: another with other "
        "models started later; stop it, or start it anew for its own models to be the active ones"
        for each in report["processes"]
        if each["superseded"] and not each["silent"]
    ]
    problems += [
        f"{waiting(each)}: {each['items']}, the oldest for {age(each['oldest_age_s'])}; see below and the log"
        for each in report["backlog"]
        if each["kind"] != "studies_open" and (each["oldest_age_s"] or 0) > _LATE_S
    ]
    if count := sum(group["needs_person"] for group in report["failure_groups"]):
        problems.append(f"{many(count, 'failure')} to look into, listed below")
    problems += [
        f"{many(each['pending'], 'report')} for {each['destination']!r}, which is not in the configuration: "
        "add its [[destination]] again"
        for each in report["destinations"]
        if each["pending"] and not each["configured"]
    ]
    return problems


def _json_value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
