"""What an adapter's training looks at while it runs: pictures set aside, a criterion without labels, a panel.

Nothing here reads a label: the criterion compares translated first-style pictures with second-style pictures
of other people, and a translated picture with its way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.networks.build import Generator
from models.networks.features import LesionTrunk, split_rgba
from models.training.divergence import StyleDifference, style_difference
from models.training.styles import StyleSampler, Translator

Pictures = npt.NDArray[np.uint8]
PANEL = 6
"""Pictures of each style that are translated whole at checkpoints."""
_CHECKS = 4
"""Fixed batches of each style that the criterion is computed on."""
_PARTED = 3
"""Part of the seed that keeps what is set aside apart from what training draws."""


@dataclass(frozen=True)
class WatchConfig:
    """When an adapter's training stops, what it shows on its way, and what it does about a failure.

    Attributes:
        patience: Checks without improvement after which training stops and the best averaged generator is
            kept; 0 trains all steps. A check is made at every checkpoint after ``average_from``. Its
            criterion needs no label: on pictures set aside, the cycle error in standard deviations of the
            second style, plus the mean over the task's features of the distance of their means (in standard
            deviations) and of the logarithms of their standard deviations, between translated first-style
            and second-style pictures.
        improvement: Share of the best criterion by which a check must be lower to count as an improvement.
        held_aside: Share of either style's pictures that are set aside for the criterion, if patience is
            above 0; training does not draw them.
        samples_every: Checkpoints between sample sheets; one is made at the end too, and 0 makes that only.
        won_window: Steps in a row in which the discriminators must be hardly ever wrong to have won.
        collapsed_checks: Checkpoints in a row at which translated pictures must be alike to have collapsed.
        on_divergence: What to do when a training has failed in a way that has a name: ``raise`` stops it,
            ``warn`` goes on and says so, and what comes out is not exported.

    Raises:
        ValueError: A value is out of its range.
    """

    patience: int = 0
    improvement: float = 0.01
    held_aside: float = 0.1
    samples_every: int = 4
    won_window: int = 150
    collapsed_checks: int = 3
    on_divergence: Literal["raise", "warn"] = "raise"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, least in (
            ("patience", 0),
            ("samples_every", 0),
            ("won_window", 1),
            ("collapsed_checks", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is below {least}")
        for name in ("improvement", "held_aside"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name)} is not from 0 to below 1")


def set_aside(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """Divide pictures into those to train on and those to look at; with ``share`` 0 both are all of them.

    Args:
        pictures: uint8 (N, S, S, 4), N at least 2 where ``share`` is above 0.
        share: Share to set aside, 0..1; at least one picture, and one is left.
        seed: Seed of the choice.
    """
    if share == 0.0 or len(pictures) < 2:
        return pictures, pictures
    count = int(np.clip(round(share * len(pictures)), 1, len(pictures) - 1))
    order = np.random.default_rng((seed, _PARTED)).permutation(len(pictures))
    return pictures[np.sort(order[count:])], pictures[np.sort(order[:count])]


class UnlabelledCriterion:
    """How far a pair of generators is from its aim, from unlabelled pictures only; lower is better.

    Args:
        first: Pictures of the first style that were set aside, uint8 (N1, S, S, 4).
        second: Likewise of the second style.
        translator: Applies generators.
        trunk: Feature extractor; it must not change while training goes on.
        batch: Pictures of each style in one of the fixed batches.
        reduced: Side of the reduced pictures.
        crop: Side of the crops.
        device: Where to compute.
    """

    def __init__(
        self,
        first: Pictures,
        second: Pictures,
        translator: Translator,
        trunk: LesionTrunk,
        *,
        batch: int,
        reduced: int,
        crop: int,
        device: torch.device,
    ) -> None:
        self._translator, self._trunk = translator, trunk
        samplers = [StyleSampler(pictures, reduced, crop) for pictures in (first, second)]
        rngs = [np.random.default_rng((_PARTED, style)) for style in range(2)]
        self._pairs = [
            [sampler.draw(rng, batch).to(device) for sampler, rng in zip(samplers, rngs, strict=True)]
            for _ in range(_CHECKS)
        ]
        seconds = [pair[1] for pair in self._pairs]
        with torch.inference_mode():
            wanted = torch.cat([_pooled(translator.task_features(trunk, each)) for each in seconds], 1)
            fields = [_pooled(each.crop)[:, _pooled(each.crop_mask)[0] > 0.5] for each in seconds]
            inside = torch.cat(fields, 1)
        self._mean, self._std = wanted.mean(1), wanted.std(1) + 1e-3
        self._spread = float(inside.std(1).mean()) + 1e-3

    def __call__(self, generator12: Generator, generator21: Generator) -> dict[str, float]:
        """Terms of the criterion: ``cycle``, ``features``, and their sum ``criterion``."""
        cycles, features = [], []
        with torch.inference_mode():
            for first, _ in self._pairs:
                fake = self._translator.translate(generator12, first)
                back = self._translator.residuals(generator21, fake.batch)
                pairs = zip(fake.residuals, back, strict=True)
                cycles.append(torch.stack([(there + home).abs().mean() for there, home in pairs]).mean())
                features.append(_pooled(self._translator.task_features(self._trunk, fake.batch)))
            found = torch.cat(features, 1)
            apart = (found.mean(1) - self._mean).abs() / self._std
            apart = apart + ((found.std(1) + 1e-3) / self._std).log().abs()
        terms = {"cycle": float(torch.stack(cycles).mean()) / self._spread, "features": float(apart.mean())}
        return {**terms, "criterion": terms["cycle"] + terms["features"]}


def _pooled(maps: Tensor) -> Tensor:
    """(N, C, H, W) to (C, N·H·W)."""
    return maps.transpose(0, 1).flatten(1)


class Panel:
    """A few whole pictures of both styles, to look at a generator.

    Args:
        first: Pictures of the first style, uint8 (N1, S, S, 4); the first ``PANEL`` are taken.
        second: Likewise of the second style.
        device: Where to compute.

    Attributes:
        first: RGB float32 (n, 3, S, S), 0..1, and mask (n, 1, S, S).
        second: Likewise.
    """

    def __init__(self, first: Pictures, second: Pictures, device: torch.device) -> None:
        self.first, self.second = (
            split_rgba(torch.from_numpy(np.ascontiguousarray(pictures[:PANEL])).to(device))
            for pictures in (first, second)
        )

    def translated(self, generator: Generator) -> Tensor:
        """The first style's pictures translated at full resolution, not clamped, float32 (n, 3, S, S)."""
        rgb, mask = self.first
        with torch.inference_mode():
            found = [generator.translate(rgb[i : i + 1], mask[i : i + 1]) for i in range(len(rgb))]
        return torch.cat(found)

    def residual(self, translated: Tensor) -> float:
        """Mean |x̂ − x| inside the field, 0..1."""
        rgb, mask = self.first
        moved = (translated.clamp(0.0, 1.0) - rgb * mask).abs() * mask
        return float(moved.sum() / (3.0 * mask.sum()).clamp_min(1.0))

    def difference(self) -> StyleDifference:
        """How far the two styles are apart."""
        return style_difference(self.first, self.second)
