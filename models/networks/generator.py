"""The residual generators G12, G21: x̂2 = x1 + r12(x1), x̂1 = x2 + r21(x2); convolution and pooling layers.

CN111753908A claim 1: two residual generators translate between the first style (the incoming camera) and
the second (the labelled one); arXiv 2007.15874 (abstract) calls them camera-oriented residual CycleGAN. G12
and G21 are two instances of ``ResidualGenerator``. Forms of the residual, by configuration:

- ``additive``: r(x) = b(p), smooth maps predicted from the reduced picture p;
- ``affine`` (recommended): r(x) = d + A(p)·(x + d) + b(p) with d = s(p)·(x − g*x), where A is 3×3 per
  place, b a colour offset and s the gain of the high pass (sharpening where positive, smoothing where
  negative). Still a residual: with all coefficients 0 the generator is the identity.

Coefficients are the sum of what a network predicts from the picture and of the camera's fixed part, small
maps that do not depend on the picture (illumination, mix of colours, sharpness at each place of the field);
``models.training.initialise`` finds those in closed form from both styles.

The coefficient maps are predicted from the picture reduced by ``scale`` (1, 2 or 4) and applied at full
resolution, so that detail is kept, the cost falls with the square of ``scale``, and there is little room to
invent content. The generator that is no residual, an ablation, is ``models.networks.plain``; which of the
two a configuration means, ``models.networks.build`` says.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.features import gaussian_kernel, split_rgba

FORMS = ("affine", "additive")
SCALES = (1, 2, 4)
"""By what the picture may be reduced before coefficients are predicted from it."""
BASE = 8
"""Side of the maps that hold a camera's fixed part."""
FINE_SIGMA = 1.0
"""Standard deviation in px of the Gaussian that the high pass takes away."""
_AFFINE, _OFFSET, _SHARPNESS = 9, 3, 1


