"""Train and measure the quality head: gradable fundus photographs against everything else.

It judges what the classifier is given: pictures of the labelled camera, or translated into its style. What
a camera far from that style takes need not pass without its adapter: the decisions would not be right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from models.networks.features import split_rgba
from models.networks.quality import QualityNetwork
from models.preprocess import Uint8Image, find_field, prepare
from models.training.averaging import WeightAverage
from models.training.data import read_rgb
from models.training.lesions import Progress
from models.training.negatives import random_negative
from models.training.perturb import degraded

GRADABLE = "gradable"
"""The kind of a positive; a negative's kind is the name of what made it."""
_NARROW = 1 / 3
"""Share of the translated positives that have a narrower field than the photograph."""
_SURE = 0.98
"""Target of a positive: no photograph is certain to be gradable."""
_SETTLING = 40
"""Batches that the averaged network's batch normalisation sees."""


@dataclass(frozen=True)
class QualityConfig:
    """How the quality head is trained.

    Attributes:
        negatives: Negatives drawn per photograph.
        translated: Versions of each photograph as an adapter could hand it on, some with a narrower field.
        steps: Optimiser steps.
        batch: Pictures a step.
        learning_rate: Peak of a one-cycle schedule (AdamW).
        decay: Weight decay.
        dropout: Share of the last hidden features that are dropped while training.
        jitter: Largest relative change of a channel's brightness while training, both ways.
        average_from: From which share of the training on weights are averaged.
        refused: Share of validation positives that the minimum quality may refuse.
        margin: What the minimum quality is lowered by, in logits, for photographs unlike the validation's.
        gate: Limit of the gate, in distances that 99.5 % of the training positives stay within; 0: no gate.
        seed: Seed of pictures and weights.
    """

    negatives: int = 6
    translated: int = 3
    steps: int = 1400
    batch: int = 32
    learning_rate: float = 3e-3
    decay: float = 5e-2
    dropout: float = 0.3
    jitter: float = 0.07
    average_from: float = 0.5
    refused: float = 0.005
    margin: float = 0.5
    gate: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class QualitySet:
    """Pictures of the quality head.

    Attributes:
        planes: float16 (N, 10, S/4, S/4) of ``QualityNetwork.planes``.
        gradable: bool (N,).
        kinds: What each is, str (N,): ``GRADABLE`` or the name of a negative's maker; empty where not told.
    """

    planes: npt.NDArray[np.float16]
    gradable: npt.NDArray[np.bool_]
    kinds: npt.NDArray[np.str_] | None = None


def quality_set(
    paths: Sequence[Path], size: int, config: QualityConfig, seed: int, progress: Progress
) -> QualitySet:
    """Photographs, also as adapters hand them on; negatives: ``random_negative`` of those."""
    planes: list[npt.NDArray[np.float16]] = []
    kinds: list[str] = []
    for index, path in enumerate(paths):
        rng = np.random.default_rng((config.seed, seed, index))
        positives = _positives(read_rgb(path), size, config, rng)
        # Ruined from any of them, so that another camera's look is no sign of a good picture.
        ruined = [
            random_negative(positives[int(rng.integers(len(positives)))], rng)
            for _ in range(config.negatives)
        ]
        planes += [_planes(picture) for picture in (*positives, *(made.picture for made in ruined))]
        kinds += [GRADABLE] * len(positives) + [made.kind for made in ruined]
        progress("quality pictures", index + 1, len(paths), {})
    told = np.array(kinds)
    return QualitySet(np.stack(planes), told == GRADABLE, told)


def _positives(
    rgb: Uint8Image, size: int, config: QualityConfig, rng: np.random.Generator
) -> list[Uint8Image]:
    """A photograph, mirrored too, and as an adapter hands it on, a third with a narrower, round field."""
    photograph = prepare(rgb, size).tensor
    narrow = prepare(_narrowed(rgb, rng), size).tensor
    sources = [narrow if rng.random() < _NARROW else photograph for _ in range(config.translated)]
    mirrored = np.ascontiguousarray(photograph[:, ::-1])
    return [photograph, mirrored, *(_translated(source, rng) for source in sources)]


def _translated(picture: Uint8Image, rng: np.random.Generator) -> Uint8Image:
    """What an adapter hands on: detail amplified or smoothed, channels brighter or darker.

    Without such positives an adapter that sharpens would have its photographs refused.
    """
    colours = degraded(picture, rng)[..., :3].astype(np.float32)
    detail = colours - cv2.GaussianBlur(colours, (0, 0), 1.0)
    levels = (colours + rng.uniform(-0.4, 0.6) * detail) * rng.uniform(0.9, 1.1, 3)
    inside = picture[..., 3:] > 0
    return np.dstack([np.clip(np.round(levels), 0, 255).astype(np.uint8) * inside, picture[..., 3]])


def _narrowed(rgb: Uint8Image, rng: np.random.Generator) -> Uint8Image:
    """The photograph through an aperture of 70 to 85 % of its field's radius, about its centre."""
    field = find_field(rgb)
    rows, columns = np.ogrid[: rgb.shape[0], : rgb.shape[1]]
    x, y = rng.normal((field.centre_x, field.centre_y), 0.02 * field.radius)
    reach = field.radius * rng.uniform(0.7, 0.85)
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= reach * reach
    return np.asarray(rgb * inside[..., None], dtype=np.uint8)


def kept_set(file: Path, make: Callable[[], QualitySet]) -> QualitySet:
    """The set that a killed run left in ``file``, or a new one, which is left there."""
    if file.exists():
        with np.load(file) as kept:
            return QualitySet(kept["planes"], kept["gradable"], kept["kinds"])
    pictures = make()
    kinds = np.full(len(pictures.planes), "") if pictures.kinds is None else pictures.kinds
    temporary = file.with_suffix(".partial.npz")
    np.savez(temporary, planes=pictures.planes, gradable=pictures.gradable, kinds=kinds)
    temporary.replace(file)
    return pictures


