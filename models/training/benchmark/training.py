"""Train the rows that need it: ours where the bundle has no adapter, plain CycleGAN, the paired bound.

All three see the same photographs by the same camera, take the same steps and differ in configuration only.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.cameras import SimulatedCamera, simulate
from models.errors import NoFieldOfViewError
from models.networks.build import Generator
from models.networks.features import LesionTrunk
from models.preprocess import prepare
from models.training.adapter import train_adapter
from models.training.adapter_config import AdapterConfig
from models.training.benchmark.fidelity import truth_of
from models.training.benchmark.graphs import PAIRED, PLAIN
from models.training.benchmark.heldout import HeldOut
from models.training.data import DataError, prepare_all, read_rgb
from models.training.export import export_adapter
from models.training.lesions import Progress
from models.training.paired import train_paired

Pictures = npt.NDArray[np.uint8]


class RowTrainer:
    """Trains a method for a camera on the photographs that the benchmark does not measure.

    Args:
        held: Its first and second style are trained on.
        trunk: The classifier's feature extractor.
        size: Side S of the pictures.
        config: Settings of the residual adapter; the other rows vary it.
        seed: Seed of the cameras' noise.
        progress: Told every step.
    """

    def __init__(
        self,
        held: HeldOut,
        *,
        trunk: LesionTrunk,
        size: int,
        config: AdapterConfig,
        seed: int,
        progress: Progress,
    ) -> None:
        if not held.first:
            raise DataError("there is no photograph to render first-style training pictures from")
        self._held, self._trunk, self._size = held, trunk, size
        self._config, self._seed, self._progress = config, seed, progress

    def __call__(self, method: str, camera: SimulatedCamera, path: Path) -> None:
        """Train and write the graph; the checkpoint beside it lets a killed training continue."""
        path.parent.mkdir(parents=True, exist_ok=True)
        generator, first = self.train(method, camera, path.parent / f"{camera.key}.pt")
        export_adapter(generator, path, first[:2])

    def train(self, method: str, camera: SimulatedCamera, checkpoint: Path) -> tuple[Generator, Pictures]:
        """Train; returns the generator and the first-style pictures uint8 (N, S, S, 4).

        Raises:
            TrainingDivergedError: The residual adapter's training failed; a plain CycleGAN is taken as it is.
        """
        first, truth = self._pairs(camera)
        config = settings(self._config, method)
        progress = partial(self._say, f"{method} {camera.name}")
        if method == PAIRED:
            found = train_paired(first, truth, config=config, checkpoint=checkpoint, progress=progress)
            return found, first
        found = train_adapter(
            first, self._second, trunk=self._trunk, config=config, checkpoint=checkpoint, progress=progress
        )
        return found, first

    @cached_property
    def _second(self) -> Pictures:
        return prepare_all([item.photograph.path for item in self._held.second], self._size)

    def _pairs(self, camera: SimulatedCamera) -> tuple[Pictures, Pictures]:
        """First-style pictures and the same unshifted, uint8 (N, S, S, 4); only the bound uses the latter."""
        found: list[tuple[Pictures, Pictures]] = []
        for done, item in enumerate(self._held.first):
            rgb = read_rgb(item.photograph.path)
            try:
                prepared = prepare(simulate(rgb, camera, self._seed + item.number), self._size)
            except NoFieldOfViewError:
                continue  # what the worker would refuse is no training picture either
            found.append((prepared.tensor, truth_of(rgb, prepared.field, prepared.tensor)))
            self._progress(f"training {camera.name}", done + 1, len(self._held.first), {})
        if not found:
            raise DataError(f"no field of view is found in any photograph by {camera.key}")
        return np.stack([first for first, _ in found]), np.stack([truth for _, truth in found])

    def _say(self, stage: str, _inner: str, step: int, steps: int, terms: dict[str, float]) -> None:
        self._progress(stage, step, steps, terms)


def settings(config: AdapterConfig, method: str) -> AdapterConfig:
    """The residual adapter's settings as another row needs them.

    The plain CycleGAN outputs whole pictures, has the cycle on pictures and no task features (Zhu et al.
    2017), and is measured even where its training is called a failure; the paired bound has the residual
    generator and its true answers.
    """
    if method == PLAIN:
        plain = AdapterConfig()
        return replace(
            config,
            residual=False,
            form=plain.form,
            scale=plain.scale,
            features=False,
            trainable_features=False,
            watch=replace(config.watch, on_divergence="warn"),
        )
    if method == PAIRED:
        return replace(config, paired=True, trainable_features=False)
    return config
