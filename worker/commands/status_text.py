"""`status` for people: readable in 80 columns, identifiers on lines of their own to be copied."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.commands.options import stdout
from worker.commands.status import waiting
from worker.commands.wording import age, many, moment, since, size

_EXAMPLES = 3
_FAR_DAYS = 365
_FAILURES = {
    "image_refused": "images refused",
    "study_withheld": "studies withheld",
    "study_overdue": "studies without a complete report at the deadline",
    "report_failing": "studies whose report fails again and again",
    "delivery_dead": "reports given up on",
    "delivery_overdue": "reports overdue",
    "document_failed": "pages and lesion maps that could not be made",
}
_TOTALS = (
    ("images", "instances", ("ANALYSED", "REFUSED", "RECEIVED")),
    ("studies", "studies", ("OPEN", "CLOSED")),
    ("reports", "reports", ("WRITTEN", "PENDING", "SUPERSEDED")),
)


def show(report: dict[str, Any]) -> None:
    """Print the report that `status.collect` returns."""
    at: datetime = report["at"]
    _line(f"{report['listener']['ae_title']}, {moment(at)}", "bold")
    if not report["attention"]:
        _line("all is well: nothing needs a person", "green")
    for problem in report["attention"]:
        _prose(f"! {problem}", "bold red")
    _show_installation(report)
    _show_processes(report["processes"], at)
    _show_waiting(report["backlog"])
    _show_destinations(report["destinations"], at)
    _show_rejections(report["rejections_24h"], at)
    _show_failures(report["failure_groups"], report["failures"], at)


def _show_installation(report: dict[str, Any]) -> None:
    bundle, disk, listener = report["bundle"], report["disk"], report["listener"]
    _title("Installation")
    _line(f"  listener  {listener['ae_title']} at {listener['host']}:{listener['port']}")
    for each in report["callers"]:
        _prose(f"caller    {each['text']}", indent=2)
    others = "everybody" if "*" in report["other_callers"] else ", ".join(report["other_callers"]) or "nobody"
    _line(f"  callers   {others}{' else' if report['callers'] else ''} may send from anywhere")
    if bundle is None:
        _line("  bundle    none yet: no process has started")
    else:
        engine = f" on {bundle['engine']}" if bundle["engine"] else ""
        _line(
            f"  bundle    {bundle['bundle_id']} {bundle['version']}{engine}, digest {bundle['digest'][:12]}"
        )
    _line(f"  data      {disk['folder']}")
    _line(f"  used      {_used(disk)}")
    _line(f"  disk      {_disk(disk)}", "bold red" if disk["reserve_reached"] else "")
    for each in report["certificates"]:
        ends = "cannot be read" if each["expires_at"] is None else f"good until {each['expires_at']:%Y-%m-%d}"
        _line(f"  tls       {each['path']} {ends}", "bold red" if each["problem"] else "")
    for noun, table, states in _TOTALS:
        counts = {state: report["totals"].get(f"{table}.{state}", 0) for state in states}
        figures = ", ".join(f"{count} {state.lower()}" for state, count in counts.items() if count)
        _line(f"  {noun:<9} {figures or 'none yet'}")


def _disk(disk: dict[str, Any]) -> str:
    text = f"{size(disk['free_bytes'])} free"
    if disk["reserve_reached"]:
        return f"{text}: below the reserve of {size(disk['reserve_bytes'])}, senders are refused"
    text += f"; senders are refused below {size(disk['reserve_bytes'])}"
    days = disk["days_until_reserve"]
    if days is not None and days < _FAR_DAYS:
        text += f", in {age(days * 86_400)} at this pace"
    return text


def _used(disk: dict[str, Any]) -> str:
    """What the data folder takes and how it grows."""
    growth = disk["growth_bytes_per_day"]
    text = f"{size(disk['used_bytes'])} by the data folder"
    if growth is None:
        return f"{text}; growth unknown: less than a day of history"
    if growth <= 0:
        return f"{text}, not growing over the last {disk['growth_over_days']:g} d"
    return f"{text}, {size(growth)} more a day over the last {disk['growth_over_days']:g} d"


def _show_processes(processes: list[dict[str, Any]], at: datetime) -> None:
    if not processes:
        _title("Processes", "none runs")
        return
    _title("Processes")
    table = _table("role", "host", "pid", "up for", "last seen")
    for each in processes:
        silent_s = (at - each["seen_at"]).total_seconds()
        note = ", dead?" if each["silent"] else ", takes no images" if each["superseded"] else ""
        up_s = (at - each["started_at"]).total_seconds()
        table.add_row(each["role"], each["host"], str(each["pid"]), age(up_s), f"{age(silent_s)} ago{note}")
    _print(table)


def _show_waiting(backlog: list[dict[str, Any]]) -> None:
    if not backlog:
        _title("Waiting", "nothing")
        return
    _title("Waiting")
    table = _table("what", "how many", "oldest")
    for each in backlog:
        table.add_row(waiting(each), str(each["items"]), age(each["oldest_age_s"]))
    _print(table)


def _show_destinations(destinations: list[dict[str, Any]], at: datetime) -> None:
    if not destinations:
        _title("Destinations", "none configured, reports stay in the data folder")
        return
    _title("Destinations")
    for each in destinations:
        counts = f"{each['delivered']} delivered, {each['pending']} waiting, {each['dead']} given up"
        _line(f"  {each['destination']} ({each['address'] or 'not in the configuration'}): {counts}")
        if each.get("forms"):
            forms = ", ".join(f"{count} as {name}" for name, count in sorted(each["forms"].items()))
            beside = each["documents_delivered"]
            more = f"; {many(beside, 'page or picture', 'pages and pictures')} beside them" if beside else ""
            _line(f"    current reports: {forms}{more}")
        if each.get("last_accepted_at"):
            _line(f"    last accepted {since(each['last_accepted_at'], at)}")
        if each["pending"] and each.get("reason_code"):
            next_s = (each["next_attempt_at"] - at).total_seconds()
            when = f"again in {age(next_s)}" if next_s > 0 else "due now"
            _line(
                f"    {each['reason_code']}, oldest since {since(each['waiting_since'], at)}, {when}",
                "yellow",
            )
            _remedy(each)


def _show_rejections(rejections: list[dict[str, Any]], at: datetime) -> None:
    if not rejections:
        _title("Turned away at the door in the last 24 h", "nothing")
        return
    _title("Turned away at the door in the last 24 h")
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for each in rejections:
        by_reason.setdefault(each["reason_code"], []).append(each)
    for code, rows in by_reason.items():
        newest = max(row["last_at"] for row in rows)
        count = sum(row["count"] for row in rows)
        _line(f"  {count} x {code}, last {since(newest, at)}")
        callers = [f"{row['calling_ae'] or '(no AE title)'} at {row['peer_host']}" for row in rows]
        more = f" and {len(callers) - _EXAMPLES} more" if len(callers) > _EXAMPLES else ""
        _prose(f"from {', '.join(callers[:_EXAMPLES])}{more}", indent=4)
        _remedy(rows[0])


def _show_failures(groups: list[dict[str, Any]], failures: list[dict[str, Any]], at: datetime) -> None:
    if not groups:
        _title("Failures", "none")
        return
    _title("Failures")
    for group in groups:
        what = _FAILURES.get(group["kind"], group["kind"])
        to = f" to {group['destination']}" if group["destination"] else ""
        reason = f", {group['reason_code']}" if group["reason_code"] else ""
        note = "" if group["needs_person"] == group["items"] else _note(group)
        _line(f"  {what}{to}: {group['items']}{reason}{note}", "bold" if group["needs_person"] else "")
        _remedy(group)
        if group["kind"] == "delivery_dead":
            _prose(
                f"once mended: fundus-worker requeue --dead --destination {group['destination']}", indent=4
            )
        if group["kind"] == "document_failed":
            _prose("once mended: fundus-worker requeue --documents", indent=4)
        key = (group["kind"], group["reason_code"], group["destination"])
        same = [each for each in failures if (each["kind"], each["reason_code"], each["destination"]) == key]
        for each in same[:_EXAMPLES] if group["needs_person"] else ():
            _show_failure(each, at)
        if group["needs_person"] and group["items"] > _EXAMPLES:
            _line(f"    … {group['items']} in all: see the view v_failures")


def _note(group: dict[str, Any]) -> str:
    if group["needs_person"]:
        return f" ({many(group['needs_person'], 'recent one', 'recent ones')})"
    return " (nothing to do)" if group["recent"] else " (long ago)"


def _show_failure(failure: dict[str, Any], at: datetime) -> None:
    accession = f", accession number {failure['accession_number']}" if failure["accession_number"] else ""
    _line(f"    - {since(failure['since'], at)}{accession}")
    _line(f"      study  {failure['study_instance_uid']}")
    if failure["sop_instance_uid"]:
        noun = "report" if failure["kind"].startswith("delivery_") else "image"
        _line(f"      {noun:<6} {failure['sop_instance_uid']}")
    if failure["detail"]:
        _prose(str(failure["detail"]), indent=6)


def _remedy(row: dict[str, Any]) -> None:
    if row["remedy"]:
        _prose(row["remedy"], "italic", indent=4)


def _title(text: str, rest: str = "") -> None:
    stdout.print()
    stdout.print(Text.assemble((text, "bold"), f": {rest}" if rest else ""))


def _line(text: str, style: str = "") -> None:
    stdout.print(Text(text, style))


def _prose(text: str, style: str = "", indent: int = 0) -> None:
    """Text that is wrapped between words."""
    stdout.print(Padding(Text(text, style), (0, 0, 0, indent), expand=False), soft_wrap=False)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table) -> None:
    stdout.print(Padding(table, (0, 0, 0, 2), expand=False), soft_wrap=False)
