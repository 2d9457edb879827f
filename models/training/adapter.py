"""Train a camera adapter without labels: two residual generators against two discriminators.

First style: the incoming camera. Second style: the labelled camera, other patients. No label of either is an
argument of anything here. Method: CN111753908A claim 1, arXiv 2007.15874; equations in ``losses``. Ablations
are values of ``AdapterConfig``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.networks.build import Generator, build_generator
from models.networks.discriminator import Discriminator
from models.networks.features import LesionTrunk
from models.networks.generator import ResidualGenerator
from models.training.adapter_config import AdapterConfig, AdapterConfigError
from models.training.adapter_run import AdapterRun
from models.training.averaging import WeightAverage
from models.training.divergence import TrainingDivergedError as TrainingDivergedError  # noqa: PLC0414 - and from here
from models.training.divergence import require_finite
from models.training.engine import Engine
from models.training.initialise import fixed_part, style_statistics
from models.training.losses import (
    discriminator_loss,
    generator_loss,
    identity_loss,
    picture_cycle_loss,
    residual_cycle_loss,
)
from models.training.progress import Progress
from models.training.styles import StyleBatch, Translation, Translator

__all__ = ["AdapterConfig", "AdapterConfigError", "AdapterTraining", "TrainingDivergedError", "train_adapter"]


class AdapterTraining:
    """State of one adapter's training: G12, G21, D1, D2, their optimisers and the averaged G12.

    CN111753908A claim 1, alternating optimisation. With x̂2 = G12(x1), x̂1 = G21(x2) and T the feature
    extractor, a step first minimises, over G12 and G21 with D1, D2 and T fixed,

        E[(D2(x̂2, T(x̂2)) − 1)²] + E[(D1(x̂1, T(x̂1)) − 1)²]              adversarial
        + cycle · (E|r12(x1) + r21(x̂2)| + E|r21(x2) + r12(x̂1)|)          residual cycle and its mirror
        + identity · (E|r12(x2)| + E|r21(x1)|)

    and then, over D1 and D2 (and T if trainable) with G12 and G21 fixed, the sum over k = 1, 2 of

        ½·E[(Dk(xk, T(xk)) − 1)²] + ½·E[Dk(x̂k, T(x̂k))²].

    Each but the adversarial term is the mean of its value on the reduced picture and on the crop.

    Args:
        trunk: Task-specific feature extractor T; frozen here, and copied where ``trainable_features`` is set.
        size: Side S of the pictures.
        config: Settings.
        engine: Where steps run; by default one device that is found.

    Raises:
        AdapterConfigError: ``config.paired`` is set, which is ``models.training.paired``.
    """

    def __init__(
        self, trunk: LesionTrunk, size: int, config: AdapterConfig, engine: Engine | None = None
    ) -> None:
        if config.paired:
            raise AdapterConfigError("paired needs each picture's true second style: use train_paired")
        torch.manual_seed(config.seed)
        self.config, self.engine = config, engine or Engine()
        if self.engine.device.type != "cpu":
            trunk = copy.deepcopy(trunk)  # the caller's stays where it is
        trunk = self.engine.adopt(trunk.eval().requires_grad_(False))
        self.trunk = trunk
        if config.trainable_features:  # in evaluation mode: its normalisation keeps the task's statistics
            self.trunk = copy.deepcopy(trunk).requires_grad_(True)
        self.generator12, self.generator21 = (self.engine.adopt(build_generator(config)) for _ in range(2))
        self.translator = Translator(self.trunk, size, config.features, overview=config.residual)
        channels = Translator.feature_channels(trunk) if config.features else 0
        self.discriminator1, self.discriminator2 = (
            self.engine.adopt(Discriminator(channels)) for _ in range(2)
        )
        self.judges = nn.ModuleList([self.discriminator1, self.discriminator2])
        if config.trainable_features:
            self.judges.append(self.trunk)
        generators = [*self.generator12.parameters(), *self.generator21.parameters()]
        self.generator_optimiser = self._adam(generators, config.learning_rate)
        judges = list(self.judges.parameters())
        self.judge_optimiser = self._adam(judges, config.learning_rate * config.discriminator_rate)
        self.average = WeightAverage(self.generator12, config.average_from * config.steps)
        self.step = 0

    def _adam(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        return self.engine.optimiser(torch.optim.Adam(parameters, rate, betas=(0.5, 0.999)))

    def start_from(self, first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> None:
        """Put both generators where statistics of the styles say, if the configuration wants that.

        Args:
            first: Pictures of the incoming camera, uint8 (N1, S, S, 4).
            second: Pictures of the labelled camera, uint8 (N2, S, S, 4).
        """
        if not (self.config.from_statistics and self.config.residual and self.config.form == "affine"):
            return
        statistics = style_statistics(first), style_statistics(second)
        pairs = ((self.generator12, statistics), (self.generator21, statistics[::-1]))
        with torch.no_grad():
            for generator, (source, target) in pairs:
                if isinstance(generator, ResidualGenerator):
                    generator.base.copy_(fixed_part(source, target))
        self.average.mean.load_state_dict(self.generator12.state_dict())

    def update(self, first: StyleBatch, second: StyleBatch) -> dict[str, float]:
        """One alternation: generators with the discriminators fixed, then discriminators.

        Args:
            first: Pictures of the incoming camera.
            second: Pictures of the labelled camera, of other patients.

        Returns:
            The loss terms that have a weight, and the mean absolute residual.

        Raises:
            TrainingDivergedError: One of them is not finite.
        """
        fake1, fake2, terms = self._update_generators(first, second)
        terms["discriminators"] = self._update_judges(first, second, fake1, fake2)
        terms["residual"] = fake2.residuals[0].abs().mean()
        self.step += 1
        self.average.add(self.generator12, self.step)
        found = {name: float(term.detach()) for name, term in terms.items()}
        require_finite(found, self.step)
        return found

    def _update_generators(
        self, first: StyleBatch, second: StyleBatch
    ) -> tuple[Translation, Translation, dict[str, Tensor]]:
        """The generators' half step; returns x̂1, x̂2 (before it) and the terms that were minimised."""
        weights = {"adversarial": 1.0, "cycle": self.config.cycle, "identity": self.config.identity}
        with _fixed(self.judges), self.engine.autocast():
            fake2 = self.translator.translate(self.generator12, first)
            fake1 = self.translator.translate(self.generator21, second)
            terms = {"adversarial": self._adversarial(fake1, fake2)}
            if self.config.cycle:
                terms["cycle"] = self._cycle(first, second, fake1, fake2)
            if self.config.identity:
                own2 = self.translator.residuals(self.generator12, second)
                own1 = self.translator.residuals(self.generator21, first)
                terms["identity"] = _over_scales(identity_loss, own2) + _over_scales(identity_loss, own1)
            loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        self.engine.minimise(loss, self.generator_optimiser, self.config.clip)
        return fake1, fake2, terms

    def _adversarial(self, fake1: Translation, fake2: Translation) -> Tensor:
        """The generators' side of the adversarial loss."""
        return generator_loss(self.discriminator2(*fake2.views)) + generator_loss(
            self.discriminator1(*fake1.views)
        )

    def _cycle(self, first: StyleBatch, second: StyleBatch, fake1: Translation, fake2: Translation) -> Tensor:
        """The cycle term and its mirror: of residuals, or of pictures for plain generators."""
        back1 = self.translator.residuals(self.generator21, fake2.batch)
        back2 = self.translator.residuals(self.generator12, fake1.batch)
        if self.config.residual:
            return _over_scales(residual_cycle_loss, fake2.residuals, back1, fake1.residuals, back2)
        terms = []
        for real, fake, back in ((first, fake2, back1), (second, fake1, back2)):
            returned = [x + r for x, r in zip(self.translator.pictures(fake.batch), back, strict=True)]
            terms.append(_over_scales(picture_cycle_loss, self.translator.pictures(real), returned))
        return terms[0] + terms[1]

    def _update_judges(
        self, first: StyleBatch, second: StyleBatch, fake1: Translation, fake2: Translation
    ) -> Tensor:
        """The discriminators' half step; returns the loss that was minimised."""
        losses = []
        with self.engine.autocast():
            for judge, real, fake in (
                (self.discriminator1, first, fake1),
                (self.discriminator2, second, fake2),
            ):
                # Features of x̂ are there already, unless the extractor itself takes part in this half step.
                trainable = self.config.trainable_features
                seen = self._seen(fake.batch.detach()) if trainable else fake.detached
                losses.append(discriminator_loss(judge(*self._seen(real)), judge(*seen)))
            loss = torch.stack(losses).sum()
        self.engine.minimise(loss, self.judge_optimiser, self.config.clip)
        return loss

    def _seen(self, batch: StyleBatch) -> tuple[Tensor, Tensor | None]:
        """What a discriminator sees of ``batch`` in its own half step."""
        with torch.set_grad_enabled(self.config.trainable_features):
            return self.translator.views(batch)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        modules = {name: module.state_dict() for name, module in self._modules().items()}
        return {**modules, "averaged": self.average.count, "step": self.step}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        for name, module in self._modules().items():
            module.load_state_dict(state[name])
        self.average.count, self.step = int(state["averaged"]), int(state["step"])

    def _modules(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "generator12": self.generator12,
            "generator21": self.generator21,
            "discriminator1": self.discriminator1,
            "discriminator2": self.discriminator2,
            "average": self.average.mean,
            "generator_optimiser": self.generator_optimiser,
            "judge_optimiser": self.judge_optimiser,
            **({"extractor": self.trunk} if self.config.trainable_features else {}),
        }


