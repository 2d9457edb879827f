"""Which labels training reads: none of the first style, and of the second only the classifier does."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from factories.fundus import Drawing, draw

from models.networks.features import LesionTrunk
from models.training import data
from models.training.adapter import AdapterConfig, AdapterTraining, train_adapter
from models.training.grading import HeadConfig
from models.training.lesions import LesionConfig
from models.training.quality import QualityConfig
from models.training.recipes import fit_adapter
from models.training.reproduce import ReferenceConfig, ReferenceRun, Sources
from models.training.run import write_json
from models.training.styles import StyleBatch, StyleSampler

SIZE = 64
ADAPTER = AdapterConfig(scale=2, crop=32, steps=2, batch=1)

_listeners: list[Callable[[str], None]] = []


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        for listener in _listeners:
            listener(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode())


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    # The interpreter's own record of every file that Python opens; it cannot be taken back, so: once.
    sys.addaudithook(_heard)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Every path opened while the test runs, by Python or by OpenCV."""
    paths: list[Path] = []

    def listen(path: str) -> None:
        paths.append(Path(path))

    read: Callable[..., Any] = cv2.imread

    def imread(path: str, *rest: Any) -> Any:
        paths.append(Path(path))
        return read(path, *rest)

    monkeypatch.setattr(cv2, "imread", imread)
    _listeners.append(listen)
    yield paths
    _listeners.remove(listen)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def silent(_stage: str, _step: int, _steps: int, _terms: dict[str, float]) -> None:
    """No progress shown."""


def eye(file: Path, seed: int, lesions: int = 0) -> np.ndarray:
    picture = draw(Drawing(width=200, height=136, radius=80, seed=seed, lesions=lesions))
    assert cv2.imwrite(str(file), picture[:, :, ::-1])
    return picture


def folder(path: Path, seeds: range) -> Path:
    """Drawn eyes beside a file with their grades."""
    path.mkdir()
    for seed in seeds:
        eye(path / f"E{seed:02d}.png", seed, lesions=2 * (seed % 5))
    rows = [f"E{seed:02d},{seed % 5}" for seed in seeds]
    (path / "labels.csv").write_text("\n".join(["name,grade", *rows]) + "\n")
    return path


def below(opened: list[Path], folder: Path) -> set[str]:
    return {path.name for path in opened if folder in path.parents}


def test_an_adapter_s_training_opens_pictures_only(tmp_path: Path, opened: list[Path]) -> None:
    # Given folders of both styles, each with a file of grades, and a classifier's run
    first, second = folder(tmp_path / "first", range(4)), folder(tmp_path / "second", range(4, 8))
    run = tmp_path / "classifier"
    run.mkdir()
    torch.save({"trunk": LesionTrunk().state_dict()}, run / "trunk.pt")
    write_json(run / "config.json", {"size": SIZE})
    opened.clear()
    # When an adapter is trained and exported
    graph = fit_adapter(
        first,
        second,
        classifier_run=run,
        camera="simulated-test",
        out=tmp_path / "out",
        config=ADAPTER,
        progress=silent,
        minimum=4,
    )
    # Then of both folders every picture was opened, and no grade
    assert graph.exists()
    for style in (first, second):
        assert below(opened, style) == {path.name for path in style.glob("*.png")}
    # And this record does see a file of grades that is read
    data.read_folder(first, first / "labels.csv")
    assert "labels.csv" in below(opened, first)


def test_nothing_that_training_hands_on_has_a_place_for_a_grade() -> None:
    # Pictures are uint8 (N, S, S, 4), colours and mask; a batch holds pictures, masks and a window
    fields = {field.name for field in dataclasses.fields(StyleBatch)}
    assert fields == {"reduced", "reduced_mask", "crop", "crop_mask", "top", "left"}
    batch = StyleSampler(np.zeros((2, SIZE, SIZE, 4), np.uint8), 32, 32).draw(np.random.default_rng(0), 2)
    assert batch.reduced.shape[1] == batch.crop.shape[1] == 3
    for function in (train_adapter, AdapterTraining.update, AdapterTraining.__init__, StyleSampler.draw):
        names = set(inspect.signature(function).parameters)
        assert not [name for name in names if "label" in name or "grade" in name]
    settings = {field.name for field in dataclasses.fields(AdapterConfig)}
    assert not [name for name in settings if "label" in name or "grade" in name]


def test_the_classifier_reads_the_grades_of_the_labelled_camera_and_the_adapter_none(
    tmp_path: Path, opened: list[Path]
) -> None:
    # Given the labelled camera's photographs, masks, and a first-style folder with grades of its own
    images, first = folder(tmp_path / "second", range(20)), folder(tmp_path / "first", range(20, 22))
    lesions = tmp_path / "lesions"
    lesions.mkdir()
    picture = eye(lesions / "L0.png", 100, lesions=8)
    for kind, found in (("EX", picture[..., 1] > 195), ("HE", picture[..., 1] < 35)):
        mask = (found & (picture[..., 0] > 60)).astype(np.uint8) * 255
        cv2.imwrite(str(lesions / f"L0_{kind}.png"), mask)
    config = ReferenceConfig(
        seed=2,
        size=SIZE,
        adapted=("blue",),
        unadapted=(),
        lesions=LesionConfig(size=SIZE, steps=2, patch=32, batch=2),
        head=HeadConfig(folds=2, penalties=(0.1,)),
        quality=QualityConfig(negatives=1, steps=2, batch=4),
        adapter=ADAPTER,
    )
    opened.clear()
    # When the classifier is trained
    run = ReferenceRun(Sources(images, images / "labels.csv", lesions), tmp_path / "run", config, silent)
    trunk = run.trunk()
    run.classifier(trunk)
    # Then its camera's grades are the only table that was read
    assert (tmp_path / "run" / "classifier.json").exists()
    tables = {path for path in opened if path.suffix.lower() in {".csv", ".tsv", ".xlsx"}}
    assert tables == {images / "labels.csv"}
    assert not below(opened, first)
    # And adapters that follow read none
    opened.clear()
    data.read_folder(first)
    AdapterTraining(trunk, SIZE, ADAPTER)
    assert not {path for path in opened if path.suffix.lower() == ".csv"}
