"""Trainings that went wrong, each kind said by name with its remedy.

============== =======================================================================  ==================
name           sign                                                                     looked for
============== =======================================================================  ==================
not finite     a loss is NaN or infinite                                                every step
discriminator  the discriminators' loss is near 0 and the generators' adversarial term  every step, over a
won            near 1, over a whole window: the generators get no gradient that helps   window
collapse       translated pictures of different inputs are alike, or are clamped        every checkpoint
               nearly everywhere                                                        and at the end
identity       the residual is nearly 0 though the styles differ measurably             at the end
============== =======================================================================  ==================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from models.errors import ModelError

WON_LOSS = 0.04
"""Least-squares loss per discriminator below which it is hardly ever wrong; 0.25 is chance."""
WON_ADVERSARIAL = 0.8
"""Least-squares adversarial term per generator above which no translated picture passes; 0.25 is chance."""
ALIKE = 0.1
"""Spread of translated pictures, relative to their inputs', below which they count as alike."""
CLAMPED = 0.5
"""Share of a picture's values that a translation may push out of 0..1, beyond those of the input."""
STILL = 1e-3
"""Mean |r| below which a generator counts as the identity: a quarter of a grey level."""
COLOUR = 0.01
"""Difference of mean or standard deviation of a colour (0..1) from which styles differ measurably."""
SHARPNESS = 0.15
"""Difference of the logarithm of the high pass's standard deviation, likewise."""
_GREY = 1e-4


class TrainingDivergedError(ModelError):
    """Training went wrong in a way that more steps do not mend; the message says how, and what to change."""


class TrainingDivergedWarning(UserWarning):
    """The same, where the configuration asks to go on (``divergence = "warn"``): no adapter to use."""


@dataclass
class Streak:
    """Counts how often in a row something was seen.

    Attributes:
        limit: Times in a row that make it certain.
        count: Times so far.
    """

    limit: int
    count: int = 0

    def see(self, seen: bool) -> bool:
        """Take in one observation; returns whether it has just become certain."""
        self.count = self.count + 1 if seen else 0
        return self.count == self.limit


@dataclass(frozen=True)
class StyleDifference:
    """How far two styles are apart, inside the field of view.

    Attributes:
        colour: Largest difference of a channel's mean or standard deviation, 0..1.
        sharpness: |ln| of the ratio of the high pass's standard deviations.
    """

    colour: float
    sharpness: float

    @property
    def measurable(self) -> bool:
        """Whether an adapter has anything to do."""
        return self.colour >= COLOUR or self.sharpness >= SHARPNESS


def require_exportable(state: Mapping[str, Any], name: str) -> None:
    """Refuse to make an adapter of a checkpoint that failed by name, or that is not finished.

    Args:
        state: A checkpoint's content; one without ``complaints`` and ``finished`` is taken as sound.
        name: What messages call it.

    Raises:
        TrainingDivergedError: It must not be exported.
    """
    complaints = state.get("complaints") or []
    if complaints:
        raise TrainingDivergedError(f"{name} is not exported: {'; '.join(complaints)}")
    if not state.get("finished", True):
        raise TrainingDivergedError(
            f"{name} is not exported: its training is at step {state['step']} and not finished, or failed "
            "at the end. Start the same command again; it goes on there, or says what is wrong"
        )


def require_finite(terms: Mapping[str, float], step: int) -> None:
    """Refuse losses that are not finite.

    Raises:
        TrainingDivergedError: One is NaN or infinite.
    """
    bad = [name for name, term in terms.items() if not np.isfinite(term)]
    if bad:
        raise TrainingDivergedError(
            f"not finite: {', '.join(bad)} at step {step}. Lower learning_rate, or set clip to 1"
        )


def discriminators_won(terms: Mapping[str, float]) -> bool:
    """Whether a step shows it; ``adversarial`` and ``discriminators`` are sums over both directions."""
    if "adversarial" not in terms or "discriminators" not in terms:
        return False
    return terms["discriminators"] < 2 * WON_LOSS and terms["adversarial"] > 2 * WON_ADVERSARIAL


