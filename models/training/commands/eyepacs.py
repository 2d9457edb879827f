"""`fundus-train reproduce eyepacs`: the paper's experiment on the public photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from models.training.adapter import AdapterConfig
from models.training.commands.options import Out, Seed, Threads, Training, foreseen
from models.training.data import DataError
from models.training.end_to_end import GraderConfig, trunk_widths
from models.training.eyepacs import read_layout
from models.training.eyepacs_experiment import EyepacsConfig, EyepacsRun
from models.training.eyepacs_table import terminal_table
from models.training.recipes import load_trunk

_DEFAULT = EyepacsConfig()

Folders = Annotated[
    list[Path],
    typer.Option(
        help="Folder of <patient>_left.jpeg and _right.jpeg, with its subfolders; may be repeated.",
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


def eyepacs(
    *,
    images: Folders,
    labels: Levels,
    cameras: Codes,
    out: Out,
    labelled_camera: Annotated[
        str, typer.Option(help="Code of the labelled camera; default: the one with the most photographs.")
    ] = EyepacsConfig.labelled_camera,
    size: Annotated[int, typer.Option(help="Side of the prepared photographs, px.", min=64)] = 512,
    steps: Annotated[int, typer.Option(help="Most steps of the classifier.", min=1)] = GraderConfig.steps,
    batch: Annotated[int, typer.Option(help="Photographs a step of the classifier.", min=1)] = 32,
    adapter_steps: Annotated[
        int, typer.Option(help="Steps of each adapter.", min=1)
    ] = _DEFAULT.adapter.steps,
    train_cap: Annotated[
        int, typer.Option(help="Most photographs that train the classifier.", min=1)
    ] = EyepacsConfig.train_cap,
    validation_cap: Annotated[
        int, typer.Option(help="Most photographs that fix its operating point.", min=1)
    ] = EyepacsConfig.validation_cap,
    adapt_cap: Annotated[
        int, typer.Option(help="Most photographs of either style for an adapter.", min=1)
    ] = EyepacsConfig.adapt_cap,
    test_cap: Annotated[
        int, typer.Option(help="Most photographs measured of each camera.", min=1)
    ] = EyepacsConfig.test_cap,
    plain_cyclegan: Annotated[
        bool, typer.Option(help="Train a plain CycleGAN for each camera too.")
    ] = EyepacsConfig.plain_cyclegan,
    refuse_mixed_patients: Annotated[
        bool, typer.Option(help="Stop at a patient photographed by two cameras instead of leaving them out.")
    ] = EyepacsConfig.refuse_mixed_patients,
    trunk: Annotated[
        Path | None,
        typer.Option(
            help="Run of `fundus-train classifier`: start from its trunk, with its widths.", exists=True
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared photographs; default: OUT/prepared.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare; 0: one a CPU core.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    bf16: Annotated[bool, typer.Option(help="Train the classifier in bfloat16.")] = False,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Train on one EyePACS camera, adapt each other camera to it without labels, measure, print the table.

    Needs the photographs and labels of the Kaggle competition and the camera codes of arXiv 2007.15874's
    authors. A patient is on one side only of every division. The same command continues a killed run.
    """
    config = EyepacsConfig(
        labelled_camera=labelled_camera,
        size=size,
        seed=seed,
        train_cap=train_cap,
        validation_cap=validation_cap,
        adapt_cap=adapt_cap,
        test_cap=test_cap,
        plain_cyclegan=plain_cyclegan,
        refuse_mixed_patients=refuse_mixed_patients,
        grader=GraderConfig(steps=steps, batch=batch, bf16=bf16, seed=seed),
        adapter=AdapterConfig(steps=adapter_steps, seed=seed),
    )
    with foreseen(), Training(out, threads) as progress:
        start = None if trunk is None else load_trunk(trunk)
        if start is not None:
            config = replace(config, grader=replace(config.grader, widths=trunk_widths(start)))
        layout = read_layout(images, labels, cameras, refuse_mixed_patients=refuse_mixed_patients)
        run = EyepacsRun(
            layout,
            out,
            config,
            progress,
            workers=workers,
            device=_device(device),
            cache=cache,
            trunk=start,
        )
        rows = run.finish()
    Console().print(terminal_table(rows))
    typer.echo("\n".join(run.remarks()))
    typer.echo(f"wrote {out / 'table.md'} and {out / 'table.json'}")


def _device(name: str) -> torch.device:
    """The device of that name; ``auto`` is an accelerator where there is one.

    Raises:
        DataError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {name!r} cannot be used: {error}") from error
