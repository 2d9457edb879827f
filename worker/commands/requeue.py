"""`requeue`: give refused images and dead deliveries another chance, once the cause is mended."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.commands.options import ConfigOption, explained, settings_of, stdout
from worker.runtime import open_database
from worker.store import deliveries, images, overview, studies


@explained
def requeue(  # noqa: PLR0917 - typer makes options of them, nobody passes them by position
    config: ConfigOption = None,
    refused: Annotated[bool, typer.Option("--refused", help="Refused images: analyse them again.")] = False,
    dead: Annotated[bool, typer.Option("--dead", help="Dead deliveries: send them again.")] = False,
    reason: Annotated[
        str | None, typer.Option(help="Only refused images with this reason code, e.g. INTERNAL_ERROR.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only this study instance UID.")] = None,
    image: Annotated[str | None, typer.Option(help="Only this SOP instance UID.")] = None,
    destination: Annotated[str | None, typer.Option(help="Only dead deliveries to this destination.")] = None,
) -> None:
    """Give refused images and dead deliveries another chance, with fresh attempts.

    Examples: `requeue --dead --destination pacs` after the PACS was mended; `requeue --refused --reason
    INTERNAL_ERROR` after an upgrade. A running process takes them up at its next sweep.
    """
    if not (refused or dead):
        raise typer.BadParameter("say --refused, --dead, or both")
    database = open_database(settings_of(config))
    try:
        if refused:
            found = database.read(
                overview.refused_instances,
                sop_instance_uid=image,
                reason_code=reason,
                study_instance_uid=study,
            )
            count = database.write(images.requeue, [instance for instance, _ in found])
            database.write(studies.reopen_for_report, sorted({study_id for _, study_id in found}))
            stdout.print(f"{count} refused image{'' if count == 1 else 's'} will be analysed again")
        if dead:
            ids = database.read(overview.dead_deliveries, destination=destination, study_instance_uid=study)
            count = database.write(deliveries.requeue, ids)
            stdout.print(f"{count} dead deliver{'y' if count == 1 else 'ies'} will be sent again")
    finally:
        database.close()
