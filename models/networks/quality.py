"""Quality: the probability that a prepared picture is a gradable colour fundus photograph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PLANES = 10
"""Planes of a picture that training keeps: RGB, mask, two bands of detail per channel."""
_LOCAL = 3
_LOCAL_BLOCK = 8
"""Side of the blocks, in pixels at 1/4 scale, whose means are the background of the local contrast."""
WIDTHS = (16, 24, 40, 64)


class QualityNetwork(nn.Module):
    """A small network on the reduced picture and its fine detail, and a gate that stops the unfamiliar.

    Ten planes at 1/4 scale: RGB, the mask, and per channel the mean absolute difference of neighbouring
    pixels in two bands, of full scale (noise, sharpness) and of 1/2 scale (vessel edges), which the
    reduction would hide. Three more are made from them: RGB against its surroundings, in which vessels and
    the optic disc stand out whatever the light. Then strided convolutions and global pooling.

    Two questions are asked of the pooled features. *Logit*: more like the gradable photographs or the
    negatives of the training? *Gate*: is the squared Mahalanobis distance to the gradable photographs'
    features, per feature, below ``limit`` (Lee et al. 2018, arXiv 1807.03888)? It stops what resembles
    neither. The quality is the product of both.

    Args:
        widths: Channels of the four levels.
        dropout: Share of the last hidden features that are dropped while training.
    """

    centre: Tensor
    whitening: Tensor
    limit: Tensor

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS, dropout: float = 0.0) -> None:
        super().__init__()
        # The planes differ in scale by a factor of fifty: each is brought to unit variance first.
        layers: list[nn.Module] = [nn.BatchNorm2d(PLANES + _LOCAL)]
        inputs = PLANES + _LOCAL
        for level, width in enumerate(widths):
            layers += _convolution(inputs, width, 2)
            layers += _convolution(width, width, 1) if level > 0 else []
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.overall = nn.BatchNorm1d(PLANES)
        hidden = nn.Linear(2 * inputs + PLANES, inputs)
        self.logit = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(dropout), nn.Linear(inputs, 1))
        gated = inputs + PLANES
        self.register_buffer("centre", torch.zeros(gated))
        self.register_buffer("whitening", torch.zeros(gated, gated))
        self.register_buffer("limit", torch.ones(1))

    @staticmethod
    def planes(rgb: Tensor, mask: Tensor) -> Tensor:
        """RGB (N, 3, S, S) in 0..1 and mask (N, 1, S, S) to float32 (N, 10, S/4, S/4)."""
        inside = rgb * mask
        half = functional.avg_pool2d(inside, 2)
        within = functional.avg_pool2d(mask, 4)
        # A block counts for detail only where it and its neighbours lie wholly inside: no rim.
        core = 1.0 - functional.max_pool2d((within < 0.999).to(torch.float32), 3, stride=1, padding=1)
        fine, edges = _detail(inside, 4) * core, _detail(half, 2) * core
        return torch.cat([functional.avg_pool2d(half, 2), within, 10.0 * fine, 10.0 * edges], 1)

    def pooled(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Planes (N, 10, S/4, S/4) to mean and highest features (N, C) each and overall detail (N, 10)."""
        found = self.layers(torch.cat([planes, _local_contrast(planes)], 1))
        # Mean detail over five decades: a gradient has none, a defocused retina little.
        overall = self.overall(torch.log(planes.mean((2, 3)) + 1e-4))
        return found.mean((2, 3)), found.amax((2, 3)), overall

    def classify(self, planes: Tensor) -> Tensor:
        """Planes (N, 10, S/4, S/4) to logits (N, 1), without the gate."""
        logits: Tensor = self.logit(torch.cat(self.pooled(planes), 1))
        return logits

    def distance(self, mean: Tensor, overall: Tensor) -> Tensor:
        """Squared Mahalanobis distance per feature, (N, 1); 0 while the gate is not fitted."""
        white = (torch.cat([mean, overall], 1) - self.centre) @ self.whitening
        return (white * white).mean(1, keepdim=True)

    def gate(self, mean: Tensor, overall: Tensor) -> Tensor:
        """1 for the familiar, 1/2 at ``limit``, 0 far beyond; float32 (N, 1)."""
        return torch.sigmoid(GATE_SLOPE * (1.0 - self.distance(mean, overall) / self.limit))

    def quality(self, planes: Tensor) -> Tensor:
        """Planes (N, 10, S/4, S/4) to a probability, float32 (N, 1)."""
        mean, highest, overall = self.pooled(planes)
        logits: Tensor = self.logit(torch.cat([mean, highest, overall], 1))
        return logits.sigmoid() * self.gate(mean, overall)

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """RGB and mask at full scale to a probability, float32 (N, 1)."""
        return self.quality(self.planes(rgb, mask))


GATE_SLOPE = 8.0
"""Steepness of the gate: 0.998 at a fifth of the limit, 0.0003 at twice the limit."""


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _local_contrast(planes: Tensor) -> Tensor:
    """RGB against the mean of its surroundings inside the field, (N, 3, S/4, S/4), −1 to 1."""
    rgb, within = planes[:, :3], planes[:, 3:4]
    means = functional.avg_pool2d(planes[:, :4], _LOCAL_BLOCK)
    means = functional.avg_pool2d(means, 3, stride=1, padding=1)
    background = means[:, :3] / means[:, 3:].clamp_min(1e-3)
    full = functional.interpolate(
        background, scale_factor=float(_LOCAL_BLOCK), mode="bilinear", align_corners=False
    )
    return (8.0 * (rgb - full * within)).clamp(-1.0, 1.0) * (within > 0.999).to(torch.float32)


def _detail(picture: Tensor, block: int) -> Tensor:
    """Mean absolute Haar difference of neighbours, both directions, over blocks of ``block`` px."""
    across = (picture[..., ::2] - picture[..., 1::2]).abs()
    down = (picture[:, :, ::2] - picture[:, :, 1::2]).abs()
    half = block // 2
    return functional.avg_pool2d(across, (block, half)) + functional.avg_pool2d(down, (half, block))