def train_quality(pictures: QualitySet, config: QualityConfig, progress: Progress) -> QualityNetwork:
    """Train the quality head on half positives, half negatives; then its gate, if any.

    The pictures are few and the negatives drawn: dropout, jittered brightness, mirrored pictures and averaged
    weights keep the head from learning them by heart, which refused real photographs.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = QualityNetwork(dropout=config.dropout).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    average = WeightAverage(network, config.average_from * config.steps)
    target = torch.cat([torch.full((config.batch // 2, 1), _SURE), torch.zeros(config.batch // 2, 1)])
    for step in range(config.steps):
        logits = network.classify(_batch(pictures, config, rng))
        loss = functional.binary_cross_entropy_with_logits(logits, target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        schedule.step()
        average.add(network, step + 1)
        progress("quality", step + 1, config.steps, {"loss": loss.item()})
    mean = average.mean.train()
    with torch.no_grad():  # the statistics of batch normalisation are those of the mean's own activations
        for _ in range(_SETTLING):
            mean.classify(_batch(pictures, config, rng))
    mean.eval()
    if config.gate > 0.0:
        fit_gate(mean, pictures.planes[pictures.gradable], config.gate)
    return mean


def _batch(pictures: QualitySet, config: QualityConfig, rng: np.random.Generator) -> Tensor:
    """Half positives, half negatives, mirrored and made brighter or darker at random."""
    sides = [np.flatnonzero(pictures.gradable), np.flatnonzero(~pictures.gradable)]
    chosen = np.concatenate([rng.choice(side, config.batch // 2) for side in sides])
    planes = torch.from_numpy(pictures.planes[chosen].astype(np.float32))
    planes = planes.flip([axis for axis in (2, 3) if rng.integers(2)])
    gains = rng.uniform(1 - config.jitter, 1 + config.jitter, (len(chosen), 3)).astype(np.float32)
    # Colours, mask, and the two bands of detail, which grow with the brightness as the colours do.
    factors = np.concatenate([gains, np.ones((len(chosen), 1), np.float32), gains, gains], axis=1)
    return planes * torch.from_numpy(factors)[:, :, None, None]


@torch.no_grad()
def fit_gate(network: QualityNetwork, positives: npt.NDArray[np.float16], reach: float) -> None:
    """Fit mean, covariance (Ledoit-Wolf shrinkage) and limit of the gate to the training positives."""
    found = [network.pooled(batch) for batch in _batches(positives)]
    features = torch.cat([torch.cat([mean, overall], 1) for mean, _, overall in found]).double().numpy()
    covariance, _ = ledoit_wolf(features)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance + 1e-6 * np.eye(len(covariance))))
    network.centre.copy_(torch.from_numpy(features.mean(axis=0)))
    network.whitening.copy_(torch.from_numpy(whitening))
    distances = torch.cat([network.distance(mean, overall) for mean, _, overall in found])
    network.limit.fill_(reach * float(np.quantile(distances.numpy(), 0.995)))


def quality_scores(network: QualityNetwork, pictures: QualitySet) -> npt.NDArray[np.float64]:
    """Probability of being gradable, float64 (N,)."""
    with torch.inference_mode():
        scores = [network.quality(batch) for batch in _batches(pictures.planes)]
    return torch.cat(scores)[:, 0].numpy().astype(np.float64)


def _batches(planes: npt.NDArray[np.float16]) -> list[Tensor]:
    return [
        torch.from_numpy(part.astype(np.float32))
        for part in np.array_split(planes, max(1, len(planes) // 32))
    ]


def minimum_quality(network: QualityNetwork, validation: QualitySet, config: QualityConfig) -> float:
    """The validation positives' quantile of the configured share, less a margin.

    The quantile is interpolated between scores, so that of fewer than 1 / ``config.refused`` positives the
    single lowest does not decide alone; that one may lie below it. It is lowered by ``config.margin`` logits
    and kept between 0.05 and 0.8.
    """
    scores = quality_scores(network, validation)[validation.gradable]
    lowest = float(np.clip(np.quantile(scores, config.refused), 1e-6, 1 - 1e-6))
    logit = np.log(lowest / (1 - lowest)) - config.margin
    return float(np.clip(1 / (1 + np.exp(-logit)), 0.05, 0.8).round(3))


def quality_figures(network: QualityNetwork, pictures: QualitySet, minimum: float) -> dict[str, float]:
    """AUC, share of gradable pictures refused and of the others let through at ``minimum``, also by kind."""
    scores = quality_scores(network, pictures)
    accepted = scores >= minimum
    figures = {
        "auc": float(roc_auc_score(pictures.gradable, scores)),
        "gradable_refused": float((~accepted[pictures.gradable]).mean()),
        "ungradable_accepted": float(accepted[~pictures.gradable].mean()),
        "pictures": float(len(scores)),
    }
    if pictures.kinds is not None:
        for kind in sorted({str(kind) for kind in pictures.kinds} - {GRADABLE, ""}):
            figures[f"accepted_{kind}"] = float(accepted[pictures.kinds == kind].mean())
    return figures


def _planes(picture: Uint8Image) -> npt.NDArray[np.float16]:
    with torch.inference_mode():
        rgb, mask = split_rgba(torch.from_numpy(np.ascontiguousarray(picture[None])))
        return QualityNetwork.planes(rgb, mask)[0].numpy().astype(np.float16)
