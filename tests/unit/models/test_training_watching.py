"""Early stop on a criterion that needs no label."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from factories.fundus import Drawing, draw

from models.networks.build import build_generator
from models.networks.features import LesionTrunk
from models.networks.generator import ResidualGenerator
from models.preprocess import prepare
from models.training.adapter import AdapterConfig, train_adapter
from models.training.averaging import WeightAverage
from models.training.run import read_json
from models.training.stopping import EarlyStop
from models.training.styles import Translator
from models.training.watching import UnlabelledCriterion, WatchConfig, set_aside

SIZE = 64
Pictures = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def eyes(seeds: range) -> Pictures:
    return np.stack([prepare(draw(Drawing(seed=seed)), SIZE).tensor for seed in seeds])


def offset(value: float) -> ResidualGenerator:
    """A generator that adds ``value`` to every colour."""
    generator = build_generator(AdapterConfig(form="additive", scale=2))
    assert isinstance(generator, ResidualGenerator)
    with torch.no_grad():
        generator.last.bias.fill_(value)  # type: ignore[union-attr]  # a Conv2d with bias has one
    return generator


def criterion(first: Pictures, second: Pictures) -> UnlabelledCriterion:
    torch.manual_seed(0)
    trunk = LesionTrunk().eval()
    return UnlabelledCriterion(
        first,
        second,
        Translator(trunk, SIZE, False),
        trunk,
        batch=3,
        reduced=32,
        crop=32,
        device=torch.device("cpu"),
    )


def test_early_stop_counts_checks_without_a_stated_improvement() -> None:
    stop = EarlyStop(patience=2, improvement=0.1)
    # 0.95 is lower than 1, but not by a tenth
    assert [stop.check(value) for value in (1.0, 0.95, 0.8)] == [True, False, True]
    assert not stop.over
    assert [stop.check(value) for value in (0.75, 0.73)] == [False, False]
    assert stop.over
    assert stop.best == 0.8
    again = EarlyStop(patience=2, improvement=0.1)
    again.resume(stop.state())
    assert again.over


def test_patience_zero_never_stops() -> None:
    stop = EarlyStop(patience=0, improvement=0.1)
    for _ in range(9):
        stop.check(1.0)
    assert not stop.over


def test_the_criterion_is_lowest_where_the_styles_meet_and_the_way_back_undoes_it() -> None:
    # Given a first style that is darker by 0.1 than the second
    second = eyes(range(4))
    first = second.copy()
    inside = first[..., 3] > 0
    first[inside, :3] = np.clip(first[inside, :3].astype(int) - 26, 0, 255)
    judge = criterion(first, second)
    # When generators add the difference and take it off again, the cycle error is 0
    good = judge(offset(0.1), offset(-0.1))
    assert good["cycle"] == pytest.approx(0.0, abs=1e-6)
    assert good["criterion"] == good["cycle"] + good["features"]
    # Then a way back that takes off too little, by 0.05, is worse by 0.05 in the second style's deviations
    worse = judge(offset(0.1), offset(-0.05))
    assert worse["cycle"] > 0.1
    assert worse["features"] == good["features"]


def test_the_criterion_sees_that_the_features_differ() -> None:
    second = eyes(range(4))
    flat = second.copy()
    flat[..., :3] = (flat[..., :3].astype(float) * 0.3).astype(np.uint8)  # a third of the contrast
    still = offset(0.0)
    # The two styles are drawn apart, so that one and the same set is not at distance 0 from itself
    alike = criterion(second, second)(still, still)["features"]
    assert criterion(flat, second)(still, still)["features"] > 3.0 * alike


def test_the_criterion_has_no_place_for_a_label() -> None:
    for function in (UnlabelledCriterion.__init__, UnlabelledCriterion.__call__):
        assert not {
            name for name in inspect.signature(function).parameters if "label" in name or "grade" in name
        }


def test_what_is_set_aside_is_not_trained_on() -> None:
    pictures = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 4), np.uint8)
    train, aside = set_aside(pictures, 0.3, seed=1)
    assert (len(train), len(aside)) == (7, 3)
    assert {int(each[0, 0, 0]) for each in train} | {int(each[0, 0, 0]) for each in aside} == set(range(10))
    assert not {int(each[0, 0, 0]) for each in train} & {int(each[0, 0, 0]) for each in aside}
    again = set_aside(pictures, 0.3, seed=1)
    assert np.array_equal(again[1], aside)
    assert all(np.array_equal(each, pictures) for each in set_aside(pictures, 0.0, seed=1))


def test_training_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    # Given a training whose checks can hardly improve: by 90 % each time
    config = AdapterConfig(
        scale=2,
        crop=32,
        steps=60,
        batch=1,
        checkpoint_every=2,
        average_from=0.0,
        watch=WatchConfig(patience=2, improvement=0.9, held_aside=0.4, samples_every=1),
        learning_rate=4e-3,
    )
    first = eyes(range(3))
    first[..., :3] //= 2
    checks: list[tuple[int, float]] = []

    def noted(stage: str, step: int, _steps: int, terms: dict[str, float]) -> None:
        if stage == "adapter-x check":
            checks.append((step, terms["criterion"]))

    # When it runs
    second, checkpoint = eyes(range(3, 6)), tmp_path / "adapter-x.pt"
    trunk = LesionTrunk()
    generator = train_adapter(
        first, second, trunk=trunk, config=config, checkpoint=checkpoint, progress=noted
    )
    # Then it stops after the first check and two more, and the first check's weights are kept
    assert [step for step, _ in checks] == [2, 4, 6]
    state = torch.load(checkpoint, weights_only=True)
    assert (state["step"], state["finished"]) == (6, True)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, state["best"][name])
        assert torch.equal(value, state["average"][name])
    found = read_json(checkpoint.with_suffix(".json"))
    assert (found["stopped_early"], found["best_criterion"]) == (True, checks[0][1])
    assert {file.name for file in (tmp_path / "samples").iterdir()} == {
        f"adapter-x-{step:06d}.png" for step in (2, 4, 6)
    }
    # And a second start returns the same at once
    steps: list[int] = []
    again = train_adapter(
        first,
        second,
        trunk=trunk,
        config=config,
        checkpoint=checkpoint,
        progress=lambda _, step, *__: steps.append(step),
    )
    assert not steps
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in generator.state_dict().items())


@pytest.mark.parametrize(
    "wrong", [{"patience": -1}, {"held_aside": 1.0}, {"improvement": -0.1}, {"won_window": 0}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(WatchConfig(), **wrong)  # type: ignore[arg-type]  # that is the point


def test_the_average_is_the_mean_of_the_weights_after_its_start() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, start=2)
    for step, weight in enumerate((1.0, 5.0, 2.0, 4.0, 9.0), start=1):
        with torch.no_grad():
            layer.weight.fill_(weight)
        average.add(layer, step)
        wanted = {1: 1.0, 2: 5.0, 3: 2.0, 4: 3.0, 5: 5.0}[step]
        assert average.mean.weight.item() == pytest.approx(wanted)
    assert average.count == 3
