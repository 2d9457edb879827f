"""Options that several commands share, and the one edge where errors become an exit status.

Exit status: 0 done or healthy, 1 done but something needs a person, 2 could not run (usage, configuration).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from dicom_io.errors import DicomIoError
from models.errors import ModelError
from worker.errors import WorkerError
from worker.logs import configure_logging
from worker.settings import Settings, load_settings

P = ParamSpec("P")
R = TypeVar("R")
OK, NEEDS_ATTENTION, CANNOT_RUN = 0, 1, 2
stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="FUNDUS_CONFIG",
        help="TOML configuration; without it the defaults, overridden by FUNDUS_… variables.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of a table.")]


def settings_of(config: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read the configuration and set up the log as it says."""
    settings = load_settings(config, overrides)
    configure_logging(settings.log.format, settings.log.level)
    return settings


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Turn expected errors into a sentence on standard error and exit status 2; bugs keep their traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (WorkerError, DicomIoError, ModelError) as error:
            stderr.print(f"[bold red]error:[/] {_escape(str(error))}")
            raise typer.Exit(CANNOT_RUN) from error

    return wrapped


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
