"""`fundus-train evaluate benchmark` from the outside: the same table twice, and a page that needs nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from factories.bundle import write_tiny_bundle
from factories.fundus import Drawing, draw
from typer.testing import CliRunner, Result

from models.cameras import CAMERAS, SimulatedCamera
from models.networks.features import LesionTrunk
from models.networks.plain import PlainGenerator
from models.training.adapter_config import AdapterConfig
from models.training.benchmark.graphs import PAIRED, PLAIN
from models.training.benchmark.heldout import HeldOut, Numbered
from models.training.benchmark.results import FIGURES, ROWS
from models.training.benchmark.training import RowTrainer
from models.training.cli import app
from models.training.data import DataError, Photograph

runner = CliRunner()
SIZE = 64
CAMERA = next(iter(CAMERAS.values()))
OTHER = list(CAMERAS.values())[1]
MINE = SimulatedCamera("mine", gains=(0.7, 0.8, 1.2))
QUICK = ["--resamples", "20", "--timing-rounds", "1", "--exhibits", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight graded photographs, two more of that camera, one with a mask; a bundle with an adapter."""
    root = tmp_path_factory.mktemp("benchmark")
    for name, count, first in (("images", 8, 0), ("second", 2, 50), ("lesions", 1, 70)):
        (root / name).mkdir()
        for index in range(count):
            drawing = Drawing(width=200, height=136, radius=80, seed=first + index, lesions=2 * (index % 4))
            if name == "lesions":
                drawing = Drawing(width=200, height=136, radius=80, seed=first, lesions=8)
            picture = draw(drawing)
            cv2.imwrite(str(root / name / f"E{index}.png"), picture[:, :, ::-1])
            if name == "lesions":
                mask = ((picture[..., 1] > 195) & (picture[..., 0] > 60)).astype(np.uint8) * 255
                cv2.imwrite(str(root / name / f"E{index}_EX.png"), mask)
    rows = [f"E{index},{index % 4}" for index in range(8)]
    (root / "labels.csv").write_text("\n".join(["name,grade", *rows]) + "\n")
    write_tiny_bundle(
        root / "bundle", adapters=(CAMERA.key,), thresholds=(0.1, 0.1, 0.1, 0.1), minimum_quality=0.0
    )
    return root


def benchmark(folder: Path, out: Path, *more: str) -> Result:
    command = ["evaluate", "benchmark", "--bundle", str(folder / "bundle"), "--out", str(out), *QUICK]
    command += ["--images", str(folder / "images"), "--labels", str(folder / "labels.csv")]
    command += ["--second-style", str(folder / "second"), "--lesions", str(folder / "lesions")]
    return runner.invoke(app, [*command, *more])


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("out")
    answer = benchmark(folder, out, "--cameras", f"{CAMERA.name},{OTHER.name}")
    assert answer.exit_code == 0, answer.output
    return out, answer


def read(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "benchmark.json").read_text())
    return content


def test_every_row_is_measured_or_says_why_not(finished: tuple[Path, Result]) -> None:
    found = read(finished[0])
    assert set(found["cameras"]) == {CAMERA.key, OTHER.key}
    for key, camera in found["cameras"].items():
        assert set(camera["rows"]) == set(ROWS)
        absent = {row for row, cell in camera["rows"].items() if "not_run" in cell}
        assert absent == ({"plain", "paired"} if key == CAMERA.key else {"plain", "ours", "paired"})
        assert "trunk.pt" in camera["rows"]["plain"]["not_run"]
        measured = camera["rows"]["reinhard"]["figures"]
        assert {*FIGURES} - {*measured} <= {"recovered"}
        assert measured["flipped"]["low"] <= measured["flipped"]["value"] <= measured["flipped"]["high"]
    oracle = found["cameras"][CAMERA.key]["rows"]["oracle"]["figures"]
    assert oracle["flipped"]["value"] == 0.0
    assert oracle["ssim"]["value"] == pytest.approx(1.0)
    assert oracle["contrast_EX"]["value"] == pytest.approx(1.0)
    assert found["average"]["ours"]["cameras"] == 1
    assert {"ours", "classifier", "efficientnet-b0"} <= set(found["ms"])


