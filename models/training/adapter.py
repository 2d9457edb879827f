"""Train a camera adapter without labels: two residual generators against two discriminators.

First style: the incoming camera. Second style: the labelled camera, other patients. No label of either is an
argument of anything here. Method: CN111753908A claim 1, arXiv 2007.15874; equations in ``losses``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.networks.discriminator import Discriminator
from models.networks.features import LesionTrunk
from models.networks.generator import ResidualGenerator
from models.training.lesions import Progress
from models.training.losses import cycle_loss, discriminator_loss, generator_loss, identity_loss
from models.training.styles import StyleBatch, StyleSampler, Translator


class TrainingDivergedError(ModelError):
    """Training went wrong in a way that more steps do not mend; the message says how."""


@dataclass(frozen=True)
class AdapterConfig:
    """How an adapter is trained.

    Attributes:
        form: Form of the residual, ``affine`` or ``additive``.
        reduced: Side in px of the picture from which coefficients are predicted.
        crop: Side in px of the full-resolution crops that the feature extractor sees, a multiple of 32.
        features: Whether the discriminators see the feature extractor's maps (False is an ablation).
        steps: Steps; each updates the generators, then the discriminators.
        batch: Pictures of each style a step.
        learning_rate: Of the generators (Adam, β1 0.5).
        discriminator_rate: Learning rate of the discriminators, relative to the generators'.
        cycle: Weight of the residual cycle term and its mirror.
        identity: Weight of the identity term.
        average_from: Share of the steps after which weights are averaged.
        checkpoint_every: Steps between checkpoints.
        seed: Seed of weights and batches.
    """

    form: str = "affine"
    reduced: int = 128
    crop: int = 128
    features: bool = True
    steps: int = 600
    batch: int = 4
    learning_rate: float = 4e-4
    discriminator_rate: float = 0.4
    cycle: float = 5.0
    identity: float = 1.0
    average_from: float = 0.6
    checkpoint_every: int = 50
    seed: int = 0


class AdapterTraining:
    """State of one adapter's training: G12, G21, D1, D2, their optimisers and the averaged G12.

    Args:
        trunk: Task-specific feature extractor; frozen here.
        size: Side S of the pictures.
        config: Settings.
    """

    def __init__(self, trunk: LesionTrunk, size: int, config: AdapterConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.trunk = trunk.eval().requires_grad_(False)
        self.generator12 = ResidualGenerator(config.form, config.reduced)
        self.generator21 = ResidualGenerator(config.form, config.reduced)
        self.translator = Translator(trunk, size, config.features)
        channels = Translator.feature_channels(trunk) if config.features else 0
        self.discriminator1, self.discriminator2 = Discriminator(channels), Discriminator(channels)
        generators = [*self.generator12.parameters(), *self.generator21.parameters()]
        judges = [*self.discriminator1.parameters(), *self.discriminator2.parameters()]
        rate = config.learning_rate
        self.generator_optimiser = torch.optim.Adam(generators, rate, betas=(0.5, 0.999))
        self.judge_optimiser = torch.optim.Adam(judges, rate * config.discriminator_rate, betas=(0.5, 0.999))
        self.average = copy.deepcopy(self.generator12)
        self.averaged = 0
        self.step = 0

    def update(self, first: StyleBatch, second: StyleBatch) -> dict[str, float]:
        """One alternation: generators with the discriminators fixed, then discriminators.

        Args:
            first: Pictures of the incoming camera.
            second: Pictures of the labelled camera, of other patients.

        Returns:
            The loss terms, and the mean absolute residual.
        """
        fake2 = self.translator.translate(self.generator12, first)
        fake1 = self.translator.translate(self.generator21, second)
        back1 = self.translator.translate(self.generator21, fake2.batch)
        back2 = self.translator.translate(self.generator12, fake1.batch)
        adversarial = generator_loss(self.discriminator2(*fake2.views)) + generator_loss(
            self.discriminator1(*fake1.views)
        )
        cycle = _both(cycle_loss, fake2.residuals, back1.residuals) + _both(
            cycle_loss, fake1.residuals, back2.residuals
        )
        own2 = self.translator.residuals(self.generator12, second)
        own1 = self.translator.residuals(self.generator21, first)
        identity = _both(identity_loss, own2) + _both(identity_loss, own1)
        loss = adversarial + self.config.cycle * cycle + self.config.identity * identity
        self.generator_optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.generator_optimiser.step()
        judges = self._update_judges(first, second, fake1.detached, fake2.detached)
        self._average()
        self.step += 1
        terms = {"adversarial": adversarial, "cycle": cycle, "identity": identity, "discriminators": judges}
        terms["residual"] = fake2.residuals[0].abs().mean()
        return self._checked({name: float(term.detach()) for name, term in terms.items()})

    def _update_judges(
        self, first: StyleBatch, second: StyleBatch, fake1: list[Tensor | None], fake2: list[Tensor | None]
    ) -> Tensor:
        loss = torch.zeros(())
        for judge, real, fake in ((self.discriminator1, first, fake1), (self.discriminator2, second, fake2)):
            with torch.no_grad():
                views = self.translator.views(real)
            loss = loss + discriminator_loss(judge(*views), judge(fake[0], fake[1]))
        self.judge_optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.judge_optimiser.step()
        return loss

    def _average(self) -> None:
        """Running mean of G12's weights over the last part of the training."""
        if self.step + 1 <= self.config.average_from * self.config.steps:
            self.average.load_state_dict(self.generator12.state_dict())
            self.averaged = 0
            return
        self.averaged += 1
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.generator12.parameters(), strict=True):
                mean.lerp_(weight, 1.0 / self.averaged)

    def _checked(self, terms: dict[str, float]) -> dict[str, float]:
        if not all(np.isfinite(term) for term in terms.values()):
            raise TrainingDivergedError(f"a loss is not finite at step {self.step}: lower learning_rate")
        return terms

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        modules = {name: module.state_dict() for name, module in self._modules().items()}
        return {**modules, "averaged": self.averaged, "step": self.step}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        for name, module in self._modules().items():
            module.load_state_dict(state[name])
        self.averaged, self.step = int(state["averaged"]), int(state["step"])

    def _modules(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "generator12": self.generator12,
            "generator21": self.generator21,
            "discriminator1": self.discriminator1,
            "discriminator2": self.discriminator2,
            "average": self.average,
            "generator_optimiser": self.generator_optimiser,
            "judge_optimiser": self.judge_optimiser,
        }


