"""`fundus-worker`: mounts the commands."""

from __future__ import annotations

import typer

from worker.commands import bundles, cameras, check, demonstration, requeue, schema, services, status

app = typer.Typer(
    name="fundus-worker",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Grades diabetic retinopathy in retina photographs that arrive over DICOM, beside a PACS. "
    "Research use only, not a medical device.\n\n"
    "First steps: `fundus-worker demo`; then `fundus-worker check --example > fundus.toml`, edit it, "
    "`fundus-worker check --config fundus.toml`, `fundus-worker serve --config fundus.toml`.",
)
app.command()(services.serve)
app.command()(services.listen)
app.command()(services.work)
app.command()(services.sweep)
app.command()(demonstration.demo)
app.command()(status.status)
app.command()(check.check)
app.command()(requeue.requeue)

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
