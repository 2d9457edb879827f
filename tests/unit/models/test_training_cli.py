"""`fundus-train` from the outside: folders and CSV files in, graphs and figures out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from factories.bundle import write_tiny_bundle
from factories.fundus import Drawing, draw
from typer.testing import CliRunner

from models.bundle import Bundle
from models.cameras import CAMERAS, simulate
from models.networks.features import LesionTrunk
from models.training.adapter import AdapterConfig
from models.training.cli import app
from models.training.data import DataError
from models.training.grading import HeadConfig
from models.training.lesions import LesionConfig
from models.training.quality import QualityConfig
from models.training.recipes import export_run, load_trunk
from models.training.reproduce import ReferenceConfig, ReferenceRun, Sources
from models.training.run import RunConflictError, open_run, read_json, write_json

runner = CliRunner()
COUNT = 30
SMALL = ReferenceConfig(
    seed=2,
    size=64,
    adapted=("blue",),
    unadapted=("dusk",),
    lesions=LesionConfig(size=64, steps=4, patch=32, batch=2, checkpoint_every=2),
    head=HeadConfig(folds=2, penalties=(0.1,)),
    quality=QualityConfig(negatives=1, steps=4, batch=8),
    adapter=AdapterConfig(scale=2, crop=32, steps=3, batch=1, checkpoint_every=1),
)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Thirty drawn eyes whose grade grows with their lesions, and three with masks."""
    folder = tmp_path_factory.mktemp("photographs")
    images, lesions = folder / "images", folder / "lesions"
    images.mkdir()
    lesions.mkdir()
    rows = ["name,grade"]
    for index in range(COUNT):
        grade = index % 5
        picture = draw(Drawing(width=200, height=136, radius=80, seed=index, lesions=4 * grade))
        cv2.imwrite(str(images / f"E{index:02d}.png"), picture[:, :, ::-1])
        rows.append(f"E{index:02d},{grade}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    for index in range(3):
        picture = draw(Drawing(width=200, height=136, radius=80, seed=100 + index, lesions=8))
        cv2.imwrite(str(lesions / f"L{index}.png"), picture[:, :, ::-1])
        for kind, found in (("EX", picture[..., 1] > 195), ("HE", picture[..., 1] < 35)):
            mask = (found & (picture[..., 0] > 60)).astype(np.uint8) * 255
            cv2.imwrite(str(lesions / f"L{index}_{kind}.png"), mask)
    return Sources(images, folder / "labels.csv", lesions)


def silent(_stage: str, _step: int, _steps: int, _terms: dict[str, float]) -> None:
    """No progress shown."""


@pytest.mark.slow
def test_the_recipe_makes_a_bundle_and_a_second_call_resumes_it(sources: Sources, tmp_path: Path) -> None:
    # Given a run that is killed while its adapter trains
    out = tmp_path / "run"

    def killed(stage: str, step: int, _steps: int, _terms: dict[str, float]) -> None:
        if stage == "adapter-simulated-blue" and step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ReferenceRun(sources, out, SMALL, killed).finish()
    graph = (out / "bundle" / "classifier.onnx").stat().st_mtime_ns
    # When it is started again
    stages: list[tuple[str, int]] = []

    def noted(stage: str, step: int, _steps: int, _terms: dict[str, float]) -> None:
        stages.append((stage, step))

    bundle = ReferenceRun(sources, out, SMALL, noted).finish()
    # Then nothing that was finished is done again, and a checked bundle is there
    assert (out / "bundle" / "classifier.onnx").stat().st_mtime_ns == graph
    assert [step for stage, step in stages if stage == "adapter-simulated-blue"] == [2, 3]
    assert "lesions" not in {stage for stage, _ in stages}
    assert Bundle.load(out / "bundle").digest == bundle.digest
    assert set(bundle.manifest.adapters) == {"simulated-blue"}
    assert set(bundle.manifest.figures["cameras"]) == {"simulated-blue", "simulated-dusk"}  # type: ignore[arg-type]  # JSON
    assert "simulated-blue | adapted" in (out / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert read_json(out / "split.json")["parts"]["lesions/L0"] == "train"
    # And a run with other settings is refused
    with pytest.raises(RunConflictError, match=r"config\.json"):
        ReferenceRun(sources, out, ReferenceConfig(size=128), silent)


@pytest.mark.slow
def test_an_adapter_from_two_folders_and_a_refused_second_start(sources: Sources, tmp_path: Path) -> None:
    # Given the run of a classifier, and photographs of a camera that is darker
    run, first, second, out = (tmp_path / name for name in ("classifier", "first", "second", "run"))
    for folder in (run, first, second):
        folder.mkdir()
    torch.save({"trunk": LesionTrunk().state_dict()}, run / "trunk.pt")
    write_json(run / "config.json", {"size": 64})
    for index, file in enumerate(sorted(sources.images.glob("*.png"))[:6]):
        picture = cv2.imread(str(file))
        assert picture is not None
        folder, darker = (first, picture // 2) if index < 3 else (second, picture)
        cv2.imwrite(str(folder / file.name), darker)
    # When its adapter is trained with settings of a file and of the command line
    settings = tmp_path / "settings.toml"
    settings.write_text(
        "scale = 2\ncrop = 32\nbatch = 1\nlearning_rate = 4e-3\nsteps = 99\ncheckpoint_every = 2\n"
    )
    command = ["adapter", "--first", str(first), "--second", str(second), "--classifier-run", str(run)]
    command += ["--camera", "simulated-x", "--out", str(out), "--config", str(settings), "--threads", "1"]
    command += ["--minimum-photographs", "3"]
    answer = runner.invoke(app, [*command, "--steps", "4", "--watch.samples-every", "1"])
    # Then the graph, the figures, the samples and the effective settings are in the run folder
    assert answer.exit_code == 0, answer.output
    assert (out / "adapters" / "simulated-x.onnx").exists()
    assert read_json(out / "metrics.json")["steps"] == 4
    assert read_json(out / "metrics.json")["photographs"] == {
        "first_style": 3,
        "second_style": 3,
        "left_out": 0,
    }
    assert "--bundle" in (out / "report.html").read_text()  # what makes a bundle of it
    assert not (out / "bundle").exists()
    names = [f"adapter-simulated-x-{step:06d}.png" for step in (2, 4)]
    assert sorted(file.name for file in (out / "samples").iterdir()) == names
    assert len((out / "log.jsonl").read_text().splitlines()) == 4
    # And the folder refuses a run with other settings, naming them, and is left as it was
    before = sorted((file.name, file.stat().st_size) for file in out.rglob("*"))
    answer = runner.invoke(app, [*command, "--steps", "5"])
    assert answer.exit_code == 1
    assert "steps: 4, now 5; watch.samples_every: 1, now 4" in " ".join(answer.output.split())
    assert sorted((file.name, file.stat().st_size) for file in out.rglob("*")) == before
    # While config.toml of the run continues it, with nothing left to do
    given = [str(out / "config.toml") if part == str(settings) else part for part in command]
    assert runner.invoke(app, given).exit_code == 0


def test_simulate_renders_a_folder(sources: Sources, tmp_path: Path) -> None:
    answer = runner.invoke(
        app, ["data", "simulate", str(sources.images), str(tmp_path / "taken"), "--camera", "soft"]
    )
    assert answer.exit_code == 0, answer.output
    assert len(list((tmp_path / "taken").glob("E*.jpg"))) == COUNT


def test_simulate_takes_a_camera_of_ones_own_and_names_a_wrong_key(sources: Sources, tmp_path: Path) -> None:
    params = tmp_path / "camera.toml"
    params.write_text('name = "mine"\nblur_px = 2.0\ngains = [0.5, 0.5, 0.5]\n')
    command = ["data", "simulate", str(sources.images), str(tmp_path / "taken"), "--params", str(params)]
    assert runner.invoke(app, command).exit_code == 0
    assert cv2.imread(str(tmp_path / "taken" / "E00.jpg")).mean() < 60  # type: ignore[union-attr]  # it was written
    params.write_text('name = "mine"\nblur = 2.0\n')
    answer = runner.invoke(app, command)
    assert answer.exit_code == 2
    assert "blur" in answer.output


def test_a_camera_of_ones_own_is_called_after_its_file_and_may_be_json(
    sources: Sources, tmp_path: Path
) -> None:
    params = tmp_path / "mine.json"
    params.write_text('{"spectral_response": [[0.8, 0.2, 0], [0.1, 0.9, 0.1], [0, 0.3, 0.8]], "haze": 0.1}')
    command = ["data", "simulate", str(sources.images), str(tmp_path / "taken"), "--params", str(params)]
    assert runner.invoke(app, command).exit_code == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('name = "Mine!"', "lower-case"),
        ("haze = 1.5", "haze holds 1.5; it must lie between 0 and 1"),
        ("gains = [1.0, 1.0]", "a list of 3"),
        ('blur_px = "much"', "blur_px must be a number"),
        ("haze = nan", "haze holds nan"),
    ],
)
def test_a_camera_that_cannot_be_is_refused_by_name(
    content: str, named: str, sources: Sources, tmp_path: Path
) -> None:
    params = tmp_path / "camera.toml"
    params.write_text(content + "\n")
    command = ["data", "simulate", str(sources.images), str(tmp_path / "taken"), "--params", str(params)]
    answer = runner.invoke(app, command, terminal_width=500)
    assert answer.exit_code == 2
    assert named in " ".join(answer.output.replace("│", " ").split())


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "--camera", "nothing"]])
def test_simulate_says_what_is_missing(arguments: list[str]) -> None:
    assert runner.invoke(app, ["data", "simulate", *arguments]).exit_code == 2


