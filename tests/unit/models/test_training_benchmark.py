"""The benchmark's figures, against hand-computed values and the plain implementations."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from factories.fundus import Drawing, draw
from sklearn.metrics import roc_auc_score

from models.cameras import CAMERAS, SimulatedCamera
from models.preprocess import prepare
from models.training.adapter_config import AdapterConfig
from models.training.benchmark import fidelity, heldout
from models.training.benchmark.decisions import Measured, decision_figures, recovered, roc_curve
from models.training.benchmark.efficientnet import efficientnet_b0
from models.training.benchmark.graphs import OURS, PAIRED, PLAIN, Absent, Graphs
from models.training.benchmark.resampling import (
    Estimate,
    Resamples,
    average,
    weighted_auc,
    weighted_calibration,
    weighted_kappa,
)
from models.training.benchmark.results import ORACLE, ROWS, UNADAPTED, Benchmark, CameraResult, Cell
from models.training.benchmark.timing import YARDSTICK, interleaved_ms
from models.training.benchmark.training import settings
from models.training.benchmark.verdict import Check, checks, paragraph
from models.training.data import DataError
from models.training.divergence import TrainingDivergedError
from models.training.evaluate import OperatingPoint, Scores, calibration_line
from models.training.grading import quadratic_kappa

SIZE = 64
POINT = OperatingPoint((0.5, 0.5, 0.5, 0.5), 0.4)


def weighted_rows(count: int) -> np.ndarray:
    return Resamples(count, 5, 1).weights


def test_resamples_are_shared_seeded_and_of_the_same_size() -> None:
    assert (weighted_rows(9).sum(axis=1) == 9).all()
    assert np.array_equal(Resamples(9, 5, 1).weights, Resamples(9, 5, 1).weights)
    assert not np.array_equal(Resamples(9, 5, 1).weights, Resamples(9, 5, 2).weights)


def test_weighted_auc_by_hand_and_as_scikit_learn_with_ties() -> None:
    # Given positives at 0.9 and 0.4 and negatives at 0.4 and 0.1: 3 of 4 pairs in order, one of them tied
    scores, positive = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    assert weighted_auc(scores, positive)(np.ones((1, 4)))[0] == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 40) / 6.0, rng.random(40) < 0.4
    rows = weighted_rows(40)
    expected = [roc_auc_score(positive, scores, sample_weight=row) for row in rows]
    assert weighted_auc(scores, positive)(rows) == pytest.approx(expected)


def test_weighted_kappa_is_quadratic_kappa_of_the_resample() -> None:
    rng = np.random.default_rng(0)
    grades, stated = rng.integers(0, 5, 30), rng.integers(0, 5, 30)
    rows = weighted_rows(30)
    repeated = [np.repeat(np.arange(30), row.astype(int)) for row in rows]
    expected = [quadratic_kappa(grades[chosen], stated[chosen]) for chosen in repeated]
    assert weighted_kappa(grades, stated)(rows) == pytest.approx(expected)


def test_weighted_calibration_is_the_likelihoods_line_and_nan_where_separable() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(200)
    outcome = rng.random(200) < probability
    found = weighted_calibration(probability, outcome)(np.ones((1, 200)))[0]
    assert found == pytest.approx(calibration_line(probability, outcome), abs=1e-3)
    assert np.isnan(weighted_calibration(probability, probability > 0.5)(np.ones((1, 200)))).all()


def test_means_leave_out_what_is_not_known_and_averages_pair_resamples() -> None:
    resamples = Resamples(4, 200, 0)
    assert resamples.mean(np.array([1.0, np.nan, 3.0, np.nan])).value == 2.0
    low, high = resamples.mean(np.array([0.0, 1.0, 0.0, 1.0])).interval
    assert 0.0 <= low < 0.5 < high <= 1.0
    # A figure and its mirror average to a constant only if both use the same resamples
    values = np.array([0.0, 1.0, 2.0, 3.0])
    both = average([resamples.mean(values), resamples.mean(3.0 - values)])
    assert both.replicates == pytest.approx(np.full(200, 1.5))
    assert Estimate(float("nan"), np.array([np.nan])).as_json() == {"value": None, "low": None, "high": None}


def test_decisions_by_hand() -> None:
    # Given two referable and two other photographs: one missed, one wrongly called, one not graded
    grades = np.array([2, 3, 0, 1])
    oracle = Scores(np.array([[0.9] * 4, [0.8] * 4, [0.2] * 4, [0.1] * 4]), np.ones(4))
    shifted = Scores(np.array([[0.9] * 4, [0.3] * 4, [0.6] * 4, [0.1] * 4]), np.array([1.0, 1.0, 1.0, 0.1]))
    found = decision_figures(shifted, oracle, Measured(grades, POINT, Resamples(4, 50, 0)))
    # Then
    assert found["sensitivity"].value == 0.5
    assert found["specificity"].value == 0.0
    assert found["flipped"].value == 0.75
    assert found["graded"].value == 0.75
    assert found["auc"].value == 0.75
    assert found["brier"].value == pytest.approx((0.01 + 0.49 + 0.36 + 0.01) / 4)
    assert roc_curve(shifted, grades) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_recovered_auc_is_a_share_of_what_was_lost() -> None:
    def auc(value: float) -> Estimate:
        return Estimate(value, np.array([value, value]))

    back = recovered(auc(0.90), auc(0.85), auc(0.95))
    assert back is not None
    assert back.value == pytest.approx(0.5)
    assert recovered(auc(0.94), auc(0.93), auc(0.95)) is None


def flat(level: int) -> np.ndarray:
    picture = np.full((SIZE, SIZE, 4), level, np.uint8)
    picture[..., 3] = 255
    return picture


def test_psnr_and_ssim_by_hand() -> None:
    assert fidelity.psnr(flat(100), flat(110)) == pytest.approx(20 * np.log10(255 / 10))
    assert fidelity.psnr(flat(100), flat(100)) == 99.0
    # Two flat pictures have no variance: only Wang's luminance term is left
    constant = (0.01 * 255) ** 2
    expected = (2 * 100 * 140 + constant) / (100**2 + 140**2 + constant)
    assert fidelity.ssim(flat(100), flat(140)) == pytest.approx(expected, abs=1e-4)
    # What lies outside the field does not count
    masked = flat(100)
    masked[:10] = 0
    assert fidelity.psnr(masked, flat(100)) == 99.0


def test_the_truth_is_in_the_geometry_of_the_shifted_picture() -> None:
    rgb = draw(Drawing(width=200, height=136, radius=80, seed=1))
    prepared = prepare(rgb, SIZE)
    assert np.array_equal(fidelity.truth_of(rgb, prepared.field, prepared.tensor), prepared.tensor)


def test_lesion_contrast_is_inside_minus_around() -> None:
    # Given a lesion 40 levels above its surroundings
    masks = np.zeros((5, SIZE, SIZE), np.float32)
    masks[2, 30:34, 30:34] = 1.0
    picture = flat(100)
    picture[30:34, 30:34, 1] = 140
    places = fidelity.LesionPlaces.of(masks, picture[..., 3])
    # Then its contrast is 40, and types that are not there have none
    contrast = places.contrast(picture)
    assert contrast[2] == pytest.approx(40)
    assert np.isnan(contrast[[0, 1, 3]]).all()
    # Another lesion in the ring is not part of the background
    picture[30:34, 37:39, 1] = 255
    masks[0, 30:34, 37:39] = 1.0
    places = fidelity.LesionPlaces.of(masks, picture[..., 3])
    assert places.contrast(picture)[2] == pytest.approx(40)


def test_components_are_new_unless_they_touch_one_of_the_same_type() -> None:
    oracle, found = np.zeros((2, 32, 32), np.uint8), np.zeros((2, 32, 32), np.uint8)
    oracle[0, 4:6, 4:6] = 200
    found[0, 5:8, 5:8] = 200  # the same one, moved
    found[0, 20:22, 20:22] = 200  # a new one
    found[1, 4:6, 4:6] = 200  # another type: new
    found[1, 28:30, 28:30] = 127  # not above 0.5
    assert fidelity.components(found, oracle) == (3, 2)
    assert fidelity.components(oracle, oracle) == (1, 0)


def test_the_yardstick_has_the_published_size_and_runs() -> None:
    model = efficientnet_b0()
    onnx.checker.check_model(model)
    # 5,288,548 parameters as published, less one of the two of each of 21,008 normalised channels: folded
    assert sum(int(np.prod(weight.dims)) for weight in model.graph.initializer) == 5_288_548 - 21_008
    graph = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = graph.run(None, {"image": np.ones((1, 3, 64, 64), np.float32)})[0]
    assert logits.shape == (1, 1000)
    assert np.isfinite(logits).all()


def test_timing_runs_all_cases_in_turn() -> None:
    order: list[str] = []
    found = interleaved_ms({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert set(found) == {"a", "b"}


def test_graphs_are_found_trained_or_missed_with_a_reason(tmp_path: Path) -> None:
    camera = next(iter(CAMERAS.values()))
    mine = SimulatedCamera("mine")

    def train(_method: str, _camera: SimulatedCamera, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("graph")

    may = {OURS: frozenset({camera.key, mine.key}), PLAIN: frozenset({mine.key}), PAIRED: frozenset()}
    graphs = Graphs(tmp_path, {camera.key: tmp_path / "bundled.onnx"}, train, may)
    assert graphs.find(OURS, camera) == tmp_path / "bundled.onnx"
    assert graphs.find(PLAIN, mine) == tmp_path / "plain" / "simulated-mine.onnx"
    assert (tmp_path / "plain" / "simulated-mine.onnx").read_text() == "graph"
    assert isinstance(graphs.find(PLAIN, camera), Absent)
    nothing = Graphs(tmp_path / "none", {}, None, may).find(OURS, mine)
    assert isinstance(nothing, Absent)
    assert "trunk.pt" in nothing.reason


def test_a_training_that_failed_is_a_cell_that_says_so(tmp_path: Path) -> None:
    def train(_method: str, _camera: SimulatedCamera, _path: Path) -> None:
        raise TrainingDivergedError("a loss is not finite")

    mine = SimulatedCamera("mine")
    found = Graphs(tmp_path, {}, train, {OURS: frozenset({mine.key})}).find(OURS, mine)
    assert isinstance(found, Absent)
    assert "a loss is not finite" in found.reason


def test_rows_differ_in_configuration_only() -> None:
    ours = AdapterConfig(steps=7, scale=2)
    assert settings(ours, OURS) is ours
    plain, bound = settings(ours, PLAIN), settings(ours, PAIRED)
    assert (plain.residual, plain.features, plain.steps) == (False, False, 7)
    assert (bound.residual, bound.paired, bound.scale, bound.steps) == (True, True, 2, 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight graded photographs, and a run whose split holds out the last four."""
    images, run = tmp_path / "images", tmp_path / "run"
    images.mkdir()
    run.mkdir()
    names = [f"E{index}" for index in range(8)]
    for index, name in enumerate(names):
        picture = draw(Drawing(width=100, height=68, radius=40, seed=index))
        cv2.imwrite(str(images / f"{name}.png"), picture[:, :, ::-1])
    rows = [f"{name},{index % 4}" for index, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["name,grade", *rows]) + "\n")
    parts = {name: "train" if index < 4 else "test" for index, name in enumerate(names)}
    split = {"parts": parts, "groups": dict(zip(names, range(8), strict=True))}
    (run / "split.json").write_text(json.dumps(split))
    (run / "config.json").write_text(json.dumps({"seed": 0, "size": SIZE}))
    return tmp_path


