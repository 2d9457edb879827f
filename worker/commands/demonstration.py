"""`demo`: the whole job on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from worker.commands.options import explained


@explained
def demo(
    output: Annotated[Path, typer.Option(help="Folder for reports, pictures, database and logs.")] = Path(
        "demo-output"
    ),
    broker: Annotated[
        str,
        typer.Option(metavar="local|redis", help="local: one process; redis: separate ones through Celery."),
    ] = "local",
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave worker and PACS running at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Run the whole job on this machine: real photographs over DICOM, reports back, rows in SQL.

    Exit status 0 only when every report arrived and says what the database says.
    """
    if broker not in ("local", "redis"):
        raise typer.BadParameter(f"{broker}: choose local or redis", param_hint="--broker")
    from worker.demo.run import run_demo

    chosen: Literal["", "redis"] = "redis" if broker == "redis" else ""
    raise typer.Exit(run_demo(output, chosen, keep))
