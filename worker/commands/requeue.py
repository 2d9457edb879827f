"""`requeue`: give refused images, failed documents, dead deliveries and conflicts another chance."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
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
    documents: Annotated[
        bool, typer.Option("--documents", help="Pages and lesion maps that could not be made: make them.")
    ] = False,
    conflict: Annotated[
        bool,
        typer.Option(
            "--conflict",
            help="Images with UID_CONFLICT: the file that came first counts. Say which: --image or --study.",
        ),
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Only refused images with this reason code, e.g. INTERNAL_ERROR.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only this Study Instance UID.")] = None,
    image: Annotated[
        str | None, typer.Option(help="Only the image of this SOP Instance UID, refused or in conflict.")
    ] = None,
    destination: Annotated[str | None, typer.Option(help="Only dead deliveries to this destination.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many, change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give what was refused, failed or is in conflict another chance, with fresh attempts.

    Examples, once the cause that `status` names is mended:

    fundus-worker requeue -c fundus.toml --dead --destination pacs

    fundus-worker requeue -c fundus.toml --refused --reason INTERNAL_ERROR --dry-run

    fundus-worker requeue -c fundus.toml --conflict --image 1.2.3.4

    A running process takes them up at its next sweep. Their studies are reported anew. The second file of a
    conflict stays in quarantine; its sender has to send it under a SOP Instance UID of its own.
    """
    if conflict:
        others = refused or dead or documents or bool(reason or destination)
        _check_conflict(others=others, chosen=bool(image or study))
    elif refused or dead or not documents:
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
    if conflict:
        done["conflict"] = _resolve(settings, study, image, dry_run)
    if refused:
        done["refused"] = _requeue_refused(settings, reason, study, image, dry_run)
    if documents:
        done["documents"] = _requeue_documents(settings, study, dry_run)
    left: Counter[str] = Counter()
    purged = 0
    if dead:
        done["dead"], left, purged = _requeue_dead(settings, destination, study, known, dry_run)
    if as_json:
        alone = {"left_without_destination": dict(left), "left_without_file": purged}
        typer.echo(json.dumps({**done, **alone, "dry_run": dry_run}))
    else:
        _show(done, left, purged, dry_run)


def _check_choice(*, refused: bool, dead: bool, images_by: str | None, deliveries_by: str | None) -> None:
    """Refuse a choice that would do more than was meant."""
    if not (refused or dead):
        raise typer.BadParameter("say --refused, --dead, or both; or --conflict")
    if images_by and (dead or not refused):
        raise typer.BadParameter(
            "--reason and --image choose among refused images: use them with --refused only"
        )
    if deliveries_by and (refused or not dead):
        raise typer.BadParameter("--destination chooses among dead deliveries: use it with --dead only")


def _check_conflict(*, others: bool, chosen: bool) -> None:
    """A person decides on one image or one study, and on nothing else at once."""
    if others:
        raise typer.BadParameter(
            "--conflict decides which image is right: use it with --image or --study only"
        )
    if not chosen:
        raise typer.BadParameter("--conflict decides which image is right: say which with --image or --study")


def _check_reason(reason: str | None) -> None:
    from worker.reasons import REASONS

    if reason is not None and reason not in REASONS:
        near = difflib.get_close_matches(reason.upper(), REASONS, 1)
        hint = f"did you mean {near[0]}?" if near else "`fundus-worker status` shows those that occur"
        raise typer.BadParameter(f"{reason} is no reason code; {hint}", param_hint="--reason")


def _resolve(settings: Settings, study: str | None, image: str | None, dry_run: bool) -> int:
    """Let the file that came first count; return of how many images."""
    from worker.commands.looking import existing_database
    from worker.store import intake
    from worker.store.studies import ClosingPolicy

    closing = settings.study
    policy = ClosingPolicy(
        close_on=closing.close_on,
        quiet_s=closing.quiet_s,
        max_open_s=closing.max_open_s,
        report_deadline_s=closing.report_deadline_s,
        expected_images=closing.expected_images,
    )
    with existing_database(settings) as database:
        found = database.read(intake.conflicts, sop_instance_uid=image, study_instance_uid=study)
        if dry_run or not found:
            return len(found)
        return database.write(intake.keep_first, found, policy)


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


def _requeue_documents(settings: Settings, study: str | None, dry_run: bool) -> int:
    from worker.commands.looking import existing_database
    from worker.store import documents

    with existing_database(settings) as database:
        found = database.read(documents.failed_ids, study)
        return len(found) if dry_run or not found else database.write(documents.requeue, found)


def _requeue_dead(
    settings: Settings, destination: str | None, study: str | None, known: Sequence[str], dry_run: bool
) -> tuple[int, Counter[str], int]:
    """Return how many were requeued, were left as nobody knows their destination, or their file went."""
    from worker.commands.looking import existing_database
    from worker.store import deliveries, overview

    with existing_database(settings) as database:
        which = partial(overview.dead_deliveries, destination=destination, study_instance_uid=study)
        found = database.read(which)
        purged = len(database.read(which, kept=False))
        ids = [key for key, name in found if name in known]
        left = Counter(name for _, name in found if name not in known)
        if dry_run or not ids:
            return len(ids), left, purged
        return database.write(deliveries.requeue, ids), left, purged


def _show(done: dict[str, int], left: Counter[str], purged: int, dry_run: bool) -> None:
    would = "would" if dry_run else "will"
    if "conflict" in done:
        count = done["conflict"]
        what = f"the first file of {many(count, 'image')} in conflict {would} count"
        stdout.print(
            what if count else "no image in conflict matches; `fundus-worker status` shows what there is"
        )
    if "refused" in done:
        count = done["refused"]
        what = f"{many(count, 'refused image')} {would} be analysed again"
        stdout.print(
            what if count else "no refused image matches; `fundus-worker status` shows what there is"
        )
    if "documents" in done:
        stdout.print(
            f"{many(done['documents'], 'page or lesion map', 'pages and lesion maps')} {would} be made"
        )
    if "dead" in done:
        count = done["dead"]
        what = f"{many(count, 'dead delivery', 'dead deliveries')} {would} be sent again"
        nothing = "no dead delivery matches; `fundus-worker status` shows what there is"
        stdout.print(what if count or left or purged else nothing)
    if purged:
        stdout.print(
            f"{many(purged, 'dead delivery', 'dead deliveries')} left alone: its report's file was removed "
            "(`purge --state DEAD`); v_removed_files says when"
        )
    for name, count in sorted(left.items()):
        stdout.print(
            f"{many(count, 'dead delivery', 'dead deliveries')} to {name!r} left alone: the configuration "
            "has no [[destination]] of that name; add it again first",
            markup=False,
        )