def test_held_out_photographs_are_those_that_the_split_says(folder: Path) -> None:
    held = heldout.of_run(folder / "run", folder / "images", folder / "labels.csv", None)
    assert [item.photograph.name for item in held.photographs] == ["E4", "E5", "E6", "E7"]
    trained = {item.photograph.name for item in (*held.first, *held.second)}
    assert trained == {"E0", "E1", "E2", "E3"}
    assert not {item.number for item in held.first} & {item.number for item in held.second}
    assert held.grades.tolist() == [0, 1, 2, 3]
    assert [item.photograph.grade for item in held.limited(2).photographs] == [0, 3]


def test_photographs_that_do_not_belong_to_the_run_are_refused(folder: Path) -> None:
    split = json.loads((folder / "run" / "split.json").read_text())
    del split["parts"]["E3"]
    (folder / "run" / "split.json").write_text(json.dumps(split))
    with pytest.raises(DataError, match="E3"):
        heldout.of_run(folder / "run", folder / "images", folder / "labels.csv", None)
    with pytest.raises(DataError, match=r"split\.json"):
        heldout.of_run(folder, folder / "images", folder / "labels.csv", None)
    with pytest.raises(DataError, match="share 8"):
        heldout.of_folders(folder / "images", folder / "labels.csv", folder / "images", None)