def test_the_same_seed_gives_the_same_table(
    folder: Path, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    answer = benchmark(folder, tmp_path, "--cameras", f"{CAMERA.name},{OTHER.name}")
    assert answer.exit_code == 0, answer.output
    first, again = read(finished[0]), read(tmp_path)
    assert first["cameras"] == again["cameras"]
    assert first["average"] == again["average"]
    assert first["facts"]["data_fingerprint"] == again["facts"]["data_fingerprint"]


def test_another_seed_gives_another_table(
    folder: Path, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    assert benchmark(folder, tmp_path, "--cameras", CAMERA.name, "--seed", "5").exit_code == 0
    first, other = (read(out)["cameras"][CAMERA.key]["rows"]["none"] for out in (finished[0], tmp_path))
    assert first["figures"]["psnr"] != other["figures"]["psnr"]


def test_the_page_needs_no_network_and_shows_everything(finished: tuple[Path, Result]) -> None:
    page = (finished[0] / "benchmark.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{1,12})', page)
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "@import" not in page
    assert "url(" not in page
    assert page.count("<svg") == 1 + 3 * 2
    assert page.count("not run: ") == 2 * (2 + 3)
    for label in ROWS.values():
        assert label in page
    verdict = read(finished[0])["verdict"]
    assert verdict.split(".")[0] in page
    assert "$" not in page


def test_the_terminal_shows_the_table_and_the_verdict(finished: tuple[Path, Result]) -> None:
    output = finished[1].output
    assert "Average over cameras" in output
    assert "Residual adapter (ours) (1 of 2 cameras)" in output
    assert "not run" in output
    assert "acceptance points" in output


def test_a_camera_of_ones_own_and_graphs_of_ones_own(folder: Path, tmp_path: Path) -> None:
    # Given a camera in a file, and a graph for it in a folder
    (tmp_path / "mine.toml").write_text('name = "mine"\ngains = [0.7, 0.8, 1.2]\n')
    graph = tmp_path / "graphs" / "plain" / "simulated-mine.onnx"
    graph.parent.mkdir(parents=True)
    graph.write_bytes((folder / "bundle" / "adapters" / f"{CAMERA.key}.onnx").read_bytes())
    # When
    options = ["--params", str(tmp_path / "mine.toml"), "--graphs", str(tmp_path / "graphs")]
    answer = benchmark(folder, tmp_path / "out", *options)
    # Then it alone is measured, with that graph
    assert answer.exit_code == 0, answer.output
    found = read(tmp_path / "out")
    assert set(found["cameras"]) == {"simulated-mine"}
    assert "figures" in found["cameras"]["simulated-mine"]["rows"]["plain"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--cameras", "nothing"], "no camera nothing"),
        (["--cameras", CAMERA.name, "--trained", OTHER.name], "--trained names"),
        (["--resamples", "0"], "resamples 0 is below 1"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    folder: Path, tmp_path: Path, more: list[str], words: str
) -> None:
    answer = benchmark(folder, tmp_path, *more)
    assert answer.exit_code == 1
    assert words in " ".join(answer.output.split())


def test_evaluate_alone_says_what_is_missing(folder: Path) -> None:
    answer = runner.invoke(app, ["evaluate", "--images", str(folder / "images")])
    assert answer.exit_code == 2
    assert "--bundle" in answer.output
    answer = runner.invoke(app, ["evaluate", "--bundle", "reference", "benchmark", "--help"])
    assert "after" in answer.output


def row_trainer(folder: Path, stages: set[str]) -> RowTrainer:
    """Trains on three photographs in first style and three others in second, none of them held out."""
    files = sorted((folder / "images").glob("*.png"))
    numbered = [Numbered(Photograph(path.stem, path, 0), index) for index, path in enumerate(files)]
    held = HeldOut(numbered[:2], [], numbered[2:5], numbered[5:])
    config = AdapterConfig(steps=2, batch=1, crop=32)

    def noted(stage: str, _step: int, _steps: int, _terms: dict[str, float]) -> None:
        stages.add(stage)

    trunk = LesionTrunk().eval()
    return RowTrainer(held, trunk=trunk, size=SIZE, config=config, seed=0, progress=noted)


@pytest.mark.filterwarnings("ignore::models.training.divergence.TrainingDivergedWarning")  # two steps
@pytest.mark.parametrize("method", [PLAIN, PAIRED])
def test_a_row_is_trained_on_what_is_not_held_out(folder: Path, tmp_path: Path, method: str) -> None:
    stages: set[str] = set()
    generator, first = row_trainer(folder, stages).train(method, MINE, tmp_path / "checkpoint.pt")
    assert first.shape == (3, SIZE, SIZE, 4)
    assert isinstance(generator, PlainGenerator) == (method == PLAIN)
    assert f"{method} mine" in stages


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::models.training.divergence.TrainingDivergedWarning")  # two steps
def test_a_missing_adapter_is_trained_from_the_run(folder: Path, tmp_path: Path) -> None:
    # Given a run folder: its split, its trunk, its bundle
    run, names = tmp_path / "run", [f"E{index}" for index in range(8)]
    shutil.copytree(folder / "bundle", run / "bundle")
    parts = {name: "train" if index < 4 else "test" for index, name in enumerate(names)}
    split = {"parts": parts, "groups": dict(zip(names, range(8), strict=True))}
    (run / "split.json").write_text(json.dumps(split))
    (run / "config.json").write_text(json.dumps({"seed": 0, "size": SIZE}))
    torch.save({"trunk": LesionTrunk().state_dict()}, run / "trunk.pt")
    # When the benchmark is asked for a camera without adapter
    command = ["evaluate", "benchmark", "--run", str(run), "--out", str(tmp_path / "out"), *QUICK]
    command += ["--images", str(folder / "images"), "--labels", str(folder / "labels.csv")]
    command += ["--cameras", OTHER.name, "--adapter.steps", "2"]
    command += ["--adapter.batch", "1", "--adapter.crop", "32", "--adapter.watch.on-divergence", "warn"]
    answer = runner.invoke(app, command)
    # Then ours is trained and measured, its graph is kept, and the others say why they are not there
    assert answer.exit_code == 0, answer.output
    found = read(tmp_path / "out")
    assert found["facts"]["photographs"] == 4
    rows = found["cameras"][OTHER.key]["rows"]
    reasons = {row: cell["not_run"] for row, cell in rows.items() if "not_run" in cell}
    assert reasons == dict.fromkeys((PLAIN, PAIRED), "not trained for this camera in this run")
    assert "contrast_MA" not in rows["ours"]["figures"]
    assert (tmp_path / "out" / "graphs" / "ours" / f"{OTHER.key}.onnx").exists()


def test_photographs_to_train_on_are_needed() -> None:
    with pytest.raises(DataError, match="first-style"):
        RowTrainer(
            HeldOut([], [], [], []),
            trunk=LesionTrunk(),
            size=SIZE,
            config=AdapterConfig(),
            seed=0,
            progress=lambda *_: None,
        )