def train_adapter(
    first: npt.NDArray[np.uint8],
    second: npt.NDArray[np.uint8],
    *,
    trunk: LesionTrunk,
    config: AdapterConfig,
    checkpoint: Path,
    progress: Progress,
    engine: Engine | None = None,
) -> Generator:
    """Train G12 from the incoming to the labelled camera, resuming from ``checkpoint`` if it exists.

    Args:
        first: Unlabelled pictures of the incoming camera, uint8 (N1, S, S, 4).
        second: Pictures of the labelled camera, of other patients, uint8 (N2, S, S, 4).
        trunk: Feature extractor.
        config: Settings.
        checkpoint: Where state is kept; figures and sample sheets come beside it.
        progress: Told every step.
        engine: Where steps run; by default one device that is found.

    Returns:
        The averaged G12, or the best one where ``config.watch`` stopped the training, on the CPU.

    Raises:
        TrainingDivergedError: It failed in a way that ``models.training.divergence`` names.
    """
    training = AdapterTraining(trunk, first.shape[1], config, engine)
    run = AdapterRun(training, first, second, checkpoint=checkpoint, progress=progress)
    return run.finish().cpu()


@contextmanager
def _fixed(networks: nn.Module) -> Iterator[None]:
    """Let gradients pass through networks without reaching their parameters."""
    networks.requires_grad_(False)
    try:
        yield
    finally:
        networks.requires_grad_(True)


def _over_scales(loss: Callable[..., Tensor], *arguments: Sequence[Tensor]) -> Tensor:
    """Mean of a loss over the scales that its arguments have: reduced picture and crop, or the crop alone."""
    return torch.stack([loss(*tensors) for tensors in zip(*arguments, strict=True)]).mean()
