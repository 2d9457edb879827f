"""The EyePACS experiment on a small made tree: a whole table, resumed without training, honest about gaps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from factories.eyepacs import EyepacsTree, write_tree
from typer.testing import CliRunner, Result

from models.networks.features import LesionTrunk
from models.networks.generator import Adapter, ResidualGenerator
from models.networks.grader import Grader
from models.networks.plain import PlainGenerator
from models.training.adapter import AdapterConfig
from models.training.cli import app
from models.training.config import ConfigError, to_toml
from models.training.data import DataError
from models.training.divergence import TrainingDivergedError
from models.training.end_to_end import GradedSampler, GraderConfig, GraderTraining, score_pictures
from models.training.engine import Engine, EngineConfig
from models.training.eyepacs import read_layout
from models.training.eyepacs_config import EyepacsConfig
from models.training.eyepacs_experiment import EyepacsRun
from models.training.eyepacs_table import calibrate, patient_interval, rank_auc
from models.training.run import RunConflictError

CONFIG = EyepacsConfig(
    size=64,
    seed=1,  # divides the tree's few patients evenly
    train_share=0.5,
    validation_share=0.25,
    minimum_images=6,
    minimum_of_each=2,
    plain_cyclegan=True,
    grader=GraderConfig(
        widths=(4, 8, 8, 8), tail=(8,), steps=40, batch=8, learning_rate=1e-2, validate_every=10
    ),
    adapter=AdapterConfig(crop=32, steps=2, batch=1, checkpoint_every=1, average_from=0.0),
)
CPU = EngineConfig(accelerator="cpu", threads=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> EyepacsTree:
    """Both eyes of 18 patients by camera 1, of 10 by camera 2, of 2 by camera 3."""
    return write_tree(tmp_path_factory.mktemp("eyepacs"), {"1": 18, "2": 10, "3": 2})


def command(tree: EyepacsTree, out: Path, *options: str) -> Result:
    settings = out.with_suffix(".toml")
    settings.write_text(to_toml(CONFIG))
    files = ["--images", str(tree.images), "--cameras", str(tree.cameras), "--out", str(out)]
    files += [word for file in tree.labels for word in ("--labels", str(file))]
    machine = ["--accelerator", "cpu", "--threads", "1", "--workers", "1"]
    words = ["reproduce", "eyepacs", *files, "--config", str(settings), *machine, *options]
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def finished(tree: EyepacsTree, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run from the command line, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, command(tree, out)


class Recorder:
    """Progress that remembers what was done, and can stop at a step of a stage as a kill would."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.done: list[tuple[str, int]] = []
        self._stop_at = stop_at

    def __call__(self, stage: str, step: int, _steps: int, _terms: dict[str, float]) -> None:
        self.done.append((stage, step))
        if (stage, step) == self._stop_at:
            raise KeyboardInterrupt


def started(tree: EyepacsTree, out: Path, config: EyepacsConfig = CONFIG, **options: Any) -> EyepacsRun:
    layout = read_layout([tree.images], tree.labels, tree.cameras)
    progress = options.pop("progress", Recorder())
    return EyepacsRun(layout, out, config, progress, workers=1, engine=Engine(CPU), **options)


def table(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "table.json").read_text())
    return content


def test_the_command_prints_the_whole_table(finished: tuple[Path, Result]) -> None:
    # Given the command on the tree, When it is over
    out, result = finished
    assert result.exit_code == 0, result.output
    # Then there is a row for the labelled camera, and three for the other one
    rows = table(out)["rows"]
    kinds = [(row["camera"], row["adaptation"]) for row in rows]
    assert kinds == [("1", "labelled camera"), ("2", "none"), ("2", "ours"), ("2", "plain CycleGAN")]
    measured = rows[:3]
    for row in measured:
        assert row["images"] == 2 * row["patients"] >= 8
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    # And the terminal and the Markdown file show them, with what was left out and what cannot be known
    written = (out / "table.md").read_text()
    for text in (result.output, written):
        assert all(
            f"{row['auc']:.3f} ({row['auc_low']:.3f} to {row['auc_high']:.3f})" in text for row in measured
        )
        assert "Camera 3 is left out:" in text
        assert "flipped decisions cannot be counted" in text


