"""The experiment of arXiv 2007.15874 on EyePACS: train on one camera, adapt each other camera to it, measure.

The classifier is supervised on the labelled camera only. An adapter sees unlabelled photographs of its camera
and photographs of the labelled camera, which are of other patients. All figures are on patients whom neither
has seen. Every stage leaves files in the run folder; a killed run continues.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from models.networks.features import LesionTrunk
from models.networks.generator import Adapter
from models.networks.grader import Grader
from models.training.adapter import train_adapter
from models.training.config import ConfigError
from models.training.data import DataError
from models.training.divergence import TrainingDivergedError
from models.training.end_to_end import GraderTraining, score_pictures, train_grader
from models.training.engine import Engine
from models.training.eyepacs import EyepacsLayout, EyepacsPhotograph, divide, without_grades
from models.training.eyepacs_config import EyepacsConfig
from models.training.eyepacs_pictures import Pictures, PictureStore
from models.training.eyepacs_table import (
    REMARK,
    Calibration,
    Row,
    calibrate,
    empty_row,
    markdown,
    measured_row,
)
from models.training.grading import REFERABLE
from models.training.progress import Progress
from models.training.run import open_run, read_json, write_json

LABELLED, UNADAPTED = "labelled camera", "none"


class EyepacsRun:
    """One run of the experiment in a run folder.

    Args:
        layout: Photographs, grades and cameras.
        out: Run folder.
        config: Settings.
        progress: Told what happens.
        workers: Processes that prepare photographs; 0 is one for each CPU core.
        engine: Where the networks compute: one device.
        cache: Folder of the prepared photographs; ``out/prepared`` if None.
        trunk: Lesion-supervised trunk to start the encoder from, or None.

    Raises:
        DataError: The labelled camera is not among the photographs.
        ConfigError: More than one device is asked for.
        RunConflictError: ``out`` belongs to another run.
    """

    def __init__(
        self,
        layout: EyepacsLayout,
        out: Path,
        config: EyepacsConfig,
        progress: Progress,
        *,
        workers: int = 0,
        engine: Engine | None = None,
        cache: Path | None = None,
        trunk: LesionTrunk | None = None,
    ) -> None:
        self.layout, self.out, self.config, self.progress = layout, out, config, progress
        self.engine, self.trunk = engine or Engine(), trunk
        if self.engine.world > 1:
            raise ConfigError("reproduce eyepacs runs on one device: leave --devices at 1")
        self.labelled = _labelled_camera(layout, config)
        self.parts = _parts(layout, config, self.labelled)
        open_run(out, config, _fingerprint(layout, trunk), self.engine)
        names = {
            camera: {part: [photo.name for photo in chosen] for part, chosen in parts.items()}
            for camera, parts in self.parts.items()
        }
        write_json(out / "split.json", names)
        self._store = PictureStore(cache or out / "prepared", config.size, workers, progress)

    def finish(self) -> list[Row]:
        """Run or resume everything; writes ``table.json`` and ``table.md`` and returns the table."""
        rows = [self._row(self.labelled, LABELLED)]
        for camera in self.measurable:
            rows.append(self._row(camera, UNADAPTED))
            rows += [self._row(camera, kind) for kind in self.config.adaptations()]
        remarks = self.remarks()
        content = {"rows": [asdict(row) for row in rows], "remarks": remarks, "found": self.layout.counts()}
        write_json(self.out / "table.json", content)
        (self.out / "table.md").write_text(markdown(rows, remarks), encoding="utf-8")
        return rows

    @cached_property
    def measurable(self) -> list[str]:
        """The other cameras that have enough photographs, in the order of their codes."""
        return [
            camera for camera in sorted(self.parts) if camera != self.labelled and not self._lacks(camera)
        ]

    def remarks(self) -> list[str]:
        """What must be said with the table: its terms, and everything that was left out."""
        said = [f"The labelled camera is code {self.labelled}.", REMARK]
        others = sorted(set(self.parts) - {self.labelled})
        said += [
            f"Camera {camera} is left out: {lack}." for camera in others if (lack := self._lacks(camera))
        ]
        left_out = self.layout.left_out()
        said += [f"{count} photographs left out: {reason}." for reason, count in left_out.items() if count]
        return said

    @cached_property
    def classifier(self) -> tuple[Grader, Calibration]:
        """The grader and its operating point, trained or resumed; figures in ``classifier.json``."""
        config, checkpoint, file = (
            self.config.grader,
            self.out / "classifier.pt",
            self.out / "classifier.json",
        )
        train, validation = (self._pictures(self.labelled, part) for part in ("train", "validation"))
        training = GraderTraining(self.config.size, config, self.engine, self.trunk)
        grader = train_grader(
            training,
            (train.tensors, train.grades),
            (validation.tensors, validation.grades),
            checkpoint=checkpoint,
            progress=self.progress,
        )
        if not file.exists():
            scores = score_pictures(grader, validation.tensors, self.engine.device)
            calibration = calibrate(scores, validation.grades, config.sensitivity)
            found = {"steps": training.step, "validation_auc": training.best_auc}
            counts = {"train": len(train.tensors), "validation": len(validation.tensors)}
            write_json(file, {**found, "photographs": counts, "calibration": asdict(calibration)})
        kept = read_json(file)["calibration"]
        return grader, Calibration(kept["slope"], tuple(kept["cuts"]), tuple(kept["thresholds"]))

    def _row(self, camera: str, kind: str) -> Row:
        file = self.out / "results" / f"camera-{camera}-{kind.replace(' ', '-')}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_json(file, asdict(self._measured(camera, kind)))
        return Row.read(file)

    def _measured(self, camera: str, kind: str) -> Row:
        grader, calibration = self.classifier
        test = self._pictures(camera, "test")
        translate = None
        if kind in self.config.adaptations():
            try:
                translate = self._adapter(camera, kind, grader)
            except TrainingDivergedError as error:
                # One camera's failed adapter is a result of the experiment; the other cameras go on.
                return empty_row(camera, kind, test, note=f"training failed: {error}")
        scores = score_pictures(grader, test.tensors, self.engine.device, translate)
        self.progress(f"camera {camera}, {kind}", 1, 1, {})
        return measured_row(camera, kind, test, scores, calibration)

    def _adapter(self, camera: str, kind: str, grader: Grader) -> Adapter:
        """Train or resume an adapter from photographs without grades."""
        first, second = self._pictures(camera, "adapt"), self._pictures(self.labelled, "train")
        generator = train_adapter(
            first.tensors,
            second.tensors[: self.config.adapt_cap],
            trunk=copy.deepcopy(grader.trunk),
            config=self.config.adaptations()[kind],
            checkpoint=self.out / f"adapter-{camera}-{kind.replace(' ', '-')}.pt",
            progress=self.progress,
            engine=self.engine,
        )
        return Adapter(generator).eval().to(self.engine.device)

    def _pictures(self, camera: str, part: str) -> Pictures:
        return self._store.load(f"camera {camera}, {part}", self.parts[camera][part])

    def _lacks(self, camera: str) -> str:
        """Why a camera cannot be measured, or nothing."""
        adapt, test = self.parts[camera]["adapt"], self.parts[camera]["test"]
        fewest = self.config.minimum_images
        if min(len(adapt), len(test)) < fewest:
            return (
                f"{len(adapt)} photographs to adapt and {len(test)} to measure, {fewest} of each are needed"
            )
        referable = sum((photo.grade or 0) >= REFERABLE for photo in test)
        if min(referable, len(test) - referable) < self.config.minimum_of_each:
            return (
                f"{referable} referable and {len(test) - referable} other photographs to measure, "
                f"{self.config.minimum_of_each} of each are needed"
            )
        return ""


def _labelled_camera(layout: EyepacsLayout, config: EyepacsConfig) -> str:
    counts = layout.counts()
    camera = config.labelled_camera or next(iter(counts))
    if camera not in counts:
        raise DataError(f"there is no photograph by camera {camera!r}; there are {', '.join(sorted(counts))}")
    return camera


def _parts(
    layout: EyepacsLayout, config: EyepacsConfig, labelled: str
) -> dict[str, dict[str, list[EyepacsPhotograph]]]:
    """Camera to part to photographs; those that adapt have lost their grades."""
    by_camera: dict[str, list[EyepacsPhotograph]] = {}
    for photo in layout.photographs:
        by_camera.setdefault(photo.camera, []).append(photo)
    rest = 1.0 - config.train_share - config.validation_share
    graded = {"train": config.train_share, "validation": config.validation_share, "test": rest}
    unlabelled = {"adapt": config.adapt_share, "test": 1.0 - config.adapt_share}
    caps = {
        "train": config.train_cap,
        "validation": config.validation_cap,
        "adapt": config.adapt_cap,
        "test": config.test_cap,
    }
    parts: dict[str, dict[str, list[EyepacsPhotograph]]] = {}
    for camera, photographs in by_camera.items():
        shares = graded if camera == labelled else unlabelled
        parts[camera] = divide(photographs, shares, caps, config.seed)
        if "adapt" in parts[camera]:
            parts[camera]["adapt"] = without_grades(parts[camera]["adapt"])
    return parts


def _fingerprint(layout: EyepacsLayout, trunk: LesionTrunk | None) -> str:
    digest = hashlib.sha256(layout.fingerprint.encode())
    weights: dict[str, Any] = {} if trunk is None else trunk.state_dict()
    for weight in weights.values():
        digest.update(weight.cpu().numpy().tobytes())
    return digest.hexdigest()
