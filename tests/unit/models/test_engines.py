"""Engines: graphs that keep the contract run, others are refused by name; the choice gives its reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from factories.bundle import (
    GREEN_STEP,
    classifier_outputs,
    constant_classifier,
    replace_graph,
    tiny_classifier,
    tiny_picture,
    write_tiny_bundle,
)
from structlog.testing import capture_logs

from models.bundle import Bundle
from models.engines.base import AdapterRun, ChainOutput, EngineChoice
from models.engines.contract import (
    TOLERANCE,
    TensorSpec,
    adapter_spec,
    classifier_spec,
    output_problem,
    without_rounding,
)
from models.engines.cores import usable_cores
from models.engines.onnx import CPU_ROWS, CUDA, OnnxEngine
from models.engines.selection import open_chain
from models.errors import BundleContractError, EngineUnavailableError, InferenceError

UNAVAILABLE_PROVIDER = "Specified provider 'CUDAExecutionProvider' is not in available provider names"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_tiny_bundle(tmp_path / "tiny"))


def broken(tmp_path: Path, classifier: onnx.ModelProto) -> Bundle:
    return Bundle.load(replace_graph(write_tiny_bundle(tmp_path / "broken"), "classifier.onnx", classifier))


# --- one graph


def test_the_classifier_computes_what_its_graph_says(bundle: Bundle) -> None:
    engine = OnnxEngine(bundle.classifier_path, classifier_spec(bundle.manifest), threads=1)

    outputs = engine.run(np.stack([tiny_picture(green=102, red=64), tiny_picture(green=255, red=200)]))

    assert engine.name == "onnx"
    assert set(outputs) == {"cumulative", "quality", "activation"}
    expected = np.array([[0.4, 0.16, 0.064, 0.0256], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(outputs["cumulative"], expected, rtol=1e-5)
    np.testing.assert_allclose(outputs["quality"], [[0.5], [1.0]], rtol=1e-5)
    assert outputs["activation"].shape == (2, 2, 8, 8)
    assert outputs["activation"][0, :, 4, 4].tolist() == [64, 102]


def test_a_graph_that_fails_while_running_is_an_inference_error(bundle: Bundle) -> None:
    engine = OnnxEngine(bundle.classifier_path, classifier_spec(bundle.manifest), threads=1)

    with pytest.raises(InferenceError, match=r"classifier\.onnx failed on 1 pictures") as failed:
        engine.run(np.zeros((1, 8, 8, 4), np.uint8))

    assert failed.value.retryable


def test_a_file_that_is_no_graph_is_refused_by_name(bundle: Bundle) -> None:
    bundle.classifier_path.write_bytes(b"no graph")

    with pytest.raises(BundleContractError, match=r"classifier\.onnx: ONNX Runtime cannot load it"):
        OnnxEngine(bundle.classifier_path, classifier_spec(bundle.manifest), threads=1)


def test_cuda_asked_for_but_not_there_is_said_not_replaced(bundle: Bundle) -> None:
    with (
        pytest.warns(UserWarning, match=UNAVAILABLE_PROVIDER),
        pytest.raises(EngineUnavailableError, match="onnxruntime-gpu"),
    ):
        OnnxEngine(bundle.classifier_path, classifier_spec(bundle.manifest), threads=1, device="cuda")


def test_a_graph_that_does_not_load_on_cuda_is_the_engines_failure(bundle: Bundle) -> None:
    bundle.classifier_path.write_bytes(b"no graph")

    with (
        pytest.warns(UserWarning, match=UNAVAILABLE_PROVIDER),
        pytest.raises(EngineUnavailableError, match=r"cannot load classifier\.onnx on CUDA"),
    ):
        OnnxEngine(bundle.classifier_path, classifier_spec(bundle.manifest), threads=1, device="cuda")


def with_image(model: onnx.ModelProto, shape: tuple[str | int, ...], name: str = "image") -> onnx.ModelProto:
    """The same graph declaring another input; ONNX Runtime loads it, the contract does not allow it."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    declared = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape)
    changed.graph.input[0].CopyFrom(declared)
    for node in changed.graph.node:
        node.input[:] = [name if one == "image" else one for one in node.input]
    return changed


