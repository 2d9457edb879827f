"""Trainings that go wrong: each kind is provoked and said by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from factories.fundus import Drawing, draw

from models.networks.features import LesionTrunk
from models.preprocess import prepare
from models.training import adapter_run
from models.training.adapter import AdapterConfig, AdapterTraining, train_adapter
from models.training.divergence import (
    Streak,
    StyleDifference,
    TrainingDivergedError,
    TrainingDivergedWarning,
    discriminators_won,
    find_collapse,
    find_identity,
    require_exportable,
    require_finite,
    style_difference,
)
from models.training.recipes import export_trained
from models.training.run import read_json
from models.training.watching import WatchConfig

SIZE = 64
CONFIG = AdapterConfig(from_statistics=False, scale=2, crop=32, steps=4, batch=2, checkpoint_every=2)
Pictures = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def style(seeds: range, gain: float = 1.0) -> Pictures:
    """Drawn eyes by a camera with this gain."""
    eyes = np.stack([prepare(draw(Drawing(seed=seed)), SIZE).tensor for seed in seeds]).astype(float)
    eyes[..., :3] *= gain
    return np.clip(np.round(eyes), 0, 255).astype(np.uint8)


def trained(config: AdapterConfig, folder: Path, gain: float = 0.6) -> Any:
    """Train on two styles that differ by ``gain``."""
    return train_adapter(
        style(range(4), gain),
        style(range(4, 8)),
        trunk=LesionTrunk(),
        config=config,
        checkpoint=folder / "adapter-x.pt",
        progress=lambda *_: None,
    )


def noise(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four different pictures with their masks."""
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand(4, 3, 16, 16, generator=generator), torch.ones(4, 1, 16, 16)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named(bad: float) -> None:
    require_finite({"cycle": 1.0}, 3)
    with pytest.raises(TrainingDivergedError, match=r"not finite: cycle at step 3.*learning_rate"):
        require_finite({"adversarial": 1.0, "cycle": bad}, 3)


def test_a_learning_rate_beyond_reason_ends_the_training_at_once(tmp_path: Path) -> None:
    steps: list[int] = []
    config = replace(CONFIG, learning_rate=1e30, steps=50)
    with pytest.raises(TrainingDivergedError, match="not finite"):
        train_adapter(
            style(range(2)),
            style(range(2, 4)),
            trunk=LesionTrunk(),
            config=config,
            checkpoint=tmp_path / "a.pt",
            progress=lambda _, step, *__: steps.append(step),
        )
    assert len(steps) < 5


def test_discriminators_have_won_after_a_window_of_steps() -> None:
    won = {"adversarial": 1.9, "discriminators": 0.03}
    assert discriminators_won(won)
    assert not discriminators_won({**won, "adversarial": 0.5})
    assert not discriminators_won({**won, "discriminators": 0.5})
    assert not discriminators_won({"paired": 1.0})
    streak = Streak(3)
    assert [streak.see(seen) for seen in (True, True, False, True, True, True, True)] == [
        *[False] * 5,
        True,
        False,
    ]


def test_a_run_whose_discriminators_have_won_stops(tmp_path: Path) -> None:
    # Given generators that cannot learn against discriminators that learn fast, on styles far apart
    watch = WatchConfig(won_window=5)
    config = replace(
        CONFIG, steps=200, learning_rate=1e-7, discriminator_rate=1e5, features=False, watch=watch
    )
    # When they are trained, then the training stops before its end and says why
    with pytest.raises(
        TrainingDivergedError, match=r"discriminators have won: for 5 steps.*discriminator_rate"
    ):
        trained(config, tmp_path, gain=0.15)


def test_collapse_is_found_where_different_pictures_become_one() -> None:
    pictures, mask = noise(0)
    assert find_collapse(pictures, pictures, mask) is None
    assert find_collapse(pictures, 0.5 * pictures, mask) is None
    alike = pictures.mean(0, keepdim=True) + 0.02 * (pictures - pictures.mean(0, keepdim=True))
    assert "alike" in str(find_collapse(pictures, alike, mask))
    assert "clamped" in str(find_collapse(pictures, pictures + 2.0, mask))
    # One picture, or inputs that are alike themselves, prove nothing.
    assert find_collapse(pictures[:1], alike[:1], mask[:1]) is None
    assert find_collapse(pictures[:1].repeat(4, 1, 1, 1), alike[:1].repeat(4, 1, 1, 1), mask) is None


