"""The plain generator of a CycleGAN (Zhu et al. 2017), an ablation and a baseline: it outputs the picture.

A residual generator has the picture's detail for nothing; a plain one has to carry it through. So it works
at full resolution and has a skip connection at every level, the full one included: there is no bottleneck
that detail must pass. It is fully convolutional and is trained on full-resolution crops, as is usual; the
picture's overview at S/4 plays no part, since a network that is run at full resolution only must not be
shown another one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.generator import double, level


class PlainGenerator(nn.Module):
    """x̂ = G(x), a U-Net of convolution and pooling layers at full resolution; no identity at the start.

    Args:
        widths: Channels of the four levels.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (12, 24, 32, 48)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.down1 = level(4, first)
        self.down2 = level(first, second)
        self.down3 = level(second, third)
        self.down4 = level(third, fourth)
        self.up3 = level(fourth + third, third)
        self.up2 = level(third + second, second)
        self.up1 = level(second + first, first)
        self.last = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """G(x), float32 (N, 3, H, W); 0 outside the field, not clamped.

        Args:
            rgb: x, a picture or a crop at full resolution, float32 (N, 3, H, W), 0..1, sides multiples of 8.
            mask: float32 (N, 1, H, W).
        """
        level1 = self.down1(torch.cat([(rgb - 0.5) * mask, mask], 1))
        level2 = self.down2(functional.avg_pool2d(level1, 2))
        level3 = self.down3(functional.avg_pool2d(level2, 2))
        level4 = self.down4(functional.avg_pool2d(level3, 2))
        merged = self.up3(torch.cat([double(level4), level3], 1))
        merged = self.up2(torch.cat([double(merged), level2], 1))
        merged = self.up1(torch.cat([double(merged), level1], 1))
        found: Tensor = (self.last(merged) + 0.5) * mask
        return found

    def translate(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """x̂ = G(x); as ``forward``."""
        found: Tensor = self(rgb, mask)
        return found
