"""`fundus-train evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from models.training import benchmark
from models.training.commands.options import Images, Labels, foreseen
from models.training.progress import ProgressBars


def evaluate(
    *,
    bundle: Annotated[str, typer.Option(help="Bundle: a name or a folder.")],
    images: Images,
    labels: Labels,
    shifted: Annotated[
        Path | None, typer.Option(help="The same photographs (same names) by another camera.", exists=True)
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Adapter to use on the shifted ones.")] = None,
) -> None:
    """Measure a bundle on labelled photographs: AUC, decisions at its threshold, flips by another camera.

    Give photographs that trained nothing in the bundle, or the figures mean nothing.
    """
    with foreseen(), ProgressBars() as progress:
        found = benchmark.measure(bundle, images, labels, shifted=shifted, camera=camera, progress=progress)
    typer.echo(json.dumps(found, indent=2))
