"""`fundus-train reproduce eyepacs`: the paper's experiment on the public photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.training.commands.configured import configured
from models.training.commands.options import Out, Training, foreseen
from models.training.end_to_end import trunk_widths
from models.training.engine import Engine, EngineConfig
from models.training.eyepacs import read_layout
from models.training.eyepacs_config import EyepacsConfig
from models.training.eyepacs_experiment import EyepacsRun
from models.training.eyepacs_table import terminal_table
from models.training.recipes import load_trunk

Folders = Annotated[
    list[Path],
    typer.Option(
        help="Folder of NUMBER_left.jpeg and NUMBER_right.jpeg, in subfolders too; may be repeated.",
        exists=True,
        file_okay=False,
    ),
]
Levels = Annotated[
    list[Path],
    typer.Option(
        help="CSV image,level: trainLabels.csv, retinopathy_solution.csv; may be repeated.",
        exists=True,
        dir_okay=False,
    ),
]
Codes = Annotated[
    Path,
    typer.Option(help="CSV image_name,camera: codes 1 to 6, UNKNOWN.", exists=True, dir_okay=False),
]
Trunk = Annotated[
    Path | None,
    typer.Option(
        help="Run of `fundus-train classifier`: the encoder starts as its trunk, with its widths.",
        exists=True,
    ),
]
Cache = Annotated[Path | None, typer.Option(help="Folder of prepared photographs; default: OUT/prepared.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare photographs; 0: one a CPU core.", min=0)]


@configured(EyepacsConfig)
def eyepacs(
    config: EyepacsConfig,
    engine: EngineConfig,
    *,
    images: Folders,
    labels: Levels,
    cameras: Codes,
    out: Out,
    trunk: Trunk = None,
    cache: Cache = None,
    workers: Workers = 0,
) -> None:
    """Train on one EyePACS camera, adapt each other camera to it without labels, measure, print the table.

    Needs the photographs and labels of the Kaggle competition and the camera codes of arXiv 2007.15874's
    authors. A patient is on one side only of every division. The same command continues a killed run.
    """
    with foreseen(), Training(out, engine.threads) as progress:
        start = None if trunk is None else load_trunk(trunk)
        if start is not None:
            config = replace(config, grader=replace(config.grader, widths=trunk_widths(start)))
        mixed = config.refuse_mixed_patients
        run = EyepacsRun(
            read_layout(images, labels, cameras, refuse_mixed_patients=mixed),
            out,
            config,
            progress,
            workers=workers,
            engine=Engine(engine),
            cache=cache,
            trunk=start,
        )
        rows = run.finish()
    Console().print(terminal_table(rows))
    typer.echo("\n".join(run.remarks()))
    typer.echo(f"wrote {out / 'table.md'} and {out / 'table.json'}")
