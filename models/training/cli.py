"""``fundus-train``: make, measure and reproduce the models, from folders and CSV files only."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import cv2
import torch
import typer
from rich.console import Console
from rich.table import Table

from models.cameras import CAMERAS, SimulatedCamera, simulate
from models.errors import ModelError
from models.training import benchmark, data
from models.training.adapter import AdapterConfig
from models.training.lesions import LesionConfig
from models.training.progress import ProgressBars
from models.training.recipes import export_run, fit_adapter
from models.training.reproduce import ReferenceConfig, ReferenceRun, Sources

app = typer.Typer(
    no_args_is_help=True, help=__doc__, rich_markup_mode="markdown", pretty_exceptions_enable=False
)
data_app = typer.Typer(no_args_is_help=True, help="Prepare photographs.")
reproduce_app = typer.Typer(no_args_is_help=True, help="Run a whole published recipe.")
app.add_typer(data_app, name="data")
app.add_typer(reproduce_app, name="reproduce")

Images = Annotated[Path, typer.Option(help="Folder of photographs.", exists=True, file_okay=False)]
Labels = Annotated[
    Path, typer.Option(help="CSV: header, then name,grade (0 to 4).", exists=True, dir_okay=False)
]
Lesions = Annotated[
    Path, typer.Option(help="Folder of NAME.jpg beside NAME_MA.png, _HE, _EX, _SE, _OD.", exists=True)
]
Out = Annotated[Path, typer.Option(help="Run folder; a killed run continues in it.")]
Threads = Annotated[int, typer.Option(help="CPU threads; one is best where other programs are busy.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


@app.command()
def classifier(
    *,
    images: Images,
    labels: Labels,
    lesions: Lesions,
    out: Out,
    steps: Annotated[int, typer.Option(help="Steps of the lesion trunk.", min=1)] = LesionConfig.steps,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Train the classifier on the labelled camera and write OUT/bundle/classifier.onnx.

    Lesion masks supervise the trunk, grades the head; look-alike photographs stay on one side of the split.
    """
    config = ReferenceConfig(seed=seed, lesions=LesionConfig(steps=steps, seed=seed))
    with _foreseen(), _Training(out, threads) as progress:
        run = ReferenceRun(Sources(images, labels, lesions), out, config, progress)
        run.classifier(run.trunk())
    _say(f"wrote {run.bundle / 'classifier.onnx'}")


