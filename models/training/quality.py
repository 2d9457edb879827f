"""Train and measure the quality head: gradable fundus photographs of any camera against everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from models.cameras import random_camera, simulate
from models.networks.features import split_rgba
from models.networks.quality import QualityNetwork
from models.preprocess import Uint8Image, prepare
from models.training.data import read_rgb
from models.training.lesions import Progress
from models.training.negatives import negative


@dataclass(frozen=True)
class QualityConfig:
    """How the quality head is trained.

    Attributes:
        negatives: Negatives drawn per photograph.
        steps: Optimiser steps.
        batch: Pictures a step.
        learning_rate: Peak of a one-cycle schedule (AdamW).
        refused: Share of validation positives that the minimum quality may refuse.
        seed: Seed of pictures and weights.
    """

    negatives: int = 3
    steps: int = 600
    batch: int = 32
    learning_rate: float = 5e-3
    refused: float = 0.005
    seed: int = 0


@dataclass(frozen=True)
class QualitySet:
    """Planes float16 (N, 10, S/4, S/4) of ``QualityNetwork.planes``, and what is gradable, bool (N,)."""

    planes: npt.NDArray[np.float16]
    gradable: npt.NDArray[np.bool_]


def quality_set(
    paths: Sequence[Path], size: int, config: QualityConfig, seed: int, progress: Progress
) -> QualitySet:
    """Positives: photographs, and as a random simulated camera takes them. Negatives: ``negative``."""
    planes: list[npt.NDArray[np.float16]] = []
    gradable: list[bool] = []
    for index, path in enumerate(paths):
        rng = np.random.default_rng((config.seed, seed, index))
        rgb = read_rgb(path)
        photograph = prepare(rgb, size).tensor
        taken = prepare(simulate(rgb, random_camera(int(rng.integers(2**31))), index), size).tensor
        # Ruined from either, so that another camera's look is no sign of a good picture.
        ruined = [negative(taken if rng.integers(2) else photograph, rng) for _ in range(config.negatives)]
        planes += [_planes(picture) for picture in (photograph, taken, *ruined)]
        gradable += [True, True, *[False] * len(ruined)]
        progress("quality pictures", index + 1, len(paths), {})
    return QualitySet(np.stack(planes), np.array(gradable))


def kept_set(file: Path, make: Callable[[], QualitySet]) -> QualitySet:
    """The set that a killed run left in ``file``, or a new one, which is left there."""
    if file.exists():
        with np.load(file) as kept:
            return QualitySet(kept["planes"], kept["gradable"])
    pictures = make()
    temporary = file.with_suffix(".partial.npz")
    np.savez(temporary, planes=pictures.planes, gradable=pictures.gradable)
    temporary.replace(file)
    return pictures


def train_quality(pictures: QualitySet, config: QualityConfig, progress: Progress) -> QualityNetwork:
    """Train the quality head on half positives, half negatives; mirrored and turned at random."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = QualityNetwork().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    sides = [np.flatnonzero(pictures.gradable), np.flatnonzero(~pictures.gradable)]
    target = torch.cat([torch.ones(config.batch // 2, 1), torch.zeros(config.batch // 2, 1)])
    for step in range(config.steps):
        chosen = np.concatenate([rng.choice(side, config.batch // 2) for side in sides])
        planes = torch.from_numpy(pictures.planes[chosen].astype(np.float32))
        planes = torch.rot90(planes, int(rng.integers(4)), (2, 3))
        planes = planes.flip(3) if rng.integers(2) else planes
        loss = functional.binary_cross_entropy_with_logits(network.classify(planes), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        schedule.step()
        progress("quality", step + 1, config.steps, {"loss": loss.item()})
    return network.eval()


def quality_scores(network: QualityNetwork, pictures: QualitySet) -> npt.NDArray[np.float64]:
    """Probability of being gradable, float64 (N,)."""
    with torch.inference_mode():
        batches = np.array_split(pictures.planes, max(1, len(pictures.planes) // 32))
        logits = [network.classify(torch.from_numpy(batch.astype(np.float32))) for batch in batches]
        return torch.cat(logits)[:, 0].sigmoid().numpy().astype(np.float64)


def minimum_quality(network: QualityNetwork, validation: QualitySet, config: QualityConfig) -> float:
    """The quality that refuses at most the configured share of validation positives, at most one half."""
    scores = np.sort(quality_scores(network, validation)[validation.gradable])
    return float(np.clip(scores[int(config.refused * len(scores))] * 0.7, 0.05, 0.5).round(3))


def quality_figures(network: QualityNetwork, pictures: QualitySet, minimum: float) -> dict[str, float]:
    """AUC, share of gradable pictures refused and of the others let through at ``minimum``."""
    scores = quality_scores(network, pictures)
    return {
        "auc": float(roc_auc_score(pictures.gradable, scores)),
        "gradable_refused": float((scores[pictures.gradable] < minimum).mean()),
        "ungradable_accepted": float((scores[~pictures.gradable] >= minimum).mean()),
        "pictures": float(len(scores)),
    }


def _planes(picture: Uint8Image) -> npt.NDArray[np.float16]:
    with torch.inference_mode():
        rgb, mask = split_rgba(torch.from_numpy(np.ascontiguousarray(picture[None])))
        return QualityNetwork.planes(rgb, mask)[0].numpy().astype(np.float16)
