"""`export-training-set`: de-identified pictures of one camera, as `fundus-train adapter` reads them."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    JsonOption,
    cannot_run,
    explained,
    settings_of,
    stderr,
    stdout,
)
from worker.commands.wording import many

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.store.exporting import CameraStock, StoredImage
    from worker.training_export import Outcome
    from worker.training_set import ExportFolder

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_SAID = {
    "BURNED_IN_ANNOTATION": "The header says that text is part of the picture (BurnedInAnnotation YES).",
    "IMAGE_UNFINISHED": "Not analysed yet, so that nobody knows whether it can be graded.",
}
"""Where what `worker.reasons` says would not do: that is about reports."""
_OVERRULED = ("UNGRADABLE_QUALITY", "IMAGE_UNFINISHED", "CAMERA_REFUSED", "INTERNAL_ERROR")


@explained
def export_training_set(  # noqa: PLR0917 - typer makes options of them, nobody passes them by position
    config: ConfigOption = None,
    camera: Annotated[
        str | None,
        typer.Option(
            help="Key of the camera, or manufacturer and model of one that no rule names; see --list."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to; must not exist, or be empty.")
    ] = None,
    list_cameras: Annotated[
        bool, typer.Option("--list", help="Show the cameras that images came from, and end.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many pictures: a random sample, over all patients.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample: the same pictures for the same seed.")] = 0,
    since: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="Received at that time (UTC) or later.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="Received before that time (UTC).")
    ] = None,
    include_ungradable: Annotated[
        bool,
        typer.Option(
            "--include-ungradable",
            help="Also what was found ungradable, was refused, or was not analysed yet: for a camera whose "
            "pictures the present models cannot judge.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and judge every picture, write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write de-identified pictures of one camera, from which an adapter for it can be trained.

    fundus-worker export-training-set -c fundus.toml --list

    fundus-worker export-training-set -c fundus.toml --camera topcon-trc-nw400 --limit 400 --out nw400

    fundus-train adapter --first nw400/images …

    FOLDER/images gets a PNG a picture: cut to the field of view, black outside it, no metadata.
    FOLDER/images.csv lists name, patient, eye, camera and frame; name and patient are pseudonyms, drawn anew
    each time. No grade leaves.

    Kept back, with a count for each reason: BurnedInAnnotation YES, wide field, no field of view, no colour
    photograph, identity in doubt, and what cannot be graded. Look through the pictures before they leave the
    house: text inside the field that no header admits to is still there.

    Exit status 1 when files of the spool are missing or damaged (the others are exported), or when nothing
    came out.
    """
    settings = settings_of(config, quiet=True)
    if list_cameras:
        _show_cameras(_stored(settings), as_json)
        return
    since, until = _in_utc(since), _in_utc(until)
    if camera is None:
        raise typer.BadParameter("say which camera; --list shows those that there are", param_hint="--camera")
    if out is None and not dry_run:
        raise typer.BadParameter("say where to, or --dry-run", param_hint="--out")
    if since and until and since >= until:
        raise typer.BadParameter("is not before --until", param_hint="--since")
    chosen = _chosen(_stored(settings), camera)
    images, group = _candidates(settings, chosen, since, until)
    outcome = _exported(
        settings,
        images,
        {"camera": camera, "group": group, "limit": limit, "include_ungradable": include_ungradable},
        out=None if dry_run else out,
        seed=seed,
        show=not as_json,
    )
    _tell(outcome, camera=camera, out=None if dry_run else out, as_json=as_json)
    if outcome.damaged or not outcome.pictures:
        raise typer.Exit(NEEDS_ATTENTION)


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _stored(settings: Settings) -> list[CameraStock]:
    from worker.commands.looking import existing_database
    from worker.store import exporting

    with existing_database(settings) as database:
        return database.read(exporting.cameras)