def without_outputs(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The same graph without those outputs."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(output for output in model.graph.output if output.name not in names)
    return changed


@pytest.mark.parametrize(
    ("classifier", "problem"),
    [
        (with_image(tiny_classifier(64), (1, 64, 64, 4)), "fixed to batches of 1"),
        (with_image(constant_classifier(64), ("N", 32, 32, 4)), "64 was expected for 32"),
        (with_image(tiny_classifier(64), ("N", 64, 64, 4), "picture"), r"takes \['picture'\]"),
        (without_outputs(tiny_classifier(64), "quality"), "without 'quality'"),
    ],
)
def test_a_graph_that_declares_something_else_is_refused(
    tmp_path: Path, classifier: onnx.ModelProto, problem: str
) -> None:
    bundle = broken(tmp_path, classifier)

    with pytest.raises(BundleContractError, match=problem) as refused:
        open_chain(bundle, "onnx", 1)

    assert refused.value.file == bundle.classifier_path


def test_the_wrong_graph_in_an_adapters_place_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "tiny")
    replace_graph(folder, "adapters/simulated-blue.onnx", tiny_classifier(64))

    with pytest.raises(BundleContractError, match="without 'adapted'") as refused:
        open_chain(Bundle.load(folder), "onnx", 1)

    assert refused.value.file.name == "simulated-blue.onnx"


@pytest.mark.parametrize(
    ("dtype", "shape", "problem"),
    [
        ("float32", ("N", 3, "h"), None),
        ("float32", (None, "k", 7), None),
        ("float16", ("N", 3, 7), "is float16, not float32"),
        ("float32", ("N", 3), "has 2 dimensions, not 3"),
        ("float32", (4, 3, 7), "fixed to batches of 4"),
        ("float32", ("N", 2, 7), "3 was expected for 2"),
    ],
)
def test_a_declared_tensor_is_compared_with_its_contract(
    dtype: str, shape: tuple[int | str | None, ...], problem: str | None
) -> None:
    found = TensorSpec("maps", "float32", (None, 3, None)).problem(dtype, shape)

    assert found is None if problem is None else found is not None and problem in found


# --- what a classifier may answer


def answer(cumulative: object, quality: object = ((1.0,),), maps: int = 2) -> ChainOutput:
    return ChainOutput(
        np.array(cumulative, np.float32),
        np.array(quality, np.float32),
        np.zeros((1, maps, 8, 8), np.uint8),
        None,
    )


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (answer([[0.9, 0.8, 0.3, 0.1]]), None),
        (answer([[1.0, 1.0, 1.0, 1.0]]), None),
        (answer([[0.0, 0.0, 0.0, 0.0]], ((0.0,),)), None),
        (answer([[1 + TOLERANCE / 2, 0.5, 0.5 + TOLERANCE / 2, -TOLERANCE / 2]]), None),
        (answer([[0.9, 0.3, 0.31, 0.1]]), "'cumulative' rises by 0.0"),
        (answer([[1.01, 0.3, 0.2, 0.1]]), "'cumulative' reaches from 0.1 to 1.01"),
        (answer([[0.9, 0.3, 0.2, -0.01]]), "'cumulative' reaches from -0.01"),
        (answer([[0.9, np.nan, 0.2, 0.1]]), "'cumulative' holds a value that is not a finite number"),
        (answer([[0.9, 0.3, 0.2, 0.1]], ((np.inf,),)), "'quality' holds a value"),
        (answer([[0.9, 0.3, 0.2, 0.1]], ((1.2,),)), "'quality' reaches"),
        (answer([[0.9, 0.3, 0.2]]), r"'cumulative' came back as float32 (1, 3)"),
        (answer([[0.9, 0.3, 0.2, 0.1]] * 2), r"'cumulative' came back as float32 (2, 4) for 1 pictures"),
        (answer([[0.9, 0.3, 0.2, 0.1]], (1.0,)), r"'quality' came back as float32 (1,)"),
        (answer([[0.9, 0.3, 0.2, 0.1]], maps=3), r"'activation' came back as uint8 (1, 3, 8, 8)"),
    ],
)
def test_an_answer_outside_the_contract_is_named(
    bundle: Bundle, output: ChainOutput, problem: str | None
) -> None:
    found = output_problem(output, 1, bundle.manifest)

    assert found is None if problem is None else found is not None and problem in found


def test_only_rounding_is_trimmed() -> None:
    trimmed = without_rounding(np.array([[1.00005, 0.5, 0.50005, -0.00005]], np.float32))

    assert trimmed.tolist() == [[1.0, 0.5, 0.5, 0.0]]


# --- a chain, and which one


