"""Adapter training: it moves one style to the other, reads no label, resumes where it was killed."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from factories.fundus import Drawing, draw

from models.networks.features import LesionTrunk, split_rgba
from models.preprocess import prepare
from models.training.adapter import AdapterConfig, AdapterTraining, TrainingDivergedError, train_adapter
from models.training.styles import StyleSampler, Translator

SIZE = 64
CONFIG = AdapterConfig(
    scale=2, crop=32, steps=60, batch=2, learning_rate=1e-3, cycle=1.0, checkpoint_every=20
)
Pictures = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def style(seeds: range, gain: tuple[float, float, float]) -> Pictures:
    """Drawn eyes by a camera with these gains."""
    eyes = np.stack([prepare(draw(Drawing(seed=seed)), SIZE).tensor for seed in seeds]).astype(float)
    eyes[..., :3] *= gain
    return np.clip(np.round(eyes), 0, 255).astype(np.uint8)


def silent(_stage: str, _step: int, _steps: int, _terms: dict[str, float]) -> None:
    """No progress shown."""


def mean_colour(pictures: Pictures) -> npt.NDArray[np.float64]:
    return np.asarray(pictures[pictures[..., 3] > 0][:, :3].mean(axis=0))


def test_training_moves_the_first_style_towards_the_second(tmp_path: Path) -> None:
    # Given eyes by a camera that is darker and bluer, and other eyes by the labelled camera
    first, second = style(range(6), (0.6, 0.9, 2.0)), style(range(6, 12), (1.0, 1.0, 1.0))
    trunk = LesionTrunk()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    # When an adapter is trained
    generator = train_adapter(
        first, second, trunk=trunk, config=CONFIG, checkpoint=tmp_path / "a.pt", progress=silent
    )
    # Then the mean colour comes closer to the labelled camera's, and the extractor is unchanged
    with torch.inference_mode():
        rgb, mask = split_rgba(torch.from_numpy(first))
        adapted = (rgb + generator(rgb, mask)).permute(0, 2, 3, 1).numpy() * 255
    after = adapted[first[..., 3] > 0].mean(axis=0)
    wanted = mean_colour(second)
    assert np.abs(after - wanted).sum() < 0.7 * np.abs(mean_colour(first) - wanted).sum()
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_training_starts_where_statistics_of_the_styles_say() -> None:
    # Given eyes by a camera that is darker and bluer, and other eyes by the labelled camera
    first, second = style(range(6), (0.6, 0.9, 2.0)), style(range(6, 12), (1.0, 1.0, 1.0))
    training = AdapterTraining(LesionTrunk(), SIZE, CONFIG)
    training.start_from(first, second)
    # Then, before any step, most of the colour difference is gone, in the averaged generator as well
    for generator in (training.generator12, training.average.mean):
        with torch.inference_mode():
            rgb, mask = split_rgba(torch.from_numpy(first))
            adapted = (rgb + generator(rgb, mask)).permute(0, 2, 3, 1).numpy() * 255
        left = np.abs(adapted[first[..., 3] > 0].mean(axis=0) - mean_colour(second)).sum()
        assert left < 0.3 * np.abs(mean_colour(first) - mean_colour(second)).sum()


@pytest.mark.parametrize("settings", [{"from_statistics": False}, {"form": "additive"}])
def test_other_starts_are_the_identity(settings: dict[str, Any]) -> None:
    first, second = style(range(3), (0.6, 0.9, 2.0)), style(range(3, 6), (1.0, 1.0, 1.0))
    training = AdapterTraining(LesionTrunk(), SIZE, dataclasses.replace(CONFIG, **settings))
    training.start_from(first, second)
    with torch.inference_mode():
        assert not training.generator12(*split_rgba(torch.from_numpy(first))).any()


def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    first, second = style(range(3), (0.6, 0.9, 2.0)), style(range(3, 6), (1.0, 1.0, 1.0))
    trunk = LesionTrunk()
    config = AdapterConfig(scale=2, crop=32, steps=6, batch=1, checkpoint_every=2, learning_rate=4e-3)

    def killed(_stage: str, step: int, _steps: int, _terms: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    def trained(folder: str) -> dict[str, torch.Tensor]:
        checkpoint = tmp_path / folder
        generator = train_adapter(
            first, second, trunk=trunk, config=config, checkpoint=checkpoint, progress=silent
        )
        return generator.state_dict()

    # Given one training that ran through, and one killed after its checkpoint at step 4
    whole = trained("whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train_adapter(
            first, second, trunk=trunk, config=config, checkpoint=tmp_path / "cut.pt", progress=killed
        )
    # When the killed one is started again, then it ends with the same weights
    resumed = trained("cut.pt")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_no_label_can_be_given_to_adapter_training() -> None:
    # The pictures are arrays and the configuration holds numbers: there is no place for a grade.
    for function in (train_adapter, AdapterTraining.update, AdapterTraining.__init__, StyleSampler.__init__):
        names = set(inspect.signature(function).parameters)
        assert not {name for name in names if "label" in name or "grade" in name}
    assert "grade" not in inspect.getsource(train_adapter)


def test_one_alternation_updates_generators_and_discriminators() -> None:
    first, second = style(range(2), (0.6, 0.9, 2.0)), style(range(2, 4), (1.0, 1.0, 1.0))
    training = AdapterTraining(LesionTrunk(), SIZE, dataclasses.replace(CONFIG, identity=0.2))
    parts = ("generator12", "generator21", "discriminator1", "discriminator2")
    before = {name: [p.clone() for p in getattr(training, name).parameters()] for name in parts}
    rng = np.random.default_rng(0)
    batches = [StyleSampler(pictures, 32, 32).draw(rng, 2) for pictures in (first, second)]
    terms = training.update(batches[0], batches[1])
    assert set(terms) == {"adversarial", "cycle", "identity", "discriminators", "residual"}
    for name in parts:
        after = list(getattr(training, name).parameters())
        assert any(not torch.equal(old, new) for old, new in zip(before[name], after, strict=True)), name


def test_without_the_feature_branch_the_extractor_is_not_used() -> None:
    translator = Translator(LesionTrunk(), SIZE, features=False)
    batch = StyleSampler(style(range(2), (1, 1, 1)), 32, 32).draw(np.random.default_rng(0), 2)
    assert translator.views(batch)[1] is None


def test_a_crop_is_translated_as_the_whole_picture_is() -> None:
    # Given a generator, a picture, and a crop of it
    training = AdapterTraining(LesionTrunk(), SIZE, CONFIG)
    torch.nn.init.normal_(training.generator12.last.weight, 0.0, 0.1)
    pictures = style(range(1), (1, 1, 1))
    batch = StyleSampler(pictures, 32, 32).draw(np.random.default_rng(2), 1)
    with torch.inference_mode():
        _, crop = training.translator.residuals(training.generator12, batch)
        rgb, mask = split_rgba(torch.from_numpy(pictures))
        candidates = [
            training.generator12(torch.flip(rgb, axes), torch.flip(mask, axes))
            for axes in ([], [2], [3], [2, 3])
        ]
    window = (slice(None), slice(None), slice(batch.top, batch.top + 32), slice(batch.left, batch.left + 32))
    # Then r on the crop is r of the whole picture there, but for the blur at the crop's edge
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    worst = min(float((crop[inner] - whole[window][inner]).abs().max()) for whole in candidates)
    assert worst < 1e-4


def test_divergence_is_said() -> None:
    training = AdapterTraining(LesionTrunk(), SIZE, CONFIG)
    with torch.no_grad():
        next(training.generator12.parameters()).fill_(float("nan"))
    sampler = StyleSampler(style(range(2), (1, 1, 1)), 32, 32)
    rng = np.random.default_rng(0)
    with pytest.raises(TrainingDivergedError, match="not finite"):
        training.update(sampler.draw(rng, 2), sampler.draw(rng, 2))