def train_adapter(
    first: npt.NDArray[np.uint8],
    second: npt.NDArray[np.uint8],
    *,
    trunk: LesionTrunk,
    config: AdapterConfig,
    checkpoint: Path,
    progress: Progress,
) -> ResidualGenerator:
    """Train G12 from the incoming to the labelled camera, resuming from ``checkpoint`` if it exists.

    Args:
        first: Unlabelled pictures of the incoming camera, uint8 (N1, S, S, 4).
        second: Pictures of the labelled camera, of other patients, uint8 (N2, S, S, 4).
        trunk: Feature extractor.
        config: Settings.
        checkpoint: Where state is kept.
        progress: Told every step.

    Returns:
        The averaged G12.

    Raises:
        TrainingDivergedError: A loss is not finite, or G12 ended as the identity.
    """
    training = AdapterTraining(trunk, first.shape[1], config)
    if checkpoint.exists():
        training.resume(torch.load(checkpoint, weights_only=True))
    samplers = (
        StyleSampler(first, config.reduced, config.crop),
        StyleSampler(second, config.reduced, config.crop),
    )
    terms: dict[str, float] = {}
    while training.step < config.steps:
        # Drawn from (seed, step), so that a resumed run sees the same pictures.
        rng = np.random.default_rng((config.seed, training.step))
        batches = [sampler.draw(rng, config.batch) for sampler in samplers]
        terms = training.update(batches[0], batches[1])
        progress("adapter", training.step, config.steps, terms)
        if training.step % config.checkpoint_every == 0 or training.step == config.steps:
            torch.save(training.state(), checkpoint)
    if terms and terms["residual"] < 1e-3:
        raise TrainingDivergedError("the generator ended as the identity: the styles may be the same already")
    return training.average.eval()


def _both(loss: Any, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Mean of a loss on the reduced pictures and the same loss on the full-resolution crops."""
    reduced, crop = (loss(*(pair[scale] for pair in pairs)) for scale in (0, 1))
    mean: Tensor = 0.5 * (reduced + crop)
    return mean