def won_message(window: int, step: int) -> str:
    """What to say of discriminators that have won."""
    return (
        f"the discriminators have won: for {window} steps up to {step} they were hardly ever wrong, so the "
        "generators learn nothing from them. Lower discriminator_rate, or raise cycle"
    )


def find_collapse(source: Tensor, translated: Tensor, mask: Tensor) -> str | None:
    """Whether a generator maps different pictures to one, or clamps them.

    Args:
        source: Different pictures, float32 (N, 3, H, W), 0..1.
        translated: Their translations, not clamped, same shape.
        mask: Field of view, float32 (N, 1, H, W).

    Returns:
        What is wrong with its remedy, or None. A single picture, or inputs that are alike, show no collapse.
    """
    lost = _clamped_share(translated, mask) - _clamped_share(source, mask)
    if lost > CLAMPED:
        return (
            f"collapse: {lost:.0%} more of the translated pictures' values are clamped than of their "
            "inputs'. Lower learning_rate"
        )
    before, after = _spread(source, mask), _spread(translated.clamp(0.0, 1.0), mask)
    if before > _GREY and after < ALIKE * before:
        return (
            f"collapse: translated pictures of different inputs are alike (spread {after:.4f}, the inputs' "
            f"{before:.4f}). Raise cycle, or lower learning_rate"
        )
    return None


def find_identity(residual: float, difference: StyleDifference) -> str | None:
    """Whether a generator ended as the identity though it had something to do.

    Args:
        residual: Mean |r| inside the field, 0..1.
        difference: How far the styles are apart.

    Returns:
        What is wrong with its remedy, or None; between styles that are the same, the identity is right.
    """
    if residual >= STILL or not difference.measurable:
        return None
    return (
        f"the generator ended as the identity: mean |r| is {residual:.1e}, though the styles differ "
        f"(colour {difference.colour:.3f}, sharpness {difference.sharpness:.2f}). Raise steps or "
        "learning_rate, or lower identity"
    )


def style_difference(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> StyleDifference:
    """Compare two styles by their statistics; no picture is compared with another.

    Args:
        first: RGB float32 (N, 3, H, W), 0..1, and mask (N, 1, H, W) of the first style.
        second: Likewise of the second; the same H and W.
    """
    (mean1, std1, sharp1), (mean2, std2, sharp2) = _statistics(*first), _statistics(*second)
    colour = max(float((mean1 - mean2).abs().max()), float((std1 - std2).abs().max()))
    return StyleDifference(colour, abs(float(np.log((sharp1 + _GREY) / (sharp2 + _GREY)))))


def _statistics(rgb: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, float]:
    """Means and standard deviations of the channels, and the standard deviation of green's high pass."""
    weight = mask.sum()
    mean = (rgb * mask).sum((0, 2, 3)) / weight
    square = ((rgb - mean[None, :, None, None]).square() * mask).sum((0, 2, 3)) / weight
    inner = 1.0 - functional.max_pool2d(1.0 - mask, 5, 1, 2)  # the rim's step is no detail
    green = rgb[:, 1:2]
    detail = (green - functional.avg_pool2d(green, 3, 1, 1, count_include_pad=False)) * inner
    sharpness = float((detail.square().sum() / inner.sum().clamp_min(1.0)).sqrt())
    return mean, square.sqrt(), sharpness


def _spread(rgb: Tensor, mask: Tensor) -> float:
    """Mean standard deviation over pictures of each pixel that all of them have in their field."""
    if len(rgb) < 2:
        return 0.0
    common = mask.amin(0, keepdim=True)
    spread = (rgb.std(0, keepdim=True) * common).sum() / (3.0 * common.sum()).clamp_min(1.0)
    return float(spread)


def _clamped_share(rgb: Tensor, mask: Tensor) -> float:
    """Share of the field's values at or beyond 0 or 1."""
    outside = ((rgb <= 0.0) | (rgb >= 1.0)).to(rgb.dtype) * mask
    return float(outside.sum() / (3.0 * mask.sum()).clamp_min(1.0))
