"""From photographs to a sealed bundle: the recipe of ``models/bundles/reference``.

Every stage leaves a file in the run folder and is skipped when that file is there, so a killed run continues.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from models.bundle import Bundle
from models.cameras import CAMERAS, SimulatedCamera, simulate
from models.networks.classifier import FundusClassifier, OrdinalHead
from models.networks.features import LesionTrunk
from models.networks.quality import QualityNetwork
from models.preprocess import prepare
from models.training import data, evaluate, quality
from models.training.adapter import AdapterConfig, train_adapter
from models.training.engine import Engine
from models.training.export import export_classifier
from models.training.grading import OEDEMA_RISKS, HeadConfig, fit_head, fit_oedema
from models.training.head_features import head_features
from models.training.lesions import LesionConfig, Progress, load_lesion_set, train_trunk
from models.training.publish import publish
from models.training.recipes import export_trained
from models.training.run import open_run, read_json, write_json


@dataclass(frozen=True)
class ReferenceConfig:
    """How the reference bundle is made.

    Attributes:
        size: Side S of the input in pixels.
        seed: Seed of the split; the stages have their own.
        adapted: Simulated cameras that get an adapter.
        unadapted: Simulated cameras that are measured without one.
        lesions: Trunk.
        head: Ordinal head.
        quality: Quality head.
        adapter: Adapters.
    """

    size: int = 512
    seed: int = 0
    adapted: tuple[str, ...] = tuple(CAMERAS)
    unadapted: tuple[str, ...] = ()
    lesions: LesionConfig = field(default_factory=LesionConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    quality: quality.QualityConfig = field(default_factory=quality.QualityConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)


@dataclass(frozen=True)
class Sources:
    """Where the data lie.

    Attributes:
        images: Folder of graded photographs.
        labels: CSV file, name and grade.
        lesions: Folder of photographs with masks.
    """

    images: Path
    labels: Path
    lesions: Path


@dataclass(frozen=True)
class ReferenceData:
    """Photographs with their parts and look-alike groups."""

    photographs: list[data.Photograph]
    lesions: list[data.LesionPhotograph]
    pictures: npt.NDArray[np.uint8]
    groups: list[int]
    parts: dict[str, str]

    def indices(self, *parts: str) -> list[int]:
        """Positions of the graded photographs of some parts."""
        return [index for index, photo in enumerate(self.photographs) if self.parts[photo.name] in parts]

    @cached_property
    def grades(self) -> npt.NDArray[np.int64]:
        """Grades of all photographs, int64 (N,)."""
        return np.array([photo.grade for photo in self.photographs], dtype=np.int64)

    @cached_property
    def oedema(self) -> npt.NDArray[np.int64]:
        """Risk of macular oedema of all photographs, int64 (N,); -1 where nothing is said of it."""
        return np.array([-1 if p.oedema is None else p.oedema for p in self.photographs], dtype=np.int64)


class ReferenceRun:
    """One run of the reference recipe in a run folder.

    Args:
        sources: Where the data lie.
        out: Run folder.
        config: Settings.
        progress: Told what happens.
        engine: Where the trunk and the adapters train, one device; by default one that is found.
    """

    def __init__(
        self,
        sources: Sources,
        out: Path,
        config: ReferenceConfig,
        progress: Progress,
        engine: Engine | None = None,
    ) -> None:
        self.out, self.config, self.progress = out, config, progress
        self.engine = engine or Engine()
        self.bundle = out / "bundle"
        photographs = data.read_folder(sources.images, sources.labels)
        masked = data.read_lesions(sources.lesions)
        files = [photo.path for photo in photographs] + [sources.labels]
        files += [path for photo in masked for path in (photo.path, *photo.masks.values())]
        self.fingerprint = data.fingerprint(files)
        named = (*config.adapted, *config.unadapted)
        open_run(out, config, self.fingerprint, self.engine, {name: asdict(CAMERAS[name]) for name in named})
        self.data = self._load(photographs, masked)

    def finish(self) -> Bundle:
        """Run or resume all stages; returns the sealed bundle."""
        trunk = self.trunk()
        self.classifier(trunk)
        for name in self.config.adapted:
            self.adapter(CAMERAS[name], trunk)
        results = self.measure()
        return publish(self.bundle, self.config.size, self.fingerprint, results)

    def trunk(self) -> LesionTrunk:
        """Stage 1: the lesion trunk."""
        config = self.config.lesions
        lesions = load_lesion_set(self.data.lesions, self.config.size)
        return train_trunk(lesions, config, self.out / "trunk.pt", self.progress, self.engine)

    def classifier(self, trunk: LesionTrunk) -> None:
        """Stage 2: head and quality, exported as ``classifier.onnx``; figures in ``classifier.json``."""
        if (self.out / "classifier.json").exists():
            return
        network = FundusClassifier(self.config.size).eval()
        network.trunk = trunk
        features = head_features(
            network,
            self.data.pictures,
            self.config.head.versions,
            kept=self.out / "features.npy",
            progress=self.progress,
        )
        chosen = self.data.indices("train", "validation")
        grades, groups = self.data.grades, np.array(self.data.groups)
        fitted = fit_head(features[:, chosen], grades[chosen], groups[chosen], self.config.head)
        network.head = fitted.head
        network.oedema, oedema_figures = self._oedema(features)
        network.quality, quality_figures = self._quality()
        path = self.bundle / "classifier.onnx"
        parity = export_classifier(network.eval(), path, self.data.pictures[:4])
        torch.save(network.state_dict(), self.out / "classifier.pt")
        calibration = {
            "method": "referable outcome out of fold: slope and second cut; the other cuts by theirs",
            "slope": float(fitted.head.slope),
            "cuts": [float(cut) for cut in fitted.head.cuts],
            "referable_sensitivity_aimed_at": self.config.head.sensitivity,
        }
        head = {"thresholds": list(fitted.thresholds), "calibration": calibration, "parity": parity}
        content = {
            "head": head,
            "out_of_fold": fitted.out_of_fold,
            # Of the recipe, on all photographs: the head that is exported never saw the held-out ones.
            "cross_validated": fit_head(features, grades, groups, self.config.head).out_of_fold,
            "macular_oedema": oedema_figures,
            "quality": quality_figures,
        }
        write_json(self.out / "classifier.json", content)

    def adapter(self, camera: SimulatedCamera, trunk: LesionTrunk) -> None:
        """Stage 3: one adapter; first style from one half of the people, second style from the other."""
        path = self.bundle / "adapters" / f"{camera.key}.onnx"
        if path.exists():
            return
        first, second = self._styles(camera)
        checkpoint = self.out / f"adapter-{camera.key}.pt"
        generator = train_adapter(
            first,
            second,
            trunk=trunk,
            config=self.config.adapter,
            checkpoint=checkpoint,
            progress=self.progress,
            engine=self.engine,
        )
        export_trained(checkpoint, generator, path, first[:4])

    def measure(self) -> dict[str, Any]:
        """Stage 4: all figures on the held-out photographs."""
        found = read_json(self.out / "classifier.json")
        point = evaluate.OperatingPoint(tuple(found["head"]["thresholds"]), found["quality"]["minimum"])
        test = self.data.indices("test")
        grades, graph = self.data.grades[test], self.bundle / "classifier.onnx"
        oracle = evaluate.classify(graph, self.data.pictures[test])
        low, high = evaluate.auc_interval(oracle, grades)
        found["held_out"] = {
            **evaluate.referable_figures(oracle, grades, point),
            "auc_low": low,
            "auc_high": high,
            **evaluate.calibration_intervals(oracle, grades),
        }
        found["cameras"] = {}
        for name in (*self.config.adapted, *self.config.unadapted):
            camera = CAMERAS[name]
            taken = self._taken(camera, test)
            path = self.bundle / "adapters" / f"{camera.key}.onnx"
            adapted = evaluate.classify(graph, evaluate.adapt(path, taken)) if path.exists() else None
            shifted = evaluate.classify(graph, taken)
            found["cameras"][camera.key] = evaluate.camera_figures(oracle, shifted, adapted, grades, point)
            self.progress("measured", len(found["cameras"]), len(CAMERAS), {})
        found["photographs"] = self._counts()
        write_json(self.out / "metrics.json", found)
        return found

    def _load(
        self, photographs: list[data.Photograph], lesions: list[data.LesionPhotograph]
    ) -> ReferenceData:
        paths = [photo.path for photo in photographs] + [photo.path for photo in lesions]
        pictures = data.prepare_all(paths, self.config.size)
        groups = data.look_alike_groups(np.stack([data.signature(picture) for picture in pictures]))
        # The two folders number their photographs alike: a prefix keeps the names apart.
        masked = [f"lesions/{photo.name}" for photo in lesions]
        names = [photo.name for photo in photographs] + masked
        parts = data.split(names, groups, self.config.seed, pinned=masked)
        write_json(self.out / "split.json", {"parts": parts, "groups": dict(zip(names, groups, strict=True))})
        count = len(photographs)
        return ReferenceData(photographs, lesions, pictures[:count], groups[:count], parts)

    def _oedema(self, features: npt.NDArray[np.float64]) -> tuple[OrdinalHead, dict[str, float]]:
        """The macular-oedema head; where no photograph says anything of it, one that knows nothing."""
        risks = self.data.oedema
        told = risks >= 0
        chosen = np.array(self.data.indices("train", "validation"))
        seen = chosen[told[chosen]]
        if len(np.unique(risks[seen])) <= OEDEMA_RISKS:
            return OrdinalHead(features.shape[2], OEDEMA_RISKS), {"photographs": 0.0}
        groups = np.array(self.data.groups)
        head, figures = fit_oedema(features[:, seen], risks[seen], groups[seen], self.config.head)
        unseen = np.array([index for index in self.data.indices("test") if told[index]], dtype=np.int64)
        if len(unseen):
            scores = head.score(torch.from_numpy(features[0, unseen]).float()).numpy()
            figures["held_out_auc_any"] = float(roc_auc_score(risks[unseen] >= 1, scores))
            figures["held_out_auc_high"] = float(roc_auc_score(risks[unseen] >= OEDEMA_RISKS, scores))
        return head, {"photographs": float(len(seen)), **figures}

    def _quality(self) -> tuple[QualityNetwork, dict[str, float]]:
        sets = {part: self._quality_set(seed, part) for seed, part in enumerate(data.PARTS)}
        network = quality.train_quality(sets["train"], self.config.quality, self.progress)
        minimum = quality.minimum_quality(network, sets["validation"], self.config.quality)
        return network, {"minimum": minimum, **quality.quality_figures(network, sets["test"], minimum)}

    def _quality_set(self, seed: int, part: str) -> quality.QualitySet:
        paths = [self.data.photographs[index].path for index in self.data.indices(part)]
        config = self.config
        return quality.kept_set(
            self.out / f"quality-{part}.npz",
            lambda: quality.quality_set(paths, config.size, config.quality, seed, self.progress),
        )

    def _styles(self, camera: SimulatedCamera) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        chosen = self.data.indices("train", "validation")
        names = [self.data.photographs[index].name for index in chosen]
        groups = [self.data.groups[index] for index in chosen]
        firsts, _ = data.halves(names, groups, self.config.seed)
        wanted = set(firsts)
        first = [index for index in chosen if self.data.photographs[index].name in wanted]
        second = [index for index in chosen if self.data.photographs[index].name not in wanted]
        return self._taken(camera, first), self.data.pictures[second]

    def _taken(self, camera: SimulatedCamera, chosen: list[int]) -> npt.NDArray[np.uint8]:
        """Photographs as a simulated camera takes them, prepared, uint8 (N, S, S, 4)."""
        pictures = np.empty((len(chosen), self.config.size, self.config.size, 4), np.uint8)
        for place, index in enumerate(chosen):
            rgb = data.read_rgb(self.data.photographs[index].path)
            pictures[place] = prepare(simulate(rgb, camera, index), self.config.size).tensor
            self.progress(f"photographs by {camera.key}", place + 1, len(chosen), {})
        return pictures

    def _counts(self) -> dict[str, int]:
        parts = Counter(self.data.parts[photo.name] for photo in self.data.photographs)
        groups = len(set(self.data.groups))
        return {
            **{part: parts[part] for part in data.PARTS},
            "lesions": len(self.data.lesions),
            "groups": groups,
        }
