"""`purge`: remove files whose time is over, by age and by state; rows of results stay."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    JsonOption,
    cannot_run,
    explained,
    settings_of,
    stdout,
)
from worker.commands.wording import many, moment, size

if TYPE_CHECKING:
    from worker.retention import Group, Removed
    from worker.settings import Settings
    from worker.store.disposable import Rule
    from worker.transactions import Database

_SECONDS = {"h": 3_600.0, "d": 86_400.0}
_OLDEST_S = 36_500 * _SECONDS["d"]
_NAMES = {
    "IMAGE": ("image", "images"),
    "REPORT": ("report", "reports"),
    "QUARANTINE": ("quarantined file", "quarantined files"),
    "LEFTOVER": ("leftover report file", "leftover report files"),
    "associations": ("row of an ended association", "rows of ended associations"),
    "rejections": ("row of what was turned away", "rows of what was turned away"),
}
_ROW_STATES = ("ANALYSED", "REFUSED", "WRITTEN", "SUPERSEDED")
_STANDINGS = ("DELIVERED", "DEAD", "UNSENT")


@explained
def purge(  # noqa: PLR0917 - typer makes options of them, nobody passes them by position
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE",
            help="How old at least: 90d, 36h. Counts from when an image was received, a report written, a "
            "conflict resolved, a caller turned away.",
        ),
    ],
    config: ConfigOption = None,
    images: Annotated[bool, typer.Option("--images", help="Files of received images.")] = False,
    reports: Annotated[
        bool,
        typer.Option("--reports", help="Files of reports, and what abandoned attempts at a report left."),
    ] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Files set aside in UID conflicts that were resolved.")
    ] = False,
    door: Annotated[
        bool,
        typer.Option("--door", help="Rows of ended associations and of what was turned away at the door."),
    ] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="Only these; may be given several times. Of images: ANALYSED, REFUSED. Of reports: WRITTEN, "
            "SUPERSEDED. Of their study's report: DELIVERED (the only one unless you say so), DEAD (given up "
            "on), UNSENT (written under --no-delivery).",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove files whose time is over, by age and by state. Findings, reports' rows and deliveries stay.

    Look first, then do it:

    fundus-worker purge -c fundus.toml --images --older-than 90d --dry-run

    fundus-worker purge -c fundus.toml --images --older-than 90d

    fundus-worker purge -c fundus.toml --images --older-than 30d --state REFUSED --state DELIVERED

    A file goes only when its study's report was accepted by every destination and nothing of the study is in
    work: received and not analysed, open, claimed, waiting to be sent, withheld. `--state DEAD` lets files go
    whose report no destination would take; requeue cannot send that report any more then.

    It may run beside `serve` and be killed at any point: run it again, or leave it to the sweep. What went is
    in v_removed_files. `[retention]` in the configuration does the same by itself.

    Exit status 1 when a file could not be removed; the others are.
    """
    kinds = {"IMAGE": images, "REPORT": reports, "QUARANTINE": quarantine}
    if not (door or any(kinds.values())):
        raise typer.BadParameter("say what: --images, --reports, --quarantine, --door, or several")
    age_s = _seconds(older_than)
    rules = _rules([kind for kind, wanted in kinds.items() if wanted], age_s, state or [])
    settings = settings_of(config, quiet=True)
    if dry_run:
        _show_preview(*_preview(settings, rules, age_s, leftovers=reports, door=door), as_json=as_json)
    else:
        removed, rows = _remove(settings, rules, age_s, leftovers=reports, door=door)
        _show_removed(removed, rows, as_json=as_json)
        if removed.stuck:
            raise typer.Exit(NEEDS_ATTENTION)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([dh])", text.strip().lower())
    if found is None or float(found[1]) <= 0:
        raise typer.BadParameter(
            f"{text!r} is no age: write days or hours, such as 90d or 36h", param_hint="--older-than"
        )
    age_s = float(found[1]) * _SECONDS[found[2]]
    if age_s > _OLDEST_S:
        raise typer.BadParameter(f"{text!r} is more than 100 years", param_hint="--older-than")
    return age_s


