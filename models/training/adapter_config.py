"""How a camera adapter is trained, and every ablation of it, as values checked against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from models.errors import ModelError
from models.networks.generator import FORMS, SCALES
from models.training.watching import WatchConfig


class AdapterConfigError(ModelError, ValueError):
    """Settings that cannot be, alone or together; the message names them and says what to do."""


@dataclass(frozen=True)
class AdapterConfig:
    """How an adapter is trained.

    Attributes:
        residual: Generators output r(x), with x̂ = x + r(x) and the cycle term on residuals; False is a plain
            CycleGAN (an ablation): they output x̂, and the cycle term is ‖G21(G12(x1)) − x1‖ and its mirror.
        form: Form of the residual, ``affine`` or ``additive``.
        from_statistics: Whether affine residuals start at the cameras' fixed part, which statistics of both
            styles give in closed form (``initialise``); False, and any other form: at the identity.
        scale: Coefficients are predicted from the picture reduced to S/scale: 1, 2 or 4.
        crop: Side in px of the full-resolution crops that the feature extractor sees, a multiple of 32.
        features: Whether the discriminators see the feature extractor's maps (False is an ablation).
        trainable_features: Whether a copy of the feature extractor is trained, by the discriminators' loss
            and in their step (an ablation): it is then a part of them that looks for what tells the styles
            apart. Trained by the generators it would learn to hide it. The classifier's own stays as it is.
        paired: Trained with the first pictures' true second style, by ``models.training.paired``: no
            adapter, since nobody has those, but the bound of what the generator can reach.
        steps: Steps; each updates the generators, then the discriminators.
        batch: Pictures of each style a step.
        learning_rate: Learning rate of the generators (Adam, β1 0.5).
        discriminator_rate: Learning rate of the discriminators, relative to the generators'.
        cycle: Weight of the cycle term and its mirror; with 0 (an ablation) it is not computed.
        identity: Weight of the identity term; with 0 it is not computed. It holds a generator to the
            identity on its target's pictures, which a camera's fixed part cannot be: only for starts there.
        average_from: Share of the steps after which weights are averaged.
        checkpoint_every: Steps between checkpoints.
        clip: Largest L2 norm of the gradient of a half step; 0 clips nothing.
        seed: Seed of weights and batches.
        watch: When it stops, what it shows, what it does about a failure.

    Raises:
        AdapterConfigError: A value is out of its range, or two contradict each other.
    """

    residual: bool = True
    form: str = "affine"
    from_statistics: bool = True
    scale: int = 4
    crop: int = 128
    features: bool = True
    trainable_features: bool = False
    paired: bool = False
    steps: int = 150
    batch: int = 4
    learning_rate: float = 6e-4
    discriminator_rate: float = 0.4
    cycle: float = 2.0
    identity: float = 0.0
    average_from: float = 0.5
    checkpoint_every: int = 50
    clip: float = 0.0
    seed: int = 0
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for holds, problem in (*self._ranges(), *self._combinations()):
            if not holds:
                raise AdapterConfigError(problem)

    def _ranges(self) -> Iterator[tuple[bool, str]]:
        yield self.form in FORMS, f"form {self.form!r} is none of {', '.join(FORMS)}"
        yield self.scale in SCALES, f"scale {self.scale} is none of {', '.join(map(str, SCALES))}"
        yield self.crop > 0 and self.crop % 32 == 0, f"crop {self.crop} is no positive multiple of 32"
        for name in ("steps", "batch", "checkpoint_every"):
            yield getattr(self, name) >= 1, f"{name} {getattr(self, name)} is below 1"
        for name in ("learning_rate", "discriminator_rate"):
            yield getattr(self, name) > 0, f"{name} {getattr(self, name)} is not above 0"
        for name in ("cycle", "identity", "clip"):
            yield getattr(self, name) >= 0, f"{name} {getattr(self, name)} is below 0"
        yield 0 <= self.average_from <= 1, f"average_from {self.average_from} is not from 0 to 1"

    def _combinations(self) -> Iterator[tuple[bool, str]]:
        yield (
            self.features or not self.trainable_features,
            "trainable_features trains the extractor that features = false leaves out: set only one of them",
        )
        yield (
            self.residual or (self.form, self.scale) == (AdapterConfig.form, AdapterConfig.scale),
            "form and scale are those of a residual: leave them out with residual = false",
        )
        yield (
            not (self.paired and self.trainable_features),
            "paired training has no discriminators that could train features: leave trainable_features out",
        )