def test_a_run_that_collapses_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a generator that blackens every picture after its first step
    update = AdapterTraining.update

    def blackened(self: AdapterTraining, *batches: Any) -> dict[str, float]:
        terms = update(self, *batches)
        with torch.no_grad():
            self.average.mean.last.bias.fill_(-9.0)  # type: ignore[union-attr]  # a Conv2d with bias has one
        return terms

    monkeypatch.setattr(AdapterTraining, "update", blackened)
    config = replace(CONFIG, steps=9, watch=WatchConfig(collapsed_checks=2))
    # When it is trained, then it stops at the second checkpoint
    with pytest.raises(TrainingDivergedError, match="collapse"):
        trained(config, tmp_path)
    assert torch.load(tmp_path / "adapter-x.pt", weights_only=True)["step"] == 2


def test_the_identity_is_wrong_only_between_styles_that_differ() -> None:
    far, near = StyleDifference(0.2, 0.0), StyleDifference(0.002, 0.01)
    assert "identity" in str(find_identity(1e-5, far))
    assert "identity" in str(find_identity(1e-5, StyleDifference(0.0, 0.5)))
    assert find_identity(1e-5, near) is None
    assert find_identity(0.05, far) is None


def test_style_difference_sees_colour_and_sharpness() -> None:
    pictures, mask = noise(1)
    assert style_difference((pictures, mask), (pictures, mask)) == StyleDifference(0.0, 0.0)
    darker = style_difference((pictures, mask), (pictures - 0.1, mask))
    assert darker.colour == pytest.approx(0.1, abs=1e-5)
    assert darker.sharpness == pytest.approx(0.0, abs=1e-3)
    soft = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    assert style_difference((pictures, mask), (soft, mask)).sharpness > 0.5


def test_a_generator_that_stays_the_identity_is_no_adapter(tmp_path: Path) -> None:
    still = replace(CONFIG, learning_rate=1e-9)
    with pytest.raises(TrainingDivergedError, match="identity"):
        trained(still, tmp_path / "differ")
    # A second start of the finished run says so again: it is never taken for an adapter.
    with pytest.raises(TrainingDivergedError, match="identity"):
        trained(still, tmp_path / "differ")
    # Between pictures of one style it is right.
    same = style(range(4))
    train_adapter(
        same,
        same.copy(),
        trunk=LesionTrunk(),
        config=still,
        checkpoint=tmp_path / "same.pt",
        progress=lambda *_: None,
    )


def test_with_warn_the_run_goes_on_and_is_not_exported(tmp_path: Path) -> None:
    config = replace(CONFIG, learning_rate=1e-9, watch=WatchConfig(on_divergence="warn"))
    with pytest.warns(TrainingDivergedWarning, match="identity"):
        generator = trained(config, tmp_path)
    checkpoint = tmp_path / "adapter-x.pt"
    assert "identity" in read_json(checkpoint.with_suffix(".json"))["complaints"][0]
    with pytest.raises(TrainingDivergedError, match=r"not exported.*identity"):
        export_trained(checkpoint, generator, tmp_path / "x.onnx", style(range(1)))
    assert not (tmp_path / "x.onnx").exists()


def test_an_unfinished_training_is_not_exported() -> None:
    require_exportable({"average": {}}, "a")
    require_exportable({"finished": True, "complaints": []}, "a")
    with pytest.raises(TrainingDivergedError, match="a is not exported: its training is at step 7"):
        require_exportable({"finished": False, "step": 7}, "a")


def test_every_state_of_a_run_is_kept(tmp_path: Path) -> None:
    """Counters of the failures survive a restart: a window may begin before it and end after it."""
    training = AdapterTraining(LesionTrunk(), SIZE, CONFIG)
    parts = {"checkpoint": tmp_path / "a.pt", "progress": lambda *_: None}
    run = adapter_run.AdapterRun(training, style(range(2)), style(range(2, 4)), **parts)  # type: ignore[arg-type]  # two kinds
    run._won.see(True)
    run._collapsed.see(True)
    other = adapter_run.AdapterRun(training, style(range(2)), style(range(2, 4)), **parts)  # type: ignore[arg-type]  # two kinds
    other._resume(run._state())
    assert (other._won.count, other._collapsed.count) == (1, 1)
