"""The ordinal head, its thresholds, the quality head and the figures are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories.fundus import Drawing, draw
from sklearn.metrics import cohen_kappa_score

from models.networks.features import split_rgba
from models.networks.quality import QualityNetwork
from models.preprocess import prepare
from models.training import evaluate, negatives
from models.training.evaluate import OperatingPoint, Scores
from models.training.grading import (
    HeadConfig,
    choose_levels,
    fit_calibration,
    fit_head,
    fit_oedema,
    out_of_fold_scores,
    quadratic_kappa,
)
from models.training.quality import (
    QualityConfig,
    QualitySet,
    minimum_quality,
    quality_figures,
    quality_scores,
    train_quality,
)

CONFIG = HeadConfig(folds=3, penalties=(0.01, 0.1))


def graded(count: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of which the first tells the grade by proportional odds with slope 3, the others are noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4))
    latent = 3.0 * features[:, 0] + rng.logistic(size=count)
    return features, np.searchsorted([-2.0, -0.5, 1.5, 3.0], latent).astype(np.int64)


def test_calibration_finds_slope_and_cuts_again() -> None:
    features, grades = graded(4000)
    slope, cuts = fit_calibration(features[:, 0], grades)
    assert slope == pytest.approx(3.0, abs=0.3)
    assert cuts == pytest.approx([-2.0, -0.5, 1.5, 3.0], abs=0.3)


def test_the_decisive_probability_is_calibrated_by_itself() -> None:
    # Given a score that tells grade 2 and more sharply, but grade 1 from 0 and 3 from 2 hardly at all
    rng = np.random.default_rng(0)
    scores = rng.normal(size=4000)
    referable = rng.random(4000) < 1 / (1 + np.exp(-4.0 * scores))
    grades = np.where(referable, 2, 0) + rng.integers(0, 2, 4000)
    shared_slope, shared = fit_calibration(scores, grades)
    slope, cuts = fit_calibration(scores, grades, 2)
    lines = [
        evaluate.calibration_line(1 / (1 + np.exp(cut - by * scores)), referable)
        for by, cut in ((shared_slope, shared[1]), (slope, cuts[1]))
    ]
    # Then one slope for all cuts is too timid for it, and its own is right
    assert lines[0][0] > 1.3
    assert lines[1] == pytest.approx((1.0, 0.0), abs=0.02)
    # And the cuts ascend, each with the mean probability of its outcome
    assert (np.diff(cuts) > 0).all()
    for grade, cut in enumerate(cuts, start=1):
        mean = (1 / (1 + np.exp(cut - slope * scores))).mean()
        assert mean == pytest.approx((grades >= grade).mean(), abs=1e-6)


def test_a_grade_that_all_have_still_gets_a_cut() -> None:
    # Given photographs of which none is healthy
    rng = np.random.default_rng(2)
    scores = rng.normal(size=60)
    grades = np.where(rng.random(60) < 1 / (1 + np.exp(-2.0 * scores)), 3, 1)
    _, cuts = fit_calibration(scores, grades, 2)
    assert np.isfinite(cuts).all()
    assert (np.diff(cuts) >= 0).all()
    assert cuts[0] < scores.min()


def test_the_intervals_of_the_calibration_hold_what_made_the_outcomes() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(0.0, 2.0, 300)
    grades = np.where(rng.random(300) < 1 / (1 + np.exp(-logit)), 2, 0)
    for factor, inside in ((1.0, True), (0.4, False)):  # the second is too timid by far
        probability = 1 / (1 + np.exp(-factor * logit))
        found = evaluate.calibration_intervals(Scores(np.tile(probability[:, None], 4), np.ones(300)), grades)
        assert (found["calibration_slope_low"] < 1.0 < found["calibration_slope_high"]) == inside
        assert found["calibration_intercept_low"] < 0.0 < found["calibration_intercept_high"]


def test_the_fitted_head_ranks_reaches_its_sensitivity_and_orders_its_thresholds() -> None:
    features, grades = graded()
    fitted = fit_head(features[None], grades, list(range(len(grades))), CONFIG)
    assert fitted.out_of_fold["auc_referable"] > 0.85
    assert fitted.out_of_fold["sensitivity"] >= 0.9
    # Referable ⇔ grade ≥ 2 whatever the score: levels of the score that the thresholds stand for ascend.
    cuts, slope = fitted.head.cuts.numpy(), float(fitted.head.slope)
    chosen = np.array(fitted.thresholds)
    levels = (np.log(chosen / (1 - chosen)) + cuts) / slope
    assert (np.diff(levels) >= -1e-5).all()


def test_no_photograph_is_scored_by_weights_that_saw_it_or_its_look_alike() -> None:
    # Given pure noise in pairs of look-alikes: leaking a pair would look like skill
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(60, 30)), 2, axis=0)
    grades = np.repeat(rng.integers(0, 5, 60), 2)
    scores = out_of_fold_scores(features[None], grades, [index // 2 for index in range(120)], 0.001, CONFIG)
    assert abs(np.corrcoef(scores, grades)[0, 1]) < 0.35


def test_weights_rest_on_what_degradation_leaves() -> None:
    # Given two features that tell the grade alike, of which the second is lost in degraded versions
    features, grades = graded(400)
    features[:, 1] = features[:, 0]
    worse = features.copy()
    worse[:, 1] = np.random.default_rng(5).normal(size=400)
    groups = list(range(400))
    fragile = fit_head(features[None], grades, groups, CONFIG).head.weight
    robust = fit_head(np.stack([features, worse, worse]), grades, groups, CONFIG).head.weight
    assert float(fragile[1] / fragile[0]) == pytest.approx(1.0, abs=0.1)
    assert abs(float(robust[1] / robust[0])) < 0.5


def test_the_oedema_head_ranks_its_risks() -> None:
    features, grades = graded(400)
    risks = np.searchsorted([1, 3], grades, side="right").astype(np.int64)
    head, figures = fit_oedema(features[None], risks, list(range(400)), CONFIG)
    assert head.cuts.shape == (2,)
    assert min(figures["auc_any"], figures["auc_high"]) > 0.8


def test_the_referable_level_is_the_highest_that_reaches_the_sensitivity() -> None:
    scores = np.arange(20.0)
    grades = np.where(scores >= 10, 2, 0).astype(np.int64)
    grades[3] = 3
    # Given eleven referable ones of which the lowest lies at 3: 10 of 11 (0.909) are at 10 and above
    levels = choose_levels(scores, grades, 0.9)
    assert levels[1] == 10.0
    assert (np.diff(levels) >= 0).all()


def test_quadratic_kappa_is_cohens() -> None:
    rng = np.random.default_rng(0)
    grades, stated = rng.integers(0, 5, 80), rng.integers(0, 5, 80)
    assert quadratic_kappa(grades, stated) == pytest.approx(
        cohen_kappa_score(grades, stated, weights="quadratic")
    )
    assert quadratic_kappa(grades, grades) == 1.0


def test_a_decision_is_flipped_when_it_differs_or_is_not_given() -> None:
    point = OperatingPoint((0.5, 0.5, 0.5, 0.5), 0.3)
    oracle = Scores(np.tile([[0.6], [0.6], [0.4], [0.4]], 4), np.ones(4))
    other = Scores(np.tile([[0.7], [0.4], [0.6], [0.3]], 4), np.array([1.0, 1.0, 1.0, 0.2]))
    assert evaluate.flipped(other, oracle, point).tolist() == [False, True, True, True]
    figures = evaluate.camera_figures(oracle, other, None, np.array([2, 2, 0, 0]), point)
    assert figures["unadapted"]["flipped"] == 0.75
    assert figures["unadapted"]["decided_otherwise"] == pytest.approx(2 / 3)
    assert "adapted" not in figures


def test_figures_at_the_fixed_threshold() -> None:
    point = OperatingPoint((0.5, 0.5, 0.5, 0.5), 0.3)
    probability = np.array([0.9, 0.4, 0.8, 0.2, 0.1])
    scores = Scores(np.tile(probability[:, None], 4), np.array([1.0, 1.0, 1.0, 1.0, 0.0]))
    found = evaluate.referable_figures(scores, np.array([2, 3, 0, 1, 0]), point)
    assert found["auc"] == pytest.approx(5 / 6)  # of the six pairs, only (0.4, 0.8) is in the wrong order
    assert (found["sensitivity"], found["specificity"], found["graded"]) == (0.5, 0.5, 0.8)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.64 + 0.04 + 0.01) / 5)


def test_the_calibration_line_of_calibrated_probabilities_is_the_identity() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.02, 0.98, 20000)
    slope, intercept = evaluate.calibration_line(probability, rng.random(20000) < probability)
    assert (slope, intercept) == pytest.approx((1.0, 0.0), abs=0.06)


def test_a_bootstrap_interval_covers_the_mean() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = evaluate.mean_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)


@pytest.mark.parametrize("make", {*negatives.RUINS, *negatives.SCENES}, ids=lambda make: make.__name__)
def test_every_kind_of_negative_can_be_drawn(make: negatives.Ruin | negatives.Scene) -> None:
    rng = np.random.default_rng(0)
    photograph = prepare(draw(), 64).tensor
    colours = photograph[..., :3].astype(np.float32) / np.float32(255)
    picture = make(colours if make in negatives.RUINS else 64, rng)  # type: ignore[arg-type]  # one of two kinds
    assert picture.shape == (64, 64, 3)
    assert np.isfinite(picture).all()


def test_a_negative_keeps_the_mask_and_an_empty_surround() -> None:
    photograph = prepare(draw(), 64).tensor
    for seed in range(12):
        picture = negatives.negative(photograph, np.random.default_rng(seed))
        assert picture.dtype == np.uint8
        assert np.array_equal(picture[..., 3], photograph[..., 3])
        assert not picture[photograph[..., 3] == 0].any()


def test_the_quality_head_learns_to_tell_sharp_from_ruined() -> None:
    # Given drawn eyes and ruined ones
    torch.set_num_threads(1)
    eyes = [prepare(draw(Drawing(seed=seed, lesions=4)), 128).tensor for seed in range(12)]
    rng = np.random.default_rng(0)
    ruined = [negatives.negative(eye, rng) for eye in eyes for _ in range(2)]
    pictures = torch.from_numpy(np.stack([*eyes, *ruined]))
    with torch.inference_mode():
        planes = QualityNetwork.planes(*split_rgba(pictures)).numpy().astype(np.float16)
    known = QualitySet(planes, np.arange(len(planes)) < len(eyes))
    config = QualityConfig(steps=60, batch=12)
    # When the head is trained
    network = train_quality(known, config, lambda *_: None)
    # Then it tells them apart, and the minimum refuses none of the good ones
    figures = quality_figures(network, known, minimum_quality(network, known, config))
    assert figures["auc"] > 0.95
    assert figures["gradable_refused"] == 0.0
    assert quality_scores(network, known).shape == (36,)
