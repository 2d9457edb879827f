"""The exported classifier: contract tensor in; grade and oedema probabilities, quality, lesion maps out.

Everything after the uint8 tensor happens here, inside the graph, so that training and serving cannot differ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.features import LesionTrunk, LocalContrast, split_rgba
from models.networks.quality import QualityNetwork

GRADED_LESIONS = 4
"""Leading lesion maps that describe disease (MA, HE, EX, SE); the fifth, the optic disc, only excludes."""
AREA_LEVELS = (0.3, 0.5, 0.8)
MACULA = 0.2
"""Radius of the macular region, in sides of the picture: 10° of a 50° field, two disc diameters."""
_BRIGHT = (2, 3)
_SUMMARIES = len(AREA_LEVELS) + 3


class LesionSummary(nn.Module):
    """Numbers that describe the lesions of one eye, all expressible in a graph.

    For each lesion kind, over the field of view: area above 0.3, 0.5 and 0.8 in px, sum of probabilities,
    number of local maxima above 0.5 (one a lesion, standing in for connected components), all as ln(1 + n),
    and the highest 4×4 mean. Bright lesions (EX, SE) do not count where the optic disc is. Then, for each
    kind, ln(1 + n) of the sum within ``MACULA`` of the picture's centre, about where the fovea is in a
    photograph of the posterior pole: macular oedema is judged by exudates near it.

    Args:
        size: Side S of the pictures in pixels.
    """

    features = GRADED_LESIONS * (_SUMMARIES + 1)
    chords: Tensor
    across: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        axis = (torch.arange(size) + 0.5) / size - 0.5
        # Half of the chord at each row: the mask itself would be 1 MB of constants in the graph.
        chords = (MACULA**2 - axis.square()).clamp_min(0.0).sqrt()
        self.register_buffer("chords", chords[None, None, :, None], persistent=False)
        self.register_buffer("across", axis.abs()[None, None, None], persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Summarise lesion maps.

        Args:
            logits: float32 (N, 5, S, S).
            mask: Field of view, float32 (N, 1, S, S), 0 or 1.

        Returns:
            Summaries float32 (N, 28) and probabilities float32 (N, 4, S, S) without the optic disc.
        """
        probability = logits.sigmoid() * mask
        near_disc = functional.max_pool2d(
            functional.avg_pool2d(probability[:, 4:], 8), 5, stride=1, padding=2
        )
        elsewhere = 1.0 - functional.interpolate(near_disc, scale_factor=8.0, mode="nearest")
        dark, bright = probability[:, :2], probability[:, _BRIGHT[0] : _BRIGHT[1] + 1] * elsewhere
        lesions = torch.cat([dark, bright], 1)
        peaks = functional.max_pool2d(lesions, 7, stride=1, padding=3)
        summits = ((lesions >= peaks) & (lesions > 0.5)).to(torch.float32).sum((2, 3))
        areas = [(lesions > level).to(torch.float32).sum((2, 3)) for level in AREA_LEVELS]
        counts = torch.log1p(torch.cat([*areas, lesions.sum((2, 3)), summits], 1))
        highest = functional.avg_pool2d(lesions, 4).amax((2, 3))
        # Nothing is added, but made to depend on the input: else the exporter folds it into that constant.
        near = (self.across + mask[:1, :, :1, :1] * 0.0 < self.chords).to(torch.float32)
        central = torch.log1p((lesions * near).sum((2, 3)))
        return torch.cat([counts, highest, central], 1), lesions


class OrdinalHead(nn.Module):
    """Proportional odds (McCullagh 1980): P(grade ≥ k) = σ(a·s − c_k), one score s and ascending cuts c_k.

    The cumulative probabilities cannot cross, whatever the score. ``a`` and ``c`` are the calibration, fitted
    on scores of photographs that the score's own weights did not see.

    Args:
        features: Number of inputs.
        cuts: Number of cut points, one less than there are grades.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    slope: Tensor
    cuts: Tensor

    def __init__(self, features: int, cuts: int = 4) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("weight", torch.zeros(features))
        self.register_buffer("slope", torch.ones(1))
        self.register_buffer("cuts", torch.arange(cuts, dtype=torch.float32) - 1.0)

    def score(self, features: Tensor) -> Tensor:
        """Score s of each photograph, float32 (N,)."""
        return ((features - self.mean) / self.scale) @ self.weight

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, F) to calibrated cumulative probabilities float32 (N, cuts), non-increasing."""
        return torch.sigmoid(self.slope * self.score(features)[:, None] - self.cuts[None])


class FundusClassifier(nn.Module):
    """Local contrast, lesion trunk, summaries, ordinal head and quality, from uint8 to outputs.

    Args:
        size: Side S of the input in pixels, a multiple of 32.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.normalise = LocalContrast(size)
        self.trunk = LesionTrunk()
        self.summary = LesionSummary(size)
        self.head = OrdinalHead(LesionSummary.features + 2 * DEEP_FEATURES)
        self.oedema = OrdinalHead(LesionSummary.features + 2 * DEEP_FEATURES, cuts=2)
        self.quality = QualityNetwork()

    def features(self, rgb: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of the ordinal head float32 (N, F), and lesion probabilities float32 (N, 4, S, S)."""
        logits, deepest = self.trunk(self.normalise(rgb, mask))
        summaries, lesions = self.summary(logits, mask)
        deep = torch.cat([deepest.mean((2, 3)), deepest.amax((2, 3))], 1)
        return torch.cat([summaries, deep], 1), lesions

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Grade photographs.

        Args:
            image: uint8 (N, S, S, 4).

        Returns:
            cumulative float32 (N, 4), P(grade ≥ 1..4), non-increasing; quality float32 (N, 1), probability
            that this is a gradable colour fundus photograph; activation uint8 (N, 4, S/4, S/4), lesion
            probability in 1/255 (highest within 4×4 px) of MA, HE, EX, SE; macular oedema float32 (N, 2),
            P(risk ≥ 1) and P(risk ≥ 2), non-increasing.
        """
        rgb, mask = split_rgba(image)
        features, lesions = self.features(rgb, mask)
        activation = (functional.max_pool2d(lesions, 4) * 255.0).round().to(torch.uint8)
        return self.head(features), self.quality(rgb, mask), activation, self.oedema(features)


DEEP_FEATURES = 48
"""Channels of the trunk's deepest level, pooled by mean and by maximum."""
