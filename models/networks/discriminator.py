"""The discriminators D1, D2: patch networks on the picture and on the task's features of it.

CN111753908A claim 1: D1 judges pictures of the first style, real x1 against x̂1 = x2 + r21(x2); D2 those of
the second, real x2 against x̂2 = x1 + r12(x1). Both are instances of ``Discriminator`` and minimise

    ½·E[(Dk(xk, T(xk)) − 1)²] + ½·E[Dk(x̂k, T(x̂k))²]

(``models.training.losses.discriminator_loss``). Each has two branches: one sees the reduced picture, one sees
a full-resolution crop through the task-specific feature extractor T, whose features of either style tell what
the diagnosis depends on. With ``feature_channels = 0`` the second branch is absent (an ablation).
"""

from __future__ import annotations

from torch import Tensor, nn


class PatchBranch(nn.Sequential):
    """Strided convolutions to a map of patch scores (Isola et al. 2017), instance normalisation between.

    Args:
        inputs: Channels of the input.
        widths: Channels of the strided levels.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            layers.append(nn.Conv2d(inputs, width, 4, stride=2, padding=1))
            if index:
                layers.append(nn.InstanceNorm2d(width, affine=True))
            layers.append(nn.LeakyReLU(0.2))
            inputs = width
        layers.append(nn.Conv2d(inputs, 1, 3, padding=1))
        super().__init__(*layers)


class Discriminator(nn.Module):
    """Dk(x, T(x)): how much a picture and its task features look like style k.

    Args:
        feature_channels: Channels of the feature extractor's maps; 0 leaves the feature branch out.
        widths: Channels of the strided levels of both branches.
    """

    def __init__(self, feature_channels: int, widths: tuple[int, ...] = (24, 48, 96)) -> None:
        super().__init__()
        self.picture = PatchBranch(3, widths)
        self.features = PatchBranch(feature_channels, widths[:2]) if feature_channels else None

    def forward(self, picture: Tensor, features: Tensor | None) -> list[Tensor]:
        """Score maps of both branches.

        Args:
            picture: x, RGB float32 (N, 3, p, p), 0..1: the whole at S/4; for plain generators the crop.
            features: T(x), float32 (N, C, h, w), or None without the feature branch.

        Returns:
            One or two maps float32 (N, 1, ·, ·); 1 means real, 0 means translated.
        """
        scores: list[Tensor] = [self.picture(picture - 0.5)]
        if self.features is not None and features is not None:
            scores.append(self.features(features))
        return scores
