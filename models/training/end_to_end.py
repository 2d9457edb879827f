"""Train the grader end to end on grades, on the labelled camera only."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from models.networks.features import LesionTrunk, split_rgba
from models.networks.grader import Grader
from models.training.data import DataError
from models.training.divergence import require_finite
from models.training.engine import Engine
from models.training.grading import REFERABLE
from models.training.losses import ordinal_loss
from models.training.progress import Progress
from models.training.stopping import EarlyStop

Uint8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GraderConfig:
    """How the grader is trained.

    Attributes:
        widths: Channels of the encoder's four levels.
        tail: Channels of the levels after the encoder.
        steps: Most optimiser steps.
        batch: Photographs a step.
        learning_rate: Peak of a one-cycle schedule (AdamW).
        weight_decay: Of AdamW.
        balance: A photograph's weight in drawing is (number of its grade)^−balance: 0 draws them as they
            come, 1 draws every grade equally often.
        exposure_jitter: Largest relative change of a photograph's brightness, both ways.
        clip: Largest L2 norm of a step's gradient; 0 clips nothing.
        validate_every: Steps between validations; each is a checkpoint too.
        patience: Validations without a higher referable AUC after which training stops; 0 never stops.
        sensitivity: Sensitivity for referable disease that the threshold reaches on the validation part.
        seed: Seed of weights, batches and augmentation.
    """

    widths: tuple[int, int, int, int] = (24, 48, 64, 96)
    tail: tuple[int, ...] = (128, 192)
    steps: int = 20_000
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    balance: float = 0.75
    exposure_jitter: float = 0.15
    clip: float = 1.0
    validate_every: int = 500
    patience: int = 12
    sensitivity: float = 0.9
    seed: int = 0


class GradedSampler:
    """Draws augmented batches, rare grades more often.

    Args:
        pictures: uint8 (N, S, S, 4); may be memory-mapped.
        grades: int64 (N,).
        balance: See ``GraderConfig``.
    """

    def __init__(self, pictures: Uint8Array, grades: IntArray, balance: float) -> None:
        self._pictures, self._grades = pictures, grades
        frequent = np.bincount(grades, minlength=5).astype(np.float64)
        weight = frequent[grades] ** -balance
        self._edges = np.cumsum(weight / weight.sum())

    def draw(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor]:
        """Photographs uint8 (B, S, S, 4), each turned and mirrored at random, and grades int64 (B,)."""
        chosen = np.minimum(np.searchsorted(self._edges, rng.random(batch)), len(self._grades) - 1)
        turned = []
        for index in chosen:
            picture = np.rot90(self._pictures[index], int(rng.integers(4)))
            turned.append(picture[:, ::-1] if rng.integers(2) else picture)
        return torch.from_numpy(np.stack(turned)), torch.from_numpy(self._grades[chosen])


class GraderTraining:
    """State of a grader's training, with the weights of its best validation.

    Args:
        size: Side S of the photographs.
        config: Settings.
        engine: Where steps run.
        trunk: Trunk to start from, of the configured widths, or None.
    """

    def __init__(
        self, size: int, config: GraderConfig, engine: Engine, trunk: LesionTrunk | None = None
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.engine, self.step = config, engine, 0
        grader = Grader(size, config.widths, config.tail)
        if trunk is not None:
            _start_from(grader, trunk)
        self.grader = engine.adopt(grader)
        trained = [weight for weight in self.grader.parameters() if weight.requires_grad]
        rate = config.learning_rate
        optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=config.weight_decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=config.steps)
        self._optimiser = engine.optimiser(optimiser)
        self._stop = EarlyStop(config.patience, 0.0)
        self.best = copy.deepcopy(self.grader.state_dict())

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the validation AUC has not risen for ``patience`` validations."""
        return self.step >= self.config.steps or self._stop.over

    @property
    def best_auc(self) -> float:
        """Highest referable AUC on the validation part so far."""
        return 1.0 - self._stop.best

    def update(self, pictures: Tensor, grades: Tensor, rng: np.random.Generator) -> dict[str, float]:
        """One optimiser step; returns the loss.

        Raises:
            TrainingDivergedError: The loss is not finite.
        """
        self.grader.train()
        device = self.engine.device
        rgb, mask = split_rgba(pictures.to(device))
        jitter = self.config.exposure_jitter
        gain = torch.from_numpy(rng.uniform(1 - jitter, 1 + jitter, (len(rgb), 1, 1, 1)).astype(np.float32))
        with self.engine.autocast():
            score = self.grader((rgb * gain.to(device)) * mask, mask)
        loss = ordinal_loss(score.float(), self.grader.cuts(), grades.to(device))
        self.engine.minimise(loss, self._optimiser, self.config.clip)
        self._schedule.step()
        self.step += 1
        terms = {"loss": loss.item()}
        require_finite(terms, self.step)
        return terms

    def validate(self, pictures: Uint8Array, referable: npt.NDArray[np.bool_]) -> float:
        """Referable AUC on the validation part; keeps the weights if it is the highest so far."""
        auc = float(roc_auc_score(referable, score_pictures(self.grader, pictures, self.engine.device)))
        if self._stop.check(1.0 - auc):
            self.best = copy.deepcopy(self.grader.state_dict())
        return auc

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        return {
            "grader": self.grader.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "stop": self._stop.state(),
            "best": self.best,
            "step": self.step,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.grader.load_state_dict(state["grader"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._stop.resume(state["stop"])
        self.best, self.step = state["best"], int(state["step"])


def train_grader(
    training: GraderTraining,
    train: tuple[Uint8Array, IntArray],
    validation: tuple[Uint8Array, IntArray],
    *,
    checkpoint: Path,
    progress: Progress,
) -> Grader:
    """Train until the steps are done or validation no longer gains, resuming from ``checkpoint``.

    Each step draws from a generator seeded by (seed, step), so a resumed run sees the same photographs.

    Args:
        training: Fresh state.
        train: Photographs uint8 (N, S, S, 4) and grades int64 (N,) of the labelled camera.
        validation: The same of other patients of that camera.
        checkpoint: Where state is kept.
        progress: Told every step.

    Returns:
        The grader with the weights of its best validation, in evaluation mode.

    Raises:
        DataError: One of the parts holds no referable or no other photograph.
        TrainingDivergedError: The loss is not finite.
    """
    for part, grades in (("training", train[1]), ("validation", validation[1])):
        if len(np.unique(grades >= REFERABLE)) < 2:
            raise DataError(
                f"the {part} part of the labelled camera holds only one of referable (grade 2 to 4) and "
                "other photographs: give more photographs, or raise its cap"
            )
    if checkpoint.exists():
        training.resume(training.engine.load(checkpoint))
    config, referable = training.config, validation[1] >= REFERABLE
    sampler = GradedSampler(*train, config.balance)
    while not training.finished:
        rng = np.random.default_rng((config.seed, training.step))
        terms = training.update(*sampler.draw(rng, config.batch), rng)
        if training.step % config.validate_every == 0 or training.step == config.steps:
            terms["validation_auc"] = training.validate(validation[0], referable)
            training.engine.save(checkpoint, training.state())
        progress("classifier", training.step, config.steps, terms)
    training.grader.load_state_dict(training.best)
    return training.grader.eval()


def score_pictures(
    grader: Grader,
    pictures: Uint8Array,
    device: torch.device,
    translate: Callable[[Tensor], Tensor] | None = None,
    batch: int = 16,
) -> FloatArray:
    """Scores of photographs, float64 (N,).

    Args:
        grader: The grader; put into evaluation mode.
        pictures: uint8 (N, S, S, 4).
        device: Where to compute; the grader is there.
        translate: Adapter on that device, uint8 (N, S, S, 4) to the same, or None.
        batch: Photographs at once.
    """
    grader.eval()
    scores = []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            image = torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch])).to(device)
            rgb, mask = split_rgba(image if translate is None else translate(image))
            scores.append(grader(rgb, mask).float().cpu().numpy())
    return np.concatenate(scores).astype(np.float64)


def trunk_widths(trunk: LesionTrunk) -> tuple[int, int, int, int]:
    """Channels of the encoder's four levels."""
    with torch.inference_mode():
        first, second, third, fourth = trunk.eval().encode(torch.zeros(1, 3, 16, 16))
    return first.shape[1], second.shape[1], third.shape[1], fourth.shape[1]


def _start_from(grader: Grader, trunk: LesionTrunk) -> None:
    given, wanted = trunk_widths(trunk), trunk_widths(grader.trunk)
    if given != wanted:
        raise DataError(
            f"the trunk to start from has the widths {given}, the grader {wanted}: make them equal"
        )
    grader.trunk.load_state_dict(trunk.state_dict())
