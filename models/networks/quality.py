"""Quality: the probability that a prepared picture is a gradable colour fundus photograph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PLANES = 10


class QualityNetwork(nn.Module):
    """A small network on the reduced picture and on how much fine detail it had.

    Ten planes at 1/4 scale: RGB, the mask, and per channel the mean absolute difference of neighbouring
    pixels in two bands, of full scale (noise, sharpness) and of 1/2 scale (vessel edges), which the
    reduction would hide. Then strided convolutions and global pooling.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (12, 16, 24, 32)) -> None:
        super().__init__()
        # The planes differ in scale by a factor of fifty: each is brought to unit variance first.
        layers: list[nn.Module] = [nn.BatchNorm2d(PLANES)]
        inputs = PLANES
        for width in widths:
            layers += [
                nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.overall = nn.BatchNorm1d(PLANES)
        self.logit = nn.Sequential(nn.Linear(2 * inputs + PLANES, inputs), nn.ReLU(), nn.Linear(inputs, 1))

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

    def classify(self, planes: Tensor) -> Tensor:
        """Planes (N, 10, S/4, S/4) to logits (N, 1)."""
        found = self.layers(planes)
        # Mean detail over five decades: a gradient has none, a defocused retina little.
        overall = self.overall(torch.log(planes.mean((2, 3)) + 1e-4))
        logits: Tensor = self.logit(torch.cat([found.mean((2, 3)), found.amax((2, 3)), overall], 1))
        return logits

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """RGB and mask at full scale to a probability, float32 (N, 1)."""
        return self.classify(self.planes(rgb, mask)).sigmoid()


def _detail(picture: Tensor, block: int) -> Tensor:
    """Mean absolute Haar difference of neighbours, both directions, over blocks of ``block`` px."""
    across = (picture[..., ::2] - picture[..., 1::2]).abs()
    down = (picture[:, :, ::2] - picture[:, :, 1::2]).abs()
    half = block // 2
    return functional.avg_pool2d(across, (block, half)) + functional.avg_pool2d(down, (half, block))