def test_simulate_lists_the_cameras() -> None:
    answer = runner.invoke(app, ["data", "simulate", "--list"])
    assert answer.output.split() == list(CAMERAS)


def test_evaluate_measures_a_bundle_on_both_cameras(sources: Sources, tmp_path: Path) -> None:
    # Given a bundle and the same photographs by another camera
    bundle = write_tiny_bundle(tmp_path / "bundle", minimum_quality=0.0)
    taken = tmp_path / "taken"
    taken.mkdir()
    for file in sources.images.glob("*.png"):
        rgb = np.ascontiguousarray(cv2.imread(str(file))[:, :, ::-1])  # type: ignore[index]  # it exists
        shifted = simulate(rgb.astype(np.uint8), CAMERAS["blue"], 0)
        cv2.imwrite(str(taken / file.name), shifted[:, :, ::-1])
    # When it is evaluated
    command = ["evaluate", "--bundle", str(bundle), "--images", str(sources.images)]
    command += ["--labels", str(sources.labels), "--shifted", str(taken), "--camera", "simulated-blue"]
    answer = runner.invoke(app, command)
    # Then there are figures for the unshifted, the shifted and the adapted photographs
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert set(found) == {"unshifted", "unadapted", "adapted"}
    assert 0.0 <= found["adapted"]["flipped"] <= 1.0


def test_errors_that_were_foreseen_are_one_line(sources: Sources, tmp_path: Path) -> None:
    command = ["evaluate", "--bundle", str(tmp_path), "--images", str(sources.images)]
    answer = runner.invoke(app, [*command, "--labels", str(sources.labels)])
    assert answer.exit_code == 1
    assert "Traceback" not in answer.output
    assert "manifest" in answer.output


def test_a_run_without_a_trunk_or_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trunk\.pt"):
        load_trunk(tmp_path)
    open_run(tmp_path, SMALL, "none")
    with pytest.raises(DataError, match="no checkpoint"):
        list(export_run(tmp_path, tmp_path, tmp_path))


@pytest.mark.parametrize("command", ["classifier", "adapter", "evaluate", "export", "data", "reproduce"])
def test_help_teaches(command: str) -> None:
    answer = runner.invoke(app, [command, "--help"])
    assert answer.exit_code == 0
    assert len(answer.output) > 300