def test_the_grader_learns_the_drawn_grades(finished: tuple[Path, Result]) -> None:
    # Spots grow with the grade: a grader that learns anything ranks unseen patients of its camera by them.
    rows = table(finished[0])["rows"]
    assert rows[0]["auc"] > 0.8


def test_a_finished_run_is_not_trained_again(
    tree: EyepacsTree, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    # Given a copy of a finished run, without its table
    out = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    before = (out / "table.json").read_bytes()
    (out / "table.json").unlink()
    # When it is started again, then the table is the same and no stage did anything
    recorder = Recorder()
    started(tree, out, progress=recorder).finish()
    assert (out / "table.json").read_bytes() == before
    assert recorder.done == []


def test_a_killed_run_ends_with_the_same_table(
    tree: EyepacsTree, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    cache = finished[0] / "prepared"
    # Given a run that was killed in the classifier's training, and again in that of an adapter
    for stop in (("classifier", 25), ("adapter-2-ours", 2)):
        with pytest.raises(KeyboardInterrupt):
            started(tree, tmp_path, progress=Recorder(stop), cache=cache).finish()
    # When it is started once more
    recorder = Recorder()
    started(tree, tmp_path, progress=recorder, cache=cache).finish()
    # Then it ends with the table of the run that was not killed, and trained no step twice
    assert table(tmp_path) == table(finished[0])
    assert not [stage for stage, _ in recorder.done if stage == "classifier"]


def test_patients_and_grades_are_kept_apart(tree: EyepacsTree, tmp_path: Path) -> None:
    parts = started(tree, tmp_path).parts
    # No patient is in two parts of any camera
    seen = [
        (photo.patient, camera, part)
        for camera in parts
        for part, photos in parts[camera].items()
        for photo in photos
    ]
    places = {patient: {(c, p) for other, c, p in seen if other == patient} for patient, _, _ in seen}
    assert all(len(place) == 1 for place in places.values())
    # First-style photographs have no grade that training could read; only the others do
    for camera in ("2", "3"):
        assert all(photo.grade is None for photo in parts[camera]["adapt"])
        assert all(photo.grade is not None for photo in parts[camera]["test"])


def test_a_failed_adapter_is_a_row_and_the_others_go_on(finished: tuple[Path, Result]) -> None:
    # A plain CycleGAN starts as grey: after two steps it has collapsed. Its row says so, without figures.
    failed = table(finished[0])["rows"][-1]
    assert failed["adaptation"] == "plain CycleGAN"
    assert failed["auc"] is None
    assert failed["note"].startswith("training failed: collapse")
    assert failed["note"] in (finished[0] / "table.md").read_text()


def test_pictures_of_either_generator_are_scored() -> None:
    # Given a grader, and adapters: the identity, and a plain generator, which starts as grey
    grader = Grader(64, (4, 8, 8, 8), (8,))
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 4), dtype=np.uint8)
    pictures[..., 3] = 255
    device = torch.device("cpu")
    plain, identity = Adapter(PlainGenerator()), Adapter(ResidualGenerator())
    # Then the identity changes no score, and behind the grey one all pictures score alike
    scores = score_pictures(grader, pictures, device, batch=2)
    assert np.allclose(score_pictures(grader, pictures, device, identity), scores, atol=1e-5)
    assert np.ptp(score_pictures(grader, pictures, device, plain)) < 0.2 * np.ptp(scores)


def test_another_run_in_the_folder_is_refused(tree: EyepacsTree, finished: tuple[Path, Result]) -> None:
    with pytest.raises(RunConflictError, match="seed: 1, now 2"):
        started(tree, finished[0], replace(CONFIG, seed=2))


def test_a_labelled_camera_that_is_not_there_is_refused(tree: EyepacsTree, tmp_path: Path) -> None:
    result = command(tree, tmp_path / "run", "--labelled-camera", "6")
    assert result.exit_code == 1
    assert "no photograph by camera '6'; there are 1, 2, 3" in " ".join(result.output.split())


def test_a_camera_with_one_class_only_is_left_out(tree: EyepacsTree, tmp_path: Path) -> None:
    run = started(tree, tmp_path, replace(CONFIG, minimum_of_each=6))
    assert run.measurable == []
    assert any("6 of each are needed" in said for said in run.remarks())


