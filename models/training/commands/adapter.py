"""`fundus-train adapter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.training.adapter import AdapterConfig
from models.training.commands.options import Out, Seed, Threads, Training, foreseen
from models.training.recipes import fit_adapter


def adapter(
    *,
    first: Annotated[Path, typer.Option(help="Photographs of the new camera; no labels.", exists=True)],
    second: Annotated[
        Path, typer.Option(help="Photographs of the labelled camera, other people.", exists=True)
    ],
    classifier_run: Annotated[
        Path, typer.Option(help="Run folder of `fundus-train classifier`.", exists=True)
    ],
    camera: Annotated[str, typer.Option(help="Camera key, e.g. simulated-blue.")],
    out: Out,
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = AdapterConfig.steps,
    form: Annotated[str, typer.Option(help="Residual: affine or additive.")] = AdapterConfig.form,
    features: Annotated[bool, typer.Option(help="Let the discriminators see the task's features.")] = True,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Train an adapter for a new camera without labels and write OUT/adapters/CAMERA.onnx."""
    config = AdapterConfig(steps=steps, form=form, features=features, seed=seed)
    with foreseen(), Training(out, threads) as progress:
        path = fit_adapter(
            first,
            second,
            classifier_run=classifier_run,
            camera=camera,
            out=out,
            config=config,
            progress=progress,
        )
    typer.echo(f"wrote {path}")