@app.command()
def adapter(
    *,
    first: Annotated[Path, typer.Option(help="Photographs of the new camera; no labels.", exists=True)],
    second: Annotated[
        Path, typer.Option(help="Photographs of the labelled camera, other people.", exists=True)
    ],
    classifier_run: Annotated[
        Path, typer.Option(help="Run folder of `fundus-train classifier`.", exists=True)
    ],
    camera: Annotated[str, typer.Option(help="Camera key, e.g. simulated-blue.")],
    out: Out,
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = AdapterConfig.steps,
    form: Annotated[str, typer.Option(help="Residual: affine or additive.")] = AdapterConfig.form,
    features: Annotated[bool, typer.Option(help="Let the discriminators see the task's features.")] = True,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Train an adapter for a new camera without labels and write OUT/adapters/CAMERA.onnx."""
    config = AdapterConfig(steps=steps, form=form, features=features, seed=seed)
    with _foreseen(), _Training(out, threads) as progress:
        path = fit_adapter(
            first,
            second,
            classifier_run=classifier_run,
            camera=camera,
            out=out,
            config=config,
            progress=progress,
        )
    _say(f"wrote {path}")


@app.command()
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
    with _foreseen(), ProgressBars() as progress:
        found = benchmark.measure(bundle, images, labels, shifted=shifted, camera=camera, progress=progress)
    _say(json.dumps(found, indent=2))


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Run folder with checkpoints.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the graphs.")],
    images: Annotated[Path, typer.Option(help="Photographs for the parity check.", exists=True)],
) -> None:
    """Export the checkpoints of a run to ONNX again, checked against torch on real photographs."""
    with _foreseen():
        for path, difference in export_run(run, out, images):
            _say(f"wrote {path}, torch and ONNX Runtime differ by {difference:.1e}")


@data_app.command("simulate")
def data_simulate(
    *,
    source: Annotated[Path | None, typer.Argument(help="Folder of photographs.")] = None,
    target: Annotated[Path | None, typer.Argument(help="Folder to write; same file names, JPEG.")] = None,
    camera: Annotated[str | None, typer.Option(help="A named camera; see --list.")] = None,
    params: Annotated[
        Path | None,
        typer.Option(help="TOML file with a camera of your own: name = …, blur_px = … and so on."),
    ] = None,
    list_cameras: Annotated[bool, typer.Option("--list", help="Print the named cameras and stop.")] = False,
    seed: Seed = 0,
) -> None:
    """Render a folder of photographs as a simulated camera would have taken them."""
    if list_cameras:
        _say("\n".join(CAMERAS))
        return
    if source is None or target is None or (camera is None) == (params is None):
        raise typer.BadParameter("give SOURCE, TARGET and either --camera NAME or --params FILE")
    chosen = _camera(camera) if params is None else _own_camera(params)
    target.mkdir(parents=True, exist_ok=True)
    with _foreseen(), ProgressBars() as progress:
        photographs = data.read_folder(source)
        for index, photograph in enumerate(photographs):
            taken = simulate(data.read_rgb(photograph.path), chosen, seed + index)
            # The camera's own compression is in the pixels already; this one must not add to it.
            file = target / f"{photograph.name}.jpg"
            if not cv2.imwrite(str(file), taken[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98]):
                raise typer.BadParameter(f"{file} cannot be written")
            progress("simulated", index + 1, len(photographs), {})


@reproduce_app.command("reference")
def reproduce_reference(
    images: Images, labels: Labels, lesions: Lesions, out: Out, threads: Threads = 2
) -> None:
    """Train and measure the reference bundle: OUT/bundle is what `models/bundles/reference` was made of."""
    with _foreseen(), _Training(out, threads) as progress:
        sources = Sources(images, labels, lesions)
        bundle = ReferenceRun(sources, out, ReferenceConfig(), progress).finish()
    table = Table("camera", "adapter", "AUC", "flipped", "sensitivity", "specificity")
    cameras: Any = bundle.manifest.figures["cameras"]
    for key, kinds in cameras.items():
        for kind, row in kinds.items():
            cells = [f"{row[name]:.3f}" for name in ("auc", "flipped", "sensitivity", "specificity")]
            table.add_row(key, kind, *cells)
    Console().print(table)
    _say(bundle.summary())


class _Training(ProgressBars):
    """Progress bars for a training on the CPU with a number of threads."""

    def __init__(self, out: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        super().__init__(out)


def _camera(name: str | None) -> SimulatedCamera:
    if name not in CAMERAS:
        raise typer.BadParameter(f"no camera {name!r}; there are {', '.join(CAMERAS)}")
    return CAMERAS[name]


def _own_camera(file: Path) -> SimulatedCamera:
    """A camera from a TOML file; its keys are the attributes of ``SimulatedCamera``."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    known = {field.name for field in dataclasses.fields(SimulatedCamera)}
    if "name" not in content or not known.issuperset(content):
        unknown = ", ".join(sorted(set(content) - known)) or "no name"
        raise typer.BadParameter(
            f"{file}: {unknown}; the keys are {', '.join(sorted(known))}, name is required"
        )
    return SimulatedCamera(**content)


@contextmanager
def _foreseen() -> Iterator[None]:
    """Turn an error that was foreseen into one line and exit status 1."""
    try:
        yield
    except ModelError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/red]: {error}")
        raise typer.Exit(1) from error


def _say(text: str) -> None:
    typer.echo(text)


if __name__ == "__main__":
    app()
