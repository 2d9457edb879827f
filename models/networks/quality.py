"""Quality: the probability that a prepared picture is a gradable colour fundus photograph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class QualityNetwork(nn.Module):
    """A small network on the reduced picture and on how much fine detail it had.

    Ten planes at 1/4 scale: RGB, the mask, and the mean absolute value of two bands of each 4×4 block per
    channel, below 3 px (noise) and 3 to 9 px (vessel edges), which the reduction would hide. Then strided
    convolutions and global pooling.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (12, 16, 24, 32)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 10
        for width in widths:
            layers += [
                nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.logit = nn.Linear(2 * inputs, 1)

    @staticmethod
    def planes(rgb: Tensor, mask: Tensor) -> Tensor:
        """RGB (N, 3, S, S) in 0..1 and mask (N, 1, S, S) to float32 (N, 10, S/4, S/4)."""
        inside = rgb * mask
        smooth = functional.avg_pool2d(inside, 3, stride=1, padding=1)
        smoother = functional.avg_pool2d(smooth, 7, stride=1, padding=3)
        # Bands that reach over the rim would see the rim: only places 4 px inside it count.
        core = 1.0 - functional.max_pool2d(1.0 - mask, 9, stride=1, padding=4)
        fine, edges = (inside - smooth).abs() * core, (smooth - smoother).abs() * core
        return torch.cat([_quarter(inside), _quarter(mask), 10.0 * _quarter(fine), 10.0 * _quarter(edges)], 1)

    def classify(self, planes: Tensor) -> Tensor:
        """Planes (N, 10, S/4, S/4) to logits (N, 1)."""
        found = self.layers(planes)
        logits: Tensor = self.logit(torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1))
        return logits

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """RGB and mask at full scale to a probability, float32 (N, 1)."""
        return self.classify(self.planes(rgb, mask)).sigmoid()


def _quarter(planes: Tensor) -> Tensor:
    return functional.avg_pool2d(planes, 4)
