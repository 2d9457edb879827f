"""The predictor: any mix of cameras in, as many gradings out, in order; a broken contract is refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from factories.bundle import (
    GREEN_FOR_GRADE,
    GREEN_STEP,
    LABELS,
    constant_classifier,
    make_graph,
    replace_graph,
    tiny_adapter,
    tiny_picture,
    write_tiny_bundle,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from models.bundle import Bundle
from models.decision import grade_from_cumulative, probabilities_from_cumulative
from models.engines.base import AdapterRun, ChainOutput, EngineChoice
from models.errors import (
    BundleContractError,
    EngineUnavailableError,
    ImageContractError,
    UnknownAdapterError,
)
from models.predictor import Predictor, adapter_runs
from models.warmup import sample_pictures, warm_up

ADAPTERS = ("simulated-blue", "simulated-warm")
SIZE = 32


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", size=SIZE, adapters=ADAPTERS)
    return Predictor(Bundle.load(folder), threads=1)


def expected_cumulative(green: int, adapter: str | None) -> tuple[float, ...]:
    shift = 0 if adapter is None else GREEN_STEP * (ADAPTERS.index(adapter) + 1)
    part = min(green + shift, 255) / 255
    return tuple(part**k for k in range(1, 5))


# --- the decision


@pytest.mark.parametrize(
    ("cumulative", "thresholds", "grade"),
    [
        ((0.1, 0.1, 0.1, 0.1), (0.5, 0.5, 0.5, 0.5), 0),
        ((0.9, 0.1, 0.1, 0.1), (0.5, 0.5, 0.5, 0.5), 1),
        ((0.9, 0.9, 0.1, 0.1), (0.5, 0.5, 0.5, 0.5), 2),
        ((0.9, 0.9, 0.9, 0.1), (0.5, 0.5, 0.5, 0.5), 3),
        ((0.9, 0.9, 0.9, 0.9), (0.5, 0.5, 0.5, 0.5), 4),
        ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), 4),  # reached means at least
        ((0.6, 0.4, 0.2, 0.1), (0.7, 0.3, 0.5, 0.5), 2),  # a sensitive referable threshold wins over k = 1
        ((0.9, 0.4, 0.4, 0.4), (0.5, 0.5, 0.3, 0.3), 1),  # lower thresholds above cannot make it referable
        ((0.9, 0.9, 0.4, 0.4), (0.5, 0.5, 0.5, 0.3), 2),  # k = 4 counts only after k = 3
    ],
)
def test_the_grade_follows_from_probabilities_and_thresholds(
    cumulative: tuple[float, ...], thresholds: tuple[float, ...], grade: int
) -> None:
    assert grade_from_cumulative(cumulative, thresholds) == grade


probability = st.floats(0.0, 1.0)
falling = st.lists(probability, min_size=4, max_size=4).map(lambda values: sorted(values, reverse=True))


@given(cumulative=falling, thresholds=st.lists(probability, min_size=4, max_size=4))
def test_referable_is_grade_two_or_more_whatever_the_thresholds(
    cumulative: list[float], thresholds: list[float]
) -> None:
    grade = grade_from_cumulative(cumulative, thresholds)

    assert (grade >= 2) == (cumulative[1] >= thresholds[1])
    assert 0 <= grade <= 4


@given(cumulative=falling, thresholds=st.lists(probability, min_size=4, max_size=4).map(sorted))
def test_with_rising_thresholds_the_grade_counts_the_leading_ones_reached(
    cumulative: list[float], thresholds: list[float]
) -> None:
    reached = [p >= t for p, t in zip(cumulative, thresholds, strict=True)]

    assert grade_from_cumulative(cumulative, thresholds) == [*reached, False].index(False)


@given(cumulative=falling)
def test_the_probabilities_of_the_grades_add_up_to_one(cumulative: list[float]) -> None:
    probabilities = probabilities_from_cumulative(cumulative)

    assert len(probabilities) == 5
    assert min(probabilities) >= 0
    assert sum(probabilities) == pytest.approx(1.0)
    assert sum(probabilities[2:]) == pytest.approx(cumulative[1])


# --- predictions


def test_a_prediction_says_everything_about_a_picture(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([tiny_picture(SIZE, green=204, red=96)], [None])

    assert prediction.cumulative == pytest.approx((0.8, 0.64, 0.512, 0.4096))
    assert prediction.probabilities == pytest.approx((0.2, 0.16, 0.128, 0.1024, 0.4096))
    assert prediction.grade == 3
    assert prediction.grade_label == LABELS[3]
    assert prediction.referable
    assert prediction.referable_probability == pytest.approx(0.64)
    assert prediction.certainty == pytest.approx(0.1024)
    assert prediction.quality == pytest.approx(0.75)
    assert prediction.gradable
    assert prediction.activation.dtype == np.uint8
    assert prediction.activation[:, 2, 2].tolist() == [96, 204]
    assert prediction.adapted is None


@pytest.mark.parametrize(("grade", "green"), list(enumerate(GREEN_FOR_GRADE)))
def test_every_grade_is_reached(predictor: Predictor, grade: int, green: int) -> None:
    (prediction,) = predictor.predict([tiny_picture(SIZE, green=green)], [None])

    assert prediction.grade == grade
    assert prediction.referable == (grade >= 2)


def test_a_picture_under_the_minimum_quality_is_ungradable(predictor: Predictor) -> None:
    dark, just_enough = predictor.predict(
        [tiny_picture(SIZE, red=63), tiny_picture(SIZE, red=64)], [None, None]
    )

    assert not dark.gradable
    assert just_enough.gradable


@settings(max_examples=40, deadline=None)
@given(
    cases=st.lists(
        st.tuples(st.integers(0, 255), st.sampled_from([None, *ADAPTERS])), min_size=0, max_size=9
    ),
    keep=st.booleans(),
)
def test_any_mix_of_cameras_keeps_order_and_count(
    predictor: Predictor, cases: list[tuple[int, str | None]], keep: bool
) -> None:
    # Given pictures of any cameras in any order
    images = [tiny_picture(SIZE, green=green) for green, _ in cases]
    originals = [image.copy() for image in images]

    # When they are graded in one batch
    predictions = predictor.predict(images, [adapter for _, adapter in cases], keep_adapted=keep)

    # Then each answer is its own picture's, and no picture was changed
    assert len(predictions) == len(cases)
    for (green, adapter), prediction in zip(cases, predictions, strict=True):
        assert prediction.cumulative == pytest.approx(expected_cumulative(green, adapter), rel=1e-4)
        assert (prediction.adapted is not None) == (keep and adapter is not None)
    for image, original in zip(images, originals, strict=True):
        np.testing.assert_array_equal(image, original)


def test_the_adapted_picture_is_what_the_classifier_saw(predictor: Predictor) -> None:
    pictures = [tiny_picture(SIZE, green=100)] * 3

    plain, warm, blue = predictor.predict(pictures, [None, *reversed(ADAPTERS)], keep_adapted=True)

    assert plain.adapted is None
    assert warm.adapted is not None
    assert blue.adapted is not None
    np.testing.assert_array_equal(warm.adapted, tiny_picture(SIZE, green=100 + 2 * GREEN_STEP))
    np.testing.assert_array_equal(blue.adapted, tiny_picture(SIZE, green=100 + GREEN_STEP))


@given(st.lists(st.sampled_from([None, "a", "b"]), max_size=8))
def test_runs_of_adapters_cover_each_row_that_has_one_once(adapters: list[str | None]) -> None:
    runs = adapter_runs(adapters)

    covered = {row: run.adapter for run in runs for row in range(run.start, run.stop)}
    assert covered == {row: adapter for row, adapter in enumerate(adapters) if adapter is not None}
    assert sum(run.stop - run.start for run in runs) == len(covered)


def test_equal_neighbours_run_together() -> None:
    assert adapter_runs([None, "a", "a", "b"]) == [AdapterRun("a", 1, 3), AdapterRun("b", 3, 4)]


def test_an_adapter_that_the_bundle_does_not_hold_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UnknownAdapterError, match=r"'tiny' has no adapter for \['topcon'\]"):
        predictor.predict([tiny_picture(SIZE)] * 2, [None, "topcon"])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((SIZE + 1, SIZE, 4), np.uint8),
        np.zeros((SIZE, SIZE, 4), np.float32),
    ],
)
def test_a_picture_of_another_shape_or_type_is_refused(predictor: Predictor, image: np.ndarray) -> None:
    with pytest.raises(ImageContractError, match=r"not uint8 \(32, 32, 4\)"):
        predictor.predict([image], [None])


def test_pictures_without_their_adapters_are_a_mistake_of_the_caller(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="1 pictures, but 2 adapters"):
        predictor.predict([tiny_picture(SIZE)], [None, None])


# --- loading


def test_loading_says_what_runs_and_on_which_engine(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny", size=SIZE))

    with capture_logs() as logs:
        predictor = Predictor(bundle)

    (entry,) = logs
    assert entry["event"] == "bundle_loaded"
    assert entry["bundle_sha256"] == bundle.digest
    assert entry["engine"] == predictor.engine.name == "onnx"


def test_an_engine_that_is_not_there_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="tensorrt"):
        Predictor(Bundle.load(write_tiny_bundle(tmp_path / "tiny", size=SIZE)), engine="tensorrt")


@pytest.mark.parametrize(
    ("classifier", "problem"),
    [
        (constant_classifier(SIZE, (0.9, 0.5, 0.6, 0.1)), "rises by 0.1"),
        (constant_classifier(SIZE, (1.5, 0.5, 0.4, 0.1)), "outside 0 to 1"),
        (constant_classifier(SIZE, (float("nan"), 0.5, 0.4, 0.1)), "not a finite number"),
        (constant_classifier(SIZE, quality=-0.5), "outside 0 to 1"),
        (constant_classifier(SIZE, (0.5, 0.4, 0.3, 0.2), batch_weight=0.4), "alone and in a batch"),
    ],
)
def test_a_classifier_that_answers_outside_the_contract_is_refused_at_start(
    tmp_path: Path, classifier: onnx.ModelProto, problem: str
) -> None:
    folder = write_tiny_bundle(tmp_path / "odd", size=SIZE, bundle_id="odd")
    replace_graph(folder, "classifier.onnx", classifier)

    with pytest.raises(BundleContractError, match=problem) as refused:
        Predictor(Bundle.load(folder), threads=1)

    assert refused.value.file == folder / "classifier.onnx"
    assert refused.value.remedy


def test_an_adapter_that_changes_the_mask_is_refused_at_start(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "tiny", size=SIZE, adapters=ADAPTERS)
    replace_graph(folder, "adapters/simulated-warm.onnx", tiny_adapter(SIZE, 0, alpha_step=-1))

    with pytest.raises(BundleContractError, match="changes alpha") as refused:
        Predictor(Bundle.load(folder), threads=1)

    assert refused.value.file.name == "simulated-warm.onnx"


def test_an_answer_outside_the_contract_while_serving_is_an_error_not_a_grade(tmp_path: Path) -> None:
    # Given a classifier that keeps the contract on the warm-up's pictures, but not on a bright white one
    folder = write_tiny_bundle(tmp_path / "tiny", size=SIZE)
    replace_graph(
        folder, "classifier.onnx", constant_classifier(SIZE, (0.7, 0.5, 0.4, 0.3), picture_weight=0.5)
    )
    predictor = Predictor(Bundle.load(folder), threads=1)

    with pytest.raises(BundleContractError, match="outside 0 to 1"):
        predictor.predict([tiny_picture(SIZE, red=255, green=255, blue=255)], [None])


def shape_shifting_adapter(shape: tuple[int, int, int, int]) -> onnx.ModelProto:
    """An adapter that declares the contract's shape, and whatever it is given makes one of its own of it."""
    helper = onnx.helper
    nodes = [
        # the shape depends on the pixels (times zero), so that no inference can see it before the graph runs
        helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["number"], to=onnx.TensorProto.INT64),
        helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "shape"], ["hidden"]),
        helper.make_node("Reshape", ["image", "hidden"], ["adapted"]),
    ]
    outputs = [helper.make_tensor_value_info("adapted", onnx.TensorProto.UINT8, ["N", SIZE, SIZE, 4])]
    return make_graph(nodes, outputs, SIZE, {"zero": np.array(0), "shape": np.array(shape)})


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((1, SIZE, SIZE, 4), "simulated-blue.onnx failed on 2 pictures"),
        ((-1, SIZE // 2, SIZE * 2, 4), "came back as uint8 (2, 16, 64, 4) for 2 pictures"),
        ((1, -1, SIZE, 4), "came back as uint8 (1, 64, 32, 4) for 2 pictures"),
    ],
)
def test_an_adapter_that_only_declares_the_right_shape_is_refused_at_start(
    tmp_path: Path, shape: tuple[int, int, int, int], problem: str
) -> None:
    folder = write_tiny_bundle(tmp_path / "tiny", size=SIZE)
    replace_graph(folder, "adapters/simulated-blue.onnx", shape_shifting_adapter(shape))

    with pytest.raises(BundleContractError, match=re.escape(problem)):
        Predictor(Bundle.load(folder), threads=1)