def _chosen(stocks: Sequence[CameraStock], camera: str) -> list[CameraStock]:
    """The rows of a camera of that name; without one, the error that names those that there are."""
    found = [stock for stock in stocks if stock.name == camera]
    if len(found) > 1:
        models = ", ".join(f"{stock.manufacturer} {stock.model_name} ({stock.images})" for stock in found)
        stderr.print(f"note: {camera} stands for more than one model: {models}", markup=False)
    if found:
        return found
    if not stocks:
        raise cannot_run("no image has been received yet, from no camera")
    images: Counter[str] = Counter()
    for stock in stocks:
        images[stock.name] += stock.images
    near = difflib.get_close_matches(camera, images, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    there = "\n".join(f"  {name} ({many(count, 'image')})" for name, count in images.most_common())
    raise cannot_run(f"there is no image of a camera {camera!r}{hint}; there are:\n{there}")


def _candidates(
    settings: Settings, chosen: Sequence[CameraStock], since: datetime | None, until: datetime | None
) -> tuple[list[StoredImage], Callable[[StoredImage], str]]:
    """The camera's images, and what tells their patients apart."""
    from worker.commands.looking import existing_database
    from worker.identity import Identity
    from worker.spool_marker import require_own_spool
    from worker.store import exporting, installation

    with existing_database(settings) as database:
        namespace = database.read(installation.known_namespace)
        images = database.read(exporting.images_of, chosen, since, until)
    if namespace is not None:
        require_own_spool(settings.spool_dir, namespace, has_images=True)
    nobody = Identity.from_file(settings.resolved_identity_key_file, create=False).pseudonym("")

    def group(image: StoredImage) -> str:
        """Without a Patient ID nobody can say whose image it is: each study is a patient of its own."""
        return f"study {image.study_id}" if image.patient_key == nobody else image.patient_key

    return images, group


def _exported(
    settings: Settings,
    images: Sequence[StoredImage],
    options: dict[str, Any],
    *,
    out: Path | None,
    seed: int,
    show: bool,
) -> Outcome:
    """Do it, with a progress bar for people; an interruption is said and leaves what is incomplete."""
    from dicom_io.spool import Spool
    from worker.training_export import Exporter, in_sampled_order
    from worker.training_set import ExportFolder

    folder = None if out is None else ExportFolder(out)
    exporter = Exporter(spool=Spool(settings.spool_dir), folder=folder, **options)
    ordered = in_sampled_order(images, exporter.group, seed)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    try:
        with Progress(*columns, console=stderr, disable=not (show and stderr.is_terminal)) as progress:
            limit = exporter.limit
            task = progress.add_task(
                "pictures" if limit else "images", total=min(limit or len(ordered), len(ordered))
            )

            def ended(pictures: int) -> None:
                progress.update(task, advance=None if limit else 1, completed=pictures if limit else None)

            outcome = exporter.run(ordered, ended)
    except KeyboardInterrupt:
        where = "" if out is None else f"; {out} is incomplete: delete it"
        raise cannot_run(f"interrupted{where}") from None
    _finish(folder, outcome)
    return outcome


def _finish(folder: ExportFolder | None, outcome: Outcome) -> None:
    if folder is None:
        return
    if outcome.pictures:
        folder.complete()
    else:
        folder.discard()


def _tell(outcome: Outcome, *, camera: str, out: Path | None, as_json: bool) -> None:
    if as_json:
        damaged = [{"sop_instance_uid": uid, "problem": problem} for uid, problem in outcome.damaged]
        answer = {
            "camera": camera,
            "out": None if out is None else str(out),
            "pictures": outcome.pictures,
            "patients": len(outcome.patients),
            "skipped": dict(outcome.skipped.most_common()),
            "text_not_stated": outcome.text_not_stated,
            "damaged": damaged,
        }
        typer.echo(json.dumps(answer, indent=2))
    else:
        _tell_a_person(outcome, out)
    for uid, problem in outcome.damaged:
        stderr.print(f"error: {uid}: {problem}", markup=False)
    if outcome.damaged:
        stderr.print(
            f"{many(len(outcome.damaged), 'file')} of the spool could not be read: check the disk under "
            "data_dir, restore the files or have the images sent again"
        )


def _tell_a_person(outcome: Outcome, out: Path | None) -> None:
    from worker.reasons import REASONS

    counted = f"{many(outcome.pictures, 'picture')} of {many(len(outcome.patients), 'patient')}"
    if not outcome.pictures:
        stdout.print("nothing was exported")
    elif out is None:
        stdout.print(f"{counted} would be exported")
    else:
        stdout.print(f"{counted} in {out / 'images'}, listed in {out / 'images.csv'}", markup=False)
    for code, count in outcome.skipped.most_common():
        said = _SAID.get(code) or REASONS[code].text
        stdout.print(f"  kept back {count}: {code}: {said}", markup=False)
    if any(code in outcome.skipped for code in _OVERRULED):
        stdout.print("  --include-ungradable takes what cannot be graded, was refused or was not analysed")
    if outcome.text_not_stated:
        stdout.print(
            f"  {many(outcome.text_not_stated, 'header')} did not say whether text is burned into the "
            "picture: look through the pictures before they leave the house"
        )


def _show_cameras(stocks: Sequence[CameraStock], as_json: bool) -> None:
    from rich import box
    from rich.table import Table

    if as_json:
        found = [
            {
                "name": stock.name,
                "camera": stock.camera,
                "manufacturer": stock.manufacturer,
                "model_name": stock.model_name,
                "exact": stock.exact,
                "images": stock.images,
                "patients": stock.patients,
            }
            for stock in stocks
        ]
        typer.echo(json.dumps({"cameras": found}, indent=2))
        return
    if not stocks:
        stdout.print("no image has been received yet")
        return
    table = Table("--camera", "images", "patients", "manufacturer", "model", "rule", box=box.SIMPLE_HEAD)
    for stock in stocks:
        rule = "none" if stock.camera is None else "exact" if stock.exact else "by a part of the model"
        counts = (str(stock.images), str(stock.patients))
        table.add_row(stock.name, *counts, stock.manufacturer, stock.model_name, rule)
    stdout.print(table, soft_wrap=False)
