"""Options that several commands share, and how a command reports what it foresaw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import cv2
import torch
import typer
from rich.console import Console

from models.errors import ModelError
from models.training.config import ConfigError
from models.training.engine import Engine, EngineConfig
from models.training.progress import ProgressBars

Images = Annotated[Path, typer.Option(help="Folder of photographs.", exists=True, file_okay=False)]
Labels = Annotated[
    Path, typer.Option(help="CSV: header, then name,grade (0 to 4).", exists=True, dir_okay=False)
]
Lesions = Annotated[
    Path, typer.Option(help="Folder of NAME.jpg beside NAME_MA.png, _HE, _EX, _SE, _OD.", exists=True)
]
Out = Annotated[Path, typer.Option(help="Run folder; a killed run continues in it.")]
Threads = Annotated[int, typer.Option(help="CPU threads; one is best where other programs are busy.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


class Training(ProgressBars):
    """Progress bars and the log of a run folder, for a training with a number of CPU threads.

    Args:
        out: Run folder, or None for no log.
        threads: CPU threads of torch and OpenCV.
    """

    def __init__(self, out: Path | None, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        super().__init__(out)


def one_device(engine: EngineConfig) -> Engine:
    """The engine of a recipe whose stages run in one process.

    Raises:
        ConfigError: ``devices`` is above 1.
    """
    if engine.devices > 1:
        raise ConfigError(
            "this command trains on one device: --devices 1 (`fundus-train adapter` takes more)"
        )
    return Engine(engine)


@contextmanager
def foreseen() -> Iterator[None]:
    """Turn an error that was foreseen into one line and exit status 1."""
    try:
        yield
    except ModelError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/red]: {error}")
        raise typer.Exit(1) from error
