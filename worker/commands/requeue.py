"""`requeue`: give refused images and dead deliveries another chance, once the cause is mended."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.options import ConfigOption, JsonOption, cannot_run, explained, settings_of, stdout
from worker.commands.wording import many

if TYPE_CHECKING:
    from worker.settings import Settings


@explained
def requeue(  # noqa: PLR0917 - typer makes options of them, nobody passes them by position
    config: ConfigOption = None,
    refused: Annotated[bool, typer.Option("--refused", help="Refused images: analyse them again.")] = False,
    dead: Annotated[bool, typer.Option("--dead", help="Dead deliveries: send them again.")] = False,
    reason: Annotated[
        str | None, typer.Option(help="Only refused images with this reason code, e.g. INTERNAL_ERROR.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only this Study Instance UID.")] = None,
    image: Annotated[
        str | None, typer.Option(help="Only the refused image of this SOP Instance UID.")
    ] = None,
    destination: Annotated[str | None, typer.Option(help="Only dead deliveries to this destination.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many, change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give refused images and dead deliveries another chance, with fresh attempts.

    Examples, once the cause that `status` names is mended:

    fundus-worker requeue -c fundus.toml --dead --destination pacs

    fundus-worker requeue -c fundus.toml --refused --reason INTERNAL_ERROR --dry-run

    A running process takes them up at its next sweep. Studies of refused images are reported anew.
    """
    _check_choice(refused=refused, dead=dead, images_by=reason or image, deliveries_by=destination)
    _check_reason(reason)
    settings = settings_of(config, quiet=True)
    known = [each.name for each in settings.destinations]
    if destination is not None and destination not in known:
        raise cannot_run(
            f"destination {destination!r} is not in the configuration "
            f"({', '.join(known) or 'which has none'}); correct the name, or add its [[destination]] first"
        )
    done: dict[str, int] = {}
    if refused:
        done["refused"] = _requeue_refused(settings, reason, study, image, dry_run)
    left: Counter[str] = Counter()
    if dead:
        done["dead"], left = _requeue_dead(settings, destination, study, known, dry_run)
    if as_json:
        typer.echo(json.dumps({**done, "left_without_destination": dict(left), "dry_run": dry_run}))
    else:
        _show(done, left, dry_run)


def _check_choice(*, refused: bool, dead: bool, images_by: str | None, deliveries_by: str | None) -> None:
    """Refuse a choice that would do more than was meant."""
    if not (refused or dead):
        raise typer.BadParameter("say --refused, --dead, or both")
    if images_by and (dead or not refused):
        raise typer.BadParameter(
            "--reason and --image choose among refused images: use them with --refused only"
        )
    if deliveries_by and (refused or not dead):
        raise typer.BadParameter("--destination chooses among dead deliveries: use it with --dead only")


def _check_reason(reason: str | None) -> None:
    from worker.reasons import REASONS

    if reason is not None and reason not in REASONS:
        near = difflib.get_close_matches(reason.upper(), REASONS, 1)
        hint = f"did you mean {near[0]}?" if near else "`fundus-worker status` shows those that occur"
        raise typer.BadParameter(f"{reason} is no reason code; {hint}", param_hint="--reason")


def _requeue_refused(
    settings: Settings, reason: str | None, study: str | None, image: str | None, dry_run: bool
) -> int:
    from worker.commands.looking import existing_database
    from worker.store import images, overview

    with existing_database(settings) as database:
        found = database.read(
            overview.refused_instances, sop_instance_uid=image, reason_code=reason, study_instance_uid=study
        )
        if dry_run or not found:
            return len(found)
        return database.write(images.requeue, found, settings.study.report_deadline_s)


def _requeue_dead(
    settings: Settings, destination: str | None, study: str | None, known: Sequence[str], dry_run: bool
) -> tuple[int, Counter[str]]:
    """Return how many were requeued, and how many were left because nobody knows their destination."""
    from worker.commands.looking import existing_database
    from worker.store import deliveries, overview

    with existing_database(settings) as database:
        found = database.read(overview.dead_deliveries, destination=destination, study_instance_uid=study)
        ids = [key for key, name in found if name in known]
        left = Counter(name for _, name in found if name not in known)
        if dry_run or not ids:
            return len(ids), left
        return database.write(deliveries.requeue, ids), left


def _show(done: dict[str, int], left: Counter[str], dry_run: bool) -> None:
    would = "would" if dry_run else "will"
    if "refused" in done:
        count = done["refused"]
        what = f"{many(count, 'refused image')} {would} be analysed again"
        stdout.print(
            what if count else "no refused image matches; `fundus-worker status` shows what there is"
        )
    if "dead" in done:
        count = done["dead"]
        what = f"{many(count, 'dead delivery', 'dead deliveries')} {would} be sent again"
        nothing = "no dead delivery matches; `fundus-worker status` shows what there is"
        stdout.print(what if count or left else nothing)
    for name, count in sorted(left.items()):
        stdout.print(
            f"{many(count, 'dead delivery', 'dead deliveries')} to {name!r} left alone: the configuration "
            "has no [[destination]] of that name; add it again first",
            markup=False,
        )
