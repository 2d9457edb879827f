"""Single steps of a recipe for people who bring their own folders: one adapter, or the export of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from models.manifest import CAMERA_KEY
from models.networks.build import build_generator
from models.networks.classifier import FundusClassifier
from models.networks.features import LesionTrunk
from models.training.adapter import AdapterConfig, train_adapter
from models.training.data import DataError, fingerprint, prepare_all, read_folder
from models.training.export import export_adapter, export_classifier
from models.training.lesions import Progress
from models.training.run import open_run, read_json


def fit_adapter(
    first: Path,
    second: Path,
    *,
    classifier_run: Path,
    camera: str,
    out: Path,
    config: AdapterConfig,
    progress: Progress,
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

    Returns:
        The graph that was written.

    Raises:
        DataError: The classifier's run holds no trunk, or ``camera`` is no camera key.
        RunConflictError: ``out`` belongs to another run.
    """
    if CAMERA_KEY.fullmatch(camera) is None:
        raise DataError(f"camera key {camera!r} must be lower-case words joined by hyphens")
    trunk = load_trunk(classifier_run)
    size = int(read_json(classifier_run / "config.json")["size"])
    firsts, seconds = read_folder(first), read_folder(second)
    open_run(out, config, fingerprint([photo.path for photo in (*firsts, *seconds)]))
    pictures = [prepare_all([photo.path for photo in photos], size) for photos in (firsts, seconds)]
    generator = train_adapter(
        pictures[0],
        pictures[1],
        trunk=trunk,
        config=config,
        checkpoint=out / f"adapter-{camera}.pt",
        progress=progress,
    )
    path = out / "adapters" / f"{camera}.onnx"
    export_adapter(generator, path, pictures[0][:4])
    return path


def load_trunk(run: Path) -> LesionTrunk:
    """The trunk of a classifier's run, in evaluation mode.

    Raises:
        DataError: The run has none.
    """
    checkpoint = run / "trunk.pt"
    if not checkpoint.exists():
        raise DataError(f"{checkpoint} is missing: train the classifier first")
    trunk = LesionTrunk()
    trunk.load_state_dict(torch.load(checkpoint, weights_only=True)["trunk"])
    return trunk.eval()


def export_run(run: Path, out: Path, images: Path) -> Iterator[tuple[Path, float]]:
    """Export whatever a run has finished: ``classifier.pt`` and every ``adapter-<camera>.pt``.

    Yields:
        Each graph's path and its difference from torch.

    Raises:
        DataError: The run holds no checkpoint.
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
        classifier.load_state_dict(torch.load(whole, weights_only=True))
        path = out / "classifier.onnx"
        yield path, export_classifier(classifier.eval(), path, example)
    settings = config.get("adapter", config)
    for checkpoint in adapters:
        generator = build_generator(settings)
        generator.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
        path = out / "adapters" / f"{checkpoint.stem.removeprefix('adapter-')}.onnx"
        yield path, export_adapter(generator.eval(), path, example)