def test_a_chain_adapts_the_rows_that_ask_for_it_and_no_other(bundle: Bundle) -> None:
    chain = open_chain(bundle, "onnx", 1)
    batch = np.stack([tiny_picture(green=100)] * 3)

    output = chain.run(batch, [AdapterRun("simulated-blue", 1, 2)], keep_adapted=True)

    assert output.adapted is not None
    assert output.adapted[:, 32, 32, 1].tolist() == [100, 100 + GREEN_STEP, 100]
    np.testing.assert_allclose(output.cumulative[:, 0] * 255, [100, 120, 100], rtol=1e-5)


def test_onnx_by_name_is_the_cpu(bundle: Bundle) -> None:
    assert open_chain(bundle, "onnx", 1).choice == EngineChoice("onnx", "cpu", "as configured")


def test_auto_without_a_gpu_is_onnx_on_the_cpu_and_says_why(bundle: Bundle) -> None:
    choice = open_chain(bundle, "auto", 1).choice

    assert (choice.name, choice.device) == ("onnx", "cpu")
    assert "no CUDA provider" in str(choice)


def test_auto_falls_back_to_the_cpu_when_cuda_does_not_start_and_says_so(bundle: Bundle) -> None:
    # Given an ONNX Runtime that has the CUDA provider, on a machine where it does not start
    with capture_logs() as logs, pytest.warns(UserWarning, match=UNAVAILABLE_PROVIDER):
        chain = open_chain(bundle, "auto", 1, providers=(CUDA, "CPUExecutionProvider"))

    # Then the CPU runs, and log and choice say that and why
    assert chain.choice.device == "cpu"
    assert "did not start" in chain.choice.reason
    assert [entry["event"] for entry in logs] == ["engine_fell_back"]
    picture = tiny_picture()[None]
    assert chain.run(picture, [], keep_adapted=False).quality.tolist() == [[1.0]]


@pytest.mark.parametrize("engine", ["tensorrt", "openvino"])
def test_an_engine_that_cannot_run_here_is_refused_with_a_remedy(bundle: Bundle, engine: str) -> None:
    with pytest.raises(EngineUnavailableError, match="onnx") as refused:
        open_chain(bundle, engine, 1)

    assert refused.value.engine == engine
    assert refused.value.remedy


def test_specs_follow_the_manifest(bundle: Bundle) -> None:
    assert adapter_spec(bundle.manifest).image.shape == (None, 64, 64, 4)
    assert classifier_spec(bundle.manifest).outputs[2].shape == (None, 2, None, None)
    assert [output.name for output in classifier_outputs(64)] == [
        output.name for output in classifier_spec(bundle.manifest).outputs
    ]


def test_graphs_of_several_sessions_share_one_arena_and_do_not_disturb_each_other(bundle: Bundle) -> None:
    # Given two loaded chains, run in turn with batches of changing size
    chains = [open_chain(bundle, "onnx", 1) for _ in range(2)]
    greens = [40, 102, 255]

    for count in (1, 3, 2):
        batch = np.stack([tiny_picture(green=green) for green in greens[:count]])
        answers = [chain.run(batch.copy(), [], keep_adapted=False) for chain in chains]

        # Then earlier answers stay what they were
        for output in answers:
            np.testing.assert_allclose(output.cumulative[:, 0] * 255, greens[:count], rtol=1e-5)


# --- cores


def test_cores_are_no_more_than_this_process_may_use(tmp_path: Path) -> None:
    free = usable_cores(tmp_path / "no-cgroup")

    assert 1 <= free <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None)]
)
def test_a_containers_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int | None) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text(quota)

    assert usable_cores(cpu_max) == (cores or usable_cores(tmp_path / "no-cgroup"))


def test_a_generous_quota_gives_no_more_than_there_is(tmp_path: Path) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text("99900000 100000\n")

    assert usable_cores(cpu_max) == usable_cores(tmp_path / "no-cgroup")


@pytest.mark.parametrize("pictures", [1, CPU_ROWS, CPU_ROWS + 1, 4 * CPU_ROWS + 1])
def test_a_batch_of_any_size_comes_back_whole_and_in_order(tmp_path: Path, pictures: int) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "bundle"))
    engine = OnnxEngine(bundle.classifier_path, classifier_spec(bundle.manifest), threads=1)
    reds = [10 + 10 * number for number in range(pictures)]
    batch = np.stack([tiny_picture(red=red) for red in reds])

    outputs = engine.run(batch)

    assert {name: len(values) for name, values in outputs.items()} == dict.fromkeys(outputs, pictures)
    assert outputs["quality"][:, 0] == pytest.approx([min(red / 128, 1) for red in reds], abs=1e-5)
