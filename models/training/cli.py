"""`fundus-train`: mounts the commands, which read folders and CSV files only."""

from __future__ import annotations

import typer

from models.training.commands import adapter, classifier, data, evaluate, export, reproduce

app = typer.Typer(
    no_args_is_help=True,
    help="Make, measure and reproduce the models, from folders and CSV files only.",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.command()(classifier.classifier)
app.command()(adapter.adapter)
app.add_typer(evaluate.app, name="evaluate")
app.command()(export.export)
app.add_typer(reproduce.app, name="reproduce")

if __name__ == "__main__":
    app()
