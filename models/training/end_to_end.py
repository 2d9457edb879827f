"""Train the grader end to end on grades, on the labelled camera only."""

from __future__ import annotations

import contextlib
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
from models.training.adapter import TrainingDivergedError
from models.training.data import DataError
from models.training.grading import REFERABLE
from models.training.lesions import Progress
from models.training.losses import ordinal_loss

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
        validate_every: Steps between validations; each is a checkpoint too.
        patience: Validations without a higher referable AUC after which training stops.
        sensitivity: Sensitivity for referable disease that the threshold reaches on the validation part.
        bf16: Whether the network computes in bfloat16 (an accelerator that has it); the loss stays float32.
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
    validate_every: int = 500
    patience: int = 12
    sensitivity: float = 0.9
    bf16: bool = False
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
        device: Where to compute.
        trunk: Trunk to start from, of the configured widths, or None.
    """

    def __init__(
        self, size: int, config: GraderConfig, device: torch.device, trunk: LesionTrunk | None = None
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.grader = Grader(size, config.widths, config.tail)
        if trunk is not None:
            _start_from(self.grader, trunk)
        self.grader.to(device)
        trained = [weight for weight in self.grader.parameters() if weight.requires_grad]
        rate = config.learning_rate
        self.optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, total_steps=config.steps)
        self.best = copy.deepcopy(self.grader.state_dict())
        self.best_auc, self.without_gain, self.step = -1.0, 0, 0

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the validation AUC has not risen for ``patience`` validations."""
        return self.step >= self.config.steps or self.without_gain >= self.config.patience

    def update(self, pictures: Tensor, grades: Tensor, rng: np.random.Generator) -> float:
        """One optimiser step; returns the loss.

        Raises:
            TrainingDivergedError: The loss is not finite.
        """
        self.grader.train()
        rgb, mask = split_rgba(pictures.to(self.device))
        jitter = self.config.exposure_jitter
        gain = torch.from_numpy(rng.uniform(1 - jitter, 1 + jitter, (len(rgb), 1, 1, 1)).astype(np.float32))
        rgb = (rgb * gain.to(self.device)) * mask
        with _precision(self.device, self.config.bf16):
            score = self.grader(rgb, mask)
        loss = ordinal_loss(score.float(), self.grader.cuts(), grades.to(self.device))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        value = loss.item()
        if not np.isfinite(value):
            raise TrainingDivergedError(f"the loss is not finite at step {self.step}: lower learning_rate")
        return value

    def validate(self, pictures: Uint8Array, referable: npt.NDArray[np.bool_]) -> float:
        """Referable AUC on the validation part; keeps the weights if it is the highest so far."""
        auc = float(roc_auc_score(referable, score_pictures(self.grader, pictures, self.device)))
        self.without_gain += 1
        if auc > self.best_auc:
            self.best_auc, self.without_gain = auc, 0
            self.best = copy.deepcopy(self.grader.state_dict())
        return auc

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        return {
            "grader": self.grader.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
            "best_auc": self.best_auc,
            "without_gain": self.without_gain,
            "step": self.step,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.grader.load_state_dict(state["grader"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.best, self.best_auc = state["best"], float(state["best_auc"])
        self.without_gain, self.step = int(state["without_gain"]), int(state["step"])


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
        training.resume(torch.load(checkpoint, weights_only=True, map_location=training.device))
    config, referable = training.config, validation[1] >= REFERABLE
    sampler = GradedSampler(*train, config.balance)
    while not training.finished:
        rng = np.random.default_rng((config.seed, training.step))
        terms = {"loss": training.update(*sampler.draw(rng, config.batch), rng)}
        if training.step % config.validate_every == 0 or training.step == config.steps:
            terms["validation_auc"] = training.validate(validation[0], referable)
            partial = checkpoint.with_suffix(".partial")
            torch.save(training.state(), partial)
            partial.replace(checkpoint)
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


def _precision(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
