"""Options that several commands share, and the one edge where errors become an exit status.

Exit status: 0 done or healthy, 1 done but something needs a person, 2 could not run (usage, configuration).

The command modules import at their top only what is light; what a command needs to do its work (database,
models, DICOM) it imports when it runs, so that `--help` and `status` answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from dicom_io.errors import DicomIoError
from models.errors import ModelError
from worker.errors import WorkerError

if TYPE_CHECKING:
    from worker.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
OK, NEEDS_ATTENTION, CANNOT_RUN = 0, 1, 2
USUAL_CONFIG = Path("fundus.toml")
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
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of text.")]


def settings_of(
    config: Path | None, overrides: dict[str, Any] | None = None, *, quiet: bool = False
) -> Settings:
    """Read the configuration and set up the log as it says.

    Args:
        config: The TOML file; None for defaults and environment.
        overrides: What the command line says, nested as in the file.
        quiet: For a command that answers and ends: its log starts at warnings, unless "debug" was asked for.

    Raises:
        SettingsError: Listing every problem.
    """
    from worker.logs import configure_logging
    from worker.settings import load_settings

    if config is None and USUAL_CONFIG.is_file():
        stderr.print(f"note: {USUAL_CONFIG} in this folder is not used; say --config {USUAL_CONFIG}")
    settings = load_settings(config, overrides)
    level = "warning" if quiet and settings.log.level == "info" else settings.log.level
    configure_logging(settings.log.format, level)
    return settings


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Turn expected errors into a sentence on standard error and exit status 2; bugs keep their traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (WorkerError, DicomIoError, ModelError) as error:
            problem = str(error)
            cause: Exception = error
        except BrokenPipeError:  # `status | head`: the reader has seen enough
            raise
        except OSError as error:
            problem, cause = os_problem(error), error
        raise cannot_run(problem) from cause

    return wrapped


def cannot_run(problem: str) -> typer.Exit:
    """Say why the command cannot do its work; raise what is returned."""
    stderr.print("[bold red]error:[/] ", end="")
    stderr.print(problem, markup=False)
    return typer.Exit(CANNOT_RUN)


def os_problem(error: OSError) -> str:
    """A sentence about a file or folder that cannot be used, with its remedy."""
    what = error.strerror or type(error).__name__
    if error.filename is None:
        return f"{what}; check the disk and the network"
    return f"{error.filename}: {what}; check that it is there and that this user may use it"


def unbound(host: str, port: int, error: OSError) -> str:
    """A sentence about an address that cannot be listened on, with its remedy."""
    # Python repeats the address in brackets behind the reason.
    reason = (error.strerror or type(error).__name__).partition(" (")[0]
    return (
        f"{host}:{port} cannot be listened on ({reason}): stop what holds it "
        "(another fundus-worker?), or choose another [listener] host or port"
    )
