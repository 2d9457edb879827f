"""`bundle show` and `bundle verify`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.options import ConfigOption, JsonOption, explained, settings_of, stdout

if TYPE_CHECKING:
    from models.bundle import Bundle
    from worker.settings import Settings

BundleArgument = Annotated[
    str | None,
    typer.Argument(metavar="BUNDLE", help="Name, or folder with a slash in it; default: the configured one."),
]


@explained
def bundle_show(
    bundle: BundleArgument = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what a bundle is: labels, cameras, thresholds, checksums; with --json its measured figures too.

    fundus-worker bundle show reference

    fundus-worker bundle show ./new-bundle --json
    """
    from models.bundle import installed_bundles
    from models.manifest import to_json

    loaded = _load(bundle, settings_of(config, quiet=True))
    if as_json:
        typer.echo(to_json(loaded.manifest).decode())
        return
    stdout.print(loaded.summary(), markup=False)
    stdout.print(f"{'model card:':<17} {loaded.folder / 'MODEL_CARD.md'}", markup=False)
    stdout.print(f"{'installed:':<17} {', '.join(installed_bundles()) or 'none'}", markup=False)


@explained
def bundle_verify(
    bundle: BundleArgument = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Check a bundle's checksums and contract, and run its graphs once on this machine.

    Exit status 0 when it may be used, 2 when not, with the file at fault.
    """
    from models.predictor import Predictor

    settings = settings_of(config, quiet=True)
    loaded = _load(bundle, settings)
    loaded.verify()
    choice = Predictor(loaded, engine=settings.engine, threads=settings.engine_threads).engine
    manifest = loaded.manifest
    if as_json:
        found = {"bundle_id": manifest.id, "version": manifest.version, "digest": loaded.digest}
        typer.echo(json.dumps({**found, "engine": choice.name, "reason": choice.reason}))
        return
    stdout.print(f"{manifest.id} {manifest.version} is intact and runs on {choice.name}", markup=False)


def _load(bundle: str | None, settings: Settings) -> Bundle:
    from models.bundle import Bundle

    return Bundle.load(bundle or settings.bundle)
