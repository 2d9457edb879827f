"""`fundus-train`: mounts the commands, which read folders and CSV files only."""

from __future__ import annotations

import typer

from models.training.commands import adapter, classifier, data, evaluate, export, reproduce
from models.training.commands.configured import ConfiguredCommand

app = typer.Typer(
    no_args_is_help=True,
    help="Make, measure and reproduce the models, from folders and CSV files only.\n\n"
    "First steps:\n\n"
    "1. `fundus-train classifier` on photographs of one camera with grades and lesion masks\n"
    "2. `fundus-train adapter` for each other camera, from photographs without grades; look at "
    "`OUT/samples`\n"
    "3. `fundus-train evaluate`, on photographs that trained neither\n\n"
    "`fundus-train COMMAND --print-config > run.toml` writes all settings of a training with what they mean; "
    "`--config run.toml` reads them back.\n\n"
    "Exit status of every command: 0 all is well, 1 something needs a person, 2 it could not run.",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.command(cls=ConfiguredCommand)(classifier.classifier)
app.command(cls=ConfiguredCommand)(adapter.adapter)
app.add_typer(evaluate.app, name="evaluate")
app.command()(export.export)
app.add_typer(reproduce.app, name="reproduce")

if __name__ == "__main__":
    app()
