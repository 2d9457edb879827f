"""Single steps of a recipe for people who bring their own folders: one adapter, or the export of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.manifest import CAMERA_KEY
from models.networks.build import Generator, build_generator
from models.networks.classifier import FundusClassifier
from models.networks.features import LesionTrunk
from models.training.adapter import AdapterConfig, train_adapter
from models.training.data import DataError, fingerprint, prepare_all, read_folder
from models.training.divergence import require_exportable
from models.training.engine import Engine
from models.training.export import export_adapter, export_classifier
from models.training.progress import Progress
from models.training.run import open_run, read_json, write_json


def fit_adapter(
    first: Path,
    second: Path,
    *,
    classifier_run: Path,
    camera: str,
    out: Path,
    config: AdapterConfig,
    progress: Progress,
    engine: Engine | None = None,
) -> Path:
    """Train and export one adapter from two folders of unlabelled photographs.

    Args:
        first: Photographs of the new camera.
        second: Photographs of the labelled camera, of other people.
        classifier_run: Run folder of the classifier; its trunk is the feature extractor.
        camera: Key of the new camera.
        out: Run folder.
        config: Settings.
        progress: Told every step.
        engine: Where steps run; by default one device that is found.

    Returns:
        The graph that was written; ``metrics.json`` holds how training ended.

    Raises:
        TrainingDivergedError: The training failed in a way that has a name; no graph was written.
        DataError: The classifier's run holds no trunk, or ``camera`` is no camera key.
        RunConflictError: ``out`` belongs to another run.
    """
    if CAMERA_KEY.fullmatch(camera) is None:
        raise DataError(f"camera key {camera!r} must be lower-case words joined by hyphens")
    engine = engine or Engine()
    trunk = load_trunk(classifier_run)
    size = int(read_json(classifier_run / "config.json")["size"])
    firsts, seconds = read_folder(first), read_folder(second)
    open_run(out, config, fingerprint([photo.path for photo in (*firsts, *seconds)]), engine)
    pictures = [prepare_all([photo.path for photo in photos], size) for photos in (firsts, seconds)]
    checkpoint, path = out / f"adapter-{camera}.pt", out / "adapters" / f"{camera}.onnx"
    generator = train_adapter(
        pictures[0],
        pictures[1],
        trunk=trunk,
        config=config,
        checkpoint=checkpoint,
        progress=progress,
        engine=engine,
    )
    if engine.writes:
        parity = export_trained(checkpoint, generator, path, pictures[0][:4])
        counts = {"first_style": len(firsts), "second_style": len(seconds)}
        training = read_json(checkpoint.with_suffix(".json"))
        write_json(out / "metrics.json", {**training, "photographs": counts, "parity": parity})
    return path


def export_trained(
    checkpoint: Path, generator: Generator, path: Path, example: npt.NDArray[np.uint8]
) -> float:
    """Export a generator that ``train_adapter`` returned, unless its checkpoint says that it is no good.

    Returns:
        The difference between torch and ONNX Runtime.

    Raises:
        TrainingDivergedError: The training failed in a way that has a name.
        ParityError: The graph differs from the network.
    """
    require_exportable(torch.load(checkpoint, weights_only=True, map_location="cpu"), checkpoint.stem)
    return export_adapter(generator, path, example)


def load_trunk(run: Path) -> LesionTrunk:
    """The trunk of a classifier's run, in evaluation mode.

    Raises:
        DataError: The run has none.
    """
    checkpoint = run / "trunk.pt"
    if not checkpoint.exists():
        raise DataError(f"{checkpoint} is missing: train the classifier first")
    trunk = LesionTrunk()
    trunk.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["trunk"])
    return trunk.eval()


def export_run(run: Path, out: Path, images: Path) -> Iterator[tuple[Path, float]]:
    """Export whatever a run has finished: ``classifier.pt`` and every ``adapter-<camera>.pt``.

    Yields:
        Each graph's path and its difference from torch.

    Raises:
        DataError: The run holds no checkpoint.
        TrainingDivergedError: An adapter's training failed, or is not finished.
        ParityError: A graph differs from its network.
    """
    config = read_json(run / "config.json")
    size = int(config.get("size", 512))
    adapters, whole = sorted(run.glob("adapter-*.pt")), run / "classifier.pt"
    if not adapters and not whole.exists():
        raise DataError(f"{run} holds no checkpoint to export")
    example = prepare_all([photo.path for photo in read_folder(images)[:4]], size)
    if whole.exists():
        classifier = FundusClassifier(size)
        classifier.load_state_dict(torch.load(whole, weights_only=True, map_location="cpu"))
        path = out / "classifier.onnx"
        yield path, export_classifier(classifier.eval(), path, example)
    settings = config.get("adapter", config)
    for checkpoint in adapters:
        generator = build_generator(settings)
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        require_exportable(state, checkpoint.stem)
        generator.load_state_dict(state["average"])
        path = out / "adapters" / f"{checkpoint.stem.removeprefix('adapter-')}.onnx"
        yield path, export_adapter(generator.eval(), path, example)
