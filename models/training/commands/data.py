"""`fundus-train data`: prepare photographs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import cv2
import typer

from models.cameras import CAMERAS, SimulatedCamera, camera_named
from models.cameras import simulate as simulated
from models.training import camera_statistics, data
from models.training.commands.options import Seed, foreseen
from models.training.config import ConfigError, build_config, read_toml
from models.training.progress import ProgressBars

app = typer.Typer(no_args_is_help=True, help="Prepare photographs.")


@app.command()
def simulate(
    *,
    source: Annotated[Path | None, typer.Argument(help="Folder of photographs.")] = None,
    target: Annotated[Path | None, typer.Argument(help="Folder to write; same file names, JPEG.")] = None,
    camera: Annotated[str | None, typer.Option(help="A named camera, see --list, or random-SEED.")] = None,
    params: Annotated[
        Path | None,
        typer.Option(
            help="TOML or JSON file with a camera of your own: name, spectral_response, gains, haze …"
        ),
    ] = None,
    list_cameras: Annotated[bool, typer.Option("--list", help="Print the named cameras and stop.")] = False,
    seed: Seed = 0,
) -> None:
    """Render a folder of photographs as a simulated camera would have taken them."""
    if list_cameras:
        typer.echo("\n".join(CAMERAS))
        return
    if source is None or target is None or (camera is None) == (params is None):
        raise typer.BadParameter("give SOURCE, TARGET and either --camera NAME or --params FILE")
    chosen = _named(camera) if params is None else _own(params)
    target.mkdir(parents=True, exist_ok=True)
    with foreseen(), ProgressBars() as progress:
        photographs = data.read_folder(source)
        for index, photograph in enumerate(photographs):
            taken = simulated(data.read_rgb(photograph.path), chosen, seed + index)
            # The camera's own compression is in the pixels already; this one must not add to it.
            file = target / f"{photograph.name}.jpg"
            if not cv2.imwrite(str(file), taken[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98]):
                raise typer.BadParameter(f"{file} cannot be written")
            progress("simulated", index + 1, len(photographs), {})


@app.command()
def statistics(
    images: Annotated[Path, typer.Argument(help="Folder of photographs of one camera.", exists=True)],
    limit: Annotated[int, typer.Option(help="Photographs at most, evenly chosen.", min=1)] = 80,
) -> None:
    """Print what a camera's photographs look like: colour, light and sharpness inside the field, as JSON."""
    with foreseen(), ProgressBars() as progress:
        photographs = data.read_folder(images)
        chosen = photographs[:: max(1, len(photographs) // limit)][:limit]
        found = camera_statistics.of_folder([photograph.path for photograph in chosen], progress)
    rounded = {name: round(value, 3) for name, value in dataclasses.asdict(found).items()}
    typer.echo(json.dumps({"photographs": len(chosen), **rounded}, indent=2))


def _named(name: str | None) -> SimulatedCamera:
    try:
        return camera_named(name or "")
    except KeyError:
        known = ", ".join(CAMERAS)
        raise typer.BadParameter(f"no camera {name!r}; there are {known}, and random-1, random-2 …") from None


def _own(file: Path) -> SimulatedCamera:
    """A camera from a file, TOML or JSON; without a name it is called after the file."""
    try:
        content = json.loads(file.read_text("utf-8")) if file.suffix == ".json" else read_toml(file)
        return build_config(SimulatedCamera, {"name": file.stem.lower(), **content}, str(file))
    except (ConfigError, OSError, ValueError, TypeError) as error:
        raise typer.BadParameter(f"{error}") from error