class ResidualGenerator(nn.Module):
    """r(x), predicted by a U-Net of convolution and pooling layers from the picture reduced to p = S/scale.

    With the last layer 0, as at the start, r(x) = 0 and the generator is the identity. One instance is G12
    (first style to second), another one G21 (CN111753908A claim 1).

    Args:
        form: ``affine`` or ``additive``.
        scale: The reduced picture has side p = S/scale, a multiple of 8; the maps have side p/2.
        widths: Channels of the four levels.

    Raises:
        ValueError: ``form`` is not in ``FORMS``, or ``scale`` not in ``SCALES``.
    """

    kernel: Tensor

    def __init__(
        self, form: str = "affine", scale: int = 4, widths: tuple[int, int, int, int] = (12, 24, 32, 48)
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form {form!r} is none of {', '.join(FORMS)}")
        if scale not in SCALES:
            raise ValueError(f"scale {scale} is none of {', '.join(map(str, SCALES))}")
        self.form, self.scale = form, scale
        first, second, third, fourth = widths
        self.down1 = level(4, first)
        self.down2 = level(first, second)
        self.down3 = level(second, third)
        self.down4 = level(third, fourth)
        self.up3 = level(fourth + third, third)
        self.up2 = level(third + second, second)
        outputs = _OFFSET if form == "additive" else _AFFINE + _OFFSET + _SHARPNESS
        self.last = nn.Conv2d(second, outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # a Conv2d with bias has one
        self.base = nn.Parameter(torch.zeros(1, outputs, BASE, BASE))
        kernel = gaussian_kernel(FINE_SIGMA).expand(3, 1, -1, -1).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def coefficients(self, reduced: Tensor, mask: Tensor) -> Tensor:
        """The coefficient maps: predicted from the picture, plus the camera's fixed part.

        Args:
            reduced: RGB of the reduced picture, float32 (N, 3, p, p), 0..1, 0 outside the field.
            mask: The field's mask, float32 (N, 1, p, p), 0..1.

        Returns:
            float32 (N, 13 or 3, p/2, p/2): A (9, by column: what red,
            green and blue add to each channel), b (3), s (1); or b alone.
        """
        level1 = self.down1(torch.cat([reduced - 0.5 * mask, mask], 1))
        level2 = self.down2(functional.avg_pool2d(level1, 2))
        level3 = self.down3(functional.avg_pool2d(level2, 2))
        level4 = self.down4(functional.avg_pool2d(level3, 2))
        merged = self.up3(torch.cat([double(level4), level3], 1))
        merged = self.up2(torch.cat([double(merged), level2], 1))
        by_picture: Tensor = self.last(merged)
        side = by_picture.shape[-1]
        fixed = functional.interpolate(self.base, size=(side, side), mode="bilinear", align_corners=False)
        return by_picture + fixed

    def residual(self, rgb: Tensor, coefficients: Tensor, mask: Tensor, *, full_scale: bool = True) -> Tensor:
        """r(x) from coefficients already at the picture's resolution.

        On a picture reduced by pooling, leave the high pass out (``full_scale=False``): it has hardly any
        mean, so it pools to nothing, and the affine part commutes with pooling where its maps are smooth.

        Args:
            rgb: x, float32 (N, 3, H, W), 0..1.
            coefficients: float32 (N, 13 or 3, H, W).
            mask: float32 (N, 1, H, W); the residual is 0 outside the field.
            full_scale: Whether ``rgb`` has the resolution at which the adapter will run.

        Returns:
            float32 (N, 3, H, W).
        """
        if self.form == "additive":
            return coefficients * mask
        parts = torch.split_with_sizes(coefficients, [3, 3, 3, _OFFSET, _SHARPNESS], 1)
        by_red, by_green, by_blue, offset, sharpness = parts
        detail = sharpness * self.high_pass(rgb, mask) if full_scale else torch.zeros_like(rgb)
        red, green, blue = torch.split(rgb + detail, 1, 1)
        affine: Tensor = by_red * red + by_green * green + by_blue * blue + offset
        return (detail + affine) * mask

    def high_pass(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """X − g*x with a Gaussian of 1 px over pixels of the field only, float32 (N, 3, H, W)."""
        reach = self.kernel.shape[-1] // 2
        blurred = functional.conv2d(rgb * mask, self.kernel, padding=reach, groups=3)
        weight = functional.conv2d(mask, self.kernel[:1], padding=reach)
        return (rgb - blurred / weight.clamp_min(1e-3)) * mask

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """Residual r(x) of a picture at full scale, float32 (N, 3, S, S); not clamped.

        Args:
            rgb: x, float32 (N, 3, S, S), 0..1, S a multiple of 8·scale.
            mask: float32 (N, 1, S, S).
        """
        small, small_mask = rgb * mask, mask
        if self.scale > 1:
            small, small_mask = (functional.avg_pool2d(plane, self.scale) for plane in (small, mask))
        low = self.coefficients(small, small_mask)
        return self.residual(rgb, enlarge(low, rgb.shape[-1] // low.shape[-1]), mask)

    def translate(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """x̂ = x + r(x), float32 (N, 3, S, S), not clamped; arguments as ``forward``."""
        residual: Tensor = self(rgb, mask)
        return rgb + residual


class Translating(Protocol):
    """What every generator can do, residual or plain."""

    def translate(self, rgb: Tensor, mask: Tensor) -> Tensor:
        """x̂ from x float32 (N, 3, S, S) in 0..1 and its mask (N, 1, S, S); same shape, not clamped."""


class Adapter(nn.Module):
    """The exported graph: x̂2 = clamp(x1 + r12(x1)) as uint8, alpha untouched. Clamping is done here only.

    Args:
        generator: G12 from the camera to the labelled one; a module.
    """

    def __init__(self, generator: Translating) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor) -> Tensor:
        """Translate uint8 (N, S, S, 4) to uint8 (N, S, S, 4)."""
        rgb, mask = split_rgba(image)
        adapted = self.generator.translate(rgb, mask).clamp(0.0, 1.0) * mask
        colours = (adapted * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)
        return torch.cat([colours, image[..., 3:]], 3)


def enlarge(low: Tensor, factor: int) -> Tensor:
    """Enlarge smooth maps, bilinear."""
    return functional.interpolate(low, scale_factor=float(factor), mode="bilinear", align_corners=False)


def level(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of 3×3, each with LeakyReLU; side kept."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.2),
    )


def double(maps: Tensor) -> Tensor:
    """Twice the side, nearest neighbour."""
    return functional.interpolate(maps, scale_factor=2.0, mode="nearest")