def cell(**values: float) -> Cell:
    usual = {
        "auc": 0.9,
        "sensitivity": 0.9,
        "specificity": 0.8,
        "flipped": 0.2,
        "graded": 1.0,
        "components": 3.0,
        "new_components": 0.0,
    }
    return Cell({name: Estimate(value, np.full(3, value)) for name, value in {**usual, **values}.items()})


def made(ours: Cell, none: Cell, ms: float = 30.0) -> Benchmark:
    """Two cameras, one of them blurred, on which every baseline does as well as no adaptation."""
    cells: dict[str, Cell | Absent] = dict.fromkeys(ROWS, none)
    cells |= {ORACLE: cell(flipped=0.0, auc=0.95), OURS: ours, PAIRED: Absent("not trained")}
    cameras = [SimulatedCamera("sharp"), SimulatedCamera("blurred", blur_px=1.0)]
    results = [CameraResult(camera, dict(cells), []) for camera in cameras]
    return Benchmark(results, {OURS: ms, YARDSTICK: 100.0})


def named(points: list[Check], words: str) -> Check:
    return next(point for point in points if words in point.asked)


def test_the_verdict_says_when_all_is_met() -> None:
    good = cell(flipped=0.03, auc=0.95, recovered=1.0, contrast_MA=1.0)
    points = checks(made(good, cell()))
    assert [point.asked for point in points if point.met is False] == []
    assert "acceptance points that were measured is met" in paragraph(made(good, cell()), points)
    assert named(points, "paired bound").met is None


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("a fifth of", {"flipped": 0.041}),
        ("every camera without blur", {"flipped": 0.06}),
        ("fewer flipped than without", {"flipped": 0.2}),
        ("sensitivity within", {"sensitivity": 0.96}),
        ("specificity within", {"specificity": 0.70}),
        ("80 % of the AUC", {"recovered": 0.79}),
        ("fewer flipped decisions than every baseline", {"flipped": 0.25}),
        ("higher AUC than every baseline", {"auc": 0.89}),
        ("lesion contrast", {"contrast_MA": 0.89}),
        ("new lesion components", {"new_components": 3.1}),
        ("95 % graded", {"graded": 0.94}),
    ],
)
def test_the_verdict_names_what_is_missed(words: str, values: dict[str, float]) -> None:
    good = {"flipped": 0.03, "auc": 0.95, "recovered": 1.0, "contrast_MA": 1.0}
    benchmark = made(cell(**{**good, **values}), cell())
    points = checks(benchmark)
    assert named(points, words).met is False
    assert named(points, words).asked in paragraph(benchmark, points)
    assert "misses" in paragraph(benchmark, points)


def test_the_verdict_on_cost_and_on_no_adapter_at_all() -> None:
    dear = made(cell(flipped=0.03), cell(), ms=36.0)
    assert named(checks(dear), "EfficientNet").met is False
    bare = made(cell(), cell())
    for result in bare.cameras:
        result.cells[OURS] = Absent("no graph")
    assert [point.met for point in checks(bare)] == [None]
    assert "No camera has an adapter" in paragraph(bare, checks(bare))
    assert bare.averaged(UNADAPTED, "flipped") is not None
    assert bare.averaged(OURS, "flipped") is None
