"""`fundus-train evaluate`: figures of a bundle on folders, and the camera-shift benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.cameras import SimulatedCamera
from models.training import benchmark as folders
from models.training.benchmark.command import BenchmarkFiles, run_benchmark
from models.training.benchmark.shift import BenchmarkConfig
from models.training.benchmark.table import show
from models.training.commands.configured import ConfiguredCommand, configured
from models.training.commands.options import Images, Labels, Training, foreseen
from models.training.config import ConfigError, build_config, read_toml
from models.training.engine import EngineConfig
from models.training.progress import ProgressBars

app = typer.Typer()


@app.callback(invoke_without_command=True)
def evaluate(
    ctx: typer.Context,
    *,
    bundle: Annotated[str | None, typer.Option(help="Bundle: a name or a folder.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of photographs.", exists=True)] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV: header, then name,grade.", exists=True)] = None,
    shifted: Annotated[
        Path | None, typer.Option(help="The same photographs (same names) by another camera.", exists=True)
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Adapter to use on the shifted ones.")] = None,
) -> None:
    """Measure a bundle on labelled photographs: AUC, decisions at its threshold, flips by another camera.

    Give photographs that trained nothing in the bundle, or the figures mean nothing.

    With `benchmark`, every simulated camera and every way of adapting instead, with intervals and a report.
    """
    given = {"--bundle": bundle, "--images": images, "--labels": labels}
    if ctx.invoked_subcommand is not None:
        for name, value in {**given, "--shifted": shifted, "--camera": camera}.items():
            if value is not None:
                raise typer.BadParameter(f"{name} stands before {ctx.invoked_subcommand}; write it after")
        return
    if bundle is None or images is None or labels is None:
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise typer.BadParameter(f"missing {missing} (or the subcommand benchmark; see --help)")
    with foreseen(), ProgressBars() as progress:
        found = folders.measure(bundle, images, labels, shifted=shifted, camera=camera, progress=progress)
    typer.echo(json.dumps(found, indent=2))


@app.command(cls=ConfiguredCommand)
@configured(BenchmarkConfig)
def benchmark(
    config: BenchmarkConfig,
    engine: EngineConfig,
    *,
    images: Images,
    labels: Labels,
    out: Annotated[Path, typer.Option(help="Folder for benchmark.json, benchmark.html and trained graphs.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder of `reproduce` or `classifier`: its split says which photographs are held out.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle, a name or a folder; RUN/bundle if not given.")
    ] = None,
    second_style: Annotated[
        Path | None,
        typer.Option(help="Without --run: photographs of the labelled camera, of other people.", exists=True),
    ] = None,
    lesions: Annotated[
        Path | None, typer.Option(help="Photographs with masks, for lesion contrast.", exists=True)
    ] = None,
    graphs: Annotated[
        Path | None, typer.Option(help="Folder METHOD/CAMERA-KEY.onnx of trained rows; OUT/graphs if none.")
    ] = None,
    params: Annotated[
        list[Path] | None,
        typer.Option(help="TOML file with a camera of your own; may be given several times.", exists=True),
    ] = None,
) -> None:
    """Measure what every camera breaks and what every way of adapting gives back.

    The held-out photographs are rendered through each simulated camera. Rows: no adaptation, Reinhard colour
    transfer, histogram matching, Fourier domain adaptation, each with and without local contrast
    normalisation; a plain CycleGAN, the adapter, and the bound that true pairs reach. With a trunk in --run,
    adapters that the bundle lacks are trained; plain CycleGAN and bound for the cameras in --trained.

    Example: fundus-train evaluate benchmark --run runs/reference --images images --labels labels.csv
    --lesions lesions --out runs/bench
    """
    files = BenchmarkFiles(images, labels, out, run, bundle, second_style, lesions, graphs)
    with foreseen(), Training(out, engine.threads) as progress:
        own = [_own_camera(file) for file in params or []]
        found = run_benchmark(files, config, own_cameras=own, threads=engine.threads, progress=progress)
    show(found, Console(width=None if Console().is_terminal else 160))
    typer.echo(f"wrote {out / 'benchmark.json'} and {out / 'benchmark.html'}")


def _own_camera(file: Path) -> SimulatedCamera:
    """A camera from a TOML file; its keys are the attributes of ``SimulatedCamera``."""
    content = read_toml(file)
    if "name" not in content:
        raise ConfigError(f"{file}: name is missing")
    return build_config(SimulatedCamera, content, str(file))
