"""`fundus-train adapter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.training.adapter import AdapterConfig
from models.training.commands.configured import configured
from models.training.commands.options import Out, Training, foreseen
from models.training.engine import Engine, EngineConfig
from models.training.recipes import fit_adapter


@configured(AdapterConfig)
def adapter(
    config: AdapterConfig,
    engine: EngineConfig,
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
) -> None:
    """Train an adapter for a new camera without labels and write OUT/adapters/CAMERA.onnx.

    Look at OUT/samples while it trains: the second row should get the colours and sharpness of the fourth and
    keep every vessel and lesion of the first. A training that fails says how (not finite, discriminators that
    won, collapse, identity) and what to change, and writes no adapter. The same command continues a killed
    run; `tensorboard --logdir OUT` draws its curves.
    """
    with foreseen():
        machine = Engine(engine)
        # With several devices every process comes here; one shows and writes.
        with Training(out if machine.writes else None, engine.threads) as progress:
            path = fit_adapter(
                first,
                second,
                classifier_run=classifier_run,
                camera=camera,
                out=out,
                config=config,
                progress=progress,
                engine=machine,
            )
    if machine.writes:
        typer.echo(f"wrote {path}")
