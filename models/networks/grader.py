"""A grader trained end to end on grades alone, where no lesion masks exist.

Its encoder is the task's feature extractor, that of ``LesionTrunk``, so that the adapter's training
uses it as it uses the lesion trunk (``encode``), and so that it may start from a lesion-supervised trunk.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.features import LesionTrunk, LocalContrast


class Grader(nn.Module):
    """Local contrast, encoder, further pooled levels, global pooling, one ordinal score.

    Args:
        size: Side S of the pictures in pixels, a multiple of 8 · 2^len(tail).
        widths: Channels of the encoder's four levels, at scales 1 to 1/8.
        tail: Channels of the levels after it, each at half the scale of the one before.
    """

    def __init__(
        self,
        size: int,
        widths: tuple[int, int, int, int] = (12, 24, 32, 48),
        tail: tuple[int, ...] = (64, 96),
    ) -> None:
        super().__init__()
        if size % (8 * 2 ** len(tail)):
            raise ValueError(f"size {size} is not a multiple of {8 * 2 ** len(tail)}")
        self.size = size
        self.normalise = LocalContrast(size)
        self.trunk = LesionTrunk(widths)
        for part in (self.trunk.up3, self.trunk.up2, self.trunk.up1, self.trunk.lesions):
            part.requires_grad_(False)  # the decoder finds lesions; without masks it learns nothing
        channels = (widths[-1], *tail)
        self.tail = nn.Sequential(*(_level(*pair) for pair in pairwise(channels)))
        self.score = nn.Linear(2 * channels[-1], 1)
        self.first_cut = nn.Parameter(torch.tensor(-1.0))
        self.cut_steps = nn.Parameter(torch.zeros(3))

    def cuts(self) -> Tensor:
        """Cut points of the proportional-odds model, float32 (4,), ascending whatever the parameters."""
        steps = functional.softplus(self.cut_steps).cumsum(0)
        return torch.cat([self.first_cut[None], self.first_cut + steps])

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """Score photographs.

        Args:
            rgb: float32 (N, 3, S, S), 0..1.
            mask: Field of view, float32 (N, 1, S, S), 0 or 1.

        Returns:
            float32 (N,); P(grade ≥ k) = σ(score − cut_k).
        """
        # Differences of nearly equal numbers: always in float32, also where the rest runs in bfloat16.
        with torch.autocast(rgb.device.type, enabled=False):
            contrast = self.normalise(rgb, mask)
        deepest = self.tail(self.trunk.encode(contrast)[-1])
        pooled = torch.cat([deepest.mean((2, 3)), deepest.amax((2, 3))], 1)
        score: Tensor = self.score(pooled)[:, 0]
        return score


def _level(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.MaxPool2d(2),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
