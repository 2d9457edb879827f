"""Single steps of a recipe for people who bring their own folders: one adapter, or the export of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.manifest import ADAPTERS_FOLDER
from models.networks.build import Generator, build_generator
from models.networks.classifier import FundusClassifier
from models.networks.features import LesionTrunk
from models.training.adapter import AdapterConfig, TrainingDivergedError, train_adapter
from models.training.camera_report import Shown, write_report
from models.training.data import DataError, fingerprint, prepare_all, read_folder
from models.training.divergence import require_exportable
from models.training.engine import Engine
from models.training.evaluate import adapt
from models.training.export import export_adapter, export_classifier
from models.training.extractor import bundle_extractor
from models.training.new_camera import CameraFacts, answers, card_section, outcome_warnings
from models.training.progress import Progress
from models.training.publish import NewCamera, add_adapter, require_camera_key
from models.training.run import RunConflictError, commit, differences, open_run, read_json, write_json
from models.training.style_distance import SAMPLE, sample, style_distances
from models.training.usable import MINIMUM, Style, read_style, style_warnings

BUNDLE_FOLDER = "bundle"
"""Folder of the extended bundle inside a run folder."""


def fit_adapter(
    first: Path,
    second: Path,
    *,
    camera: str,
    out: Path,
    config: AdapterConfig,
    progress: Progress,
    classifier_run: Path | None = None,
    place: NewCamera | None = None,
    minimum: int = MINIMUM,
    engine: Engine | None = None,
) -> Path:
    """Train and export one adapter from two folders of unlabelled photographs, and report on it.

    Args:
        first: Photographs of the new camera.
        second: Photographs of the labelled camera, of other people.
        camera: Key of the new camera.
        out: Run folder.
        config: Settings.
        progress: Told every step.
        classifier_run: Run folder of the classifier, whose trunk is the feature extractor; or
        place: the bundle whose classifier's trunk that is; ``out/bundle`` becomes a copy with the adapter.
        minimum: Usable photographs of each style that there must be.
        engine: Where steps run; by default one device that is found.

    Returns:
        The graph that was written; ``metrics.json`` holds how training ended and every warning,
        ``report.html`` the same for people.

    Raises:
        TrainingDivergedError: The training failed in a way that has a name; no graph was written, but a
            report.
        DataError: Too few photographs are usable, there is no feature extractor, or ``camera`` is no camera
            key.
        RunConflictError: ``out`` belongs to another run.
    """
    require_camera_key(camera)
    engine = engine or Engine()
    trunk, size, origin = _extractor(classifier_run, place)
    prints = {
        name: fingerprint([photo.path for photo in read_folder(folder)])
        for name, folder in (("first_style", first), ("second_style", second))
    }
    open_run(
        out, config, fingerprint([photo.path for f in (first, second) for photo in read_folder(f)]), engine
    )
    _keep_source(out, {"camera": camera, "size": size, "extractor": origin, **prints}, engine)
    styles = (
        read_style(first, size, stage="new camera", progress=progress, minimum=minimum),
        read_style(second, size, stage="labelled camera", progress=progress, minimum=minimum),
    )
    run = NewCameraRun(out, camera, config, styles, trunk, origin, prints, place)
    return run.finish(progress, engine)


def _extractor(classifier_run: Path | None, place: NewCamera | None) -> tuple[LesionTrunk, int, str]:
    """Feature extractor, side S of its pictures, and what it is called."""
    if place is not None:
        bundle = place.bundle
        name = f"bundle {bundle.manifest.id} {bundle.manifest.version} ({bundle.digest[:12]})"
        return bundle_extractor(bundle), bundle.manifest.size, name
    if classifier_run is None:
        raise DataError("there is no feature extractor: give a bundle or a classifier's run")
    trunk = load_trunk(classifier_run)
    name = f"classifier run (trunk {fingerprint([classifier_run / 'trunk.pt'])[:12]})"
    return trunk, int(read_json(classifier_run / "config.json")["size"]), name


def _keep_source(out: Path, source: Mapping[str, Any], engine: Engine) -> None:
    """Write what else makes a run the one it is, or refuse to go on with another.

    Raises:
        RunConflictError: The run folder is of another camera, feature extractor, or pair of folders.
    """
    file = out / "source.json"
    found = list(differences(read_json(file), source)) if file.exists() else []
    if found:
        raise RunConflictError(
            f"{file} is of another run ({'; '.join(found)}): choose another --out, or remove that folder"
        )
    if engine.writes:
        write_json(file, source)


@dataclass(frozen=True)
class NewCameraRun:
    """Training, export, measurements without labels, bundle and report of one adapter.

    Attributes:
        out: Run folder.
        camera: Key of the new camera.
        config: Settings.
        styles: Photographs of the new and of the labelled camera.
        trunk: Feature extractor.
        origin: Where it came from.
        prints: Fingerprint of the files by style.
        place: Bundle to copy and extend, or None.
    """

    out: Path
    camera: str
    config: AdapterConfig
    styles: tuple[Style, Style]
    trunk: LesionTrunk
    origin: str
    prints: Mapping[str, str]
    place: NewCamera | None

    @property
    def checkpoint(self) -> Path:
        """Where the training's state is."""
        return self.out / f"adapter-{self.camera}.pt"

    def finish(self, progress: Progress, engine: Engine) -> Path:
        """Train, or go on; see ``fit_adapter``."""
        path = self.out / ADAPTERS_FOLDER / f"{self.camera}.onnx"
        first, second = self.styles
        try:
            generator = train_adapter(
                first.pictures,
                second.pictures,
                trunk=self.trunk,
                config=self.config,
                checkpoint=self.checkpoint,
                progress=progress,
                engine=engine,
            )
            if not engine.writes:
                return path
            parity = export_trained(self.checkpoint, generator, path, first.pictures[:4])
        except TrainingDivergedError as error:
            if engine.writes:
                write_report(self.out, self._facts(), failure=str(error))
            raise
        self._publish(path, parity, progress)
        return path

    def _facts(self) -> CameraFacts:
        first, second = self.styles
        file = self.checkpoint.with_suffix(".json")
        return CameraFacts(
            camera=self.camera,
            extractor=self.origin,
            photographs={
                "first_style": len(first.names),
                "second_style": len(second.names),
                "left_out": len(first.skipped) + len(second.skipped),
            },
            compared=SAMPLE,
            data_fingerprint=self.prints,
            settings=dataclasses.asdict(self.config),
            training=read_json(file) if file.exists() else {},
            commit=commit(),
            warnings=tuple(style_warnings(first, second, first.pictures.shape[1])),
        )

    def _publish(self, path: Path, parity: float, progress: Progress) -> None:
        """Measure what needs no label; write metrics, bundle and report."""
        shown, other = sample(self.styles[0].pictures), sample(self.styles[1].pictures)
        adapted = adapt(path, shown)
        distances = style_distances(shown, adapted, other, self.trunk.cpu(), progress)
        place, facts = self.place, self._facts()
        sets = {"before": shown, "after": adapted, "labelled": other}
        said = answers(place.bundle, sets, progress) if place is not None else {}
        found = (*facts.warnings, *outcome_warnings(distances, said))
        facts = dataclasses.replace(facts, parity=parity, distances=distances, answers=said, warnings=found)
        write_json(self.out / "metrics.json", {**facts.training, **facts.figures()})
        name = ""
        if place is not None:
            made = add_adapter(place, path, facts.figures(), card_section(facts), self.out / BUNDLE_FOLDER)
            name = f"{made.manifest.id} {made.manifest.version}"
        write_report(self.out, facts, shown=Shown(shown, adapted), bundle=name)


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
