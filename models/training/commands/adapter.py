"""`fundus-train adapter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.bundle import Bundle
from models.training.adapter import AdapterConfig
from models.training.camera_report import REPORT
from models.training.commands.configured import configured
from models.training.commands.options import Out, Training, foreseen
from models.training.engine import Engine, EngineConfig
from models.training.publish import NewCamera
from models.training.recipes import BUNDLE_FOLDER, fit_adapter
from models.training.run import read_json
from models.training.usable import MINIMUM

_BUNDLE = "Bundle that gets the adapter, a name or a folder; a copy is written, it stays as it is."
_RUN = "In place of --bundle: run folder of `fundus-train classifier`; only the graph is written."


@configured(AdapterConfig)
def adapter(
    config: AdapterConfig,
    engine: EngineConfig,
    *,
    first: Annotated[
        Path, typer.Option(help="Photographs of the new camera; no labels.", exists=True, file_okay=False)
    ],
    second: Annotated[
        Path,
        typer.Option(help="Photographs of the labelled camera, other people.", exists=True, file_okay=False),
    ],
    camera: Annotated[str, typer.Option(help="Camera key, e.g. simulated-blue.")],
    out: Out,
    bundle: Annotated[str | None, typer.Option(help=_BUNDLE)] = None,
    classifier_run: Annotated[Path | None, typer.Option(help=_RUN, exists=True, file_okay=False)] = None,
    bundle_id: Annotated[
        str, typer.Option(help="Id of the copy; by default that of the bundle, + and the camera.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace, in the copy, an adapter that the bundle has.")
    ] = False,
    minimum_photographs: Annotated[
        int, typer.Option(help="Usable photographs that each folder must hold; 200 are recommended.", min=2)
    ] = MINIMUM,
) -> None:
    r"""Add a new camera: train its adapter without labels, and write a bundle that has it, and a report.

    Needs the installed program, some 200 unlabelled photographs of the new camera, and as many of the camera
    that the bundle's classifier was trained on, of other people:

        fundus-train adapter --bundle reference --camera my-camera \
            --first new-camera/images --second labelled-camera/images \
            --out runs/my-camera

    Then read runs/my-camera/report.html (pictures before and after, warnings, what to do next) and set
    `bundle = "runs/my-camera/bundle"` in the worker's configuration. Files without a field of view are left
    out and named.

    A training that fails says how (not finite, discriminators that won, collapse, identity) and what to
    change, and writes no adapter, but a report. The same command continues a killed run; OUT/samples shows
    pictures while it trains, `tensorboard --logdir OUT` draws its curves.
    """
    if (bundle is None) == (classifier_run is None):
        raise typer.BadParameter("give --bundle, or --classifier-run; one of them has the feature extractor")
    with foreseen():
        place = None
        if bundle is not None:
            place = NewCamera(Bundle.load(bundle), camera, bundle_id, replace)
        machine = Engine(engine)
        # With several devices every process comes here; one shows and writes.
        with Training(out if machine.writes else None, engine.threads) as progress:
            path = fit_adapter(
                first,
                second,
                camera=camera,
                out=out,
                config=config,
                progress=progress,
                classifier_run=classifier_run,
                place=place,
                minimum=minimum_photographs,
                engine=machine,
            )
    if machine.writes:
        _say(path, out, with_bundle=place is not None)


def _say(path: Path, out: Path, *, with_bundle: bool) -> None:
    """What came out, what to be careful about, where to read on."""
    typer.echo(f"wrote {path}")
    for warning in read_json(out / "metrics.json")["warnings"]:
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
    if with_bundle:
        typer.echo(
            f'wrote {out / BUNDLE_FOLDER}; for the worker: bundle = "{(out / BUNDLE_FOLDER).resolve()}"'
        )
    typer.echo(f"read  {out / REPORT}")
