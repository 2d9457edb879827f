"""ONNX Runtime: the embedded default, on the CPU; on CUDA where its provider is installed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from models.bundle import Bundle
from models.engines.base import EngineChoice
from models.engines.contract import GraphSpec, adapter_spec, classifier_spec
from models.engines.host import HostChain
from models.errors import BundleContractError, EngineUnavailableError, InferenceError

NAME: Final = "onnx"
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
CPU_ROWS: Final = 2
"""Pictures that a graph works on at once on the CPU. The reference classifier at 512 px, eight pictures in a
batch: 160 ms of CPU a picture however they are split; at its peak the process holds 2.1 GB with eight at
once, 0.45 GB with two."""
_DTYPES: Final = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_ERROR, _FATAL = 3, 4
"""Severities of ONNX Runtime's own log on stderr. Its errors are raised as exceptions too, but not those for
which a CUDA provider does not start."""
_CUDA_OPTIONS: Final = {"cudnn_conv_algo_search": "HEURISTIC"}
"""The default searches anew for each batch size that it meets, in the middle of serving."""
_NO_CUDA: Final = "Install onnxruntime-gpu with its CUDA and cuDNN libraries, or set engine = 'onnx'."
_EXPORT_AGAIN: Final = "Export the bundle again; until then go back to the previous one."


class OnnxEngine:
    """One graph in ONNX Runtime. Used by one thread at a time; parallel inside.

    Settings, and why:

    - all graph optimisations; operators one after another, each spread over ``threads`` threads;
    - threads sleep between runs and operators instead of spinning: the host path shares the cores;
    - one memory arena for all graphs of the process: they run in turn, so that the largest graph's need is
      the whole need (a quarter of the memory at four graphs), and reusing it costs a fifth less CPU than
      asking the system each time; no memory patterns, which would keep one layout for each size of batch;
    - on the CPU a batch runs ``CPU_ROWS`` pictures at a time: more cost as much each, and far more memory;
    - denormal numbers are left alone: flushing them would change the arithmetic of the calling thread too.

    Args:
        path: the graph.
        spec: its contract.
        threads: threads for one run, at least 1.
        device: ``cpu`` or ``cuda``.

    Raises:
        BundleContractError: ONNX Runtime cannot load the graph, or it does not keep the contract.
        EngineUnavailableError: the device's provider did not start.
    """

    name = NAME

    def __init__(self, path: Path, spec: GraphSpec, *, threads: int, device: str = "cpu") -> None:
        self._path = path
        self._spec = spec
        self._rows = CPU_ROWS if device == "cpu" else 0
        self._outputs = [output.name for output in spec.outputs]
        self._session = _session(path, threads, device)
        self._check()

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph on uint8 (N, S, S, 4), N ≥ 1, and return the contract's outputs by name.

        Raises:
            InferenceError: ONNX Runtime failed.
            BundleContractError: an output is not of the contract's type and shape.
        """
        rows = self._rows or len(image)
        parts = [self._run(image[start : start + rows]) for start in range(0, len(image), rows)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        try:
            values = self._session.run(self._outputs, {self._spec.image.name: image})
        except Exception as error:  # ONNX Runtime's exceptions have no common root
            raise InferenceError(f"{self._path.name} failed on {len(image)} pictures: {error}") from error
        for spec, value in zip(self._spec.outputs, values, strict=True):
            if not spec.admits(value, len(image)):
                found = f"{value.dtype.name} {value.shape}"
                raise self._broken(f"'{spec.name}' came back as {found} for {len(image)} pictures")
        return dict(zip(self._outputs, values, strict=True))

    def _check(self) -> None:
        inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
        if set(inputs) != {self._spec.image.name}:
            raise self._broken(f"takes {sorted(inputs)}, not just '{self._spec.image.name}'")
        for spec in (self._spec.image, *self._spec.outputs):
            tensor = (inputs if spec is self._spec.image else outputs).get(spec.name)
            if tensor is None:
                raise self._broken(f"returns {sorted(outputs)}, without '{spec.name}'")
            problem = spec.problem(_DTYPES.get(tensor.type, tensor.type), tensor.shape)
            if problem is not None:
                raise self._broken(problem)

    def _broken(self, problem: str) -> BundleContractError:
        return BundleContractError(self._path, problem, _EXPORT_AGAIN)


def open_onnx_chain(bundle: Bundle, choice: EngineChoice, threads: int) -> HostChain:
    """Load a bundle's graphs.

    Raises:
        BundleContractError: a graph cannot be loaded, or does not keep the contract.
        EngineUnavailableError: the device's provider did not start.
    """
    manifest = bundle.manifest
    classifier, adapter = classifier_spec(manifest), adapter_spec(manifest)
    return HostChain(
        choice,
        OnnxEngine(bundle.classifier_path, classifier, threads=threads, device=choice.device),
        {
            camera: OnnxEngine(path, adapter, threads=threads, device=choice.device)
            for camera, path in bundle.adapter_paths.items()
        },
        manifest.tensors,
    )


def _session(path: Path, threads: int, device: str) -> Any:
    wanted: list[Any] = [(CUDA, _CUDA_OPTIONS), CPU] if device == "cuda" else [CPU]
    try:
        session = onnxruntime.InferenceSession(path, _options(threads, device), providers=wanted)
    except Exception as error:  # ONNX Runtime's exceptions have no common root
        if device == "cuda":
            raise EngineUnavailableError(
                NAME, f"cannot load {path.name} on CUDA ({error})", _NO_CUDA
            ) from error
        raise BundleContractError(path, f"ONNX Runtime cannot load it ({error})", _EXPORT_AGAIN) from error
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise EngineUnavailableError(NAME, "ONNX Runtime's CUDA provider did not start", _NO_CUDA)
    return session


def _options(threads: int, device: str) -> Any:
    _share_arena()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR if device == "cuda" else _FATAL
    options.enable_mem_pattern = device != "cpu"
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@functools.cache
def _share_arena() -> None:
    """Register the process's one arena; once, as ONNX Runtime keeps it until the process ends."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, None)
