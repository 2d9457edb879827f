"""`fundus-train export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.training.commands.options import foreseen
from models.training.recipes import export_run


def export(
    run: Annotated[Path, typer.Option(help="Run folder with checkpoints.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the graphs.")],
    images: Annotated[Path, typer.Option(help="Photographs for the parity check.", exists=True)],
) -> None:
    """Export the checkpoints of a run to ONNX again, checked against torch on real photographs."""
    with foreseen():
        for path, difference in export_run(run, out, images):
            typer.echo(f"wrote {path}, torch and ONNX Runtime differ by {difference:.1e}")
