"""Pictures of one style at the two scales that adapter training looks at, and their translation.

The whole picture is seen reduced by the generators' scale: colour, illumination, haze. A crop is seen at
full resolution: sharpness, noise, lesions. Coefficient maps come from the reduced picture and are applied to
both. A plain generator (an ablation) translates the crop only; its discriminators see the crop alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.networks.build import Generator
from models.networks.features import LesionTrunk, LocalContrast, split_rgba
from models.networks.generator import ResidualGenerator, enlarge
from models.networks.plain import PlainGenerator

OVERVIEW = 4
"""By what the whole picture is reduced for the discriminators, whatever the generators' scale."""
_CELL = 8
"""Full-resolution px per cell of the coefficient maps and of the contrast's background at S = 512."""


@dataclass(frozen=True)
class StyleBatch:
    """Pictures of one style.

    Attributes:
        reduced: RGB float32 (N, 3, p, p), 0..1, 0 outside the field.
        reduced_mask: float32 (N, 1, p, p), 0..1.
        crop: RGB at full resolution, float32 (N, 3, c, c).
        crop_mask: float32 (N, 1, c, c).
        top: Row of the crop in the full picture, a multiple of 8, at least 8.
        left: Column of the crop, likewise.
    """

    reduced: Tensor
    reduced_mask: Tensor
    crop: Tensor
    crop_mask: Tensor
    top: int
    left: int

    def detach(self) -> StyleBatch:
        """The same pictures without gradient."""
        return replace(self, reduced=self.reduced.detach(), crop=self.crop.detach())

    def to(self, device: torch.device) -> StyleBatch:
        """The same pictures on a device."""
        return replace(
            self,
            reduced=self.reduced.to(device),
            reduced_mask=self.reduced_mask.to(device),
            crop=self.crop.to(device),
            crop_mask=self.crop_mask.to(device),
        )


@dataclass(frozen=True)
class Translation:
    """A translated batch: the pictures, x̂ − x at each scale, and what a discriminator sees of it.

    Attributes:
        batch: x̂, not clamped.
        residuals: r(x) on the reduced picture and on the crop; of a plain generator x̂ − x of the crop alone.
        views: The picture, and the task's features or None.
    """

    batch: StyleBatch
    residuals: tuple[Tensor, ...]
    views: tuple[Tensor, Tensor | None]

    @property
    def detached(self) -> tuple[Tensor, Tensor | None]:
        """The views without gradient, for the discriminators' step."""
        picture, features = self.views
        return picture.detach(), None if features is None else features.detach()


class StyleSampler:
    """Draws batches of one style, with one crop window a batch.

    Pictures are not mirrored: a camera's light need not be symmetrical, and its fixed part is learnt.

    Args:
        pictures: uint8 (N, S, S, 4).
        reduced: Side of the reduced pictures.
        crop: Side of the crops.
    """

    def __init__(self, pictures: npt.NDArray[np.uint8], reduced: int, crop: int) -> None:
        self._pictures, self._crop = pictures, crop
        # Reduced once: float32 (N, 4, p, p), RGB already 0 outside the field, and the mask.
        self._reduced = torch.cat([_reduce(picture[None], reduced) for picture in pictures])

    def draw(self, rng: np.random.Generator, batch: int) -> StyleBatch:
        """A batch of ``batch`` pictures."""
        chosen = rng.integers(0, len(self._pictures), batch)
        size = self._pictures.shape[1]
        cells = (size - self._crop) // _CELL
        top, left = (int(value) * _CELL for value in rng.integers(1, max(2, cells), 2))
        window = self._pictures[chosen, top : top + self._crop, left : left + self._crop]
        crop, crop_mask = split_rgba(torch.from_numpy(np.ascontiguousarray(window)))
        small = self._reduced[torch.from_numpy(chosen)]
        return StyleBatch(small[:, :3], small[:, 3:], crop * crop_mask, crop_mask, top, left)


def _reduce(pictures: npt.NDArray[np.uint8], reduced: int) -> Tensor:
    rgb, mask = split_rgba(torch.from_numpy(np.ascontiguousarray(pictures)))
    factor = rgb.shape[-1] // reduced
    return functional.avg_pool2d(torch.cat([rgb * mask, mask], 1), factor)


