"""`check`: everything that has to be right before the first patient, each green or red with its remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    JsonOption,
    explained,
    settings_of,
    stdout,
)

if TYPE_CHECKING:
    from worker.commands.checks import Finding


@explained
def check(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented configuration file and do nothing else.")
    ] = False,
) -> None:
    """Check configuration, disk, database, models, port and destinations; red ones say the remedy.

    fundus-worker check --example > fundus.toml

    fundus-worker check --config fundus.toml

    Run it as the user of the service. It leaves nothing behind, and may run beside a running worker.
    Exit status 0 when all is green, 1 when something is red, 2 when the configuration cannot be read.
    """
    if example:
        from worker.settings import example_toml

        typer.echo(example_toml())
        return
    settings = settings_of(config, quiet=True)
    from worker.commands.checks import Finding, run_checks

    def findings() -> Iterator[Finding]:
        source = "defaults and FUNDUS_… variables" if config is None else str(config)
        yield Finding("configuration", True, source)
        yield from run_checks(settings)

    done = []
    for each in findings():
        done.append(each)
        if not as_json:
            _show(each)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in done], indent=2))
    if red := [each.name for each in done if not each.ok]:
        if not as_json:
            stdout.print(f"{len(red)} of {len(done)} red: {', '.join(red)}", markup=False)
        raise typer.Exit(NEEDS_ATTENTION)


def _show(each: Finding) -> None:
    stdout.print(f"{'[green]ok [/]' if each.ok else '[bold red]RED[/]'} [bold]{each.name}[/]: ", end="")
    stdout.print(each.detail, markup=False)
