"""`fundus-worker`: mounts the commands."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from worker.commands import (
    bundles,
    cameras,
    check,
    demonstration,
    export_training_set,
    purge,
    requeue,
    schema,
    services,
    status,
)

app = typer.Typer(
    name="fundus-worker",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Grades diabetic retinopathy in retina photographs that arrive over DICOM, beside a PACS. "
    "Research use only, not a medical device.\n\n"
    "First steps:\n\n"
    "1. `fundus-worker demo`\n"
    "2. `fundus-worker check --example > fundus.toml`, and edit it\n"
    "3. `fundus-worker check --config fundus.toml`\n"
    "4. `fundus-worker serve --config fundus.toml`\n"
    "5. `fundus-worker status --config fundus.toml`\n\n"
    "Exit status of every command: 0 all is well, 1 something needs a person, 2 it could not run.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fundus-worker {version('fundus-worker')}")
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """The program's own options; its help is above."""


app.command()(services.serve)
app.command()(services.listen)
app.command()(services.work)
app.command()(services.sweep)
app.command()(demonstration.demo)
app.command()(status.status)
app.command()(check.check)
app.command()(requeue.requeue)
app.command()(purge.purge)
app.command()(export_training_set.export_training_set)

_db = typer.Typer(no_args_is_help=True, help="The database's tables and views.")
_db.command("upgrade")(schema.db_upgrade)
app.add_typer(_db, name="db")

_cameras = typer.Typer(no_args_is_help=True, help="The camera rules.")


@_cameras.callback()
def _cameras_group() -> None:
    """Keep `explain` a subcommand although it is the only one."""


@_db.callback()
def _db_group() -> None:
    """Keep `upgrade` a subcommand although it is the only one."""


_cameras.command("explain")(cameras.cameras_explain)
app.add_typer(_cameras, name="cameras", help="The camera rules.")

_bundle = typer.Typer(no_args_is_help=True, help="Model bundles.")
_bundle.command("show")(bundles.bundle_show)
_bundle.command("verify")(bundles.bundle_verify)
app.add_typer(_bundle, name="bundle")

if __name__ == "__main__":
    app()