def test_loading_leaves_the_arithmetic_of_the_calling_thread_alone(predictor: Predictor) -> None:
    predictor.predict([tiny_picture(SIZE)], [None])

    assert sys.float_info.min / 2 > 0


class ForgetfulChain:
    """An engine of somebody else's that does not give back the adapted pictures."""

    choice = EngineChoice("forgetful", "cpu", "for this test")

    def run(
        self, image: np.ndarray, adapter_runs: Sequence[AdapterRun], *, keep_adapted: bool
    ) -> ChainOutput:
        count = len(image)
        return ChainOutput(
            np.full((count, 4), 0.5, np.float32),
            np.ones((count, 1), np.float32),
            np.zeros((count, 2, 4, 4), np.uint8),
            None,
        )


def test_an_engine_that_keeps_the_adapted_pictures_to_itself_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny", size=SIZE))

    with pytest.raises(BundleContractError, match="does not return pictures"):
        warm_up(bundle, ForgetfulChain())


def test_the_sample_pictures_are_discs_with_their_mask() -> None:
    bright, dim = sample_pictures(SIZE)

    assert bright.shape == (SIZE, SIZE, 4)
    assert bright.dtype == np.uint8
    assert set(np.unique(bright[..., 3])) == {0, 255}
    assert not bright[bright[..., 3] == 0].any()
    assert dim[..., 0].max() < bright[..., 0].max()