def test_a_classifier_needs_both_classes(tree: EyepacsTree, tmp_path: Path) -> None:
    # Given labels without any referable photograph
    harmless = []
    for file in tree.labels:
        head, *rows = file.read_text().splitlines()
        harmless.append(tmp_path / file.name)
        harmless[-1].write_text(
            "\n".join([head, *(f"{row.split(',')[0]},0" + ",P" * (head[-1] == "e") for row in rows)])
        )
    layout = read_layout([tree.images], harmless, tree.cameras)
    run = EyepacsRun(layout, tmp_path / "run", CONFIG, Recorder(), workers=1, engine=Engine(CPU))
    with pytest.raises(DataError, match="only one of referable"):
        run.finish()


def test_the_encoder_starts_from_a_trunk_of_its_widths() -> None:
    trunk = LesionTrunk((4, 8, 8, 8)).eval()
    training = GraderTraining(64, CONFIG.grader, Engine(CPU), trunk)
    assert torch.equal(
        training.grader.trunk.state_dict()["down1.0.weight"], trunk.state_dict()["down1.0.weight"]
    )
    with pytest.raises(DataError, match="make them equal"):
        GraderTraining(64, CONFIG.grader, Engine(CPU), LesionTrunk((8, 8, 8, 8)))


def test_the_interval_draws_patients_not_photographs() -> None:
    # Given a score that is wrong about one eye of ten patients, the second eye a copy of the first
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.5, 0.6, 0.7, 0.8, 0.35])
    positive = np.array([False] * 5 + [True] * 5)
    # 25 pairs; wrong: 0.9 against five, 0.4 against 0.35
    assert rank_auc(score, positive) == pytest.approx(19 / 25)
    assert rank_auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
    assert np.isnan(rank_auc(score, np.ones(10, dtype=bool)))
    # When the copies are added, then the interval stays the same: they are no further evidence
    patients = np.arange(10)
    alone = patient_interval(score, positive, patients)
    doubled = patient_interval(np.tile(score, 2), np.tile(positive, 2), np.tile(patients, 2))
    assert doubled == alone
    assert alone[0] < 19 / 25 < alone[1]


def test_a_calibration_keeps_the_aim_and_refuses_a_useless_grader() -> None:
    grades = np.arange(200) % 5
    scores = grades + np.random.default_rng(0).normal(0, 1.0, 200)
    point = calibrate(scores, grades, 0.9)
    referable = point.cumulative(scores)[:, 1]
    # The threshold reaches the sensitivity that was aimed at, and probabilities do not cross
    assert (referable >= point.thresholds[1])[grades >= 2].mean() == pytest.approx(0.9, abs=0.01)
    assert (np.diff(point.cumulative(scores), axis=1) <= 0).all()
    assert referable.mean() == pytest.approx((grades >= 2).mean(), abs=0.03)
    with pytest.raises(TrainingDivergedError, match="does not rank"):
        calibrate(-scores, grades, 0.9)


def test_rare_grades_are_drawn_more_often() -> None:
    grades = np.repeat([0, 1, 2, 3, 4], [80, 10, 4, 4, 2])
    pictures = np.repeat(np.arange(100, dtype=np.uint8), 4).reshape(100, 1, 1, 4)
    rng = np.random.default_rng(0)
    for balance, shares in ((0.0, (0.8, 0.1, 0.04, 0.04, 0.02)), (1.0, (0.2,) * 5)):
        drawn, given = GradedSampler(pictures, grades, balance).draw(rng, 4000)
        assert np.allclose(np.bincount(given.numpy(), minlength=5) / 4000, shares, atol=0.03)
        # Each photograph keeps its own grade
        assert np.array_equal(grades[drawn[:, 0, 0, 0].numpy()], given.numpy())


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="train_share"):
        EyepacsConfig(train_share=0.9, validation_share=0.2)
    with pytest.raises(ConfigError, match="plain_cyclegan"):
        EyepacsConfig(adapter=AdapterConfig(residual=False))
    with pytest.raises(ConfigError, match="size 100"):
        EyepacsConfig(size=100)
