"""Supervise the trunk with lesion masks: patches of local contrast in, maps of lesions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.networks.features import LESION_CHANNELS, LesionTrunk, LocalContrast, split_rgba
from models.preprocess import prepare
from models.training.data import LesionPhotograph, lesion_masks, read_rgb
from models.training.divergence import require_finite
from models.training.engine import Engine
from models.training.losses import lesion_loss
from models.training.perturb import perturbed
from models.training.progress import Progress as Progress  # noqa: PLC0414 - taken from here too


@dataclass(frozen=True)
class LesionConfig:
    """How the trunk is trained.

    Attributes:
        size: Side S of the pictures in pixels.
        steps: Optimiser steps.
        patch: Side of a patch in pixels, a multiple of 8.
        batch: Patches a step.
        near_lesion: Share of patches centred on a lesion pixel; the rest lie anywhere in the field.
        learning_rate: Peak of a one-cycle schedule (AdamW).
        positive_weight: Weight of lesion pixels in the cross-entropy.
        contrast_jitter: Largest relative change of a patch's contrast, both ways.
        channel_jitter: Largest further relative change of one channel's contrast, both ways.
        noise: Largest standard deviation of added noise, in units of contrast (32 grey levels).
        blur: Largest standard deviation of added blur, px; half of the patches stay sharp.
        clip: Largest L2 norm of a step's gradient; 0 clips nothing.
        checkpoint_every: Steps between checkpoints.
        seed: Seed of patches, augmentation and weights.
    """

    size: int = 512
    steps: int = 1500
    patch: int = 96
    batch: int = 12
    near_lesion: float = 0.6
    learning_rate: float = 4e-3
    positive_weight: float = 4.0
    contrast_jitter: float = 0.2
    channel_jitter: float = 0.12
    noise: float = 0.12
    blur: float = 0.6
    clip: float = 0.0
    checkpoint_every: int = 100
    seed: int = 0


@dataclass(frozen=True)
class LesionSet:
    """Contrast int8 (N, 3, S, S) in 1/63, masks uint8 (N, 5, S, S) in 1/255, field of view bool (N, S, S)."""

    contrast: npt.NDArray[np.int8]
    masks: npt.NDArray[np.uint8]
    inside: npt.NDArray[np.bool_]


def load_lesion_set(photographs: Sequence[LesionPhotograph], size: int) -> LesionSet:
    """Prepare photographs and their masks once; whole pictures, so that contrast is as in serving."""
    count = len(photographs)
    contrast = np.empty((count, 3, size, size), np.int8)
    masks = np.empty((count, LESION_CHANNELS, size, size), np.uint8)
    inside = np.empty((count, size, size), np.bool_)
    normalise = LocalContrast(size)
    for index, photograph in enumerate(photographs):
        prepared = prepare(read_rgb(photograph.path), size)
        with torch.inference_mode():
            rgb, mask = split_rgba(torch.from_numpy(prepared.tensor[None]))
            contrast[index] = (normalise(rgb, mask)[0] * 63.0).round().numpy().astype(np.int8)
        masks[index] = np.round(lesion_masks(photograph, prepared.field, size) * 255.0)
        inside[index] = prepared.tensor[..., 3] > 0
    return LesionSet(contrast, masks, inside)


class PatchSampler:
    """Draws augmented patches; ``near_lesion`` of them centred on a pixel of a kind chosen evenly."""

    def __init__(self, lesions: LesionSet, config: LesionConfig) -> None:
        self._lesions = lesions
        self._config = config
        self._places = [
            [np.argwhere(masks[kind] > 127) for kind in range(LESION_CHANNELS)] for masks in lesions.masks
        ]
        self._anywhere = [np.argwhere(inside[::4, ::4]) * 4 for inside in lesions.inside]
        self._holders = [
            [index for index, kinds in enumerate(self._places) if len(kinds[kind])]
            for kind in range(LESION_CHANNELS)
        ]

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One batch: contrast float32 (B, 3, p, p) and masks float32 (B, 5, p, p) in 0..1."""
        pairs = [self._patch(rng) for _ in range(self._config.batch)]
        contrast = np.stack([pair[0] for pair in pairs]).astype(np.float32) / 63.0
        settings = self._config
        contrast = perturbed(
            contrast,
            rng,
            gain=settings.contrast_jitter,
            channel=settings.channel_jitter,
            noise=settings.noise,
            blur=settings.blur,
        )
        masks = np.stack([pair[1] for pair in pairs]).astype(np.float32) / 255.0
        return torch.from_numpy(contrast), torch.from_numpy(masks)

    def _patch(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.uint8]]:
        picture, places = self._place(rng)
        row, column = places[rng.integers(len(places))]
        side, size = self._config.patch, self._config.size
        jitter = rng.integers(-side // 3, side // 3 + 1, 2)
        top = int(np.clip(row + jitter[0] - side // 2, 0, size - side))
        left = int(np.clip(column + jitter[1] - side // 2, 0, size - side))
        window = (slice(None), slice(top, top + side), slice(left, left + side))
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        contrast = np.rot90(self._lesions.contrast[picture][window], turns, (1, 2))
        masks = np.rot90(self._lesions.masks[picture][window], turns, (1, 2))
        return (contrast[:, :, ::-1], masks[:, :, ::-1]) if mirrored else (contrast, masks)

    def _place(self, rng: np.random.Generator) -> tuple[int, npt.NDArray[np.int64]]:
        if rng.random() < self._config.near_lesion:
            kinds = [kind for kind, holders in enumerate(self._holders) if holders]
            kind = kinds[int(rng.integers(len(kinds)))]
            picture = self._holders[kind][int(rng.integers(len(self._holders[kind])))]
            return picture, self._places[picture][kind]
        picture = int(rng.integers(len(self._anywhere)))
        return picture, self._anywhere[picture]


class TrunkTraining:
    """State of the trunk's training: network, optimiser and learning-rate schedule.

    Args:
        config: Settings.
        engine: Where steps run.
    """

    def __init__(self, config: LesionConfig, engine: Engine) -> None:
        torch.manual_seed(config.seed)
        self.config, self.engine, self.step = config, engine, 0
        self.trunk = engine.adopt(LesionTrunk()).train()
        optimiser = torch.optim.AdamW(self.trunk.parameters(), lr=config.learning_rate, weight_decay=1e-3)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=config.steps
        )
        self._optimiser = engine.optimiser(optimiser)
        self._weight = torch.full((LESION_CHANNELS, 1, 1), config.positive_weight, device=engine.device)

    def update(self, contrast: Tensor, masks: Tensor) -> dict[str, float]:
        """One step on a batch of ``PatchSampler``; returns the loss.

        Raises:
            TrainingDivergedError: The loss is not finite.
        """
        device = self.engine.device
        with self.engine.autocast():
            loss = lesion_loss(self.trunk(contrast.to(device))[0], masks.to(device), self._weight)
        self.engine.minimise(loss, self._optimiser, self.config.clip)
        self._schedule.step()
        self.step += 1
        terms = {"loss": loss.item()}
        require_finite(terms, self.step)
        return terms

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        state = {"trunk": self.trunk.state_dict(), "optimiser": self._optimiser.state_dict()}
        return {**state, "schedule": self._schedule.state_dict(), "step": self.step}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.trunk.load_state_dict(state["trunk"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.step = int(state["step"])


def train_trunk(
    lesions: LesionSet,
    config: LesionConfig,
    checkpoint: Path,
    progress: Progress,
    engine: Engine | None = None,
) -> LesionTrunk:
    """Train the trunk, resuming from ``checkpoint`` where a killed run left it.

    Each step draws from a generator seeded by (seed, step), so a resumed run sees the same patches. With
    several devices the batch normalisation keeps the statistics of rank 0's patches.

    Args:
        lesions: Photographs with masks.
        config: Settings.
        checkpoint: Where state is kept.
        progress: Told every step.
        engine: Where steps run; by default one device that is found.

    Returns:
        The trunk in evaluation mode, on the CPU.

    Raises:
        TrainingDivergedError: The loss is not finite.
    """
    engine = engine or Engine()
    training = TrunkTraining(config, engine)
    if checkpoint.exists():
        training.resume(engine.load(checkpoint))
    sampler = PatchSampler(lesions, config)
    while training.step < config.steps:
        batch = sampler.draw(np.random.default_rng(engine.seed(config.seed, training.step)))
        terms = training.update(*batch)
        progress("lesions", training.step, config.steps, terms)
        if training.step % config.checkpoint_every == 0 or training.step == config.steps:
            engine.save(checkpoint, training.state())
    return training.trunk.eval().cpu()