class Translator:
    """Applies generators at both scales and computes the task's features of the result.

    Args:
        trunk: Task-specific feature extractor T, applied to pictures of either style (CN111753908A claim 1);
            on the device of the pictures. None leaves features out.
        size: Side S of the full pictures.
        features: Whether features are wanted at all.
        overview: Whether generators translate the whole reduced picture; False for plain generators.
    """

    def __init__(self, trunk: LesionTrunk | None, size: int, features: bool, overview: bool = True) -> None:
        self._trunk, self._size, self._overview = trunk if features else None, size, overview
        self._contrast = LocalContrast(size)
        if trunk is not None:
            self._contrast.to(next(trunk.parameters()).device)

    @staticmethod
    def feature_channels(trunk: LesionTrunk) -> int:
        """Channels of ``task_features``."""
        example = torch.zeros(1, 3, 16, 16, device=next(trunk.parameters()).device)
        with torch.inference_mode():
            return sum(level.shape[1] for level in trunk.encode(example)[:3])

    def residuals(self, generator: Generator, batch: StyleBatch) -> tuple[Tensor, ...]:
        """r(x) on the reduced picture and on the crop; of a plain generator G(x) − x on the crop."""
        if isinstance(generator, PlainGenerator):
            return (generator(batch.crop, batch.crop_mask) - batch.crop,)
        return self._residuals(generator, batch)

    def _residuals(self, generator: ResidualGenerator, batch: StyleBatch) -> tuple[Tensor, Tensor]:
        low = generator.coefficients(batch.reduced, batch.reduced_mask)
        at_reduced = enlarge(low, batch.reduced.shape[-1] // low.shape[-1])
        full_scale = batch.reduced.shape[-1] == self._size
        reduced = generator.residual(batch.reduced, at_reduced, batch.reduced_mask, full_scale=full_scale)
        at_crop = self._window(low, batch)
        return reduced, generator.residual(batch.crop, at_crop, batch.crop_mask)

    def translate(self, generator: Generator, batch: StyleBatch) -> Translation:
        """x̂ = x + r(x) at both scales (a plain generator: x̂ = G(x) of the crop), not clamped."""
        residuals = self.residuals(generator, batch)
        moved = replace(batch, crop=batch.crop + residuals[-1])
        if self._overview:
            moved = replace(moved, reduced=batch.reduced + residuals[0])
        return Translation(moved, residuals, self.views(moved))

    def pictures(self, batch: StyleBatch) -> tuple[Tensor, ...]:
        """The pictures at the scales that ``residuals`` has."""
        return (batch.reduced, batch.crop) if self._overview else (batch.crop,)

    def views(self, batch: StyleBatch) -> tuple[Tensor, Tensor | None]:
        """What a discriminator sees: the picture reduced to S/4, and the task's features of the crop.

        Of plain generators' pictures: the crop instead of the reduced picture.
        """
        picture = batch.crop
        if self._overview:
            factor = OVERVIEW * batch.reduced.shape[-1] // self._size
            picture = functional.avg_pool2d(batch.reduced, factor) if factor > 1 else batch.reduced
        return picture, None if self._trunk is None else self.task_features(self._trunk, batch)

    def task_features(self, trunk: LesionTrunk, batch: StyleBatch) -> Tensor:
        """T(x) of either style: the trunk's first levels on the crop's local contrast, (N, C, c/4, c/4)."""
        contrast = self._contrast.contrast(batch.crop, self._background(batch), batch.crop_mask)
        level1, level2, level3, _ = trunk.encode(contrast)
        return torch.cat([functional.avg_pool2d(level1, 4), functional.avg_pool2d(level2, 2), level3], 1)

    def _background(self, batch: StyleBatch) -> Tensor:
        """The Gaussian mean that local contrast is relative to, on the crop, float32 (N, 3, c, c).

        From the whole picture, as in serving. Of plain generators' pictures from the crop alone, with the
        crop's edge treated as the field's: in the same way for real and translated ones.
        """
        if not self._overview:
            pooled = functional.avg_pool2d(batch.crop * batch.crop_mask, _CELL)
            weight = functional.avg_pool2d(batch.crop_mask, _CELL)
            return enlarge(self._contrast.background(pooled, weight), _CELL)
        factor = batch.reduced.shape[-1] * _CELL // self._size
        pooled = functional.avg_pool2d(batch.reduced, factor)
        low = self._contrast.background(pooled, functional.avg_pool2d(batch.reduced_mask, factor))
        return self._window(low, batch)

    def _window(self, low: Tensor, batch: StyleBatch) -> Tensor:
        """The part of smooth maps that covers the crop, at full resolution."""
        cell = self._size // low.shape[-1]
        side = batch.crop.shape[-1]
        if batch.top % cell or batch.left % cell or side % cell:
            return enlarge(low, cell)[:, :, batch.top : batch.top + side, batch.left : batch.left + side]
        row, column, cells = batch.top // cell, batch.left // cell, side // cell
        margin = low[:, :, row - 1 : row + cells + 1, column - 1 : column + cells + 1]
        return enlarge(margin, cell)[:, :, cell : cell + side, cell : cell + side]
