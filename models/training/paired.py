"""The upper bound: the same generator, trained with each picture's true second style.

Nobody has a photograph of one eye by both cameras at one moment; a simulated camera's photographs have their
originals. So this makes no adapter: it says what form and scale of the generator could reach at best, which
is what training without pairs is measured against. Same networks, geometry, steps and averaging as there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.networks.build import Generator, build_generator
from models.training.adapter_config import AdapterConfig, AdapterConfigError
from models.training.averaging import WeightAverage
from models.training.engine import Engine
from models.training.lesions import Progress
from models.training.losses import paired_loss
from models.training.styles import StyleBatch, StyleSampler, Translator


class PairedTraining:
    """State of a paired training: G12, its optimiser and its average.

    A step minimises E|x̂2 − x2|, the mean of its values on the reduced picture and on the crop, where x̂2 is
    G12(x1) and x2 the same eye, not shifted. No discriminators, no G21, no cycle.

    Args:
        size: Side S of the pictures.
        config: Settings; ``paired`` is set.
        engine: Where steps run.

    Raises:
        AdapterConfigError: ``config.paired`` is not set, so the run's settings would not say what it was.
    """

    def __init__(self, size: int, config: AdapterConfig, engine: Engine) -> None:
        if not config.paired:
            raise AdapterConfigError("training with true pairs needs paired = true in its settings")
        torch.manual_seed(config.seed)
        self.config, self.engine, self.step = config, engine, 0
        self.generator = engine.adopt(build_generator(config))
        self.optimiser = engine.optimiser(
            torch.optim.Adam(self.generator.parameters(), config.learning_rate, betas=(0.5, 0.999))
        )
        self.average = WeightAverage(self.generator, config.average_from * config.steps)
        self.translator = Translator(None, size, features=False, overview=config.residual)

    def update(self, first: StyleBatch, truth: StyleBatch) -> dict[str, float]:
        """One step; returns its loss.

        Args:
            first: Pictures of the incoming camera.
            truth: The same pictures by the labelled camera.
        """
        with self.engine.autocast():
            made = self.translator.translate(self.generator, first).batch
            loss = self._distance(made, truth)
        self.engine.minimise(loss, self.optimiser)
        self.step += 1
        self.average.add(self.generator, self.step)
        return {"paired": float(loss.detach())}

    def _distance(self, made: StyleBatch, truth: StyleBatch) -> Tensor:
        crop = paired_loss(made.crop, truth.crop, made.crop_mask * truth.crop_mask)
        if not self.config.residual:
            return crop
        inside = made.reduced_mask * truth.reduced_mask
        return 0.5 * (crop + paired_loss(made.reduced, truth.reduced, inside))

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs; ``average`` is what export reads."""
        return {
            "generator12": self.generator.state_dict(),
            "average": self.average.mean.state_dict(),
            "averaged": self.average.count,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.generator.load_state_dict(state["generator12"])
        self.average.mean.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.count, self.step = int(state["averaged"]), int(state["step"])


def train_paired(
    first: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    *,
    config: AdapterConfig,
    checkpoint: Path,
    progress: Progress,
    engine: Engine | None = None,
) -> Generator:
    """Train G12 with its true answers, resuming from ``checkpoint`` if it exists.

    Args:
        first: Pictures of the incoming camera, uint8 (N, S, S, 4).
        truth: The same eyes by the labelled camera in the same order, uint8 (N, S, S, 4).
        config: Settings; ``paired`` is set.
        checkpoint: Where state is kept.
        progress: Told every step.
        engine: Where steps run; the default one if None.

    Returns:
        The averaged G12, in evaluation mode.

    Raises:
        AdapterConfigError: ``config.paired`` is not set.
        ValueError: ``first`` and ``truth`` are not equally many pictures of one size.
    """
    if first.shape != truth.shape:
        raise ValueError(f"pictures {first.shape} and their truth {truth.shape} are no pairs")
    training = PairedTraining(first.shape[1], config, engine or Engine())
    if checkpoint.exists():
        training.resume(training.engine.load(checkpoint))
    reduced = first.shape[1] // config.scale
    samplers = [StyleSampler(pictures, reduced, config.crop) for pictures in (first, truth)]
    while training.step < config.steps:
        # Both draw from the same seed: the same eyes, and windows.
        seed = training.engine.seed(config.seed, training.step)
        batches = [sampler.draw(np.random.default_rng(seed), config.batch) for sampler in samplers]
        terms = training.update(*(batch.to(training.engine.device) for batch in batches))
        progress("paired adapter", training.step, config.steps, terms)
        if training.step % config.checkpoint_every == 0 or training.step == config.steps:
            training.engine.save(checkpoint, training.state())
    return training.average.mean.eval()
