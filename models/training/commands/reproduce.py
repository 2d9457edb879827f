"""`fundus-train reproduce`: whole published recipes."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from models.training.commands.configured import ConfiguredCommand, configured
from models.training.commands.eyepacs import eyepacs
from models.training.commands.options import Images, Labels, Lesions, Out, Training, foreseen, one_device
from models.training.engine import EngineConfig
from models.training.reproduce import ReferenceConfig, ReferenceRun, Sources

app = typer.Typer(no_args_is_help=True, help="Run a whole published recipe.")
app.command(cls=ConfiguredCommand)(eyepacs)


@app.command(cls=ConfiguredCommand)
@configured(ReferenceConfig)
def reference(
    config: ReferenceConfig,
    engine: EngineConfig,
    *,
    images: Images,
    labels: Labels,
    lesions: Lesions,
    out: Out,
) -> None:
    """Train and measure a reference bundle, OUT/bundle, by the recipe of `models/bundles/reference`.

    The shipped bundle is the result of one run of this command. It took 33 minutes on 2 cores.

    The same command continues a killed run, stage by stage; `tensorboard --logdir OUT` draws its curves.
    """
    with foreseen(), Training(out, engine.threads) as progress:
        sources = Sources(images, labels, lesions)
        bundle = ReferenceRun(sources, out, config, progress, one_device(engine)).finish()
    table = Table("camera", "adapter", "AUC", "flipped", "sensitivity", "specificity")
    cameras: Any = bundle.manifest.figures["cameras"]
    for key, kinds in cameras.items():
        for kind, row in kinds.items():
            cells = [f"{row[name]:.3f}" for name in ("auc", "flipped", "sensitivity", "specificity")]
            table.add_row(key, kind, *cells)
    Console().print(table)
    typer.echo(bundle.summary())
