"""What a training step minimises, by hand: terms, who moves whom, ablations, and a tiny overfit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from factories.fundus import Drawing, draw
from torch import Tensor, nn

from models.networks.build import build_generator
from models.networks.discriminator import Discriminator
from models.networks.features import LesionTrunk, split_rgba
from models.networks.generator import FORMS, SCALES, Adapter, ResidualGenerator
from models.networks.plain import PlainGenerator
from models.preprocess import prepare
from models.training.adapter import AdapterTraining
from models.training.adapter_config import AdapterConfig, AdapterConfigError
from models.training.losses import (
    cycle_loss,
    discriminator_loss,
    generator_loss,
    paired_loss,
    picture_cycle_loss,
    residual_cycle_loss,
)
from models.training.paired import train_paired
from models.training.styles import StyleBatch, StyleSampler

SIZE = 64
SMALL = AdapterConfig(scale=2, crop=32, steps=8, batch=2, learning_rate=2e-3)
PLAIN = AdapterConfig(residual=False, crop=32, steps=8, batch=2, learning_rate=2e-3)
Pictures = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _same_each_time() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def style(seeds: range, gain: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Pictures:
    """Drawn eyes by a camera with these gains, uint8 (N, S, S, 4)."""
    eyes = np.stack([prepare(draw(Drawing(seed=seed)), SIZE).tensor for seed in seeds]).astype(float)
    eyes[..., :3] *= gain
    return np.clip(np.round(eyes), 0, 255).astype(np.uint8)


def batches(config: AdapterConfig = SMALL) -> tuple[StyleBatch, StyleBatch]:
    """A batch of a dark blue camera and one of the labelled camera, other eyes."""
    rng = np.random.default_rng(0)
    sets = (style(range(3), (0.6, 0.9, 2.0)), style(range(3, 6)))
    first, second = (StyleSampler(each, SIZE // config.scale, config.crop).draw(rng, 2) for each in sets)
    return first, second


def even(value: float) -> StyleBatch:
    """Pictures of one grey without a surround, S = 64, reduced to 32, a crop of 32."""
    grey, ones = torch.full((1, 3, 32, 32), value), torch.ones(1, 1, 32, 32)
    return StyleBatch(grey, ones, grey.clone(), ones.clone(), 16, 16)


def shifting(config: AdapterConfig, there: float, back: float) -> AdapterTraining:
    """A training whose G12 adds one constant to every colour and whose G21 another."""
    training = AdapterTraining(LesionTrunk(), SIZE, config)
    for generator, constant in ((training.generator12, there), (training.generator21, back)):
        nn.init.constant_(generator.last.bias, constant)  # type: ignore[arg-type]  # a Conv2d with bias has one
    return training


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(before: list[Tensor], network: nn.Module) -> bool:
    return all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def silent(_stage: str, _step: int, _steps: int, _terms: dict[str, float]) -> None:
    """No progress shown."""


# --- the cycle term


def test_the_cycle_loss_is_the_sum_of_residuals_and_its_mirror() -> None:
    # (|0.3 + 0.1| + |−0.2 + 0.1|) / 2 = 0.25 there, |0.5 − 0.1| = 0.4 for the mirror
    there, there_back = torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.1])
    mirror, mirror_back = torch.tensor([0.5]), torch.tensor([-0.1])
    found = residual_cycle_loss(there, there_back, mirror, mirror_back)
    assert float(found) == pytest.approx(0.25 + 0.4)
    # Zero needs both ways to cancel
    assert float(residual_cycle_loss(there, -there, mirror, -mirror)) == 0.0
    assert float(residual_cycle_loss(there, -there, mirror, mirror_back)) == pytest.approx(0.4)
    assert float(residual_cycle_loss(there, there_back, mirror, -mirror)) == pytest.approx(0.25)


def test_on_residuals_or_on_pictures_the_cycle_of_residual_generators_is_one_number() -> None:
    source = torch.Generator().manual_seed(0)
    x1, r12, r21 = (torch.rand(2, 3, 4, 4, generator=source) for _ in range(3))
    returned = (x1 + r12) + r21
    assert float(picture_cycle_loss(x1, returned)) == pytest.approx(float(cycle_loss(r12, r21)), abs=1e-6)
    # |0.7 − 0.5| and |0.1 − 0.2|: mean 0.15
    assert float(picture_cycle_loss(torch.tensor([0.5, 0.2]), torch.tensor([0.7, 0.1]))) == pytest.approx(
        0.15
    )


@pytest.mark.parametrize(
    ("there", "back", "cycle"), [(0.1, -0.1, 0.0), (0.1, -0.04, 0.12), (0.1, 0.0, 0.2), (0.0, 0.0, 0.0)]
)
def test_the_step_s_cycle_term_is_zero_when_the_generators_undo_each_other(
    there: float, back: float, cycle: float
) -> None:
    # Given G12 that adds a constant and G21 that adds another: |there + back|, twice for the mirror
    training = shifting(dataclasses.replace(SMALL, form="additive", identity=1.0), there, back)
    terms = training.update(even(0.4), even(0.6))
    assert terms["cycle"] == pytest.approx(cycle, abs=1e-6)
    # And the identity term is |r12(x2)| + |r21(x1)|
    assert terms["identity"] == pytest.approx(abs(there) + abs(back), abs=1e-6)


def test_a_plain_cycle_compares_pictures() -> None:
    training = AdapterTraining(LesionTrunk(), SIZE, PLAIN)
    first, second = batches(PLAIN)
    g12, g21 = training.generator12, training.generator21
    assert isinstance(g12, PlainGenerator)
    with torch.no_grad():
        expected = torch.zeros(())
        for batch, there, back in ((first, g12, g21), (second, g21, g12)):
            returned = back(there(batch.crop, batch.crop_mask), batch.crop_mask)
            expected += (returned - batch.crop).abs().mean()
    assert training.update(first, second)["cycle"] == pytest.approx(float(expected), rel=1e-4)


def test_without_a_weight_the_cycle_is_not_computed() -> None:
    training = AdapterTraining(LesionTrunk(), SIZE, dataclasses.replace(SMALL, cycle=0.0))
    assert "cycle" not in training.update(*batches())


# --- the adversarial term


def test_least_squares_terms_by_hand() -> None:
    # D: ½(0.8 − 1)² + ½·0.3² = 0.02 + 0.045; G: (0.3 − 1)² = 0.49
    real, fake = torch.full((1, 1, 2, 2), 0.8), torch.full((1, 1, 2, 2), 0.3)
    assert float(discriminator_loss([real], [fake])) == pytest.approx(0.065)
    assert float(generator_loss([fake])) == pytest.approx(0.49)
    # Two score maps of different size count alike: ½(0.065 + ½·1) of D
    big = torch.zeros(1, 1, 8, 8)
    assert float(discriminator_loss([real, big], [fake, big])) == pytest.approx((0.065 + 0.5) / 2)


def test_a_step_of_the_discriminators_lowers_their_loss_and_leaves_the_generators() -> None:
    training = AdapterTraining(LesionTrunk().eval(), SIZE, SMALL)
    first, second = batches()
    fake2 = training.translator.translate(training.generator12, first)
    fake1 = training.translator.translate(training.generator21, second)
    parts = (training.generator12, training.generator21, training.trunk)
    before = [weights(part) for part in parts]
    losses = [float(training._update_judges(first, second, fake1, fake2).detach()) for _ in range(2)]
    assert losses[1] < losses[0]
    assert all(same(old, part) for old, part in zip(before, parts, strict=True))


@pytest.mark.parametrize(
    "config",
    [SMALL, dataclasses.replace(SMALL, form="additive"), PLAIN],
    ids=["affine", "additive", "plain"],
)
def test_a_step_of_the_generators_lowers_their_adversarial_loss_and_leaves_the_discriminators(
    config: AdapterConfig,
) -> None:
    # Given nothing but the adversarial term
    training = AdapterTraining(LesionTrunk(), SIZE, dataclasses.replace(config, cycle=0.0, identity=0.0))
    first, second = batches(config)
    before = weights(training.judges), weights(training.trunk)
    losses = [float(training._update_generators(first, second)[2]["adversarial"].detach()) for _ in range(2)]
    assert losses[1] < losses[0]
    assert same(before[0], training.judges)
    assert same(before[1], training.trunk)
    assert all(parameter.grad is None for parameter in training.judges.parameters())


def test_the_two_sides_oppose_each_other_in_the_adversarial_term_only() -> None:
    training = shifting(SMALL, 0.0, 0.0)
    first, second = batches()
    fake2 = training.translator.translate(training.generator12, first)
    fake1 = training.translator.translate(training.generator21, second)
    judges = list(training.judges.parameters())
    # The cycle term has no way to the discriminators
    cycle = training._cycle(first, second, fake1, fake2)
    own = training.translator.residuals(training.generator12, second)[0].abs().mean()
    for term in (cycle, own):
        assert all(found is None for found in torch.autograd.grad(term, judges, allow_unused=True))
    # The adversarial one pulls D2's scores of x̂2 up for G12 and down for D2
    score = training.discriminator2(*fake2.views)[0]
    (up,) = torch.autograd.grad(generator_loss([score]), score, retain_graph=True)
    (down,) = torch.autograd.grad(discriminator_loss([torch.ones_like(score)], [score]), score)
    undecided = (score > 0) & (score < 1)
    assert undecided.any()
    assert bool((up[undecided] < 0).all())
    assert bool((down[undecided] > 0).all())


def test_a_trainable_extractor_is_moved_by_the_discriminators_step_only() -> None:
    trunk = LesionTrunk()
    classifiers_own = weights(trunk)
    training = AdapterTraining(trunk, SIZE, dataclasses.replace(SMALL, trainable_features=True))
    first, second = batches()
    start = weights(training.trunk)
    fake1, fake2, _ = training._update_generators(first, second)
    assert same(start, training.trunk)
    training._update_judges(first, second, fake1, fake2)
    assert not same(start, training.trunk)
    # The classifier's own is another one, and a resumed training has the trained one
    assert same(classifiers_own, trunk)
    resumed = AdapterTraining(trunk, SIZE, training.config)
    resumed.resume(training.state())
    assert same(weights(training.trunk), resumed.trunk)


# --- ablations are configuration


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"form": "quadratic"}, "quadratic"),
        ({"scale": 3}, "scale 3"),
        ({"crop": 100}, "crop 100"),
        ({"steps": 0}, "steps 0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"cycle": -1.0}, "cycle -1"),
        ({"average_from": 1.5}, "average_from"),
        ({"features": False, "trainable_features": True}, "features = false"),
        ({"residual": False, "form": "additive"}, "residual = false"),
        ({"residual": False, "scale": 2}, "residual = false"),
        ({"paired": True, "trainable_features": True}, "paired"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(AdapterConfigError, match=names):
        AdapterConfig(**changes)


def test_each_training_refuses_the_other_s_settings() -> None:
    paired = dataclasses.replace(SMALL, paired=True)
    with pytest.raises(AdapterConfigError, match="train_paired"):
        AdapterTraining(LesionTrunk(), SIZE, paired)
    pictures = style(range(2))
    with pytest.raises(AdapterConfigError, match="paired = true"):
        train_paired(pictures, pictures, config=SMALL, checkpoint=Path("unused"), progress=silent)
    with pytest.raises(ValueError, match="no pairs"):
        train_paired(pictures, pictures[:1], config=paired, checkpoint=Path("unused"), progress=silent)


def test_a_run_s_settings_say_which_generator_it_was() -> None:
    settings = dataclasses.asdict(AdapterConfig(form="additive", scale=2))
    generator = build_generator(settings)
    assert isinstance(generator, ResidualGenerator)
    assert (generator.form, generator.scale) == ("additive", 2)
    assert isinstance(build_generator(PLAIN), PlainGenerator)
    with pytest.raises(ValueError, match="lack scale"):
        build_generator({"residual": True, "form": "affine"})


@pytest.mark.parametrize(
    "config",
    [
        *(dataclasses.replace(SMALL, form=form, scale=scale) for form in FORMS for scale in SCALES),
        dataclasses.replace(SMALL, features=False),
        dataclasses.replace(SMALL, trainable_features=True),
        dataclasses.replace(SMALL, cycle=0.0, identity=0.0),
        PLAIN,
        dataclasses.replace(PLAIN, features=False),
    ],
    ids=lambda config: f"{config.form}-{config.scale}-{config.residual}-{config.features}-{config.cycle}",
)
def test_every_ablation_trains_both_sides(config: AdapterConfig) -> None:
    training = AdapterTraining(LesionTrunk(), SIZE, config)
    parts = (training.generator12, training.generator21, training.discriminator1, training.discriminator2)
    before = [weights(part) for part in parts]
    assert (training.discriminator1.features is None) == (not config.features)
    terms = training.update(*batches(config))
    assert all(np.isfinite(value) for value in terms.values())
    assert not any(same(old, part) for old, part in zip(before, parts, strict=True))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("form", FORMS)
def test_a_zero_residual_is_the_identity(form: str, scale: int) -> None:
    # Given the generator as it starts
    generator = build_generator({"residual": True, "form": form, "scale": scale})
    image = torch.from_numpy(style(range(2)))
    rgb, mask = split_rgba(image)
    with torch.inference_mode():
        # Then r(x) is 0, x̂ is x, and the exported picture is the same to the bit
        assert not generator(rgb, mask).any()
        assert torch.equal(generator.translate(rgb, mask), rgb)
        assert torch.equal(Adapter(generator)(image), image)
        # And one coefficient that is not 0 is seen
        nn.init.constant_(generator.last.bias, 0.05)  # type: ignore[arg-type]  # a Conv2d with bias has one
        assert not torch.equal(Adapter(generator)(image), image)


def test_a_plain_generator_outputs_the_picture_itself() -> None:
    generator = PlainGenerator()
    nn.init.zeros_(generator.last.weight)
    nn.init.constant_(generator.last.bias, 0.25)  # type: ignore[arg-type]  # a Conv2d with bias has one
    image = torch.from_numpy(style(range(1)))
    with torch.inference_mode():
        made = Adapter(generator)(image)
    # Whatever comes in, 0.25 + 0.5 comes out inside the field: 191 of 255
    inside = image[..., 3] > 0
    assert set(made[..., :3][inside].unique().tolist()) == {191}
    assert not made[..., :3][~inside].any()
    assert torch.equal(made[..., 3], image[..., 3])


def test_discriminators_see_the_overview_whatever_the_scale_and_crops_of_plain_generators() -> None:
    for config, side in ((dataclasses.replace(SMALL, scale=1), 16), (SMALL, 16), (PLAIN, PLAIN.crop)):
        training = AdapterTraining(LesionTrunk(), SIZE, config)
        first, _ = batches(config)
        assert training.translator.views(first)[0].shape[-1] == side
    assert isinstance(training.discriminator1, Discriminator)


# --- tiny overfits


def psnr(made: npt.NDArray[np.float64], truth: Pictures) -> float:
    """Inside the field, dB."""
    error = (made - truth[..., :3])[truth[..., 3] > 0]
    return float(10 * np.log10(255.0**2 / np.square(error).mean()))


def test_the_paired_loss_is_the_mean_over_the_field() -> None:
    # Three colours off by 0.2 at one of two pixels of the field, and by 0.9 outside it
    made = torch.zeros(1, 3, 1, 3)
    truth = torch.tensor([0.2, 0.0, 0.9]).expand(1, 3, 1, 3)
    inside = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3)
    assert float(paired_loss(made, truth, inside)) == pytest.approx(0.1)


def test_paired_training_undoes_a_known_colour_shift(tmp_path: Path) -> None:
    # Given four eyes by a dark blue camera and their originals
    truth, first = style(range(4)), style(range(4), (0.6, 0.9, 1.6))
    config = dataclasses.replace(SMALL, paired=True, steps=150, average_from=0.8, learning_rate=4e-3)
    # When the generator is trained with them
    generator = train_paired(first, truth, config=config, checkpoint=tmp_path / "paired.pt", progress=silent)
    # Then at least 10 dB are won
    with torch.inference_mode():
        made = Adapter(generator)(torch.from_numpy(first)).numpy().astype(float)
    before = psnr(first[..., :3].astype(float), truth)
    assert psnr(made[..., :3], truth) > before + 10.0


@pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["residual", "plain"])
def test_a_killed_paired_training_resumes_to_the_same_weights(config: AdapterConfig, tmp_path: Path) -> None:
    first, truth = style(range(3), (0.6, 0.9, 1.6)), style(range(3))
    config = dataclasses.replace(config, paired=True, steps=4, average_from=0.25, checkpoint_every=2)

    def killed(_stage: str, step: int, _steps: int, _terms: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def trained(name: str) -> nn.Module:
        return train_paired(first, truth, config=config, checkpoint=tmp_path / name, progress=silent)

    whole = trained("whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train_paired(first, truth, config=config, checkpoint=tmp_path / "cut.pt", progress=killed)
    assert same(weights(whole), trained("cut.pt"))


def test_paired_training_sees_the_same_window_of_both(tmp_path: Path) -> None:
    # Given truths equal to the pictures, the starting generator (identity) has no error at all
    pictures, losses = style(range(4)), []
    config = dataclasses.replace(SMALL, paired=True, steps=3, learning_rate=1e-12)

    def noted(_stage: str, _step: int, _steps: int, terms: dict[str, float]) -> None:
        losses.append(terms["paired"])

    train_paired(pictures, pictures, config=config, checkpoint=tmp_path / "p.pt", progress=noted)
    assert losses == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def test_adversarial_training_moves_the_mean_colour_to_the_second_style() -> None:
    # Given eyes by a dark blue camera and other eyes by the labelled one
    first, second = style(range(6), (0.6, 0.9, 2.0)), style(range(6, 12))
    config = dataclasses.replace(SMALL, form="additive", steps=45, cycle=1.0, identity=0.2)
    training = AdapterTraining(LesionTrunk(), SIZE, config)
    samplers = [StyleSampler(pictures, SIZE // config.scale, config.crop) for pictures in (first, second)]
    # When they are trained on without pairs
    for step in range(config.steps):
        rng = np.random.default_rng((0, step))
        training.update(*(sampler.draw(rng, config.batch) for sampler in samplers))
    with torch.inference_mode():
        made = Adapter(training.average.mean)(torch.from_numpy(first)).numpy()

    # Then more than half of the difference of the mean colour is gone
    def colour(pictures: Pictures) -> npt.NDArray[np.float64]:
        return np.asarray(pictures[pictures[..., 3] > 0][:, :3].mean(axis=0))

    before = np.abs(colour(first) - colour(second)).sum()
    assert np.abs(colour(made) - colour(second)).sum() < 0.5 * before
