"""The networks compute what their equations say, worked out by hand on small tensors."""

from __future__ import annotations

import re
from pydoc import locate

import pytest
import torch

import models.networks
from models.networks.classifier import FundusClassifier, LesionSummary, OrdinalHead
from models.networks.discriminator import Discriminator
from models.networks.features import LesionTrunk, LocalContrast, gaussian_kernel, split_rgba
from models.networks.generator import Adapter, ResidualGenerator

SIZE = 64


def picture(count: int = 1, seed: int = 0) -> torch.Tensor:
    """Contract tensors of noise in a round mask."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, SIZE, SIZE, 4), dtype=torch.uint8, generator=generator)
    steps = torch.arange(SIZE) - (SIZE - 1) / 2
    inside = (steps[None] ** 2 + steps[:, None] ** 2) < (SIZE / 2) ** 2
    image[..., 3] = inside * 255
    image[..., :3] *= inside[..., None]
    return image


def stirred(form: str = "affine", scale: float = 0.05) -> ResidualGenerator:
    """A generator that does something."""
    torch.manual_seed(1)
    generator = ResidualGenerator(form, scale=2)
    torch.nn.init.normal_(generator.last.weight, 0.0, scale)
    return generator


def test_a_gaussian_sums_to_one_and_is_symmetric() -> None:
    kernel = gaussian_kernel(1.0)
    assert kernel.shape == (1, 1, 7, 7)
    assert float(kernel.sum()) == pytest.approx(1.0)
    assert torch.equal(kernel, kernel.flip(2).flip(3))


def test_local_contrast_of_an_even_picture_is_zero_up_to_the_rim() -> None:
    # Given one colour inside the mask: the normalised blur must not see the black surround
    rgb, mask = split_rgba(picture())
    flat = torch.full_like(rgb, 0.6) * mask
    assert float(LocalContrast(SIZE)(flat, mask).abs().max()) < 1e-4


def test_local_contrast_does_not_see_the_exposure_offset_and_is_clipped() -> None:
    rgb, mask = split_rgba(picture())
    normalise = LocalContrast(SIZE)
    assert torch.allclose(normalise(rgb * 0.5, mask), normalise(rgb * 0.5 + 0.2 * mask, mask), atol=1e-4)
    assert float(normalise(rgb, mask).abs().max()) == 2.0
    assert not normalise(rgb, mask)[:, :, 0, 0].any()


def test_lesions_are_counted_and_measured() -> None:
    # Given two separate haemorrhages of 3×3 px with probability ~1 and nothing else
    logits = torch.full((1, 5, SIZE, SIZE), -20.0)
    logits[0, 1, 10:13, 10:13] = torch.tensor([[8.0, 9.0, 8.0], [9.0, 12.0, 9.0], [8.0, 9.0, 8.0]])
    logits[0, 1, 40:43, 40:43] = torch.tensor([[8.0, 9.0, 8.0], [9.0, 12.0, 9.0], [8.0, 9.0, 8.0]])
    # When they are summarised
    numbers, lesions = LesionSummary(SIZE)(logits, torch.ones(1, 1, SIZE, SIZE))
    # Then the areas are 18 px each, the sum 18, the count 2, all as ln(1 + n), and the other kinds are 0
    by_summary = numbers[0].reshape(7, 4)
    assert torch.allclose(by_summary[:4, 1].exp() - 1, torch.full((4,), 18.0), atol=0.02)
    assert float(by_summary[4, 1].exp() - 1) == pytest.approx(2.0, abs=1e-4)
    assert float(by_summary[5, 1]) == pytest.approx(9 / 16, abs=0.01)
    # Three pixels of the second, (40, 40) to (41, 40), lie within a fifth of the side from the centre
    assert float(by_summary[6, 1].exp() - 1) == pytest.approx(3.0, abs=0.02)
    assert not by_summary[:, [0, 2, 3]].round(decimals=4).any()
    assert lesions.shape == (1, 4, SIZE, SIZE)


def test_exudates_do_not_count_on_the_optic_disc_and_nothing_counts_outside_the_field() -> None:
    logits = torch.full((1, 5, SIZE, SIZE), -20.0)
    logits[0, 2, 8:16, 8:16] = 10.0
    logits[0, 4, 0:32, 0:32] = 10.0
    logits[0, 0, 50:60, 50:60] = 10.0
    mask = torch.ones(1, 1, SIZE, SIZE)
    mask[..., 48:, 48:] = 0.0
    numbers, _ = LesionSummary(SIZE)(logits, mask)
    assert float(numbers.abs().max()) < 0.01


def test_cumulative_probabilities_never_cross() -> None:
    head = OrdinalHead(3)
    head.weight.copy_(torch.tensor([5.0, -3.0, 2.0]))
    cumulative = head(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 10)
    assert bool((cumulative.diff(dim=1) <= 0).all())


def test_the_head_is_the_proportional_odds_formula() -> None:
    head = OrdinalHead(2)
    head.mean.copy_(torch.tensor([1.0, 0.0]))
    head.scale.copy_(torch.tensor([2.0, 1.0]))
    head.weight.copy_(torch.tensor([1.0, 0.5]))
    head.slope.fill_(2.0)
    # score = (3 − 1) / 2 · 1 + 4 · 0.5 = 3; σ(2·3 − c) for c = −1, 0, 1, 2
    expected = torch.sigmoid(torch.tensor([7.0, 6.0, 5.0, 4.0]))
    assert torch.allclose(head(torch.tensor([[3.0, 4.0]]))[0], expected)


def test_the_classifier_keeps_the_contract() -> None:
    classifier = FundusClassifier(SIZE).eval()
    with torch.inference_mode():
        cumulative, quality, activation, oedema = classifier(picture(3))
    assert (cumulative.shape, quality.shape, activation.shape) == ((3, 4), (3, 1), (3, 4, 16, 16))
    assert activation.dtype == torch.uint8
    assert oedema.shape == (3, 2)
    assert bool((oedema.diff(dim=1) <= 0).all())
    assert 0.0 <= float(quality.min()) <= float(quality.max()) <= 1.0


@pytest.mark.parametrize("form", ["affine", "additive"])
def test_a_new_generator_is_the_identity(form: str) -> None:
    image = picture(2)
    adapted = Adapter(ResidualGenerator(form, scale=2))(image)
    assert torch.equal(adapted, image)


@pytest.mark.parametrize("form", ["affine", "additive"])
def test_an_adapter_leaves_mask_and_surround_alone(form: str) -> None:
    image = picture(2)
    adapted = Adapter(stirred(form))(image)
    assert not torch.equal(adapted[..., :3], image[..., :3])
    assert torch.equal(adapted[..., 3], image[..., 3])
    assert not adapted[..., :3][image[..., 3] == 0].any()


def test_the_affine_residual_is_its_formula() -> None:
    # Given A that adds half of green to red, b = 0.1 in blue, no sharpening
    generator = ResidualGenerator("affine", scale=2)
    coefficients = torch.zeros(1, 13, SIZE, SIZE)
    coefficients[:, 3] = 0.5  # what green adds to red
    coefficients[:, 11] = 0.1
    rgb, mask = split_rgba(picture())
    residual = generator.residual(rgb, coefficients, mask)
    assert torch.allclose(residual[:, 0], 0.5 * rgb[:, 1] * mask[:, 0])
    assert not residual[:, 1].any()
    assert torch.allclose(residual[:, 2], 0.1 * mask[:, 0])


def test_the_sharpness_coefficient_scales_the_high_pass() -> None:
    generator = ResidualGenerator("affine", scale=2)
    coefficients = torch.zeros(1, 13, SIZE, SIZE)
    coefficients[:, 12] = -1.0
    rgb, mask = split_rgba(picture())
    smooth = rgb + generator.residual(rgb, coefficients, mask)
    assert float(smooth[mask.expand_as(smooth) > 0].std()) < 0.5 * float(rgb[mask.expand_as(rgb) > 0].std())
    flat = 0.5 * mask.expand_as(rgb)
    assert float(generator.residual(flat, coefficients, mask).abs().max()) < 1e-5


def test_the_residual_is_not_clamped_before_export() -> None:
    generator = ResidualGenerator("additive", scale=2)
    torch.nn.init.constant_(generator.last.bias, 3.0)  # type: ignore[arg-type]  # a Conv2d with bias has one
    rgb, mask = split_rgba(picture())
    assert float(generator(rgb, mask).detach().max()) == pytest.approx(3.0)
    assert int(Adapter(generator)(picture())[..., :3].max()) == 255


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="none of affine, additive"):
        ResidualGenerator("quadratic")


def test_a_discriminator_sees_the_picture_and_the_features_or_the_picture_alone() -> None:
    shown, features = torch.rand(2, 3, 64, 64), torch.rand(2, 8, 16, 16)
    assert len(Discriminator(8)(shown, features)) == 2
    assert len(Discriminator(0)(shown, None)) == 1


def test_the_trunk_gives_maps_at_full_scale_and_features_at_an_eighth() -> None:
    logits, deepest = LesionTrunk()(torch.zeros(1, 3, 32, 40))
    assert logits.shape == (1, 5, 32, 40)
    assert deepest.shape == (1, 48, 4, 5)


def test_the_elements_of_the_method_are_findable_by_their_names() -> None:
    # The package's own list of them names things that are there
    listed = re.findall(r"``([a-z_]+(?:\.[A-Za-z_0-9]+)+)``", models.networks.__doc__ or "")
    assert len(listed) >= 8
    for name in listed:
        whole = name if name.startswith("models.") else f"models.networks.{name}"
        assert locate(whole) is not None, whole