def _rules(kinds: Sequence[str], age_s: float, states: Sequence[str]) -> list[Rule]:
    """One rule a kind; of the two groups of states, one of which none is named is at its default."""
    from worker.store.disposable import STATES, Kind, Rule, Standing

    named = [each.upper() for each in states]
    for each in named:
        if each not in (*_ROW_STATES, *_STANDINGS):
            raise typer.BadParameter(
                f"{each} is no state whose files can go; there are {', '.join((*_ROW_STATES, *_STANDINGS))}",
                param_hint="--state",
            )
    standings = tuple(Standing(each) for each in named if each in _STANDINGS) or (Standing.DELIVERED,)
    rows = [each for each in named if each in _ROW_STATES]
    rules = []
    for kind in (Kind(each) for each in kinds):
        chosen = tuple(each for each in STATES[kind] if each in rows or not rows or kind is Kind.QUARANTINE)
        if chosen:
            rules.append(Rule(kind, age_s, tuple(str(each) for each in chosen), standings))
    if kinds and not rules:
        raise typer.BadParameter(
            "no file of these kinds is in such a state: ANALYSED and REFUSED go with --images, WRITTEN and "
            "SUPERSEDED with --reports",
            param_hint="--state",
        )
    return rules


def _namespace(database: Database) -> Any:
    from worker.store import installation

    namespace = database.read(installation.known_namespace)
    if namespace is None:
        raise cannot_run("no process has started on this database yet, so there is nothing to remove")
    return namespace


def _preview(
    settings: Settings, rules: Sequence[Rule], age_s: float, *, leftovers: bool, door: bool
) -> tuple[list[Group], dict[str, int]]:
    from worker.commands.looking import existing_database
    from worker.retention import preview, preview_leftovers
    from worker.spool_files import own_files
    from worker.store import keeping

    with existing_database(settings) as database:
        groups: list[Group] = []
        if rules:
            files = own_files(settings, _namespace(database))
            groups = preview(database, files, rules)
            if leftovers:
                groups += preview_leftovers(database, files.spool, age_s)
        return groups, database.read(keeping.count_door, age_s) if door else {}


def _remove(
    settings: Settings, rules: Sequence[Rule], age_s: float, *, leftovers: bool, door: bool
) -> tuple[Removed, dict[str, int]]:
    from worker import retention
    from worker.commands.looking import existing_database
    from worker.forgetting import forget_door
    from worker.spool_files import own_files

    with existing_database(settings) as database:
        removed = retention.Removed()
        if rules:
            files = own_files(settings, _namespace(database))
            removed = retention.purge(database, files, rules)
            if leftovers:
                retention.remove_leftovers(database, files.spool, age_s, removed)
        return removed, forget_door(database, age_s) if door else {}


def _show_preview(groups: Sequence[Group], rows: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        found = [asdict(each) for each in groups]
        typer.echo(json.dumps({"dry_run": True, "files": found, "rows": rows}, default=_json_value))
        return
    for each in groups:
        state = "" if each.state == "-" else f" {each.state}, report {each.standing}"
        stdout.print(
            f"{many(each.files, *_NAMES[each.kind])}{state}: {size(each.size_bytes)}, "
            f"{moment(each.oldest)} to {moment(each.newest)}"
        )
    for kind, count in rows.items():
        stdout.print(many(count, *_NAMES[kind]))
    files, size_bytes = sum(each.files for each in groups), sum(each.size_bytes for each in groups)
    stdout.print(f"would remove {many(files, 'file')}, {size(size_bytes)}; nothing was changed")


def _show_removed(removed: Removed, rows: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        found = {
            kind: {"files": count, "size_bytes": removed.size_bytes[kind]}
            for kind, count in removed.files.items()
        }
        typer.echo(json.dumps({"dry_run": False, "files": found, "rows": rows, "stuck": removed.stuck}))
        return
    for kind, count in sorted(removed.files.items()):
        stdout.print(f"{many(count, *_NAMES[kind])} removed: {size(removed.size_bytes[kind])}")
    for kind, count in rows.items():
        stdout.print(f"{many(count, *_NAMES[kind])} deleted")
    if removed.stuck:
        stdout.print(
            f"files of {many(removed.stuck, 'study', 'studies')} could not be removed, the log above names "
            "them: see to their permissions and run it again, or leave it to the sweep"
        )
    if not removed.files and not removed.stuck and not any(rows.values()):
        stdout.print("nothing was removed: nothing is old enough, or what is old was not delivered")


def _json_value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
