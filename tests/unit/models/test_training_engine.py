"""The engine: steps, precision, checkpoints; a killed process resumes bit for bit; two processes agree."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from factories.fundus import Drawing, draw

from models.networks.features import LesionTrunk
from models.preprocess import prepare
from models.training.adapter import AdapterConfig, train_adapter
from models.training.engine import Engine, EngineConfig
from models.training.lesions import LesionConfig, LesionSet, train_trunk
from models.training.run import read_json
from models.training.watching import WatchConfig

CPU = EngineConfig(accelerator="cpu")
CONFIG = AdapterConfig(
    scale=2,
    crop=32,
    steps=24,
    batch=1,
    checkpoint_every=3,
    learning_rate=4e-3,
    average_from=0.2,
    watch=WatchConfig(patience=50, held_aside=0.4, samples_every=0),
)
CHILD = """
import sys
from pathlib import Path
from test_training_engine import trained
trained(Path(sys.argv[1]), lambda _, step, *__: print(step, flush=True))
"""
PAIR = """
import sys
from pathlib import Path
import torch
from models.training.engine import Engine, EngineConfig
engine = Engine(EngineConfig(accelerator="cpu", devices=2))
torch.manual_seed(engine.rank)
layer = engine.adopt(torch.nn.Linear(2, 1))
before = [value.clone() for value in layer.state_dict().values()]
optimiser = engine.optimiser(torch.optim.SGD(layer.parameters(), 1.0))
engine.minimise((engine.rank + 1) * layer(torch.ones(1, 2)).sum(), optimiser)
folder = Path(sys.argv[1])
torch.save({"before": before, "after": list(layer.state_dict().values())}, folder / f"{engine.rank}.pt")
figure = engine.averaged({"loss": float(engine.rank)})["loss"]
engine.save(folder / "checkpoint.pt", {"rank": engine.rank, "figure": figure, "seed": engine.seed(5)})
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(folder: Path, progress: object) -> dict[str, torch.Tensor]:
    """An adapter's weights; the same in every process with one thread."""
    torch.set_num_threads(1)
    eyes = np.stack([prepare(draw(Drawing(seed=seed)), 64).tensor for seed in range(6)])
    darker = eyes.copy()
    darker[..., :3] //= 2
    torch.manual_seed(7)
    generator = train_adapter(
        darker[:3],
        eyes[3:],
        trunk=LesionTrunk(),
        config=CONFIG,
        checkpoint=folder / "adapter-x.pt",
        progress=progress,  # type: ignore[arg-type]  # a Progress; `object` keeps the child's script short
        engine=Engine(CPU),
    )
    return generator.state_dict()


def python(script: str, *arguments: str) -> list[str]:
    """Command line of a child that finds this module and the package."""
    here = Path(__file__)
    paths = [str(here.parent), str(here.parents[2]), str(here.parents[3])]
    return [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{script}", *arguments]


@pytest.mark.slow
def test_a_process_that_is_killed_outright_resumes_to_the_same_bits(tmp_path: Path) -> None:
    # Given a training that ran through, and one whose process is killed in the middle by SIGKILL
    (tmp_path / "cut").mkdir()
    whole = trained(tmp_path / "whole", lambda *_: None)
    with subprocess.Popen(python(CHILD, str(tmp_path / "cut")), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 10:
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    left = torch.load(tmp_path / "cut" / "adapter-x.pt", weights_only=True)
    assert 9 <= left["step"] < CONFIG.steps
    assert not left["finished"]
    # When it is started again
    steps: list[int] = []
    resumed = trained(tmp_path / "cut", lambda _, step, *__: steps.append(step))
    # Then it goes on from the checkpoint, and ends with the same weights, optimisers and figures
    assert steps[0] == left["step"] + 1
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    ends = [torch.load(tmp_path / each / "adapter-x.pt", weights_only=True) for each in ("whole", "cut")]
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)
    figures = [read_json(tmp_path / each / "adapter-x.json") for each in ("whole", "cut")]
    assert figures[0] == figures[1]
    assert figures[0]["best_criterion"] > 0


def test_the_trunk_resumes_to_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lesions = LesionSet(
        rng.integers(-120, 120, (2, 3, 64, 64)).astype(np.int8),
        (rng.random((2, 5, 64, 64)) < 0.05).astype(np.uint8) * 255,
        np.ones((2, 64, 64), np.bool_),
    )
    config = LesionConfig(size=64, steps=6, patch=32, batch=2, checkpoint_every=2, clip=1.0)

    def killed(_stage: str, step: int, _steps: int, _terms: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    whole = train_trunk(lesions, config, tmp_path / "whole.pt", lambda *_: None, Engine(CPU))
    with pytest.raises(KeyboardInterrupt):
        train_trunk(lesions, config, tmp_path / "cut.pt", killed, Engine(CPU))
    resumed = train_trunk(lesions, config, tmp_path / "cut.pt", lambda *_: None, Engine(CPU)).state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.state_dict().items())


def test_a_step_is_the_optimisers_own_and_clipping_bounds_it() -> None:
    # Given loss = 3a + 4b, whose gradient has the norm 5
    engine = Engine(CPU)
    for clip, wanted in ((0.0, [-3.0, -4.0]), (1.0, [-0.6, -0.8]), (10.0, [-3.0, -4.0])):
        weights = torch.nn.Parameter(torch.zeros(2))
        optimiser = engine.optimiser(torch.optim.SGD([weights], 1.0))
        engine.minimise((weights * torch.tensor([3.0, 4.0])).sum(), optimiser, clip)
        assert weights.tolist() == pytest.approx(wanted, abs=1e-5)
        # And the next step starts from no gradient
        engine.minimise(0.0 * weights.sum(), optimiser, clip)
        assert weights.tolist() == pytest.approx(wanted, abs=1e-5)


def test_bfloat16_is_used_in_the_products_and_not_in_the_weights() -> None:
    engine = Engine(EngineConfig(accelerator="cpu", precision="bf16-mixed"))
    layer = engine.adopt(torch.nn.Linear(4, 4))
    with engine.autocast():
        made = layer(torch.ones(1, 4))
    assert made.dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
    with Engine(CPU).autocast():
        assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_a_checkpoint_is_the_old_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, path = Engine(CPU), tmp_path / "a.pt"
    engine.save(path, {"step": 1})

    def cut(_state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        engine.save(path, {"step": 2})
    assert engine.load(path) == {"step": 1}


@pytest.mark.parametrize("name", ["devices", "threads"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} 0 is below 1"):
        EngineConfig(**{name: 0})  # type: ignore[arg-type]  # that is the point


@pytest.mark.slow
def test_two_processes_average_their_gradients_and_one_writes(tmp_path: Path) -> None:
    # Given two processes with different weights and losses (k+1)·(a + b + c), whose gradients are k+1
    script = tmp_path / "pair.py"
    root = str(Path(__file__).parents[3])
    script.write_text(f"import sys; sys.path.insert(0, {root!r})\n{PAIR}")
    # When each takes one step of SGD with rate 1
    subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        check=True,
        timeout=240,
        capture_output=True,
        cwd=tmp_path,
    )
    # Then both began with rank 0's weights and went by the mean gradient, 1.5
    zero, one = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for rank in (zero, one):
        for before, after, first in zip(rank["before"], rank["after"], zero["before"], strict=True):
            assert torch.equal(before, first)
            assert torch.allclose(after, first - 1.5)
    # And rank 0 wrote the checkpoint, with the mean of the figures and the seed of a single process
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == {
        "rank": 0,
        "figure": 0.5,
        "seed": (5,),
    }
