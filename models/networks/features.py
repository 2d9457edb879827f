"""The task-specific feature extractor: local contrast, then a small U-Net that finds diabetic lesions.

This is T, the task-specific feature extractor of claim 1 of CN111753908A: trained for the diagnostic task on
the labelled camera, frozen, and applied to pictures of either style, x1 and x̂1 as x2 and x̂2, so that the
discriminators judge what the diagnosis depends on and not only colour. Trainable, together with the
discriminators, it is an ablation (``AdapterConfig.trainable_features``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LESION_CHANNELS = 5
"""Microaneurysms, haemorrhages, hard exudates, soft exudates, optic disc."""
_POOL = 8


def gaussian_kernel(sigma: float) -> Tensor:
    """Normalised 2-D Gaussian, float32 (1, 1, k, k) with k = 2·ceil(3·sigma) + 1."""
    reach = int(-(-3.0 * sigma // 1))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    profile = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = torch.outer(profile, profile)
    return (kernel / kernel.sum())[None, None]


def split_rgba(image: Tensor) -> tuple[Tensor, Tensor]:
    """Contract tensor to network tensors.

    Args:
        image: uint8 (N, S, S, 4), RGB and alpha.

    Returns:
        RGB float32 (N, 3, S, S) in 0..1 and the field's mask float32 (N, 1, S, S), 0 or 1.
    """
    channels = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0
    return channels[:, :3], channels[:, 3:]


class LocalContrast(nn.Module):
    """Local contrast normalisation inside the field of view.

    ``clip((x − g(x)) · 255 / 32, −2, 2)`` where g is a Gaussian mean of σ = S/25 px over pixels of the field
    only (normalised convolution), zero outside. The Gaussian is computed on 8×8 means: σ is far above 8 px.

    Args:
        size: Side S of the picture in pixels, a multiple of 8.
    """

    kernel: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("kernel", gaussian_kernel(size / 25.0 / _POOL), persistent=False)

    def background(self, pooled_rgb: Tensor, pooled_mask: Tensor) -> Tensor:
        """Gaussian mean over the field at 1/8 scale.

        Args:
            pooled_rgb: 8×8 means of masked RGB, float32 (N, 3, S/8, S/8).
            pooled_mask: 8×8 means of the mask, float32 (N, 1, S/8, S/8).

        Returns:
            float32 (N, 3, S/8, S/8) in 0..1.
        """
        reach = self.kernel.shape[-1] // 2
        stacked = torch.cat([pooled_rgb, pooled_mask], 1)
        kernel = self.kernel.expand(4, 1, -1, -1)
        blurred = functional.conv2d(stacked, kernel, padding=reach, groups=4)
        return blurred[:, :3] / blurred[:, 3:].clamp_min(1e-3)

    @staticmethod
    def contrast(rgb: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Clipped difference to the background, zero outside the field; 0..1 in, −2..2 out."""
        return ((rgb - background) * (255.0 / 32.0)).clamp(-2.0, 2.0) * mask

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """RGB float32 (N, 3, S, S) in 0..1 and mask (N, 1, S, S) to contrast (N, 3, S, S) in −2..2."""
        pooled_rgb = functional.avg_pool2d(rgb * mask, _POOL)
        pooled_mask = functional.avg_pool2d(mask, _POOL)
        low = self.background(pooled_rgb, pooled_mask)
        full = functional.interpolate(low, scale_factor=float(_POOL), mode="bilinear", align_corners=False)
        return self.contrast(rgb, full, mask)


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, convolutions: int) -> None:
        layers: list[nn.Module] = []
        for index in range(convolutions):
            width = inputs if index == 0 else outputs
            layers += [
                nn.Conv2d(width, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class LesionTrunk(nn.Module):
    """U-Net of four levels on local contrast; its encoder is the feature extractor, its maps feed the grade.

    Args:
        widths: Channels of the four levels.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (12, 24, 32, 48)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.down1 = _Block(3, first, 2)
        self.down2 = _Block(first, second, 2)
        self.down3 = _Block(second, third, 2)
        self.down4 = _Block(third, fourth, 2)
        self.up3 = _Block(fourth + third, third, 1)
        self.up2 = _Block(third + second, second, 1)
        self.up1 = _Block(second + first, first, 1)
        self.lesions = nn.Conv2d(first, LESION_CHANNELS, 1)

    def encode(self, contrast: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Contrast (N, 3, H, W) to features at scales 1, 1/2, 1/4, 1/8; H and W are multiples of 8."""
        level1 = self.down1(contrast)
        level2 = self.down2(functional.max_pool2d(level1, 2))
        level3 = self.down3(functional.max_pool2d(level2, 2))
        return level1, level2, level3, self.down4(functional.max_pool2d(level3, 2))

    def forward(self, contrast: Tensor) -> tuple[Tensor, Tensor]:
        """Contrast (N, 3, H, W) to lesion logits (N, 5, H, W) and the deepest features (N, C, H/8, W/8)."""
        level1, level2, level3, level4 = self.encode(contrast)
        merged = self.up3(torch.cat([_double(level4), level3], 1))
        merged = self.up2(torch.cat([_double(merged), level2], 1))
        merged = self.up1(torch.cat([_double(merged), level1], 1))
        return self.lesions(merged), level4


def _double(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")
